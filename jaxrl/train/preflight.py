"""Looking ahead: everything that a later stage would stumble over is found before a run writes its first
byte.
"""

import functools
import importlib.util
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence

from jax.sharding import Mesh

from jaxrl.config.experiment import Config, EvalStage, RLStage, RSFTStage, SFTStage, Stage
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.packing import Rows
from jaxrl.data.records import read_records
from jaxrl.data.tokenizer import num_tokens
from jaxrl.device.mesh import check_rows
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import choose_problems
from jaxrl.model.config import ModelConfig
from jaxrl.sample.engine import check_prompt_length, check_stop_ids
from jaxrl.tasks import make_task
from jaxrl.tasks.base import Task
from jaxrl.train.memory_plan import check_excluded
from jaxrl.train.sft import load_rows
from jaxrl.types import Message, Problem
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.verify.environment import withheld


def preflight(
    config: Config, tokenizer, model: ModelConfig, mesh: Mesh
) -> dict[str, tuple[Rows, Rows | None]]:
    """Go through the stages without running them.

    Returns:
      The (training, validation) rows of every SFT stage, by its name: made once, here.
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
    # stages with equal sections share a task, and it makes its problems once
    make = functools.cache(make_task)
    tasks = {stage.name: make(stage.task) for stage in config.stages if _asks_task(stage)}
    records = {
        stage.name: read_records(stage.data)
        for stage in config.stages
        if isinstance(stage, SFTStage) and stage.data is not None
    }
    rows = {}
    for stage in config.stages:
        task = tasks.get(stage.name)
        if isinstance(stage, SFTStage):
            _check_microbatch(stage, mesh)
            rows[stage.name] = load_rows(
                stage, task, records.get(stage.name), tokenizer, config.seed, config.model.training_template
            )
            _check_positions(stage, rows[stage.name], model)
        elif isinstance(stage, RSFTStage):
            _check_rsft(stage, task, tokenizer, model, mesh)
        elif isinstance(stage, RLStage):
            _check_rl(stage, task, tokenizer, model, mesh)
        else:
            _check_eval(stage, task, tokenizer, model)
    _check_held_out(config.stages, tasks, records)
    return rows


def _asks_task(stage: Stage) -> bool:
    """Whether a stage works on its task; an SFT stage with records has inherited one that it does not look
    at.
    """
    return stage.task is not None and not (isinstance(stage, SFTStage) and stage.data is not None)


def _check_positions(stage: SFTStage, rows: tuple[Rows, Rows | None], model: ModelConfig) -> None:
    longest = max(int(part.positions.max()) + 1 for part in rows if part is not None)
    if longest > model.max_positions:
        raise InputError(
            f"stage {stage.name}: an example has {longest} tokens, more than the model's"
            f" {model.max_positions} positions; shorten it"
        )


def _check_rsft(stage: RSFTStage, task: Task, tokenizer, model: ModelConfig, mesh: Mesh) -> None:
    _check_microbatch(stage, mesh)
    count = _check_problems(stage, task, tokenizer, model)
    if stage.problems is not None and stage.problems > count:
        raise InputError(
            f"stage {stage.name}: problems={stage.problems} are more than the {count} of the task's train"
            " split; lower it (null: all)"
        )


def _check_rl(stage: RLStage, task: Task, tokenizer, model: ModelConfig, mesh: Mesh) -> None:
    check_rows(
        stage_microbatch(stage, mesh),
        mesh,
        f"stage {stage.name}: algo.microbatch (or problems_per_batch * group_size)",
    )
    check_excluded(stage, model.vocab_size, mesh)
    _check_problems(stage, task, tokenizer, model)


def _check_eval(stage: EvalStage, task: Task, tokenizer, model: ModelConfig) -> None:
    if stage.name in task.baselines():
        raise InputError(
            f"an eval stage cannot be named {stage.name!r}: a baseline's row has that name; choose another"
            " `name`"
        )
    problems = choose_problems(task, stage)
    if not problems:
        raise InputError(
            f"stage {stage.name}: the task's {stage.split} split is empty; set task.{stage.split}"
        )
    _longest_prompt(stage, problems, tokenizer, model)


def _check_held_out(
    stages: Sequence[Stage], tasks: Mapping[str, Task], records: Mapping[str, list[list[Message]]]
) -> None:
    """InputError if a stage trains on a problem that an eval stage asks, by its uid or word for word.

    An eval stage that names the train split measures training problems openly; it is left alone.
    """
    asked: dict[tuple, str] = {}  # a problem's uid or messages -> the first eval stage that asks it
    for stage in stages:
        if isinstance(stage, EvalStage) and stage.split != "train":
            for problem in choose_problems(tasks[stage.name], stage):
                for mark in _marks(problem):
                    asked.setdefault(mark, stage.name)
    for stage in stages:
        if isinstance(stage, EvalStage):
            continue
        for problem in _trained_on(stage, tasks.get(stage.name), records.get(stage.name)):
            for mark in _marks(problem):
                if mark in asked:
                    raise InputError(
                        f"stage {stage.name} would train on problem {problem.uid!r}, which eval stage"
                        f" {asked[mark]} asks too (the same {mark[0]}): its accuracy would be that of"
                        " problems seen before; set their tasks so that the splits share no problem, or the"
                        " eval stage's split to train"
                    )


def _trained_on(
    stage: SFTStage | RSFTStage | RLStage, task: Task | None, records: list[list[Message]] | None
) -> list[Problem]:
    """The problems whose demonstrations or completions a stage trains on; of records, what comes before the
    first answer.
    """
    if records is not None:
        prompts = (
            tuple(itertools.takewhile(lambda m: m["role"] != "assistant", record)) for record in records
        )
        return [Problem(f"record {n}", prompt, {}) for n, prompt in enumerate(prompts, start=1)]
    problems = task.problems("train")
    if isinstance(stage, SFTStage):
        return [problem for problem in problems if task.demonstration(problem) is not None]
    return problems


def _marks(problem: Problem) -> Iterator[tuple]:
    yield "uid", problem.uid
    # Whatever system prompt stands before it: a question is the same question under another one, unless it is
    # all there is.
    asked = [message for message in problem.messages if message["role"] != "system"] or problem.messages
    yield "messages", *((message["role"], message["content"]) for message in asked)


def _check_microbatch(stage: SFTStage | RSFTStage, mesh: Mesh) -> None:
    if stage.rows % (stage.microbatch or 1):
        raise InputError(
            f"stage {stage.name}: rows={stage.rows} is not a multiple of microbatch={stage.microbatch}"
        )
    check_rows(stage_microbatch(stage, mesh), mesh, f"stage {stage.name}: microbatch (or rows)")


def _check_problems(stage: RLStage | RSFTStage, task: Task, tokenizer, model: ModelConfig) -> int:
    """The number of problems of the train split, each of which fits a row of the update together with its
    completion.
    """
    problems = task.problems("train")
    if not problems:
        raise InputError(f"stage {stage.name}: the task's train split is empty; set task.train")
    longest = _longest_prompt(stage, problems, tokenizer, model)
    if stage.seq_len is not None and longest + stage.sample.max_new_tokens > stage.seq_len:
        raise InputError(
            f"stage {stage.name}: the longest prompt ({longest} tokens) and"
            f" sample.max_new_tokens={stage.sample.max_new_tokens} do not fit a row of"
            f" seq_len={stage.seq_len}; set it to at least {longest + stage.sample.max_new_tokens}"
        )
    return len(problems)


def _longest_prompt(
    stage: RLStage | RSFTStage | EvalStage, problems: Sequence[Problem], tokenizer, model: ModelConfig
) -> int:
    lengths = [len(render_for_sampling(tokenizer, problem.messages)) for problem in problems]
    check_stop_ids(f"stage {stage.name}", stage.sample, num_tokens(tokenizer))
    for number, length in enumerate(lengths):
        check_prompt_length(f"stage {stage.name}: prompt {number}", length, stage.sample.max_prompt_tokens)
    if max(lengths) + stage.sample.max_new_tokens > model.max_positions:
        raise InputError(
            f"stage {stage.name}: the longest prompt ({max(lengths)} tokens) and"
            f" sample.max_new_tokens={stage.sample.max_new_tokens} are more than the model's"
            f" {model.max_positions} positions; lower sample.max_new_tokens"
        )
    return max(lengths)
