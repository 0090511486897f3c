"""Group-relative policy optimisation, from problems to updated adapters: read it from top to bottom.

    problems -> G samples each -> verdicts -> advantages -> packed batch -> update

Axes: P problems, G completions of each.
"""

import dataclasses
import time
import zlib

import jax
import numpy as np

from jaxrl.checkpoint import Checkpoints, abstract_like
from jaxrl.config import GRPOStage
from jaxrl.data.packing import indices_at
from jaxrl.interrupt import Interrupted
from jaxrl.ops.advantages import ADVANTAGES
from jaxrl.rollout.collate import collate
from jaxrl.rollout.collect import collect
from jaxrl.sample.engine import Engine
from jaxrl.sharding import shard_batch
from jaxrl.tasks import make_task
from jaxrl.track.logger import sample_row
from jaxrl.train.loop import FinitenessGuard, begin_stage, report_step
from jaxrl.train.setup import ADAPTERS, DROPOUT, SAMPLING, Run, Weights, enter_stage
from jaxrl.train.state import make_optimizer, make_schedule, place_state
from jaxrl.train.step import make_grpo_step, make_score_fn
from jaxrl.types import Group, StopReason
from jaxrl.verify.pool import VerifierPool


def grpo(run: Run, stage: GRPOStage, index: int, weights: Weights) -> Weights:
    """Run (or take up again) a GRPO stage; the reference of its KL term is the policy that it starts from.

    Args:
      index: the stage's place in the config; its checkpoints are in `checkpoints/<index>_<name>`.
      weights: what the stage before left.
    Returns:
      The weights after the last update.
    """
    algo, steps = stage.algo, stage.steps
    P, G = algo.problems_per_batch, algo.group_size
    microbatch = algo.rows_per_piece
    seq_len = stage.seq_len or stage.sample.max_prompt_tokens + stage.sample.max_new_tokens

    # -------------------------------------------------------------------------------------------------------- task
    task = make_task(stage.task)
    problems = task.problems("train")

    # ------------------------------------------------------------------------------------------- model and optimiser
    weights = enter_stage(weights, stage.lora, run.config.model.dtype, run.mesh, run.key(index, ADAPTERS))
    policy, frozen, reference = weights.policy, weights.frozen, weights.trainable
    tx = make_optimizer(stage.optim, steps * algo.updates_per_batch)
    schedule = make_schedule(stage.optim, steps * algo.updates_per_batch)
    state = place_state(weights.trainable, tx, run.key(index, DROPOUT), run.mesh)
    temperature = stage.sample.temperature
    grpo_step = make_grpo_step(policy, tx, algo, temperature, state, run.mesh)
    score = make_score_fn(policy, run.mesh, temperature)
    engine = Engine(policy, stage.sample, run.eos_ids, run.tokenizer.decode, run.mesh)

    folder = run.folder / "checkpoints" / f"{index}_{stage.name}"
    verify = run.config.verify
    with (
        Checkpoints(folder, run.config.checkpoint.keep) as checkpoints,
        VerifierPool(task.verify, verify.workers, verify.timeout_s, task.failure_reward) as pool,
    ):
        # ---------------------------------------------------------------------------------------------------- resume
        restored = checkpoints.restore_latest(abstract_like(state))
        state, meta = restored or (state, {"batches": 0})
        step = meta["batches"]
        if step < steps:
            begin_stage(run, stage, step, steps, weights)
        guard = FinitenessGuard(stage.name)

        while step < steps:
            started = time.perf_counter()
            # ------------------------------------------------------------------------------------------- experience
            chosen = indices_at(len(problems), P, run.config.seed, step)
            groups = collect(
                engine, pool, run.tokenizer, [problems[i] for i in chosen], G,
                state.trainable, frozen, run.key(index, SAMPLING, step), policy_version=step,
            )  # fmt: skip
            rewards_P_G = np.array([[t.verdict.reward for t in group.trajectories] for group in groups], np.float32)
            advantages_P_G = np.asarray(ADVANTAGES[algo.advantage](rewards_P_G))
            collected = time.perf_counter()

            # ---------------------------------------------------------------------------------------------- update
            trajectories = [t for group in groups for t in group.trajectories]
            order = np.random.default_rng([run.config.seed, index, step]).permutation(P * G)
            batches = []
            for rows in np.split(order, algo.updates_per_batch):
                advantages = advantages_P_G.reshape(-1)[rows].tolist()
                batch = shard_batch(collate([trajectories[i] for i in rows], advantages, seq_len, microbatch), run.mesh)
                if algo.updates_per_batch > 1:  # before the first update: later ones no longer hold the sampling policy
                    batch = dataclasses.replace(batch, old_logprobs=score(state.trainable, frozen, batch))
                if algo.kl_coef > 0:
                    batch = dataclasses.replace(batch, ref_logprobs=score(reference, frozen, batch))
                batches.append(batch)
            updates = []
            for batch in batches:
                state, metrics = grpo_step(state, frozen, batch)
                updates.append(jax.device_get(metrics))
                guard.check(updates[-1])
            step += 1

            # ------------------------------------------------------------------------------------------- tell and keep
            elapsed = time.perf_counter() - started
            metrics = {name: float((np.max if name.endswith("/max") else np.mean)([u[name] for u in updates])) for name in updates[0]}
            metrics |= rollout_metrics(groups, rewards_P_G) | {
                "learning_rate": float(schedule(step * algo.updates_per_batch - 1)),
                "sample/tokens_per_s": sum(len(t.completion.completion_ids) for t in trajectories) / (collected - started),
                "train/tokens_per_s": sum(len(t.completion.prompt_ids + t.completion.completion_ids) for t in trajectories) / elapsed,
                "time/collect_s": collected - started,
                "time/step_s": elapsed,
                "verify/timeouts": pool.counts["timeouts"],
                "verify/crashes": pool.counts["crashes"],
                "batch_hash": zlib.crc32(repr([t.completion.completion_ids for t in trajectories]).encode()),
            }
            report_step(run, stage, step, metrics)
            run.logger.log_samples(stage.name, step, samples_to_keep(groups, advantages_P_G, run.config.track.samples_per_step))
            stops = run.interrupt.requested and step < steps
            if stops or step == steps or step % run.config.checkpoint.every == 0:
                checkpoints.save(step, state, {"batches": step})
            if stops:
                raise Interrupted
    return Weights(policy, state.trainable, frozen, weights.is_new_base)


