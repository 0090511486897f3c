"""Checkpoints of one stage: Orbax on disk, our checksums on top, because Orbax does not notice a flipped bit in array data.

A checkpoint holds the train state (what is trained, never the frozen base) and a small JSON `meta`. Saves are waited
for: when `save` returns, the checkpoint is durable.
"""

import json
import logging
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from orbax.checkpoint import v1 as ocp

from jaxrl.disk import check_space, writing
from jaxrl.errors import InputError
from jaxrl.sharding import path_name
from jaxrl.train.state import TrainState

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells every save in several INFO and WARNING lines
log = logging.getLogger("jaxrl")
ORBAX_BYTES = 1 << 18  # of its own metadata beside a state


class CheckpointCorrupt(RuntimeError):
    """A checkpoint whose arrays are not the ones that were saved."""


class Checkpoints:
    """The checkpoints in one folder: the newest `keep`, and the one with the lowest `val_loss`. Use it in a `with`."""

    def __init__(self, folder: Path, keep: int):
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: -metrics["val_loss"], n=1, keep_checkpoints_without_metrics=False
        )
        self.folder = folder
        with writing(folder):
            try:
                self._checkpointer = ocp.training.Checkpointer(
                    folder.absolute(),
                    preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
                    cleanup_tmp_directories=True,
                )
            except ValueError as error:  # Orbax reads the metadata and metrics of all checkpoints at the start
                raise InputError(
                    f"{folder}: the metadata or metrics of a checkpoint cannot be read ({error}); delete that checkpoint's folder"
                ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with writing(self.folder):  # a save that has failed is told once more here
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def best_step(self) -> int | None:
        """The step with the lowest `val_loss`; None if none was ever given."""
        scored = [(c.metrics["val_loss"], c.step) for c in self._checkpointer.checkpoints if c.metrics]
        return min(scored)[1] if scored else None

    def save(self, step: int, state: TrainState, meta: dict[str, Any], val_loss: float | None = None) -> None:
        """Write a checkpoint and wait until it is durable.

        Args:
          step: optimiser steps done. meta: plain JSON values. val_loss: what `best_step` goes by.
        Raises:
          InputError: the disk has no room for it, or does not take it. The checkpoints before it stay.
        """
        check_space(self.folder, _num_bytes(state, meta), f"checkpoint {self.folder}/{step}")
        with writing(f"checkpoint {self.folder}/{step}"):
            self._checkpointer.save_checkpointables(
                step,
                {"state": state},
                force=True,
                overwrite=True,
                metrics=None if val_loss is None else {"val_loss": val_loss},
                custom_metadata={"meta": meta, "checksums": _all_checksums(state, meta)},
            )

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """The state and meta of a step; `abstract` gives shapes, dtypes and shardings.

        Raises:
          CheckpointCorrupt: if it cannot be read, or its checksums are not those that were saved.
        """
        try:
            saved = self._checkpointer.metadata(step).custom_metadata or {}  # Orbax reads a broken file as an empty one
            meta, saved_sums = saved["meta"], saved["checksums"]
            state = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
        except (OSError, ValueError, KeyError, ocp.errors.InvalidLayoutError) as error:
            raise CheckpointCorrupt(f"checkpoint {self.folder}/{step} cannot be read: {type(error).__name__}: {error}") from error
        for name, value in _all_checksums(state, meta).items():
            if value != saved_sums.get(name):
                raise CheckpointCorrupt(f"checkpoint {self.folder}/{step}: {name} is not what was saved")
        return state, meta

    def restore_latest(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that is whole, falling back to older ones with a warning; None if there is none at all.

        Raises:
          InputError: if there are checkpoints and none is whole: starting again in silence would lose the run.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(abstract, step)
            except CheckpointCorrupt as error:
                log.warning("%s; trying an older one", error)
        if steps:
            raise InputError(f"no checkpoint in {self.folder} can be read (steps {steps}); delete the folder to start the stage again")
        return None


def abstract_like(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state: what `restore` needs to know."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@jax.jit
def checksums(tree) -> dict[str, Array]:
    """One uint32 per array, the same under every sharding: sum over elements of bits * (2 * index + 1) mod 2^32.

    The weights are odd, so any single flipped bit changes the sum. Arrays of up to 32-bit elements and PRNG keys.
    """
    return {path_name(path): _checksum(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _num_bytes(state: TrainState, meta: dict[str, Any]) -> int:
    """What a checkpoint takes on the disk at most: Orbax compresses, and its own files are small."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + len(json.dumps(meta)) + ORBAX_BYTES


def _all_checksums(state: TrainState, meta: dict[str, Any]) -> dict[str, int]:
    sums = {name: int(value) for name, value in jax.device_get(checksums(state)).items()}
    return sums | {"meta": zlib.crc32(json.dumps(meta, sort_keys=True).encode())}


def _checksum(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = (x.astype(unsigned) if x.dtype == bool else jax.lax.bitcast_convert_type(x, unsigned)).astype(jnp.uint32)
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):  # the linear index without a reshape, which would move a sharded array
        index = index + jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        stride *= x.shape[axis]
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)
