"""Supervised fine-tuning, from records to the best checkpoint: read it from top to bottom."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxrl.config.experiment import SFTStage
from jaxrl.data.chat import render_for_training
from jaxrl.data.packing import PackedRows, batch_at, num_steps, pack
from jaxrl.data.records import read_records, split_records
from jaxrl.device.arrays import fetch
from jaxrl.device.mesh import shard_batch
from jaxrl.errors import InputError
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.tasks.base import Task
from jaxrl.train.ahead import Ahead, Found
from jaxrl.train.finetune import as_batch, fine_tune
from jaxrl.train.stage import Run, StageRun, check_same_data, enter
from jaxrl.types import Message, Problem, Tree
from jaxrl.update.checkpoint import CheckpointCorrupt
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import TrainState, make_optimizer, make_schedule
from jaxrl.update.step import make_score_fn, make_sft_step


def sft(run: Run, stage: SFTStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """Run (or take up again) an SFT stage.

    Args:
      index: the stage's place in the config.
      weights: what the stage before left.
    Returns:
      The weights of the checkpoint with the lowest validation loss, or the last ones where nothing was held
      out.
    """
    # --------------------------------------------------------------------------------------- data and policy
    microbatch = stage_microbatch(stage, run.mesh)
    train_rows, val_rows = run.sft_rows[stage.name]
    check_same_data(stage.name, [rows for rows in (train_rows, val_rows) if rows is not None])
    steps = stage.steps or num_steps(len(train_rows), stage.rows, stage.epochs)
    weights = enter(run, stage, index, weights)
    policy, frozen = weights.policy, weights.frozen
    tx, schedule = make_optimizer(stage.optim, steps), make_schedule(stage.optim, steps)

    with StageRun(run, stage, index, weights, tx) as work:
        sft_step = make_sft_step(policy, tx, work.abstract, run.mesh)
        score = make_score_fn(policy, run.mesh)
        # --------------------------------------------------------------------------------------------- resume
        start = {"done": False, "best_step": None, "best_loss": None, "bad_evals": 0}
        state, meta = work.restore(start)
        step = int(state.step)
        if not meta["done"]:
            work.begin(step, steps)

        # ----------------------------------------------------------------------------------------------- loop
        while not meta["done"]:
            batch = batch_at(train_rows, stage.rows, run.config.seed, step)
            state, metrics = fine_tune(sft_step, state, frozen, batch, microbatch, run.mesh)
            step += 1
            work.guard.check(metrics)
            metrics["learning_rate"] = float(schedule(step - 1))

            is_last = step >= steps
            is_evaluated = val_rows is not None and (is_last or step % stage.eval_every == 0)
            if is_evaluated:
                loss = evaluate_loss(score, state, frozen, val_rows, microbatch, run.mesh)
                # exp of more than 700 is no float
                metrics |= {"val/loss": loss, "val/perplexity": math.exp(min(loss, 700))}
                meta = with_evaluation(meta, step, loss)
                is_last = is_last or (stage.patience is not None and meta["bad_evals"] >= stage.patience)
            meta = {**meta, "done": is_last}
            work.report(step, metrics)
            work.keep(step, state, meta, is_last, due=is_evaluated, best=meta["best_step"])

        # ----------------------------------------------------------------------------------------------- best
        work.guard.check_end()
        if val_rows is not None:
            state = best_state(work, state, meta["best_step"])
    return work.leave(state.trainable)


def with_evaluation(meta: dict[str, Any], step: int, loss: float) -> dict[str, Any]:
    """What the stage remembers of its evaluations, after one more; a NaN is never the best."""
    if loss < (math.inf if meta["best_loss"] is None else meta["best_loss"]):
        return {**meta, "best_step": step, "best_loss": loss, "bad_evals": 0}
    return {**meta, "bad_evals": meta["bad_evals"] + 1}


def best_state(work: StageRun, last: TrainState, best_step: int | None) -> TrainState:
    """The state with the lowest validation loss.

    Raises:
      InputError: no loss was a number, or the checkpoint is damaged.
    """
    if best_step is None:
        remedy = "lower optim.learning_rate or check the data"
        raise InputError(
            f"stage {work.stage.name} has diverged: no validation loss was a finite number; {remedy}"
        )
    if best_step == int(last.step):
        return last
    try:
        state, _ = work.checkpoints.restore(work.abstract, best_step)
    except CheckpointCorrupt as error:
        remedy = f"restore it, or delete {work.checkpoints.folder} to train the stage again"
        raise InputError(f"the best checkpoint cannot be used: {error}; {remedy}") from None
    return state


def evaluate_loss(
    score: Callable, state: TrainState, frozen: Tree, rows: PackedRows, microbatch: int, mesh: Mesh
) -> float:
    """Mean cross-entropy in nats over the completion tokens of all rows; exp of it is the perplexity."""
    batch = as_batch(rows, microbatch)
    logprobs = fetch(score(state.trainable, frozen, shard_batch(batch, mesh)))
    return float(-logprobs[batch.loss_mask].mean(dtype=np.float64))


# ------------------------------------------------------------------------------------------------------- data


def check_sft(ahead: Ahead, stage: SFTStage) -> Found:
    """The rows of the stage, and the problems that they show the answers of.

    Raises:
      InputError: records, lengths or a microbatch that do not fit.
    """
    ahead.check_microbatch(stage)
    records = read_records(stage.data) if stage.data is not None else None
    # a stage with records may have inherited a task, which it does not look at
    task = ahead.make_task(stage.task) if records is None and stage.task is not None else None
    config = ahead.config
    rows = pack_rows(stage, task, records, ahead.tokenizer, config.seed, config.model.training_template)
    longest = max(int(part.positions.max()) + 1 for part in rows if part is not None)
    if longest > ahead.model.max_positions:
        raise InputError(
            f"stage {stage.name}: an example has {longest} tokens, more than the model's"
            f" {ahead.model.max_positions} positions; shorten it"
        )
    if task is not None:
        learns = [p for p in task.problems("train") if task.demonstration(p) is not None]
    else:  # what comes before the first answer
        prompts = (tuple(itertools.takewhile(lambda m: m["role"] != "assistant", r)) for r in records)
        learns = [Problem(f"record {n}", prompt, {}) for n, prompt in enumerate(prompts, start=1)]
    return Found(learns=learns, rows=rows)


def pack_rows(
    stage: SFTStage,
    task: Task | None,
    records: list[list[Message]] | None,
    tokenizer: Any,
    seed: int,
    training_template: bool = True,
) -> tuple[PackedRows, PackedRows | None]:
    """Packed training and validation rows, from the records of `stage.data` or, without them, the task's
    demonstrations.

    Raises:
      InputError: nothing to train on; a record (its number is named) that the chat template does not render
        as training needs it.
    """
    if records is not None:
        train, val = split_records(records, stage.val_fraction, seed)
    elif task is not None:
        train, val = (_demonstrations(task, split) for split in ("train", "val"))
    else:
        raise InputError(
            f"stage {stage.name} has nothing to train on; set its `data`, or a `task` with demonstrations"
        )

    places = {id(record): f"record {number}" for number, record in enumerate(records or [], start=1)}

    def example(conversation: list[Message]) -> tuple[list[int], list[bool]]:
        try:
            return render_for_training(tokenizer, conversation, training_template)
        except InputError as error:
            place = places.get(id(conversation), "a demonstration")
            raise InputError(f"stage {stage.name}, {place}: {error}") from None

    def rows(conversations: Sequence[list[Message]]) -> PackedRows | None:
        if not conversations:
            return None
        return pack([example(c) for c in conversations], stage.seq_len, stage.packing)

    train_rows = rows(train)
    if train_rows is None:
        raise InputError(
            f"stage {stage.name}: the training split is empty; check its `data` or the task's sizes"
        )
    return train_rows, rows(val)


def _demonstrations(task: Task, split: str) -> list[list[Message]]:
    shown = [(problem, task.demonstration(problem)) for problem in task.problems(split)]
    return [
        [*problem.messages, Message(role="assistant", content=text)]
        for problem, text in shown
        if text is not None
    ]
