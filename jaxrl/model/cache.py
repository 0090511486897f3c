"""The key/value cache of a decode batch: one pair of arrays per layer, so that each is updated in place.

Axes: B rows, K key/value heads, S cache positions, H head width. All rows write at one shared cursor: a row's prompt
ends where the cursor starts, and what lies before a row's `start` is never read. One dynamic_update_slice then serves
the whole batch (a scatter per row is slow on TPU).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    k: tuple[Array, ...]  # L arrays [B, K, S, H]
    v: tuple[Array, ...]  # L arrays [B, K, S, H]
    start: Array  # [B] int32, first position that belongs to the row
    cursor: Array  # [] int32, next position to write

    def readable(self) -> Array:
        """Which positions a token written at the cursor may attend to, itself included: [B, S] bool."""
        s = jnp.arange(self.k[0].shape[2])
        return (s >= self.start[:, None]) & (s <= self.cursor)


def cache_from_prefill(k: Array, v: Array, lengths: Array, rows: Array, room: int) -> KVCache:
    """Lay prefilled prompts out for decoding, each copied to the rows that continue it.

    Args:
      k, v: [L, P, T, K, H] of P left-aligned prompts.
      lengths: [P] int32, tokens of each prompt.
      rows: [B] int32, the prompt that each row of the decode batch continues.
      room: positions to add for the tokens to come.
    Returns:
      A cache with S = T + room and the cursor at T; prompts end at T - 1.
    """
    T = k.shape[2]
    start = T - lengths  # [P]
    source = jnp.maximum(jnp.arange(T) - start[:, None], 0)  # [P, T]: right-aligned place -> left-aligned place

    def lay_out(layer: Array) -> Array:  # [P, T, K, H] -> [B, K, S, H]
        right_aligned = jnp.take_along_axis(layer, source[:, :, None, None], axis=1)
        per_row = right_aligned.swapaxes(1, 2)[rows]
        return jnp.pad(per_row, ((0, 0), (0, 0), (0, room), (0, 0)))

    layers = range(k.shape[0])
    return KVCache(
        k=tuple(lay_out(k[i]) for i in layers),
        v=tuple(lay_out(v[i]) for i in layers),
        start=start[rows].astype(jnp.int32),
        cursor=jnp.int32(T),
    )


def write(cache_layer: Array, new: Array, cursor: Array) -> Array:
    """Put new [B, K, H] at the cursor of cache_layer [B, K, S, H]."""
    return jax.lax.dynamic_update_slice_in_dim(cache_layer, new[:, :, None], cursor, axis=2)
