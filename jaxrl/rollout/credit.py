"""From rewards to advantages: what every token of a batch of experience is worth.

Host arrays in, host arrays out.

Axes: P problems, G completions of each, N = P * G trajectories, S rows of these (one each where an episode
has one turn), T tokens of a row, n tokens of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl.config.algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.data.packing import lay_out
from jaxrl.errors import InputError
from jaxrl.model.value_head import state_values
from jaxrl.ops.advantages import ADVANTAGES, overlong_penalty, part_normalize, whiten
from jaxrl.ops.gae import GAE
from jaxrl.ops.kl import kl_k1
from jaxrl.ops.value_loss import explained_variance
from jaxrl.rollout.collate import Sample
from jaxrl.types import Group, Trajectory


def verified_rewards(groups: Sequence[Group], algo: PolicyGradientSection) -> tuple[np.ndarray, np.ndarray]:
    """The verifier's rewards, and which of them count.

    A reward that is not a finite number does not count, nor, where `overlong` says `mask`, a completion that
    was cut off.

    Returns:
      rewards [P, G] float32 (0 where it does not count), counts [P, G] bool.
    """
    rewards = np.array([[t.verdict.reward for t in group.trajectories] for group in groups], np.float32)
    counts = np.isfinite(rewards)
    if algo.overlong == "mask":
        counts &= ~is_cut(groups)
    return np.where(counts, rewards, 0).astype(np.float32), counts


def shaped_rewards(
    groups: Sequence[Group], algo: PolicyGradientSection, max_new_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """`verified_rewards` less the penalty of long completions, where there is one: what advantages are made
    of.
    """
    rewards, counts = verified_rewards(groups, algo)
    if algo.overlong == "penalty":
        lengths = np.array([[t.num_tokens for t in group.trajectories] for group in groups])
        rewards = rewards - np.asarray(overlong_penalty(lengths, max_new_tokens, algo.overlong_buffer))
    return np.where(counts, rewards, 0).astype(np.float32), counts


def verified_parts(
    groups: Sequence[Group], counts: np.ndarray, weights: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the verifier's rewards that have a weight, and which completions still count.

    A completion without a verdict (timeout, crash) has no parts: of each it gets the worst of its group, so
    that breaking the verifier never pays. One with a part that is not a finite number does not count.

    Args:
      counts: [P, G] bool, as `verified_rewards` returns it.
    Returns:
      parts [K, P, G] float32 in the order of `weights` (0 where it does not count), counts [P, G] bool.
    Raises:
      InputError: a verdict without one of the parts; it has others.
    """
    tables = np.full((len(weights), *counts.shape), np.nan, np.float32)
    missing = np.zeros(counts.shape, bool)
    for p, group in enumerate(groups):
        for g, verdict in enumerate(t.verdict for t in group.trajectories):
            if verdict.error is not None:
                missing[p, g] = True
                continue
            if absent := [name for name in weights if name not in verdict.parts]:
                raise InputError(
                    f"algo.part_weights names {', '.join(map(repr, absent))}, and a verdict's parts are "
                    f"{sorted(verdict.parts)}; name parts that every verdict of the task has (samples.jsonl "
                    "shows them)"
                )
            tables[:, p, g] = [verdict.parts[name] for name in weights]
    counts = counts & (missing | np.isfinite(tables).all(axis=0))
    judged = counts & ~missing
    for table, weight in zip(tables, weights.values()):
        worst = np.min(np.sign(weight) * table, axis=1, keepdims=True, where=judged, initial=np.inf)
        worst = np.where(np.isfinite(worst), worst, 0)
        table[:] = np.where(judged, table, np.where(counts, np.sign(weight) * worst, 0))
    return tables, counts


def is_cut(groups: Sequence[Group]) -> np.ndarray:
    """[P, G] bool: episodes that were stopped before the policy had come to its end."""
    return np.array([[t.is_cut for t in group.trajectories] for group in groups])


