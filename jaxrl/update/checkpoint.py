"""Checkpoints of one stage: Orbax on a disk or in a bucket, our checksums on top, as Orbax does not notice a
flipped bit.

A checkpoint holds the train state (what is trained, never the frozen base) and a small JSON `meta`; both are
under the checksums, and nothing that a run goes by stands anywhere else. Saves are waited for: when `save`
returns, the checkpoint is durable.
"""

import gc
import json
import logging
import re
import sys
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from etils import epath
from jax import Array
from orbax.checkpoint import v1 as ocp

from jaxrl.device.arrays import fetch, put
from jaxrl.device.mesh import path_name
from jaxrl.device.processes import LONG_S, agree, gather, on_first
from jaxrl.errors import InputError
from jaxrl.files.disk import check_space, writing
from jaxrl.files.place import is_url
from jaxrl.update.state import TrainState, all_finite

log = logging.getLogger("jaxrl")
ORBAX_BYTES = 1 << 18  # of its own metadata beside a state

FORMAT = 2  # of what is saved; raised whenever a stage would misread what an older version wrote


class CheckpointCorrupt(RuntimeError):
    """A checkpoint whose arrays are not the ones that were saved."""


class Checkpoints:
    """The checkpoints in one folder: the newest `keep`, and the one that the stage calls best. A context.

    Args:
      folder: a path, or `gs://BUCKET/FOLDER`. There a checkpoint is whole when Orbax has written its
        `commit_success.txt`; what bears none is taken away when the next ones are opened.
    """

    def __init__(self, folder: epath.PathLike, keep: int):
        self.folder = epath.Path(folder)
        self._is_here = not is_url(str(self.folder))
        self._kept = _NewestAndBest(keep)
        try:
            with writing(self.folder), _quiet_failures():
                self._checkpointer = ocp.training.Checkpointer(
                    self.folder.absolute() if self._is_here else self.folder,
                    preservation_policy=self._kept,
                    cleanup_tmp_directories=True,
                )
        except ValueError as error:  # Orbax reads the metadata of all checkpoints at the start
            broken = " ".join(map(str, _broken_metadata(self.folder))) or f"one of {folder}"
            remedy = "delete its step's folder to go on from the one before"
            raise InputError(
                f"{broken}: the metadata of the checkpoint cannot be read ({error}); {remedy}"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        try:
            with writing(self.folder), _quiet_failures():
                self._checkpointer.close()
        except InputError:  # Orbax raises a failed save once more here
            if error is None:
                raise

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, step: int, state: TrainState, meta: dict[str, Any], best: int | None = None) -> None:
        """Write a checkpoint and wait until it is durable.

        Args:
          step: optimiser steps done. meta: plain JSON values. best: the step that is kept however old it is.
        Raises:
          InputError: a state that is not finite, or a disk that has no room for it or does not take it. The
            checkpoints before it stay.
        """
        sums, is_finite = _survey(state, meta)
        if not is_finite:
            raise InputError(
                f"step {step} is not saved to {self.folder}: its state holds numbers that are not finite; "
                "check the weights that the stage started from, and lower optim.learning_rate"
            )
        self._kept.best = best
        what, size = f"checkpoint {self.folder}/{step}", _num_bytes(state, meta)
        if self._is_here:
            on_first(f"room for {what}", lambda: check_space(self.folder, size, what))
        with writing(what), _quiet_failures():
            self._checkpointer.save_checkpointables(
                step,
                {"state": state},
                force=True,
                overwrite=True,
                custom_metadata={"format": FORMAT, "meta": meta, "checksums": sums},
            )

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """The state and meta of a step, in the shardings of `abstract`.

        Raises:
          CheckpointCorrupt: if it cannot be read, is of another version, or its checksums are not those that
            were saved.
        """
        place, found, reason = f"checkpoint {self.folder}/{step}", None, None
        try:
            found = self._read(abstract, step)
        except jax.errors.JaxRuntimeError:  # no memory for it: not damage
            raise
        except Exception as error:  # Orbax raises all sorts, a plain Exception among them
            text = (str(error) or "no reason given").splitlines()[0][:300]  # TensorStore adds pages
            reason = f"{type(error).__name__}: {text}"
        reasons = [each for each in gather(f"the reading of {place}", reason, LONG_S) if each is not None]
        if found is None or reasons:  # each process reads its own part
            raise CheckpointCorrupt(f"{place} cannot be read: {reasons[0]}")
        state, meta, saved_sums = found
        for name, value in _survey(state, meta)[0].items():
            if value != saved_sums.get(name):
                raise CheckpointCorrupt(f"{place}: {name} is not what was saved")
        # Orbax gives some leaves, a scalar key among them, another sharding than the one it was asked for.
        return jax.tree.map(lambda x, like: put(x, like.sharding), state, abstract), meta

    def _read(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any], dict[str, int]]:
        """State, meta and checksums as they are on the disk."""
        with _quiet_failures():
            # Orbax reads a broken file as an empty one
            saved = self._checkpointer.metadata(step).custom_metadata or {}
            if saved.get("format") != FORMAT:
                raise ValueError(
                    f"format {saved.get('format')}, not {FORMAT}: damaged, or written by another version"
                    " of jaxrl"
                )
            meta, saved_sums = saved["meta"], dict(saved["checksums"])
            state = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
        return state, meta, saved_sums

    def restore_latest(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that is whole, with a warning for each newer one; None if there is none.

        Raises:
          InputError: if there are checkpoints and none is whole: starting again in silence would lose the
            run.
        """
        steps, reasons = agree(f"the checkpoints in {self.folder}", self.steps()), []
        for step in reversed(steps):
            try:
                return self.restore(abstract, step)
            except CheckpointCorrupt as error:
                reasons.append(f"\n  {error}")
                log.warning("%s; trying an older one", error, extra={"kind": "checkpoint fallback"})
        if steps:
            raise InputError(
                f"no checkpoint in {self.folder} can be read (steps {steps}); restore the files, or delete "
                f"that folder to train the stage again from its start:{''.join(reasons)}"
            )
        return None


def _broken_metadata(folder: epath.Path) -> list[epath.Path]:
    """The metadata files in a folder of checkpoints that hold no JSON object."""
    broken = []
    for file in sorted(folder.glob("*/_CHECKPOINT_METADATA")):
        try:
            if not isinstance(json.loads(file.read_bytes()), dict):
                broken.append(file)
        except (OSError, ValueError):
            broken.append(file)
    return broken


# ---------------------------------------------------------------------------------------------- Orbax's noise

# Beside the exception of a save or a read that fails, which becomes one sentence here, Orbax logs pages; and
# what it has started in an event loop of its own is reported by Python whenever the garbage collector comes
# to it, in another thread or long after. So what comes of Orbax is known by its text, for as long as the
# process lasts; all else passes. The words: itself, what reads and writes its arrays, the formats, its event
# loop.
ORBAX = re.compile("orbax|tensorstore|OCDBT|zarr|uvloop")


def _is_of_orbax(*things: object) -> bool:
    """Whether one of these has to do with Orbax, by its text; an exception's has its traceback, with the
    names of files.
    """
    texts = (
        "".join(traceback.format_exception(x)) if isinstance(x, BaseException) else str(x) for x in things
    )
    return any(map(ORBAX.search, texts))


def _is_shown(record: logging.LogRecord) -> bool:
    return not _is_of_orbax(record.getMessage(), record.exc_info and record.exc_info[1])


def _unraisable(unraisable: Any) -> None:
    if not _is_of_orbax(unraisable.exc_value, getattr(unraisable.object, "cr_code", unraisable.object)):
        _unraisable_before(unraisable)


logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax's own; nothing else in a run uses it
logging.getLogger("asyncio").addFilter(_is_shown)  # tasks that have failed and that nobody waits for
# coroutines that fail while they are taken away
_unraisable_before, sys.unraisablehook = sys.unraisablehook, _unraisable


@contextmanager
def _quiet_failures() -> Iterator[None]:
    """No warnings of Orbax's; those about coroutines of a read that has failed come here too, and not at some
    later time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            link: BaseException | None = error
            while link is not None:  # their frames hold what is to be collected
                traceback.clear_frames(link.__traceback__)
                link = link.__context__
            gc.collect()
            raise


@dataclass
class _NewestAndBest:
    """Orbax asks it after every save which checkpoints stay."""

    keep: int
    best: int | None = None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        newest = sorted(checkpoint.step for checkpoint in checkpoints)[-self.keep :]
        return [checkpoint.step in newest or checkpoint.step == self.best for checkpoint in checkpoints]


def checksums(tree: Any) -> dict[str, Array]:
    """One uint32 per array, the same under every sharding: sum over elements of bits * (2 * index + 1) mod
    2^32.

    The weights are odd, so any single flipped bit changes the sum. Arrays of up to 32-bit elements and PRNG
    keys.
    """
    return {path_name(path): _checksum(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _num_bytes(state: TrainState, meta: dict[str, Any]) -> int:
    """What a checkpoint takes on the disk at most: Orbax compresses, and its own files are small."""
    return (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        + len(json.dumps(meta))
        + ORBAX_BYTES
    )


@jax.jit
def _checksums_and_finite(state: TrainState) -> tuple[dict[str, Array], Array]:
    return checksums(state), all_finite(state)


def _survey(state: TrainState, meta: dict[str, Any]) -> tuple[dict[str, int], bool]:
    """(the checksums of all that is saved, whether the state is finite)."""
    sums, is_finite = fetch(_checksums_and_finite(state))
    of_meta = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    return {name: int(value) for name, value in sums.items()} | {"meta": of_meta}, bool(is_finite)


def _checksum(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = (x.astype(unsigned) if x.dtype == bool else jax.lax.bitcast_convert_type(x, unsigned)).astype(
        jnp.uint32
    )
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    # the linear index without a reshape, which would move a sharded array
    for axis in reversed(range(x.ndim)):
        index = index + jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        stride *= x.shape[axis]
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)
