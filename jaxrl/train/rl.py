"""Policy gradients, GRPO's family and PPO, from problems to updated adapters: read it from top to bottom.

    problems -> G samples each -> verdicts -> rewards -> advantages -> packed minibatches -> updates

The two differ in how credit is given (`rollout/credit.py`) and in the critic's part of the loss
(`update/objective.py`). Axes: P problems, G completions of each, N = P * G of them.
"""

import itertools
import time
import zlib
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl.config.algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.config.experiment import RLStage
from jaxrl.data.packing import stream_at
from jaxrl.device.mesh import shard_batch
from jaxrl.interrupt import Interrupted
from jaxrl.model.value_head import init_value_head
from jaxrl.ops.kl import adapt_kl_coef
from jaxrl.policy.hand_over import PolicyWeights, enter_stage
from jaxrl.rollout.collate import collate
from jaxrl.rollout.collect import collect, open_pool
from jaxrl.rollout.credit import has_spread, verified_parts, verified_rewards
from jaxrl.rollout.curriculum import SuccessRates, choose
from jaxrl.rollout.gather import gather
from jaxrl.rollout.metrics import rollout_metrics, speed
from jaxrl.rollout.replay import ReplayBuffer
from jaxrl.sample.engine import Engine
from jaxrl.sample.sets import set_bytes
from jaxrl.tasks import make_task
from jaxrl.track.logger import sample_row
from jaxrl.train.alarms import find_alarms
from jaxrl.train.experience import Scorers, fields_of, give_credit, minibatches
from jaxrl.train.loop import FinitenessGuard, begin_stage, report_step
from jaxrl.train.memory_plan import fit_to_memory
from jaxrl.train.stage import ADAPTERS, CRITIC, DROPOUT, SAMPLING, Run
from jaxrl.train.timeline import Timeline
from jaxrl.types import Group, Problem, Tree
from jaxrl.update.checkpoint import Checkpoints
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import (
    TrainState,
    abstract_state,
    make_actor_critic_optimizer,
    make_optimizer,
    make_schedule,
    place_state,
    policy_part,
)
from jaxrl.update.step import make_critic_fn, make_grpo_step, make_ppo_step, make_score_fn

DRAW, REPLAY, ORDER = range(1, 4)  # the purposes of host seeds; from 1, since NumPy does not see a trailing 0


@dataclass
class Progress:
    """What a stage has to know to go on, beside its train state. Saved with every checkpoint.

    rounds: calls of the sampler, each with noise of its own. drawn: problems taken from the stream so far.
    kl_coef: the one in force; it moves with `kl_target`.
    """

    kl_coef: float
    replay: ReplayBuffer | None
    batches: int = 0
    rounds: int = 0
    drawn: int = 0
    rates: SuccessRates = field(default_factory=SuccessRates)

    def meta(self) -> dict:
        """Plain JSON, from which `make_progress` makes an equal object."""
        replay = self.replay.state() if self.replay else []
        return {**vars(self), "rates": self.rates.state(), "replay": replay}


def make_progress(algo: PolicyGradientSection, meta: dict) -> Progress:
    """Progress at the start of a stage (meta is empty), or as it was saved."""
    replay = None
    if algo.replay:
        # Without a critic the advantage of its own time is all that an off-policy sample teaches.
        is_bare = isinstance(algo, GRPOSection) and algo.replay.use == "off_policy"
        replay = ReplayBuffer(
            algo.replay.per_problem, algo.replay.capacity, meta.get("replay", ()), needs_advantage=is_bare
        )
    start = {"kl_coef": algo.kl_coef, "rates": {}, **meta, "replay": replay}
    return Progress(**{**start, "rates": SuccessRates(start["rates"])})