def has_spread(rewards: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[P] bool: groups in which not all of the verifier's rewards that count are equal; the others teach
    nothing.
    """
    highest = np.max(rewards, axis=1, where=counts, initial=-np.inf)
    return highest > np.min(rewards, axis=1, where=counts, initial=np.inf)


def group_credit(
    samples: Sequence[Sample],
    rewards: np.ndarray,
    counts: np.ndarray,
    algo: GRPOSection,
    owners: np.ndarray | None = None,
) -> tuple[list[Sample], np.ndarray]:
    """Advantages without a critic: one number for all tokens of an episode.

    With the KL in the reward, kl_coef * sum over its tokens of k1 is taken off each reward first.

    Args:
      samples: [S]. rewards: [P, G], or with `advantage: gdpo` the rewards' parts, [K, P, G]. counts: [P, G].
      owners: [S], which of the N trajectories a sample is a row of; None where each has one.
    Returns:
      the samples with advantages, and the advantages [P, G].
    """
    owners = np.arange(len(samples)) if owners is None else owners
    if algo.kl_coef > 0 and algo.kl_in == "reward":
        kl = np.zeros(counts.size, np.float32)
        np.add.at(kl, owners, [_k1(sample).sum() for sample in samples])
        rewards = rewards - algo.kl_coef * kl.reshape(rewards.shape)
    num_groups = len(counts)
    # fewer groups, none of which counts: one compiled shape
    missing = ((0, algo.problems_per_batch - num_groups), (0, 0))
    padded, counts = np.pad(rewards, ((0, 0),) * (rewards.ndim - 2) + missing), np.pad(counts, missing)
    if algo.advantage == "gdpo":
        advantages = _part_advantages(padded, np.array(list(algo.part_weights.values()), np.float32), counts)
    else:
        advantages = _advantages(algo.advantage, padded, counts)
    advantages = np.asarray(advantages)[:num_groups]
    credited = [
        replace(sample, advantages=np.where(sample.completion_mask, advantage, 0).astype(np.float32))
        for sample, advantage in zip(samples, advantages.reshape(-1)[owners], strict=True)
    ]
    return credited, advantages


def critic_credit(
    samples: Sequence[Sample],
    values_after: Sequence[np.ndarray],
    rewards: Sequence[np.ndarray | float],
    counts: np.ndarray,
    cut: np.ndarray,
    algo: PPOSection,
    kl_coef: float,
    seq_len: int,
    goes_on: np.ndarray | None = None,
) -> tuple[list[Sample], float]:
    """Advantages, returns and old values of every token, by generalised advantage estimation.

    A turn's reward (the verifier's, where there is one turn) is earned by its last token; with the KL in the
    reward, every token pays kl_coef * k1 at once. With `bootstrap_truncated` an episode that was cut has the
    critic's value of what would have come in place of its last reward, the verdict on what there is. In place
    of, not beside: V = r + V has no solution but V without bound. An episode of several rows goes on, at the
    end of each, with the critic's value of the next one's first turn.

    Args:
      samples, values_after: [S] of [n].
      rewards: [S] of [turns of the row], or of one number, which its last turn earns.
      counts, cut: [S], whether the reward counts, whether the episode was cut.
      kl_coef: the coefficient in force.
      goes_on: [S], whether the episode goes on in the next sample; None where none does.
    Returns:
      the samples with credit, and the share of the returns' variance that the critic explains.
    """
    goes_on = np.zeros(len(samples), bool) if goes_on is None else goes_on
    is_cut_off = cut & algo.bootstrap_truncated & ~goes_on
    pays_kl = kl_coef > 0 and algo.kl_in == "reward"
    token_rewards = [
        _token_rewards(sample, np.atleast_1d(reward), was_cut, kl_coef if pays_kl else 0.0)
        for sample, reward, was_cut in zip(samples, rewards, is_cut_off, strict=True)
    ]
    end_values = [
        values if was_cut else np.full_like(values, _first_value(samples, values_after, i + 1) if more else 0)
        for i, (values, was_cut, more) in enumerate(zip(values_after, is_cut_off, goes_on, strict=True))
    ]

    # one compiled shape, however many there are; more rows than episodes take it twice
    episodes = algo.problems_per_batch * algo.group_size + algo.replayed_per_batch
    num_rows = episodes * -(-len(samples) // episodes)
    places = [[i] for i in range(len(samples))] + [[]] * (num_rows - len(samples))

    def rows(sequences: Sequence[np.ndarray], dtype=np.float32) -> np.ndarray:
        return lay_out(places, sequences, seq_len, dtype)  # [num_rows, T], each in a row of its own

    mask = rows([sample.completion_mask for sample in samples], bool)
    segment_ids = rows([np.ones(len(sample.tokens)) for sample in samples], np.int32)
    estimate = partial(_estimate, algo.gae_level, algo.gamma, algo.gae_lambda, algo.whiten)
    counted = mask & np.pad(counts, (0, num_rows - len(counts)))[:, None]
    results = estimate(rows(token_rewards), rows(values_after), rows(end_values), mask, segment_ids, counted)
    advantages, returns, values, explained = jax.device_get(results)
    credited = [
        replace(sample, advantages=advantages[i, :n], returns=returns[i, :n], old_values=values[i, :n])
        for i, sample in enumerate(samples)
        if (n := len(sample.tokens))
    ]
    return credited, float(explained)


def turn_ends(sample: Sample) -> np.ndarray:
    """Where the turns of a row end: the last emitted token of each."""
    return np.flatnonzero(sample.completion_mask & ~np.append(sample.completion_mask[1:], False))


def turn_rewards(trajectory: Trajectory, reward: float, rows: Sequence[Sample]) -> list[np.ndarray]:
    """What each turn of each row has earned, [turns of the row] each; the sum over all is `reward`, that of
    the episode after shaping (0 where it does not count), and the last turn bears the difference.
    """
    earned = [turn.reward for turn in trajectory.turns[:-1]] if np.isfinite(trajectory.verdict.reward) else []
    earned = earned or [0.0] * (len(trajectory.turns) - 1)
    earned.append(reward - sum(earned))
    return np.split(np.array(earned), np.cumsum([len(turn_ends(row)) for row in rows])[:-1])


def _token_rewards(sample: Sample, rewards: np.ndarray, was_cut: bool, kl_coef: float) -> np.ndarray:
    """[n] float32: the turns' rewards at their last tokens, the price of the KL at every token; of the last
    turn of an episode that was cut there is no reward.
    """
    earned = -kl_coef * _k1(sample) if kl_coef > 0 else np.zeros(len(sample.tokens), np.float32)
    ends = turn_ends(sample)
    earned[ends[len(ends) - len(rewards) :]] += np.append(rewards[:-1], 0.0 if was_cut else rewards[-1])
    return earned


def _first_value(samples: Sequence[Sample], values_after: Sequence[np.ndarray], i: int) -> float:
    """The critic's value of the state before the first token that the policy emitted in sample i."""
    return values_after[i][np.flatnonzero(samples[i].completion_mask)[0] - 1]


@partial(jax.jit, static_argnums=0)
def _advantages(name: str, rewards: Array, counts: Array) -> Array:
    return ADVANTAGES[name](rewards.astype(jnp.float32), counts)


_part_advantages = jax.jit(part_normalize)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _estimate(
    level, gamma, gae_lambda, whitens, rewards, values_after, end_values, mask, segment_ids, counts
):
    values = state_values(values_after, segment_ids)
    advantages, returns = GAE[level](rewards, values, end_values, mask, segment_ids, gamma, gae_lambda)
    explained = explained_variance(values, returns, counts)
    return whiten(advantages, counts) if whitens else advantages, returns, values, explained


def _k1(sample: Sample) -> np.ndarray:
    """[n] estimate of KL(policy || reference) at each token that the policy emitted; 0 elsewhere."""
    kl = kl_k1(sample.old_logprobs[None], sample.ref_logprobs[None])[0]
    return np.where(sample.completion_mask, kl, 0).astype(np.float32)


def mean_k1(samples: Sequence[Sample]) -> float:
    """Nats per emitted token."""
    return float(sum(_k1(s).sum() for s in samples) / max(1, sum(s.completion_mask.sum() for s in samples)))
