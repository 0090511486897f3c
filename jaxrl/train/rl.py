"""Policy gradients, GRPO's family and PPO, from problems to updated adapters: read it from top to bottom.

    problems -> G samples each -> verdicts -> rewards -> advantages -> packed minibatches -> updates

The two differ in how credit is given (`rollout/credit.py`) and in the critic's part of the loss
(`update/objective.py`). Axes: P problems, G completions of each, N = P * G of them.
"""

import itertools
import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxrl.config.algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.config.experiment import RLStage
from jaxrl.data.chat import takes_back_thoughts
from jaxrl.data.packing import stream_at
from jaxrl.device.arrays import fetch
from jaxrl.device.mesh import check_rows, shard_batch
from jaxrl.envs.asked import WorldTask
from jaxrl.model.value_head import init_value_head
from jaxrl.ops.kl import adapt_kl_coef
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.rollout.collate import collate
from jaxrl.rollout.collect import collect, open_pool
from jaxrl.rollout.credit import has_spread, verified_parts, verified_rewards
from jaxrl.rollout.curriculum import SuccessRates, choose
from jaxrl.rollout.gather import gather
from jaxrl.rollout.metrics import rollout_metrics, speed
from jaxrl.rollout.replay import ReplayBuffer
from jaxrl.sample.engine import Engine
from jaxrl.sample.sets import set_bytes
from jaxrl.track.logger import sample_row
from jaxrl.train.ahead import Ahead, Found
from jaxrl.train.experience import Experience, Scorers, fields_of, give_credit, minibatches
from jaxrl.train.memory_plan import check_excluded
from jaxrl.train.stage import CRITIC, SAMPLING, FinitenessGuard, Run, StageRun, check_same_data, enter
from jaxrl.train.timeline import Timeline
from jaxrl.types import Group, Problem, Tree
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import (
    TrainState,
    make_actor_critic_optimizer,
    make_optimizer,
    make_schedule,
    policy_part,
)
from jaxrl.update.step import make_critic_fn, make_grpo_step, make_ppo_step, make_score_fn