def rollout_metrics(groups: list[Group], rewards_P_G: np.ndarray) -> dict[str, float]:
    """Means over the batch of what the verifier and the sampler said."""
    trajectories = [t for group in groups for t in group.trajectories]
    lengths = [len(t.completion.completion_ids) for t in trajectories]
    parts = {name for t in trajectories for name in t.verdict.parts}

    def mean(values) -> float:
        return float(np.mean(list(values)))

    return {
        "reward/mean": float(rewards_P_G.mean()),
        "reward/std": float(rewards_P_G.std()),
        "reward/flat_groups": mean(rewards_P_G.max(axis=1) == rewards_P_G.min(axis=1)),
        **{f"reward/{name}": mean(t.verdict.parts[name] for t in trajectories if name in t.verdict.parts) for name in sorted(parts)},
        "sample/accuracy": mean(t.verdict.correct for t in trajectories),
        "sample/format_rate": mean(t.verdict.format_ok for t in trajectories),
        "sample/length_mean": mean(lengths),
        "sample/truncated": mean(t.completion.stop_reason is StopReason.MAX_TOKENS for t in trajectories),
    }


def samples_to_keep(groups: list[Group], advantages_P_G: np.ndarray, limit: int) -> list[dict]:
    """Rows of samples.jsonl: the first `limit` trajectories of a batch, group by group."""
    rows = [
        sample_row(trajectory, float(advantage))
        for group, advantages in zip(groups, advantages_P_G)
        for trajectory, advantage in zip(group.trajectories, advantages)
    ]
    return rows[:limit]
