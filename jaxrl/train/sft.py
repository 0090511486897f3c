"""Supervised fine-tuning, from records to the best checkpoint: read it from top to bottom."""

import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from jaxrl.config.experiment import SFTStage
from jaxrl.data.chat import render_for_training
from jaxrl.data.packing import Rows, batch_at, num_steps, pack
from jaxrl.data.records import split_records
from jaxrl.device.mesh import shard_batch
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupted
from jaxrl.policy.hand_over import PolicyWeights, enter_stage
from jaxrl.rollout.collate import to_microbatches
from jaxrl.tasks.base import Task
from jaxrl.train.loop import FinitenessGuard, begin_stage, report_step
from jaxrl.train.memory_plan import fit_to_memory
from jaxrl.train.stage import ADAPTERS, DROPOUT, Run
from jaxrl.types import Message
from jaxrl.update.batch import SFTBatch
from jaxrl.update.checkpoint import CheckpointCorrupt, Checkpoints
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import TrainState, abstract_state, make_optimizer, make_schedule, place_state
from jaxrl.update.step import make_score_fn, make_sft_step


def sft(run: Run, stage: SFTStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """Run (or take up again) an SFT stage.

    Args:
      index: the stage's place in the config; its checkpoints are in `checkpoints/<index>_<name>`.
      weights: what the stage before left.
    Returns:
      The weights of the checkpoint with the lowest validation loss, or the last ones where nothing was held
      out.
    """
    # --------------------------------------------------------------------------------------------------- data
    microbatch = stage_microbatch(stage, run.mesh)
    train_rows, val_rows = run.sft_rows[stage.name]
    steps = stage.steps or num_steps(len(train_rows), stage.rows, stage.epochs)

    # ------------------------------------------------------------------------------------ model and optimiser
    weights = enter_stage(weights, stage.lora, run.config.model.dtype, run.mesh, run.key(index, ADAPTERS))
    weights = fit_to_memory(run.config.model.remat, stage, weights, run.mesh)
    policy, frozen = weights.policy, weights.frozen
    tx, schedule = make_optimizer(stage.optim, steps), make_schedule(stage.optim, steps)
    made_of = (weights.trainable, tx, run.key(index, DROPOUT), run.mesh)
    abstract = abstract_state(*made_of)
    sft_step = make_sft_step(policy, tx, abstract, run.mesh)
    score = make_score_fn(policy, run.mesh)

    with Checkpoints(
        run.folder / "checkpoints" / f"{index}_{stage.name}", run.config.checkpoint.keep
    ) as checkpoints:
        # --------------------------------------------------------------------------------------------- resume
        start = {"done": False, "best_step": None, "best_loss": None, "bad_evals": 0, "skipped": 0}
        state, meta = checkpoints.restore_latest(abstract) or (place_state(*made_of), start)
        step = int(state.step)
        if not meta["done"]:
            begin_stage(run, stage, step, steps, weights)
        guard = FinitenessGuard(stage.name, meta["skipped"])

        # ----------------------------------------------------------------------------------------------- loop
        while not meta["done"]:
            batch = batch_at(train_rows, stage.rows, run.config.seed, step)
            state, metrics = update(sft_step, state, frozen, batch, microbatch, run.mesh)
            step += 1
            guard.check(metrics)
            metrics["learning_rate"] = float(schedule(step - 1))

            is_last = step >= steps
            val_loss = None
            if val_rows is not None and (is_last or step % stage.eval_every == 0):
                val_loss = evaluate_loss(score, state, frozen, val_rows, microbatch, run.mesh)
                # of more is no float
                metrics |= {"val/loss": val_loss, "val/perplexity": math.exp(min(val_loss, 700))}
                # never so for NaN
                if val_loss < (math.inf if meta["best_loss"] is None else meta["best_loss"]):
                    meta = {**meta, "best_step": step, "best_loss": val_loss, "bad_evals": 0}
                else:
                    meta = {**meta, "bad_evals": meta["bad_evals"] + 1}
                is_last = is_last or (stage.patience is not None and meta["bad_evals"] >= stage.patience)
            meta = {**meta, "done": is_last, "skipped": guard.skipped}
            report_step(run, stage, step, metrics)
            stops = run.interrupt.requested and not is_last
            if is_last or stops or val_loss is not None or step % run.config.checkpoint.every == 0:
                checkpoints.save(step, state, meta, best=meta["best_step"])
            if stops:
                raise Interrupted

        # ----------------------------------------------------------------------------------------------- best
        guard.check_end()
        if val_rows is not None and meta["best_step"] is None:
            remedy = "lower optim.learning_rate or check the data"
            raise InputError(
                f"stage {stage.name} has diverged: no validation loss was a finite number; {remedy}"
            )
        if meta["best_step"] not in (None, step):
            try:
                state, _ = checkpoints.restore(abstract, meta["best_step"])
            except CheckpointCorrupt as error:
                remedy = f"restore it, or delete {checkpoints.folder} to train the stage again"
                raise InputError(f"the best checkpoint cannot be used: {error}; {remedy}") from None
    return PolicyWeights(policy, state.trainable, frozen, weights.is_new_base)


def load_rows(
    stage: SFTStage,
    task: Task | None,
    records: list[list[Message]] | None,
    tokenizer,
    seed: int,
    training_template: bool = True,
) -> tuple[Rows, Rows | None]:
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

    def example(conversation: list[Message]) -> tuple[list[int], list[bool]]:
        try:
            return render_for_training(tokenizer, conversation, training_template)
        except InputError as error:
            number = f"record {records.index(conversation) + 1}" if records is not None else "a demonstration"
            raise InputError(f"stage {stage.name}, {number}: {error}") from None

    def rows(conversations: Sequence[list[Message]]) -> Rows | None:
        if not conversations:
            return None
        return pack([example(c) for c in conversations], stage.seq_len, stage.packing)

    train_rows = rows(train)
    if train_rows is None:
        raise InputError(
            f"stage {stage.name}: the training split is empty; check its `data` or the task's sizes"
        )
    return train_rows, rows(val)


def update(
    sft_step, state: TrainState, frozen: dict, rows: Rows, microbatch: int, mesh
) -> tuple[TrainState, dict[str, float]]:
    """One optimiser step on these rows, and its metrics; the state given is consumed."""
    started = time.perf_counter()
    batch = as_batch(rows, microbatch)
    state, metrics = sft_step(state, frozen, shard_batch(batch, mesh))
    metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
    elapsed = time.perf_counter() - started
    return state, metrics | {
        "time/step_s": elapsed,
        "train/tokens_per_s": int((batch.segment_ids > 0).sum()) / elapsed,
    }


def as_batch(rows: Rows, microbatch: int) -> SFTBatch:
    """Rows [R, T] as a batch of M = ceil(R / microbatch) microbatches, all of them to be run."""
    M = -(-len(rows) // microbatch)
    fields = {name: to_microbatches(x, M, microbatch) for name, x in vars(rows).items()}
    return SFTBatch(num_microbatches=np.int32(M), **fields)


def evaluate_loss(score, state: TrainState, frozen: dict, rows: Rows, microbatch: int, mesh) -> float:
    """Mean cross-entropy in nats over the completion tokens of all rows; exp of it is the perplexity."""
    batch = as_batch(rows, microbatch)
    logprobs = jax.device_get(score(state.trainable, frozen, shard_batch(batch, mesh)))
    return float(-logprobs[batch.loss_mask].mean(dtype=np.float64))


def _demonstrations(task: Task, split: str) -> list[list[Message]]:
    shown = [(problem, task.demonstration(problem)) for problem in task.problems(split)]
    return [
        [*problem.messages, Message(role="assistant", content=text)]
        for problem, text in shown
        if text is not None
    ]