log = logging.getLogger(__name__)
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
      index: the stage's place in the config.
      weights: what the stage before left.
    Returns:
      The weights after the last update, without the critic.
    """
    # --------------------------------------------------------------------------------------- task and policy
    algo, steps, sample = stage.algo, stage.steps, stage.sample
    task = run.make_task(stage.task)
    problems = task.problems("train")
    check_same_data(stage.name, problems)
    weights = enter(run, stage, index, weights)
    policy, frozen = weights.policy, weights.frozen
    learner = make_learner(run, stage, index, weights)
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
    reference = make_reference(algo, weights.trainable)

    with (
        StageRun(run, stage, index, weights, learner.tx, learner.critic, reference) as work,
        open_pool(task, run.config.verify) as pool,
    ):
        update = learner.make_step(policy, learner.tx, algo, sample, work.abstract, run.mesh)
        # --------------------------------------------------------------------------------------------- resume
        state, meta = work.restore({"progress": {}})
        progress = make_progress(algo, meta["progress"])
        if progress.batches < steps:
            work.begin(progress.batches, steps)

        def sample_groups(count: int) -> list[Group]:
            """The groups of the next `count` problems, each call with noise of its own."""
            chosen = next_problems(algo, problems, progress, count, run.config.seed, index)
            key, version = run.key(index, SAMPLING, progress.rounds), progress.batches
            progress.rounds, progress.drawn = progress.rounds + 1, progress.drawn + count
            trainable = policy_part(state.trainable)
            arguments = engine, pool, run.tokenizer, chosen, algo.group_size, trainable, frozen, key, version
            return collect(*arguments, context=stage.row_tokens, rows=algo.rows_per_episode)

        while progress.batches < steps:
            learner.timeline.begin()
            # ----------------------------------------------------------------------------- experience, credit
            groups, sampled = fill_batch(algo, sample_groups)
            engine.release()  # scores and updates need the memory
            collect_s = time.perf_counter() - learner.timeline.started
            seed = (run.config.seed, index, progress.batches)
            experience = credit(groups, sampled, learner, state, progress, seed)

            # ---------------------------------------------------------------------------------------- updates
            state, updates = learn(update, state, frozen, experience, learner, work.guard, seed)
            progress.batches += 1
            state = move_targets(algo, state, progress, experience)

            # ---------------------------------------------------------------------------------- tell and keep
            step, times = progress.batches, learner.timeline.metrics(engine.take_times())
            metrics = rollout_metrics(sampled) | pool.take_times() | experience.metrics
            metrics |= over_updates(updates, algo.old_logprobs) | batch_metrics(groups, sampled, progress)
            metrics |= {
                "replay/used": len(experience.replayed),
                "learning_rate": float(learner.schedule(max(0, int(state.step) - 1))),
                **speed(sampled, collect_s, times["time/step_s"]),
                **times,
            }
            work.report(step, metrics)
            kept = samples_to_keep(groups, experience.advantages_P_G, run.config.track.samples_per_step)
            run.logger.log_samples(stage.name, step, kept)
            work.keep(step, state, {"progress": progress.meta()}, is_last=step == steps)
        work.guard.check_end()
    return work.leave(policy_part(state.trainable))


@dataclass(frozen=True)
class Learner:
    """What turns experience into updates: the critic's fresh parameters ({} without one), the optimiser and
    its schedule, the scorers.
    """

    stage: RLStage
    microbatch: int
    critic: Tree
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    make_step: Callable
    scorers: Scorers

    @property
    def timeline(self) -> Timeline:
        """Where the time of a step goes."""
        return self.scorers.timeline


def make_learner(run: Run, stage: RLStage, index: int, weights: PolicyWeights) -> Learner:
    """The learner of a stage, with a critic for PPO and without one for GRPO."""
    algo, policy, temperature = stage.algo, weights.policy, stage.sample.temperature
    num_updates = stage.steps * algo.num_updates
    score = make_score_fn(policy, run.mesh, temperature)
    if isinstance(algo, PPOSection):
        critic = make_critic(algo, policy.config.d_model, weights.trainable, run.key(index, CRITIC))
        tx = make_actor_critic_optimizer(stage.optim, algo, num_updates)
        make_step, score_sampled = make_ppo_step, make_critic_fn(policy, run.mesh, temperature)
    else:
        critic, tx = {}, make_optimizer(stage.optim, num_updates)
        make_step, score_sampled = make_grpo_step, score
    excluded = set_bytes(stage.sample, policy.config.vocab_size)
    scorers = Scorers(
        run.mesh, stage.row_tokens, algo, weights.frozen, score_sampled, score, set_bytes=excluded
    )
    schedule = make_schedule(stage.optim, num_updates, algo.num_held)
    return Learner(stage, stage_microbatch(stage, run.mesh), critic, tx, schedule, make_step, scorers)


def fill_batch(
    algo: PolicyGradientSection, sample_groups: Callable[[int], list[Group]]
) -> tuple[list[Group], list[Group]]:
    """(the groups of a batch, all that were sampled for it): with dynamic sampling, groups that teach nothing
    are replaced.
    """
    if isinstance(algo, PPOSection) or algo.dynamic_sampling is None:
        groups = sample_groups(algo.problems_per_batch)
        return groups, groups
    teaches = partial(group_has_spread, algo)
    return gather(sample_groups, teaches, algo.problems_per_batch, algo.dynamic_sampling)


def credit(
    groups: list[Group],
    sampled: list[Group],
    learner: Learner,
    state: TrainState,
    progress: Progress,
    seed: tuple[int, ...],
) -> Experience:
    """A batch with its advantages, and what is replayed beside it; the buffer takes the batch in."""
    algo, buffer = learner.stage.algo, progress.replay
    progress.rates.update(sampled)
    replayed = []
    if buffer is not None:
        share = len(groups) / algo.problems_per_batch  # of a batch that was not filled, as much is replayed
        replayed = buffer.draw(round(share * algo.replayed_per_batch), progress.rates, (REPLAY, *seed))
    max_new_tokens = learner.stage.sample.max_new_tokens
    experience = give_credit(groups, replayed, learner.scorers, state, progress.kl_coef, max_new_tokens)
    if buffer is not None:
        buffer.add(groups, experience.advantages_P_G, progress.rates)
    return experience


def learn(
    update: Callable,
    state: TrainState,
    frozen: Tree,
    experience: Experience,
    learner: Learner,
    guard: FinitenessGuard,
    seed: tuple[int, ...],
) -> tuple[TrainState, list[dict[str, Array]]]:
    """All updates of a batch, and the metrics of each; the state given is consumed."""
    scorers, rows = learner.scorers, learner.stage.algo.rows_per_update
    updates: list[dict[str, Array]] = []

    def finish(metrics: dict[str, Array], began: float) -> None:
        metrics = fetch(metrics)
        learner.timeline.seconds["update"] += time.perf_counter() - began
        guard.check(metrics)
        updates.append(metrics)

    running = None
    for samples in minibatches(experience, scorers.algo, (ORDER, *seed)):
        # laid out while the device works on the update before
        batch = collate(
            samples, rows, scorers.seq_len, learner.microbatch, fields_of(scorers.algo), scorers.set_bytes
        )
        if running is not None:
            finish(*running)
        began = time.perf_counter()
        state, metrics = update(state, frozen, shard_batch(batch, scorers.mesh))
        running = metrics, began
    if running is not None:
        finish(*running)
    return state, updates


def move_targets(
    algo: PolicyGradientSection, state: TrainState, progress: Progress, experience: Experience
) -> TrainState:
    """After a batch: the KL coefficient that follows `kl_target`, the reference that follows the policy."""
    step = progress.batches
    if isinstance(algo, PPOSection) and algo.kl_target is not None and step > algo.critic_warmup:
        num_sequences = algo.problems_per_batch * algo.group_size
        measured = experience.metrics["kl/ref"]
        progress.kl_coef = adapt_kl_coef(
            progress.kl_coef, measured, algo.kl_target, algo.kl_horizon, num_sequences
        )
    if algo.reference_every and step % algo.reference_every == 0:
        state = renew_reference(state)
    return state


def batch_metrics(groups: list[Group], sampled: list[Group], progress: Progress) -> dict[str, float]:
    """How many groups were used, how full the buffer is, and a hash of all tokens, which two equal runs
    share.
    """
    ids = [t.completion_ids for group in sampled for t in group.trajectories]
    return {
        "groups/used": len(groups),
        "groups/dropped": len(sampled) - len(groups),
        "replay/size": len(progress.replay) if progress.replay is not None else 0,
        "batch_hash": zlib.crc32(repr(ids).encode()),
    }


def next_problems(
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


def over_updates(updates: list[dict[str, Array]], old_logprobs: str = "trainer") -> dict[str, float]:
    """The metrics of a batch's updates as one: the largest of the maxima, the sum of tokens and skips, of the
    others the mean over tokens. An update without fresh tokens (it only imitates) has none of these to tell;
    where the sampler's logprobs are the old ones, the first update alone knows how far they are from the
    trainer's.
    """
    if not updates:
        return {}
    with_tokens = [u for u in updates if u["tokens"] > 0]
    metrics = {
        "skipped": float(sum(u["skipped"] for u in updates)),
        "tokens": float(sum(u["tokens"] for u in updates)),
    }
    for name in sorted(set(updates[0]) - set(metrics)):
        known = with_tokens
        if old_logprobs == "sampler" and name.startswith("sampler_mismatch/"):
            known = [u for u in with_tokens if u is updates[0]]
        if known:
            values = [u[name] for u in known]
            metrics[name] = float(
                max(values)
                if name.endswith("/max")
                else np.average(values, weights=[u["tokens"] for u in known])
            )
    return metrics


def samples_to_keep(groups: list[Group], advantages_P_G: np.ndarray, limit: int) -> list[dict]:
    """Rows of samples.jsonl: the first `limit` of a batch, group by group."""
    trajectories = (t for group in groups for t in group.trajectories)
    return [
        sample_row(t, float(a)) for t, a in itertools.islice(zip(trajectories, advantages_P_G.flat), limit)
    ]


def check_rl(ahead: Ahead, stage: RLStage) -> Found:
    """The problems that the stage learns.

    Raises:
      InputError: problems, lengths, rows or filters that do not fit.
    """
    rows = stage_microbatch(stage, ahead.mesh)
    setting = f"stage {stage.name}: algo.microbatch (or problems_per_batch * group_size)"
    check_rows(rows, ahead.mesh, setting)
    check_excluded(stage, ahead.model.vocab_size, ahead.mesh)
    task = ahead.make_task(stage.task)
    has_one_row = isinstance(task, WorldTask) and stage.algo.rows_per_episode == 1
    if has_one_row and takes_back_thoughts(ahead.tokenizer):
        log.warning(
            "%s: the chat template takes back the thoughts of earlier turns, and a turn that then begins "
            "another row ends its episode (context_full); set algo.rows_per_episode to task.max_turns, or "
            "model.chat_template to one that keeps what was said",
            stage.name,
        )
    return Found(learns=ahead.check_problems(stage, task))
