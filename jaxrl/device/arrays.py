"""Arrays between this host and the devices, which may be other hosts', too.

One process alone places and fetches as jax does. Of several, each has the same host values, hands its own
devices what they hold of them, and gets whole arrays back; all have to ask at the same point.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding


def put(tree: Any, shardings: Any) -> Any:
    """Host arrays as device arrays; `shardings` is one for all leaves, or a tree of them.

    Of several processes each copies its own devices' parts alone, and none compares what the others have:
    NaN, which stands for a logprob that is not known yet, is not equal to itself.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, Sharding):
        return jax.tree.map(lambda leaf: _put(leaf, shardings), tree)
    return jax.tree.map(_put, tree, shardings)


def everywhere(tree: Any) -> Any:
    """Arrays of which every process can read the whole; nothing is waited for."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    cut = [n for n, leaf in enumerate(leaves) if isinstance(leaf, Array) and not _is_readable(leaf)]
    if cut:
        wholes = _copier(leaves[cut[0]].sharding.mesh)([leaves[n] for n in cut])
        for n, whole in zip(cut, wholes, strict=True):
            leaves[n] = whole
    return jax.tree.unflatten(structure, leaves)


def fetch(tree: Any) -> Any:
    """The values of device arrays, as NumPy arrays."""
    return jax.device_get(everywhere(tree))


def _put(leaf: Any, sharding: Sharding) -> Array:
    if isinstance(leaf, Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, sharding)  # on all devices already
    if isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            _put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf)
        )
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _is_readable(leaf: Array) -> bool:
    return leaf.is_fully_addressable or leaf.is_fully_replicated


@functools.cache
def _copier(mesh: Mesh) -> Callable:
    return jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, PartitionSpec()))
