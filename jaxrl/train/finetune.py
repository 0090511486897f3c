"""What SFT and RSFT share: an optimiser step on packed rows."""

import time
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from jaxrl.data.packing import PackedRows
from jaxrl.device.arrays import fetch
from jaxrl.device.mesh import shard_batch
from jaxrl.types import Tree
from jaxrl.update.batch import SFTBatch, to_microbatches
from jaxrl.update.state import TrainState


def fine_tune(
    step: Callable, state: TrainState, frozen: Tree, rows: PackedRows, microbatch: int, mesh: Mesh
) -> tuple[TrainState, dict[str, float]]:
    """One optimiser step on these rows, and its metrics; the state given is consumed."""
    started = time.perf_counter()
    batch = as_batch(rows, microbatch)
    state, metrics = step(state, frozen, shard_batch(batch, mesh))
    metrics = {name: float(value) for name, value in fetch(metrics).items()}
    elapsed = time.perf_counter() - started
    num_tokens = int((batch.segment_ids > 0).sum())
    return state, metrics | {"time/step_s": elapsed, "train/tokens_per_s": num_tokens / elapsed}


def as_batch(rows: PackedRows, microbatch: int) -> SFTBatch:
    """Rows [R, T] as a batch of M = ceil(R / microbatch) microbatches, all of them to be run."""
    M = -(-len(rows) // microbatch)
    fields = {name: to_microbatches(x, M, microbatch) for name, x in vars(rows).items()}
    return SFTBatch(num_microbatches=np.int32(M), **fields)
