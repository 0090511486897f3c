"""Segments: the sequences that are packed in one row. Axes: B rows, T tokens.

A segment is a run of equal ids. Padding (id 0) is a run like any other here; who has to leave it out asks for
ids above 0.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def shift_right(x: Array) -> Array:
    """[B, T, ...] of the token before: y[:, t] = x[:, t - 1], and 0 (False) at t = 0.

    It knows nothing of segments.
    """
    return jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def segment_starts(segment_ids: Array) -> Array:
    """[B, T] bool: the first token of each segment; t = 0 always."""
    check_shapes(segment_ids=(segment_ids, "B T"))
    return jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)


def segment_ends(segment_ids: Array) -> Array:
    """[B, T] bool: the last token of each segment; t = T - 1 always."""
    check_shapes(segment_ids=(segment_ids, "B T"))
    return jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (0, 1)), constant_values=True)


def segment_sum(x: Array, segment_ids: Array) -> Array:
    """The sum of x over the segment that each token belongs to.

        y[b, t] = sum of x[b, s] over the s with segment_ids[b, s] = segment_ids[b, t]

    Args:
      x: [B, T] numbers.
      segment_ids: [B, T] int32 from 0 to T. Rows have ids of their own: the same id in another row is another
        segment.
    Returns:
      [B, T], x's dtype.
    """
    check_shapes(x=(x, "B T"), segment_ids=(segment_ids, "B T"))

    def sum_row(x: Array, ids: Array) -> Array:
        return jax.ops.segment_sum(x, ids, num_segments=x.shape[0] + 1)[ids]

    return jax.vmap(sum_row)(x, segment_ids)
