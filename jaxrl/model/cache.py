"""The key/value cache of a decode batch: arrays of their own for each layer, so that each is updated in
place.

Axes: B rows, K key/value heads, S cache positions, H head width, T new tokens. All rows write at one shared
cursor: a row's tokens end where the cursor stands, and what lies before its `start` is never read. One
dynamic_update_slice then serves the whole batch (a scatter per row is slow on TPU). How many positions there
are is the reader's business: the engine moves the rows into larger arrays as they grow, so that attention
never reads far beyond what is there.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class LayerCache(NamedTuple):
    """One layer's keys and values; int8 with a scale per token and head, or in the arithmetic's dtype
    without.
    """

    k: Array  # [B, K, S, H]
    v: Array  # [B, K, S, H]
    k_scale: Array | None = None  # [B, K, S] float32
    v_scale: Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    layers: tuple[LayerCache, ...]
    start: Array  # [B] int32, first position that belongs to the row
    cursor: Array  # [] int32, next position to write

    def readable(self, places: Array) -> Array:
        """Which positions a token at each of the places [T] may attend to, itself included: [B, T, S]
        bool.
        """
        s = jnp.arange(self.layers[0].k.shape[2])
        return (s >= self.start[:, None, None]) & (s <= places[:, None])


def quantize(x: Array, axis: int) -> tuple[Array, Array]:
    """int8 values and float32 scales, x ~ scale * values with scale = max |x| / 127 along `axis`, which the
    scales lack.
    """
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=axis, keepdims=True), 1e-12) / 127
    return jnp.round(x / scale).astype(jnp.int8), jnp.squeeze(scale, axis)


def make_layer(k: Array, v: Array, int8: bool) -> LayerCache:
    """Keys and values [B, T, K, H] in the cache's layout."""
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    if not int8:
        return LayerCache(k, v)
    (k, k_scale), (v, v_scale) = quantize(k, axis=-1), quantize(v, axis=-1)
    return LayerCache(k, v, k_scale, v_scale)


def empty_layer(like: LayerCache, rows: int, size: int, sharding) -> LayerCache:
    """Zeros [rows, K, size, H] and so on, of the kinds that `like` has."""
    shape = lambda x: (rows, x.shape[1], size, *x.shape[3:])
    return LayerCache(*(None if x is None else jnp.zeros(shape(x), x.dtype, device=sharding) for x in like))


def write(layer: LayerCache, k: Array, v: Array, cursor: Array, is_new: Array | None) -> LayerCache:
    """Put k, v [B, T, K, H] at the cursor; where `is_new` [B, T] is false the old values stay."""
    new = make_layer(k, v, int8=layer.k_scale is not None)

    def put(old: Array | None, values: Array | None) -> Array | None:
        if old is None:
            return None
        if is_new is not None:
            before = jax.lax.dynamic_slice_in_dim(old, cursor, values.shape[2], axis=2)
            values = jnp.where(
                is_new.reshape(is_new.shape[0], 1, -1, *(1,) * (values.ndim - 3)), values, before
            )
        return jax.lax.dynamic_update_slice_in_dim(old, values.astype(old.dtype), cursor, axis=2)

    return LayerCache(*(put(old, values) for old, values in zip(layer, new)))


# --------------------------------------------------------------------------------- moving rows between caches


@partial(jax.jit, static_argnames=("size", "shards"))
def move_rows(layer: LayerCache, rows: Array, shift: Array, size: int, shards: int) -> LayerCache:
    """Rows of a cache in a new order, with each row's tokens `shift` positions further, in arrays of `size`
    positions.

    What comes to lie outside a row's tokens is arbitrary. Rows are spread over `shards` devices and stay on
    theirs.

    Args:
      layer: [B, K, S, H] and so on. rows: [shards, b] int32, numbers within the shard. shift: [shards, b]
        int32.
    Returns:
      [shards * b, K, size, H] and so on.
    """

    def move(x: Array | None) -> Array | None:
        if x is None:
            return None
        local = x.reshape(shards, -1, *x.shape[1:])
        places = jnp.clip(jnp.arange(size) - shift[..., None], 0, x.shape[2] - 1)  # [shards, b, size]
        pick = jax.vmap(jax.vmap(lambda cache, row, place: cache[row][:, place], (None, 0, 0)))
        return pick(local, rows, places).reshape(-1, x.shape[1], size, *x.shape[3:])

    return LayerCache(*map(move, layer))


@partial(jax.jit, donate_argnums=0, static_argnames="shards")
def put_rows(
    layer: LayerCache, source: LayerCache, rows: Array, shift: Array, slots: Array, shards: int
) -> LayerCache:
    """Copy rows of `source`, which every device has whole, into slots of `layer`, each `shift` positions
    further.

    Args:
      source: [P, K, T, H] and so on. rows: [shards, n] int32, rows of the source. shift: [shards, n] int32.
      slots: [shards, n] int32, numbers within the shard; one beyond its rows is passed over.
    """

    def put(x: Array | None, y: Array | None) -> Array | None:
        if x is None:
            return None
        local = x.reshape(shards, -1, *x.shape[1:])
        places = jnp.clip(jnp.arange(x.shape[2]) - shift[..., None], 0, y.shape[2] - 1)
        picked = jax.vmap(jax.vmap(lambda row, place: y[row][:, place]))(rows, places)  # [shards, n, K, S, H]
        put_local = jax.vmap(lambda cache, slot, values: cache.at[slot].set(values, mode="drop"))
        return put_local(local, slots, picked).reshape(x.shape)

    return LayerCache(*(put(x, y) for x, y in zip(layer, source)))
