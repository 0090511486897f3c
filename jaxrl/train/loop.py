"""What the training loops share: giving up on a run that has become NaN, and telling about a step."""

import os
from pathlib import Path

import jax

from jaxrl.config.experiment import Stage
from jaxrl.errors import InputError
from jaxrl.model.lora import params_line
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.train.memory_plan import plan_stage
from jaxrl.train.stage import Run
from jaxrl.update.state import MAX_WEIGHT

MAX_SKIPPED = 10


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


def begin_stage(run: Run, stage: Stage, step: int, steps: int, weights: PolicyWeights) -> None:
    """Drop what a killed run wrote after its last checkpoint, and say what begins and what memory it asks
    for.
    """
    run.logger.truncate_after([s.name for s in run.config.stages], stage.name, step)
    plan = plan_stage(weights.policy.remat, stage, weights, run.mesh)
    run.console.stage(stage.name, steps, step, params_line(weights.trainable, weights.frozen))
    run.console.note(f"attention {weights.policy.attention}; {plan.line()}")
    if warning := plan.warning():
        run.console.warn(f"{stage.name}: {warning}")


def report_step(run: Run, stage: Stage, step: int, metrics: dict[str, float]) -> None:
    """One step to metrics.jsonl (and W&B) and to the console."""
    label, memory = memory_in_use()
    row = {**metrics, "time/compilations": run.compilations.take(), f"memory/{label}_bytes": memory}
    run.logger.log(stage.name, step, row)
    run.console.progress(step, metrics, (label, memory))


def memory_in_use() -> tuple[str, int]:
    """Bytes in use on the first device; on backends that do not say (CPU), the resident memory of this
    process.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:
        return "device", stats["bytes_in_use"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return "process", pages * os.sysconf("SC_PAGE_SIZE")