def rl(run: Run, stage: RLStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """Run (or take up again) a GRPO or PPO stage.

    Args:
      index: the stage's place in the config; its checkpoints are in `checkpoints/<index>_<name>`.
      weights: what the stage before left.
    Returns:
      The weights after the last update, without the critic.
    """
    algo, steps, sample = stage.algo, stage.steps, stage.sample
    seq_len = stage.row_tokens
    microbatch = stage_microbatch(stage, run.mesh)
    task = make_task(stage.task)
    problems = task.problems("train")

    # ------------------------------------------------------------------------------------ model and optimiser
    weights = enter_stage(weights, stage.lora, run.config.model.dtype, run.mesh, run.key(index, ADAPTERS))
    weights = fit_to_memory(run.config.model.remat, stage, weights, run.mesh)
    policy, frozen = weights.policy, weights.frozen
    score = make_score_fn(policy, run.mesh, sample.temperature)
    if isinstance(algo, PPOSection):
        critic = make_critic(algo, policy.config.d_model, weights.trainable, run.key(index, CRITIC))
        tx = make_actor_critic_optimizer(stage.optim, algo, steps * algo.num_updates)
        make_step, score_sampled = make_ppo_step, make_critic_fn(policy, run.mesh, sample.temperature)
    else:
        critic, tx = {}, make_optimizer(stage.optim, steps * algo.num_updates)
        make_step, score_sampled = make_grpo_step, score
    schedule = make_schedule(stage.optim, steps * algo.num_updates, algo.num_held)
    made_of = (
        weights.trainable | critic,
        tx,
        run.key(index, DROPOUT),
        run.mesh,
        make_reference(algo, weights.trainable),
    )
    abstract = abstract_state(*made_of)
    update = make_step(policy, tx, algo, sample, abstract, run.mesh)
    timeline = Timeline()
    excluded = set_bytes(sample, policy.config.vocab_size)
    scorers = Scorers(run.mesh, seq_len, algo, frozen, score_sampled, score, timeline, excluded)
    engine = Engine(
        policy,
        sample,
        run.eos_ids,
        run.tokenizer.decode,
        run.mesh,
        algo.problems_per_batch,
        algo.group_size,
        records=True,
    )

    with (
        Checkpoints(
            run.folder / "checkpoints" / f"{index}_{stage.name}", run.config.checkpoint.keep
        ) as checkpoints,
        open_pool(task, run.config.verify) as pool,
    ):
        # --------------------------------------------------------------------------------------------- resume
        state, meta = checkpoints.restore_latest(abstract) or (
            place_state(*made_of),
            {"progress": {}, "skipped": 0},
        )
        progress, guard = make_progress(algo, meta["progress"]), FinitenessGuard(stage.name, meta["skipped"])
        if progress.batches < steps:
            begin_stage(run, stage, progress.batches, steps, weights)
        told = set()

        def sample_groups(count: int) -> list[Group]:
            """The groups of the next `count` problems, each call with noise of its own."""
            chosen = choose_problems(algo, problems, progress, count, run.config.seed, index)
            key = run.key(index, SAMPLING, progress.rounds)
            progress.rounds, progress.drawn = progress.rounds + 1, progress.drawn + count
            return collect(
                engine,
                pool,
                run.tokenizer,
                chosen,
                algo.group_size,
                policy_part(state.trainable),
                frozen,
                key,
                progress.batches,
            )

        while progress.batches < steps:
            timeline.begin()
            # ------------------------------------------------------------------------------------- experience
            if isinstance(algo, PPOSection) or algo.dynamic_sampling is None:
                groups = sampled = sample_groups(algo.problems_per_batch)
            else:
                spreads = partial(group_has_spread, algo)
                groups, sampled = gather(
                    sample_groups, spreads, algo.problems_per_batch, algo.dynamic_sampling
                )
            engine.release()  # scores and updates need the memory
            progress.rates.update(sampled)
            collect_s = time.perf_counter() - timeline.started

            # ----------------------------------------------------------------------------------------- credit
            seed = (run.config.seed, index, progress.batches)
            # of a batch that could not be filled as much is replayed
            share = len(groups) / algo.problems_per_batch
            replayed = []
            if progress.replay is not None:
                replayed = progress.replay.draw(
                    round(share * algo.replayed_per_batch), progress.rates, (REPLAY, *seed)
                )
            experience = give_credit(
                groups, replayed, scorers, state, progress.kl_coef, sample.max_new_tokens
            )
            if progress.replay is not None:
                progress.replay.add(groups, experience.advantages_P_G, progress.rates)

            # ---------------------------------------------------------------------------------------- updates
            updates, running = [], None
            for samples in minibatches(experience, algo, (ORDER, *seed)):
                # laid out while the device works on the update before
                batch = collate(samples, algo.rows_per_update, seq_len, microbatch, fields_of(algo), excluded)
                updates += finish(running, timeline, guard)
                began = time.perf_counter()
                state, metrics = update(state, frozen, shard_batch(batch, run.mesh))
                running = (metrics, began)
            updates += finish(running, timeline, guard)
            progress.batches += 1
            if (
                isinstance(algo, PPOSection)
                and algo.kl_target is not None
                and progress.batches > algo.critic_warmup
            ):
                num_sequences = algo.problems_per_batch * algo.group_size
                progress.kl_coef = adapt_kl_coef(
                    progress.kl_coef,
                    experience.metrics["kl/ref"],
                    algo.kl_target,
                    algo.kl_horizon,
                    num_sequences,
                )
            if algo.reference_every and progress.batches % algo.reference_every == 0:
                state = renew_reference(state)

            # ---------------------------------------------------------------------------------- tell and keep
            step = progress.batches
            times = timeline.metrics(engine.take_times())
            metrics = (
                rollout_metrics(sampled)
                | pool.take_times()
                | experience.metrics
                | over_updates(updates, algo.old_logprobs)
            )
            metrics |= {
                "groups/used": len(groups),
                "groups/dropped": len(sampled) - len(groups),
                "replay/size": len(progress.replay) if progress.replay is not None else 0,
                "replay/used": len(replayed),
                "learning_rate": float(schedule(max(0, int(state.step) - 1))),
                **speed(sampled, collect_s, times["time/step_s"]),
                **times,
                "batch_hash": zlib.crc32(
                    repr([t.completion.completion_ids for g in sampled for t in g.trajectories]).encode()
                ),
            }
            report_step(run, stage, step, metrics)
            for kind, sentence in find_alarms(metrics).items():
                if kind not in told:
                    run.console.warn(f"{stage.name}, step {step}: {sentence}")
                    told.add(kind)
            kept = samples_to_keep(groups, experience.advantages_P_G, run.config.track.samples_per_step)
            run.logger.log_samples(stage.name, step, kept)
            stops = run.interrupt.requested and step < steps
            if stops or step == steps or step % run.config.checkpoint.every == 0:
                checkpoints.save(step, state, {"progress": progress.meta(), "skipped": guard.skipped})
            if stops:
                raise Interrupted
        guard.check_end()
    return PolicyWeights(policy, policy_part(state.trainable), frozen, weights.is_new_base)


def choose_problems(
    algo: PolicyGradientSection,
    problems: list[Problem],
    progress: Progress,
    count: int,
    seed: int,
    index: int,
) -> list[Problem]:
    """The next problems: of the stream in which each comes once an epoch, or by their recent success
    rates.
    """
    if algo.curriculum == "success_rate":
        indices = choose(
            [problem.uid for problem in problems], progress.rates, count, (DRAW, seed, index, progress.rounds)
        )
    else:
        indices = stream_at(len(problems), progress.drawn, count, seed)
    return [problems[i] for i in indices]


def make_critic(algo: PPOSection, d_model: int, trainable: Tree, key: Array) -> Tree:
    """Parameters of the critic: a fresh head, and where it has adapters of its own, those that the policy
    starts with.
    """
    head = {"value_head": init_value_head(key, d_model)}
    return head | ({"critic_lora": trainable["lora"]} if algo.critic == "separate" else {})


def group_has_spread(algo: GRPOSection, group: Group) -> bool:
    """Whether the verifier's rewards of a group differ (or, where they are learnt from, their parts), so that
    it teaches something; lengths alone do not count.
    """
    rewards, counts = verified_rewards([group], algo)
    if algo.advantage == "gdpo":
        parts, counts = verified_parts([group], counts, algo.part_weights)
        return any(has_spread(part, counts)[0] for part in parts)
    return bool(has_spread(rewards, counts)[0])


def make_reference(algo: PolicyGradientSection, trainable: Tree) -> Tree:
    """What the KL term measures from: the policy that the stage starts with, or the base, whose adapters do
    nothing.
    """
    if algo.kl_coef == 0:
        return {}
    return jax.tree.map(jnp.zeros_like, trainable) if algo.reference == "base" else trainable


@jax.jit
def _copy(tree: Tree) -> Tree:
    return jax.tree.map(jnp.copy, tree)


def renew_reference(state: TrainState) -> TrainState:
    """The state with the policy of this moment as its reference: a copy, since the state's arrays are
    consumed by updates.
    """
    return replace(state, reference=_copy(policy_part(state.trainable)))


def finish(
    running: tuple[dict[str, Array], float] | None, timeline: Timeline, guard: FinitenessGuard
) -> list[dict[str, float]]:
    """The metrics of an update that the device was given at some moment, in a list; an empty one where there
    is none.
    """
    if running is None:
        return []
    metrics, began = jax.device_get(running[0]), running[1]
    timeline.seconds["update"] += time.perf_counter() - began
    guard.check(metrics)
    return [metrics]


def over_updates(updates: list[dict[str, Array]], old_logprobs: str = "trainer") -> dict[str, float]:
    """The metrics of a batch's updates as one: the largest of the maxima, the sum of tokens and skips, of the
    others the mean over tokens. An update without fresh tokens (it only imitates) has none of these to tell;
    where the sampler's logprobs are the old ones, the first update alone knows how far they are from the
    trainer's.
    """
    if not updates:
        return {}
    telling = [u for u in updates if u["tokens"] > 0]
    metrics = {
        "skipped": float(sum(u["skipped"] for u in updates)),
        "tokens": float(sum(u["tokens"] for u in updates)),
    }
    for name in sorted(set(updates[0]) - set(metrics)):
        told = telling
        if old_logprobs == "sampler" and name.startswith("sampler_mismatch/"):
            told = [u for u in telling if u is updates[0]]
        if told:
            values = [u[name] for u in told]
            metrics[name] = float(
                max(values)
                if name.endswith("/max")
                else np.average(values, weights=[u["tokens"] for u in told])
            )
    return metrics


def samples_to_keep(groups: list[Group], advantages_P_G: np.ndarray, limit: int) -> list[dict]:
    """Rows of samples.jsonl: the first `limit` of a batch, group by group."""
    trajectories = (t for group in groups for t in group.trajectories)
    return [
        sample_row(t, float(a)) for t, a in itertools.islice(zip(trajectories, advantages_P_G.flat), limit)
    ]
