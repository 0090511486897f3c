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


def decode_attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Attention of one new token per row over the cache.

    Args:
      q: [B, N, H].  k, v: [B, K, S, H], the cache's layout.
      mask: [B, S] bool.
    Returns:
      [B, N, H] in q's dtype.
    """
    check_shapes(q=(q, "B N H"), k=(k, "B K S H"), v=(v, "B K S H"), mask=(mask, "B S"))
    B, N, H = q.shape
    K = k.shape[1]
    grouped = q.reshape(B, K, N // K, H)
    scores = jnp.einsum("bkgh,bksh->bkgs", grouped, k, preferred_element_type=jnp.float32) * H**-0.5
    probs = _softmax(scores, mask[:, None, None])
    return jnp.einsum("bkgs,bksh->bkgh", probs.astype(v.dtype), v).reshape(B, N, H)


def segment_mask(segment_ids: Array) -> Array:
    """Which earlier tokens a token may see: those of its own segment. [B, T] -> [B, T, T] bool."""
    T = segment_ids.shape[1]
    same_segment = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same_segment & jnp.tril(jnp.ones((T, T), bool))


def _softmax(scores: Array, mask: Array) -> Array:
    # A large negative number, not -inf: a row that sees nothing (padding) must not become NaN in the backward pass.
    return jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
