"""What the training loops share: giving up on a run that has become NaN, and telling about a step."""

import os
from pathlib import Path

import jax

from jaxrl.config import Stage
from jaxrl.errors import InputError
from jaxrl.model.lora import params_line
from jaxrl.train.memory import plan_stage
from jaxrl.train.setup import Run, Weights

MAX_SKIPPED = 10


class FinitenessGuard:
    """Counts updates in a row that were skipped because the loss or gradient was not finite."""

    def __init__(self, stage_name: str):
        self.stage_name = stage_name
        self.skipped = 0

    def check(self, metrics: dict[str, float]) -> None:
        """Raise InputError after MAX_SKIPPED skipped updates in a row; the weights are still the last good ones."""
        self.skipped = self.skipped + 1 if metrics["skipped"] else 0
        if self.skipped >= MAX_SKIPPED:
            raise InputError(
                f"stage {self.stage_name}: {self.skipped} updates in a row had a loss or gradient that is not finite and "
                "were skipped; lower optim.learning_rate or check the data. The last checkpoint is good"
            )


def begin_stage(run: Run, stage: Stage, step: int, steps: int, weights: Weights) -> None:
    """Drop what a killed run wrote after its last checkpoint, and say what begins and what memory it asks for."""
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
    """Bytes in use on the first device; on backends that do not say (CPU), the resident memory of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:
        return "device", stats["bytes_in_use"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return "process", pages * os.sysconf("SC_PAGE_SIZE")
