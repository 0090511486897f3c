"""Grouped-query attention, in plain XLA. Faster kernels belong behind these two functions.

Axes: B rows, T queries, S key positions, N query heads, K key/value heads, G = N / K query heads per key head, H width.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """softmax(q k^T / sqrt(H)) v over the positions that the mask allows.

    Args:
      q: [B, T, N, H].  k, v: [B, S, K, H].
      mask: [B, T, S] bool. A query that may see nothing gets an arbitrary finite result.
    Returns:
      [B, T, N, H] in q's dtype; the softmax is in float32.
    """
    check_shapes(q=(q, "B T N H"), k=(k, "B S K H"), v=(v, "B S K H"), mask=(mask, "B T S"))
    B, T, N, H = q.shape
    K = k.shape[2]
    grouped = q.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32) * H**-0.5
    probs = _softmax(scores, mask[:, None, None])
    out = jnp.einsum("bkgts,bskh->btkgh", probs.astype(v.dtype), v)
    return out.reshape(B, T, N, H)


def cached_attention(q: Array, k: Array, v: Array, k_scale: Array | None, v_scale: Array | None, mask: Array) -> Array:
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
    grouped = q.reshape(B, T, K, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, K, -1, H)  # for each head its T * G queries
    scores = jnp.einsum("bkqh,bksh->bkqs", grouped, k.astype(q.dtype), preferred_element_type=jnp.float32) * H**-0.5
    if k_scale is not None:
        scores = scores * k_scale[:, :, None]
    probs = _softmax(scores.reshape(B, K, T, N // K, -1), mask[:, None, :, None]).reshape(scores.shape)
    if v_scale is not None:
        probs = probs * v_scale[:, :, None]
    out = jnp.einsum("bkqs,bksh->bkqh", probs.astype(q.dtype), v.astype(q.dtype))
    return out.reshape(B, K, T, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, T, N, H)


def segment_mask(segment_ids: Array) -> Array:
    """Which earlier tokens a token may see: those of its own segment. [B, T] -> [B, T, T] bool."""
    T = segment_ids.shape[1]
    same_segment = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same_segment & jnp.tril(jnp.ones((T, T), bool))


def _softmax(scores: Array, mask: Array) -> Array:
    # A large negative number, not -inf: a row that sees nothing (padding) must not become NaN in the backward pass.
    return jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
