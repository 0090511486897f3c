"""Attention as its formula says, with every score in memory: what the library's own forms are compared
with.
"""

import jax
import jax.numpy as jnp


def attention(q, k, v, mask):
    """softmax(q k^T / sqrt(H)) v over the positions that the mask allows.

    Args:
      q: [B, T, N, H].  k, v: [B, S, K, H].
      mask: [B, T, S] bool. A query that may see nothing gets an arbitrary finite result.
    Returns:
      [B, T, N, H] in q's dtype; the softmax is in float32.
    """
    B, T, N, H = q.shape
    K = k.shape[2]
    grouped = q.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32) * H**-0.5
    probs = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -1e30), axis=-1)
    out = jnp.einsum("bkgts,bskh->btkgh", probs.astype(v.dtype), v)
    return out.reshape(B, T, N, H)


def segment_mask(segment_ids):
    """Which earlier tokens a token may see: those of its own segment. [B, T] -> [B, T, T] bool."""
    T = segment_ids.shape[1]
    same_segment = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same_segment & jnp.tril(jnp.ones((T, T), bool))
