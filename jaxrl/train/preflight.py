"""Looking ahead: everything that a later stage would stumble over is found before a run writes its first byte."""

import importlib.util

from jax.sharding import Mesh

from jaxrl.config import Config, EvalStage, GRPOStage, RLStage, SFTStage
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.packing import Rows
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import choose_problems
from jaxrl.model.config import ModelConfig
from jaxrl.sample.engine import check_prompt_length
from jaxrl.sharding import check_rows
from jaxrl.tasks import make_task
from jaxrl.train.sft import load_rows


def preflight(config: Config, tokenizer, model: ModelConfig, mesh: Mesh) -> dict[str, tuple[Rows, Rows | None]]:
    """Go through the stages without running them.

    Returns:
      The (training, validation) rows of every SFT stage, by its name: made once, here.
    Raises:
      InputError: files, records, sizes, lengths or mesh that do not fit.
    """
    if config.track.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise InputError("track.wandb needs the `wandb` library; install it with: pip install 'jaxrl[wandb]', or set track.wandb to null")
    rows = {}
    for stage in config.stages:
        if isinstance(stage, SFTStage):
            rows[stage.name] = _check_sft(config, stage, tokenizer, model, mesh)
        elif isinstance(stage, RLStage):
            _check_grpo(stage, tokenizer, model, mesh)
        else:
            _check_eval(stage, tokenizer, model)
    return rows


def _check_sft(config: Config, stage: SFTStage, tokenizer, model: ModelConfig, mesh: Mesh) -> tuple[Rows, Rows | None]:
    microbatch = stage.rows_per_piece
    if stage.rows % microbatch:
        raise InputError(f"stage {stage.name}: rows={stage.rows} is not a multiple of microbatch={microbatch}")
    check_rows(microbatch, mesh, f"stage {stage.name}: microbatch (or rows)")
    train, val = load_rows(stage, tokenizer, config.seed)
    longest = max(int(rows.positions.max()) + 1 for rows in (train, val) if rows is not None)
    if longest > model.max_positions:
        raise InputError(f"stage {stage.name}: an example has {longest} tokens, more than the model's {model.max_positions} positions; shorten it")
    return train, val


def _check_grpo(stage: GRPOStage, tokenizer, model: ModelConfig, mesh: Mesh) -> None:
    check_rows(stage.algo.rows_per_piece, mesh, f"stage {stage.name}: algo.microbatch (or problems_per_batch * group_size)")
    problems = make_task(stage.task).problems("train")
    if not problems:
        raise InputError(f"stage {stage.name}: the task's train split is empty; set task.train")
    longest = _longest_prompt(stage, problems, tokenizer, model)
    if stage.seq_len is not None and longest + stage.sample.max_new_tokens > stage.seq_len:
        raise InputError(
            f"stage {stage.name}: the longest prompt ({longest} tokens) and sample.max_new_tokens={stage.sample.max_new_tokens} "
            f"do not fit a row of seq_len={stage.seq_len}; set it to at least {longest + stage.sample.max_new_tokens}"
        )


def _check_eval(stage: EvalStage, tokenizer, model: ModelConfig) -> None:
    task = make_task(stage.task)
    if stage.name in task.baselines():
        raise InputError(f"an eval stage cannot be named {stage.name!r}: a baseline's row has that name; choose another `name`")
    problems = choose_problems(task, stage)
    if not problems:
        raise InputError(f"stage {stage.name}: the task's {stage.split} split is empty; set task.{stage.split}")
    _longest_prompt(stage, problems, tokenizer, model)


def _longest_prompt(stage: GRPOStage | EvalStage, problems, tokenizer, model: ModelConfig) -> int:
    lengths = [len(render_for_sampling(tokenizer, problem.messages)) for problem in problems]
    for number, length in enumerate(lengths):
        check_prompt_length(number, length, stage.sample.max_prompt_tokens)
    if max(lengths) + stage.sample.max_new_tokens > model.max_positions:
        raise InputError(
            f"stage {stage.name}: the longest prompt ({max(lengths)} tokens) and sample.max_new_tokens={stage.sample.max_new_tokens} "
            f"are more than the model's {model.max_positions} positions; lower sample.max_new_tokens"
        )
    return max(lengths)
