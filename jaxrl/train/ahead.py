"""Looking ahead: what a stage's check needs, so that nothing is stumbled over hours later. Each kind of stage
has its check in its own file; `preflight.py` calls them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from jaxrl.config.experiment import Config, EvalStage, FineTuningStage, RLStage, RSFTStage
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.packing import PackedRows
from jaxrl.data.tokenizer import num_tokens
from jaxrl.device.mesh import check_rows
from jaxrl.errors import InputError
from jaxrl.model.config import ModelConfig
from jaxrl.sample.engine import check_prompt_length, check_stop_ids
from jaxrl.tasks.base import Task
from jaxrl.types import Problem
from jaxrl.update.microbatch import stage_microbatch


@dataclass(frozen=True)
class Found:
    """What a stage's check found: the problems that it learns the answers of, those that it evaluates on, and
    the (training, validation) rows of an SFT stage.
    """

    learns: Sequence[Problem] = ()
    asks: Sequence[Problem] = ()
    rows: tuple[PackedRows, PackedRows | None] | None = None


@dataclass(frozen=True)
class Ahead:
    """What is known of a run before it begins. make_task: see `Run`."""

    config: Config
    tokenizer: Any
    model: ModelConfig
    mesh: Mesh
    make_task: Callable[[Any], Task]

    def check_microbatch(self, stage: FineTuningStage) -> None:
        """InputError unless the rows of an optimiser step can be cut as the stage says."""
        if stage.rows % (stage.microbatch or 1):
            raise InputError(
                f"stage {stage.name}: rows={stage.rows} is not a multiple of microbatch={stage.microbatch}"
            )
        rows = stage_microbatch(stage, self.mesh)
        check_rows(rows, self.mesh, f"stage {stage.name}: microbatch (or rows)")

    def check_problems(self, stage: RLStage | RSFTStage, task: Task) -> list[Problem]:
        """The problems of the train split, each of which fits a row of the update together with its
        completion.
        """
        problems = task.problems("train")
        if not problems:
            raise InputError(f"stage {stage.name}: the task's train split is empty; set task.train")
        longest = self.longest_prompt(stage, problems)
        new = stage.sample.max_new_tokens
        if stage.seq_len is not None and longest + new > stage.seq_len:
            raise InputError(
                f"stage {stage.name}: the longest prompt ({longest} tokens) and sample.max_new_tokens={new}"
                f" do not fit a row of seq_len={stage.seq_len}; set it to at least {longest + new}"
            )
        return problems

    def longest_prompt(self, stage: RLStage | RSFTStage | EvalStage, problems: Sequence[Problem]) -> int:
        """Tokens of the longest prompt, each of which the sampler takes and the model has positions for."""
        lengths = [len(render_for_sampling(self.tokenizer, problem.messages)) for problem in problems]
        check_stop_ids(f"stage {stage.name}", stage.sample, num_tokens(self.tokenizer))
        for number, length in enumerate(lengths):
            check_prompt_length(
                f"stage {stage.name}: prompt {number}", length, stage.sample.max_prompt_tokens
            )
        if max(lengths) + stage.sample.max_new_tokens > self.model.max_positions:
            raise InputError(
                f"stage {stage.name}: the longest prompt ({max(lengths)} tokens) and"
                f" sample.max_new_tokens={stage.sample.max_new_tokens} are more than the model's"
                f" {self.model.max_positions} positions; lower sample.max_new_tokens"
            )
        return max(lengths)
