"""A batch of experience: scored by the trainer, credited, and cut into the minibatches of its updates.

Axes: P problems, G completions of each, N = P * G of them, n tokens of one trajectory.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jax.sharding import Mesh

from jaxrl.config.algo import PolicyGradientSection, PPOSection
from jaxrl.device.arrays import fetch
from jaxrl.device.mesh import shard_batch
from jaxrl.rollout.collate import Sample, collate, make_sample, uncollate
from jaxrl.rollout.credit import (
    critic_credit,
    group_credit,
    is_cut,
    mean_k1,
    shaped_rewards,
    turn_rewards,
    verified_parts,
)
from jaxrl.rollout.replay import Entry
from jaxrl.train.timeline import Timeline
from jaxrl.types import Completion, Group, StopReason, Tree
from jaxrl.update.microbatch import policy_microbatch
from jaxrl.update.state import TrainState


@dataclass(frozen=True)
class Scorers:
    """The compiled scorers of a stage, and how batches are laid out for them.

    score: logprobs, and with a critic (logprobs, values), of the state's trainable tree.
    score_reference: logprobs.
    set_bytes: of each token's excluded ids, see `collate`.
    """

    mesh: Mesh
    seq_len: int
    algo: PolicyGradientSection
    frozen: Tree
    score: Callable
    score_reference: Callable
    timeline: Timeline = field(default_factory=Timeline)
    set_bytes: int = 0

    def run(self, scorer: Callable, trainable: Tree, samples: Sequence[Sample]) -> list:
        """What a scorer says of each sample: [n] each, or a list of such lists if it says more than one
        thing.
        """
        # At once, for it packs best; but excluded ids take room, and of them there are no more at once than
        # in an update.
        num_rows = self.algo.rows_per_update * (1 if self.set_bytes else self.algo.updates_per_batch)
        rows = policy_microbatch(self.algo, self.seq_len, self.mesh)
        results_of_parts = []
        for start in range(0, len(samples), num_rows):
            part = samples[start : start + num_rows]
            batch = collate(
                part, num_rows, self.seq_len, rows, fields_of(self.algo) & {"replay_mask"}, self.set_bytes
            )
            with self.timeline.during("score"):
                results = fetch(scorer(trainable, self.frozen, shard_batch(batch, self.mesh)))
            each = results if isinstance(results, tuple) else (results,)
            results_of_parts.append([uncollate(x, part, self.seq_len) for x in each])
        results = [list(itertools.chain(*parts)) for parts in zip(*results_of_parts)]
        return results if len(results) > 1 else results[0]


@dataclass(frozen=True)
class Experience:
    """What the updates of a batch learn from.

    fresh: samples of the policy as it stands, without those that do not count. replayed: others, from the
      replay buffer.
    advantages_P_G: of what was sampled (with a critic the mean over a completion's tokens).
    """

    fresh: list[Sample]
    replayed: list[Sample]
    advantages_P_G: np.ndarray
    metrics: dict[str, float]


def give_credit(
    groups: Sequence[Group],
    entries: Sequence[Entry],
    scorers: Scorers,
    state: TrainState,
    kl_coef: float,
    max_new_tokens: int,
) -> Experience:
    """Score a batch with the policy that sampled it and with the reference, and give every token its
    advantage.

    The trainer's own logprobs are computed only where something needs them: more than one update (the later
    ones no longer hold the policy that sampled), a KL penalty in the reward, a critic. `algo.old_logprobs:
    sampler` takes the sampler's instead.
    """
    algo = scorers.algo
    if not groups:
        return Experience([], [], np.zeros((0, algo.group_size)), {})
    rewards_P_G, counts_P_G = shaped_rewards(groups, algo, max_new_tokens)
    trajectories = [t for group in groups for t in group.trajectories]
    rows_N = [[make_sample(row) for row in t.rows] for t in trajectories]
    owners = np.repeat(np.arange(len(rows_N)), [len(rows) for rows in rows_N])  # [S]
    S = len(owners)
    replay = algo.replay.use if algo.replay else None
    old = entries if replay == "off_policy" else []
    samples, values_after, metrics = add_scores(
        [*itertools.chain(*rows_N), *map(off_policy_sample, old)], S, scorers, state, kl_coef
    )
    if isinstance(algo, PPOSection):
        earned = map(turn_rewards, trajectories, rewards_P_G.flat, rows_N)
        rewards = [*itertools.chain(*earned), *(entry.reward for entry in old)]
        counts = np.concatenate([counts_P_G.reshape(-1)[owners], np.ones(len(old), bool)])
        cut = np.concatenate([is_cut(groups).reshape(-1)[owners], np.zeros(len(old), bool)])
        goes_on = np.append(owners[1:] == owners[:-1], np.zeros(len(old) + 1, bool))
        samples, metrics["value/explained_variance"] = critic_credit(
            samples, values_after, rewards, counts, cut, algo, kl_coef, scorers.seq_len, goes_on
        )
        advantages_P_G = np.where(counts_P_G, _means(samples[:S], owners).reshape(counts_P_G.shape), 0.0)
    else:
        if algo.advantage == "gdpo":
            rewards_P_G, counts_P_G = verified_parts(groups, counts_P_G, algo.part_weights)
        credited, advantages_P_G = group_credit(samples[:S], rewards_P_G, counts_P_G, algo, owners)
        samples = credited + samples[S:]
    fresh = [sample for sample, owner in zip(samples[:S], owners, strict=True) if counts_P_G.flat[owner]]
    imitated = [imitation_sample(entry) for entry in entries] if replay == "sft" else []
    metrics["sample/left_out"] = float(counts_P_G.size - counts_P_G.sum())
    return Experience(fresh, samples[S:] + imitated, advantages_P_G, metrics)


def _means(samples: Sequence[Sample], owners: np.ndarray) -> np.ndarray:
    """[N]: the mean advantage over the tokens of each trajectory."""
    by_owner = itertools.groupby(zip(owners, samples), key=lambda pair: pair[0])
    tokens = ([s.advantages[s.completion_mask] for _, s in pairs] for _, pairs in by_owner)
    return np.array([np.concatenate(advantages).mean() for advantages in tokens])


def add_scores(
    samples: list[Sample], S: int, scorers: Scorers, state: TrainState, kl_coef: float
) -> tuple[list[Sample], list[np.ndarray], dict[str, float]]:
    """The samples, the first S of which are fresh, with what the trainer says of them; the critic's values
    after each token, if there is a critic; the metrics of the KL penalty in the reward, if there is one.
    """
    algo, needs_kl = scorers.algo, kl_coef > 0
    values_after: list[np.ndarray] = []
    metrics: dict[str, float] = {}
    if isinstance(algo, PPOSection):
        logprobs, values_after = scorers.run(scorers.score, state.trainable, samples)
    elif algo.num_updates == 1 and not (needs_kl and algo.kl_in == "reward"):
        logprobs = [sample.old_logprobs for sample in samples]  # NaN: the update takes its own
    elif algo.old_logprobs == "sampler":
        logprobs = [sample.sampler_logprobs for sample in samples]
    else:
        logprobs = scorers.run(scorers.score, state.trainable, samples)
    samples = [replace(s, old_logprobs=x) for s, x in zip(samples[:S], logprobs)] + samples[S:]
    if needs_kl:
        ref_logprobs = scorers.run(scorers.score_reference, state.reference, samples)
        samples = [replace(s, ref_logprobs=x) for s, x in zip(samples, ref_logprobs, strict=True)]
        if algo.kl_in == "reward":
            metrics = {"kl/ref": mean_k1(samples[:S]), "kl/coef": kl_coef}
    return samples, values_after, metrics


def fields_of(algo: PolicyGradientSection) -> set[str]:
    """The optional fields that every batch of an update has, whatever samples are in it."""
    fields = {"ref_logprobs"} if algo.kl_coef > 0 else set()
    fields |= {"old_values", "returns"} if isinstance(algo, PPOSection) else set()
    return fields | ({"replay_mask"} if algo.replay else set())


def minibatches(
    experience: Experience, algo: PolicyGradientSection, seed: tuple[int, ...]
) -> Iterator[list[Sample]]:
    """The samples of each update: a new order in every epoch, cut into updates_per_batch parts as equal as
    can be.

    In the first one the policy is still the one that sampled: its ratio is exactly 1, whatever rounding says.
    """
    everything = experience.fresh + experience.replayed
    epochs = algo.num_updates // algo.updates_per_batch
    for epoch in range(epochs):
        order = np.random.default_rng([*seed, epoch + 1]).permutation(len(everything))
        for part, rows in enumerate(np.array_split(order, algo.updates_per_batch)):
            is_first = epoch == part == 0
            if len(rows):
                yield [
                    _on_policy(everything[i]) if is_first and i < len(experience.fresh) else everything[i]
                    for i in rows
                ]


def off_policy_sample(entry: Entry) -> Sample:
    """A replayed completion that goes through the policy loss, with the logprobs and the advantage of its own
    time.
    """
    sample = make_sample(_completion(entry))
    advantages = np.where(sample.completion_mask, entry.advantage, 0).astype(np.float32)
    return replace(
        sample,
        advantages=advantages,
        old_logprobs=sample.sampler_logprobs,
        replay_mask=sample.completion_mask,
    )


def imitation_sample(entry: Entry) -> Sample:
    """A replayed completion that is imitated: no part of the policy loss. Nor do filters have one in its
    cross-entropy, which is to make the completion likelier among all ids: what was left out beside it is not
    held back unless it loses there.
    """
    sample = make_sample(_completion(entry))
    return replace(
        sample,
        completion_mask=np.zeros_like(sample.completion_mask),
        replay_mask=sample.completion_mask,
        excluded=None,
    )


def _on_policy(sample: Sample) -> Sample:
    return replace(sample, old_logprobs=np.full_like(sample.old_logprobs, np.nan))


def _completion(entry: Entry) -> Completion:
    return Completion(
        entry.prompt_ids,
        entry.completion_ids,
        entry.sampler_logprobs,
        StopReason.EOS,
        excluded=entry.excluded,
        emitted=entry.emitted,
    )
