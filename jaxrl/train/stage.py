"""What a run gives to every stage."""

from dataclasses import dataclass
from pathlib import Path

import jax
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.experiment import Config
from jaxrl.data.packing import Rows
from jaxrl.device.compilations import Compilations
from jaxrl.interrupt import Interrupt
from jaxrl.track.console import Console
from jaxrl.track.logger import RunLogger

ADAPTERS, DROPOUT, SAMPLING, CRITIC = range(4)  # the purposes of PRNG keys


@dataclass(frozen=True)
class Run:
    """The resources of one run, opened by `run.py` and used by every stage."""

    config: Config
    folder: Path
    mesh: Mesh
    tokenizer: object
    eos_ids: tuple[int, ...]
    sft_rows: dict[str, tuple[Rows, Rows | None]]  # by stage name
    logger: RunLogger
    console: Console
    interrupt: Interrupt
    compilations: Compilations

    def key(self, stage_index: int, purpose: int, step: int = 0) -> Array:
        """The PRNG key for a purpose at a step of a stage; the same in a resumed run."""
        key = jax.random.key(self.config.seed)
        for number in (stage_index, purpose, step):
            key = jax.random.fold_in(key, number)
        return key
