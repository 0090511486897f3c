"""What all stages share: a run's resources, and how a stage begins, tells of its steps, saves and ends."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.experiment import Config, FineTuningStage, RLStage
from jaxrl.data.packing import PackedRows
from jaxrl.device.compilations import Compilations
from jaxrl.device.memory import memory_in_use
from jaxrl.device.processes import check_same, num_processes
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupt, Interrupted
from jaxrl.model.lora import params_line
from jaxrl.policy.hand_over import PolicyWeights, enter_stage
from jaxrl.tasks.base import Task
from jaxrl.track.console import Console
from jaxrl.track.logger import RunLogger
from jaxrl.train.memory_plan import Plan
from jaxrl.types import MAX_WEIGHT, Problem, Tree
from jaxrl.update.checkpoint import Checkpoints
from jaxrl.update.state import TrainState, abstract_state, place_state

ADAPTERS, DROPOUT, SAMPLING, CRITIC = range(4)  # the purposes of PRNG keys
MAX_SKIPPED = 10  # in a row: one or two are a bad batch, so many are weights that are lost


@dataclass(frozen=True)
class Run:
    """The resources of one run, opened by `commands/run.py` and used by every stage.

    make_task: the task of a section; stages with equal sections share one, and it makes its problems once.
    sft_rows: (training, validation) rows of each SFT stage. plans: what each training stage keeps in memory.
      Both by stage name, made by `preflight`.
    """

    config: Config
    folder: Path
    mesh: Mesh
    tokenizer: Any
    eos_ids: tuple[int, ...]
    make_task: Callable[[Any], Task]
    sft_rows: dict[str, tuple[PackedRows, PackedRows | None]]
    plans: dict[str, Plan]
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


def enter(run: Run, stage: FineTuningStage | RLStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """The policy that a stage trains, of the one that the stage before left. Its backward pass keeps what the
    plan says.
    """
    key = run.key(index, ADAPTERS)
    weights = enter_stage(weights, stage.lora, run.config.model.dtype, run.mesh, key)
    return replace(weights, policy=replace(weights.policy, remat=run.plans[stage.name].remat))


def check_same_data(stage_name: str, data: Iterable[PackedRows | Problem]) -> None:
    """InputError where another process of the run has other data, or in another order: each works on the
    whole batch, and verifies its part of it.
    """
    if num_processes() == 1:
        return
    digest = hashlib.sha256()
    for item in data:
        for part in vars(item).values():
            is_array = isinstance(part, np.ndarray)
            digest.update(part.tobytes() if is_array else json.dumps(part, default=repr).encode())
    remedy = "where a task draws them, let it draw from a fixed seed, not from the clock, the host or a set"
    check_same(f"stage {stage_name}", {"its data": digest.hexdigest()}, remedy)


class StageRun:
    """A stage at work: its checkpoints, and what is done in all kinds alike. A context: it closes the
    checkpoints.

    Args:
      index: the stage's place in the config; its checkpoints are in `checkpoints/<index>_<name>`, see
        `RunFolder.checkpoints`.
      weights: what the stage trains, see `enter`.
      critic, reference: see `TrainState`.
    """

    def __init__(
        self,
        run: Run,
        stage: FineTuningStage | RLStage,
        index: int,
        weights: PolicyWeights,
        tx: optax.GradientTransformation,
        critic: Tree | None = None,
        reference: Tree | None = None,
    ):
        self.run, self.stage, self.index, self.weights = run, stage, index, weights
        self.guard = FinitenessGuard(stage.name)
        trainable = weights.trainable | (critic or {})
        self._made_of = (trainable, tx, run.key(index, DROPOUT), run.mesh, reference)
        self.abstract = abstract_state(*self._made_of)
        self.folder = epath.Path(run.logger.folder.checkpoints(f"checkpoints/{index}_{stage.name}"))
        self.checkpoints = Checkpoints(self.folder, run.config.checkpoint.keep)

    def __enter__(self) -> "StageRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.checkpoints.__exit__(kind, error, trace)

    def restore(self, start: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        """Where the stage goes on. The first of these that there is:

        1. the newest checkpoint of the stage, if it is whole;
        2. an older one, with a warning;
        3. the weights that the stage before left (from its own last or best checkpoint), with `start` for
           meta. Before the first stage these are the adapter of `model.adapter`, and the base.

        Raises:
          InputError: there are checkpoints, and none is whole.
        """
        restored = self.checkpoints.restore_latest(self.abstract)
        state, meta = restored or (place_state(*self._made_of), {**start, "skipped": 0})
        self.guard.skipped = meta["skipped"]
        return state, meta

    def begin(self, step: int, steps: int) -> None:
        """Drop what a killed run wrote after its last checkpoint, and say what begins and what memory it asks
        for.
        """
        run, stage, weights = self.run, self.stage, self.weights
        run.logger.begin([s.name for s in run.config.stages], stage.name, step)
        run.console.stage(stage.name, steps, step, params_line(weights.trainable, weights.frozen))
        plan = run.plans[stage.name]
        run.console.note(f"attention {weights.policy.attention}; {plan.line()}")
        if warning := plan.warning():
            run.console.warn(f"{stage.name}: {warning}")

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """One step to the console and to metrics.jsonl (and W&B); its alarms are events."""
        label, memory = memory_in_use()
        compiled = self.run.compilations.take()
        row = {**metrics, "time/compilations": compiled, f"memory/{label}_bytes": memory}
        self.run.console.progress(step, metrics, (label, memory))
        self.run.logger.log(self.stage.name, step, row)

    def keep(
        self,
        step: int,
        state: TrainState,
        meta: dict[str, Any],
        is_last: bool,
        due: bool = False,
        best: int | None = None,
    ) -> None:
        """Save the state where it is time to: at the end, where the stage says so, every `checkpoint.every`
        steps, and before the run ends because it was asked to.

        Raises:
          Interrupted: the run was asked to end, and there is something left to do.
        """
        stops = not is_last and self.run.interrupt.stops(f"{self.stage.name} step {step}")
        if is_last or stops or due or step % self.run.config.checkpoint.every == 0:
            with self.run.logger.folder.saving():
                self.checkpoints.save(step, state, {**meta, "skipped": self.guard.skipped}, best=best)
        if stops:
            raise Interrupted

    def leave(self, trainable: Tree) -> PolicyWeights:
        """The weights for the next stage, with these in place of what was trained."""
        return replace(self.weights, trainable=trainable)


class FinitenessGuard:
    """Counts updates in a row that were skipped because their loss, their gradient or their result was not
    finite, or a weight had grown beyond all measure.

    Args:
      skipped: the count so far. It is saved with every checkpoint: a run that is taken up again goes on
        counting, and does not outlive its divergence by being started often enough.
    """

    def __init__(self, stage_name: str, skipped: int = 0):
        self.stage_name = stage_name
        self.skipped = skipped

    def check(self, metrics: dict[str, float]) -> None:
        """Raise InputError after MAX_SKIPPED skipped updates in a row. One without a gradient tells nothing
        and ends no row.
        """
        if metrics["skipped"]:
            self.skipped += 1
        elif metrics["grad_norm"] > 0:
            self.skipped = 0
        if self.skipped >= MAX_SKIPPED:
            raise self._diverged(f"{self.skipped} updates in a row")

    def check_end(self) -> None:
        """Raise InputError if the stage ended in skipped updates: nothing says that the weights before them
        are any good.
        """
        if self.skipped:
            raise self._diverged(f"the last {self.skipped} update(s) of the stage")

    def _diverged(self, which: str) -> InputError:
        return InputError(
            f"stage {self.stage_name} has diverged: {which} changed nothing, because a loss, a gradient or a"
            f" result was not finite or a weight beyond {MAX_WEIGHT:,.0f}; lower optim.learning_rate or check"
            " the data, and start under another `name`"
        )
