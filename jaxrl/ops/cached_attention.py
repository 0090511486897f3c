"""Attention of the newest tokens over a cache, in plain XLA.

Axes: B rows, T queries, S cache positions, N query heads, K key/value heads, G = N / K query heads per key
head, H width.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def cached_attention(
    q: Array, k: Array, v: Array, k_scale: Array | None, v_scale: Array | None, mask: Array
) -> Array:
    """Attention of the newest tokens of each row over the cache.

    Args:
      q: [B, T, N, H].  k, v: [B, K, S, H], the cache's layout.
      k_scale, v_scale: [B, K, S] float32 where the cache is int8 (key = k_scale * k), else None.
      mask: [B, T, S] bool.
    Returns:
      [B, T, N, H] in q's dtype.
    """
    check_shapes(q=(q, "B T N H"), k=(k, "B K S H"), v=(v, "B K S H"), mask=(mask, "B T S"))
    B, T, N, H = q.shape
    K = k.shape[1]
    # for each head its T * G queries
    grouped = q.reshape(B, T, K, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, K, -1, H)
    scores = (
        jnp.einsum("bkqh,bksh->bkqs", grouped, k.astype(q.dtype), preferred_element_type=jnp.float32)
        * H**-0.5
    )
    if k_scale is not None:
        scores = scores * k_scale[:, :, None]
    probs = _softmax(scores.reshape(B, K, T, N // K, -1), mask[:, None, :, None]).reshape(scores.shape)
    if v_scale is not None:
        probs = probs * v_scale[:, :, None]
    out = jnp.einsum("bkqs,bksh->bkqh", probs.astype(q.dtype), v.astype(q.dtype))
    return out.reshape(B, K, T, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, T, N, H)


def _softmax(scores: Array, mask: Array) -> Array:
    # A large negative number, not -inf: a row that sees nothing (padding) must not become NaN.
    return jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
