"""Looking ahead: what a later stage would stumble over is found before a weight is read, and before a run
writes its first byte.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl.config.experiment import Config, EvalStage, Stage
from jaxrl.data.packing import PackedRows
from jaxrl.envs.asked import make_asked
from jaxrl.errors import InputError
from jaxrl.policy.describe import PolicyDescription
from jaxrl.policy.hand_over import entered_shapes
from jaxrl.tasks.base import Task
from jaxrl.train.ahead import Ahead, Found
from jaxrl.train.memory_plan import Plan, plan_stage
from jaxrl.train.stages import STAGE_KINDS
from jaxrl.types import Problem
from jaxrl.verify.environment import withheld


@dataclass(frozen=True)
class Preflight:
    """What was made on the way, and is used later: the (training, validation) rows of every SFT stage, and
    what every training stage keeps in memory. By stage name.
    """

    sft_rows: dict[str, tuple[PackedRows, PackedRows | None]]
    plans: dict[str, Plan]


def preflight(
    config: Config,
    tokenizer: Any,
    description: PolicyDescription,
    make_task: Callable[[Any], Task] = make_asked,
) -> Preflight:
    """Go through the stages without running them.

    Raises:
      InputError: files, records, sizes, lengths or mesh that do not fit; a stage that would train on a
        problem of an evaluation.
    """
    if config.track.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise InputError(
            "track.wandb needs the `wandb` library; install it with: pip install 'jaxrl[wandb]', or set"
            " track.wandb to null"
        )
    withheld(os.environ, config.verify.pass_env)  # refuses names that are not set
    ahead = Ahead(config, tokenizer, description.policy.config, description.mesh, make_task)
    found = {stage.name: STAGE_KINDS[stage.kind].check(ahead, stage) for stage in config.stages}
    check_held_out(config.stages, found)
    rows = {name: each.rows for name, each in found.items() if each.rows is not None}
    return Preflight(rows, plan_stages(config, description))


def plan_stages(config: Config, description: PolicyDescription) -> dict[str, Plan]:
    """The memory plan of every stage that trains: its policy follows from the one before by shapes alone."""
    weights, plans = description.shapes(), {}
    for stage in config.stages:
        if not isinstance(stage, EvalStage):
            weights = entered_shapes(weights, stage.lora, config.model.dtype, description.mesh)
            plans[stage.name] = plan_stage(config.model.remat, stage, weights, description.mesh)
    return plans


def check_held_out(stages: Sequence[Stage], found: Mapping[str, Found]) -> None:
    """InputError if a stage trains on a problem that an eval stage asks, by its uid or word for word."""
    asked: dict[tuple, str] = {}  # a problem's uid or messages -> the first eval stage that asks it
    for stage in stages:
        for problem in found[stage.name].asks:
            for mark in _marks(problem):
                asked.setdefault(mark, stage.name)
    for stage in stages:
        for problem in found[stage.name].learns:
            for mark in _marks(problem):
                if mark in asked:
                    raise InputError(
                        f"stage {stage.name} would train on problem {problem.uid!r}, which eval stage"
                        f" {asked[mark]} asks too (the same {mark[0]}): its accuracy would be that of"
                        " problems seen before; set their tasks so that the splits share no problem, or the"
                        " eval stage's split to train"
                    )


def _marks(problem: Problem) -> Iterator[tuple]:
    yield "uid", problem.uid
    # Whatever system prompt stands before it: a question is the same question under another one, unless it is
    # all there is.
    asked = [message for message in problem.messages if message["role"] != "system"] or problem.messages
    yield "messages", *((message["role"], message["content"]) for message in asked)
