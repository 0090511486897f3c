"""Credit: rewards reach the right tokens, unrounded; what does not count has no part in it."""

import dataclasses

import numpy as np
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection
from jaxrl.errors import InputError
from jaxrl.rollout.collate import make_sample
from jaxrl.rollout.credit import (
    critic_credit,
    group_credit,
    has_spread,
    is_cut,
    mean_k1,
    shaped_rewards,
    verified_parts,
    verified_rewards,
)
from tests.rollout.episodes import group, group_of, trajectory


def samples_of(groups):
    return [make_sample(t.rows[0]) for g in groups for t in g.trajectories]


def test_rewards_arrive_unrounded_and_those_that_are_no_numbers_do_not_count():
    rewards, counts = shaped_rewards(
        [group_of(0.25, -1.75), group_of(float("nan"), float("inf"))], GRPOSection(), 10
    )
    assert rewards.tolist() == [[0.25, -1.75], [0, 0]] and counts.tolist() == [[True, True], [False, False]]


def test_completions_that_were_cut_are_kept_masked_or_punished():
    groups = [
        group(
            trajectory(1.0, said=[3] * 10, cut=True),
            trajectory(1.0, said=[3] * 9),
            trajectory(1.0, said=[3] * 2),
        )
    ]
    assert is_cut(groups).tolist() == [[True, False, False]]
    for overlong, reward, count in (
        ({}, [1, 1, 1], [True, True, True]),
        ({"overlong": "mask"}, [0, 1, 1], [False, True, True]),
        ({"overlong": "penalty", "overlong_buffer": 4}, [0, 0.25, 1], [True, True, True]),
    ):
        rewards, counts = shaped_rewards(groups, GRPOSection(**overlong), 10)
        assert rewards.tolist() == [reward] and counts.tolist() == [count]


def test_groups_without_spread_are_seen():
    nan = float("nan")
    groups = [
        group_of(1.0, 1.0, 1.0),
        group_of(1.0, 0.5, 1.0),
        group_of(1.0, nan, 1.0),
        group_of(nan, nan, nan),
        group_of(2.0, nan, nan),
    ]
    # what does not count stands there as 0, which is above them
    groups += [group_of(-1.0, nan, -1.0), group_of(-1.0, nan, -2.0)]
    assert has_spread(*verified_rewards(groups, GRPOSection())).tolist() == [
        False,
        True,
        False,
        False,
        False,
        False,
        True,
    ]


def test_lengths_alone_are_no_spread():
    algo = GRPOSection(overlong="penalty", overlong_buffer=4)
    groups = [group(trajectory(0.0, said=[3] * 9), trajectory(0.0, said=[3] * 2))]
    assert shaped_rewards(groups, algo, 10)[0].tolist() == [[-0.75, 0]]
    assert not has_spread(*verified_rewards(groups, algo)).any()


def test_a_critic_of_cut_episodes_does_not_run_away():
    """All episodes cut, all rewards 1: with the value beside the verdict V = 1 + V would grow with every
    batch.
    """
    groups = [group_of(1.0, cut=True), group_of(1.0, cut=True)]
    samples, value = samples_of(groups), 0.0
    for bootstraps, limit in ((False, 1.0), (True, 0.0)):
        algo = PPOSection(bootstrap_truncated=bootstraps, whiten=False)
        for _ in range(5):
            after = [np.full(5, value, np.float32) for _ in samples]
            credited, _ = critic_credit(
                samples, after, np.ones(2), np.ones(2, bool), np.ones(2, bool), algo, 0.0, seq_len=8
            )
            value = float(credited[0].returns[-1])
        assert value == pytest.approx(limit)
        value = 0.0


def test_group_credit_is_one_number_for_all_tokens_of_a_completion():
    groups = [group_of(1.0, 0.0), group_of(0.5, float("nan"))]
    rewards, counts = shaped_rewards(groups, GRPOSection(), 10)
    samples, advantages = group_credit(samples_of(groups), rewards, counts, GRPOSection(advantage="center"))
    np.testing.assert_allclose(advantages, [[0.5, -0.5], [0, 0]])
    assert [s.advantages.tolist() for s in samples] == [
        [0, 0, 0.5, 0.5, 0.5],
        [0, 0, -0.5, -0.5, -0.5],
        [0] * 5,
        [0] * 5,
    ]


def test_kl_in_the_reward_is_summed_over_a_completion_before_groups_are_compared():
    groups = [group_of(1.0, 1.0)]
    samples = samples_of(groups)
    old = [np.array([9, 9, -1.0, -1.0, -1.0], np.float32), np.array([9, 9, -1.0, -1.0, -2.0], np.float32)]
    ref = [np.array([0, 0, -2.0, -1.5, -1.0], np.float32), np.array([0, 0, -1.0, -1.0, -2.0], np.float32)]
    samples = [dataclasses.replace(s, old_logprobs=o, ref_logprobs=r) for s, o, r in zip(samples, old, ref)]
    algo = GRPOSection(advantage="center", kl_coef=0.1, kl_in="reward", kl_estimator="k1")
    rewards, counts = shaped_rewards(groups, algo, 10)
    _, advantages = group_credit(samples, rewards, counts, algo)
    np.testing.assert_allclose(advantages, [[-0.075, 0.075]], atol=1e-6)  # 1.5 nats too many cost 0.15
    assert mean_k1(samples) == pytest.approx(1.5 / 6)


def naive_gae(rewards, values, end_value, gamma, lam):
    advantages, after = np.zeros(len(rewards)), (end_value, 0.0)
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * after[0] - values[t]
        advantages[t] = delta + gamma * lam * after[1]
        after = values[t], advantages[t]
    return advantages


@pytest.mark.parametrize("bootstraps", [True, False])
def test_critic_credit_against_a_naive_loop(bootstraps):
    """Fractional and negative rewards on the last token, KL at every token, a value after the episode only
    where it was cut.
    """
    groups = [group(trajectory(0.25)), group(trajectory(-1.5, prompt=[1], said=[2, 3, 4, 5, 6], cut=True))]
    rng = np.random.default_rng(0)
    samples = [
        dataclasses.replace(
            s,
            **{
                name: rng.normal(size=len(s.tokens)).astype(np.float32)
                for name in ("old_logprobs", "ref_logprobs")
            },
        )
        for s in samples_of(groups)
    ]
    values_after = [rng.normal(size=len(s.tokens)).astype(np.float32) for s in samples]
    algo = PPOSection(gamma=0.97, gae_lambda=0.9, whiten=False, kl_coef=0.3, bootstrap_truncated=bootstraps)
    cut = np.array([False, True])
    # the value of what would have come stands in place of the verdict, not beside it
    replaces = cut & bootstraps
    credited, explained = critic_credit(
        samples, values_after, np.array([0.25, -1.5]), np.ones(2, bool), cut, algo, kl_coef=0.1, seq_len=12
    )
    targets, predicted = [], []
    for sample, after, reward, replaced in zip(credited, values_after, (0.25, -1.5), replaces):
        emitted = np.flatnonzero(sample.completion_mask)
        rewards = -0.1 * (sample.old_logprobs - sample.ref_logprobs)[emitted]
        rewards[-1] += 0 if replaced else reward
        values = after[emitted - 1]
        expected = naive_gae(rewards, values, after[-1] if replaced else 0.0, 0.97, 0.9)
        np.testing.assert_allclose(sample.advantages[emitted], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sample.returns[emitted], expected + values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sample.old_values[emitted], values)
        assert (
            not sample.advantages[~sample.completion_mask].any()
            and not sample.returns[~sample.completion_mask].any()
        )
        targets, predicted = [*targets, *expected + values], [*predicted, *values]
    assert explained == pytest.approx(1 - np.var(np.subtract(targets, predicted)) / np.var(targets), rel=1e-4)


def test_whitening_goes_over_the_tokens_that_count():
    groups = [group_of(1.0), group_of(-1.0), group_of(50.0)]
    samples = samples_of(groups)
    after = [np.zeros(5, np.float32) for _ in samples]
    counts = np.array([True, True, False])
    credited, _ = critic_credit(
        samples,
        after,
        np.array([1.0, -1.0, 50.0]),
        counts,
        ~counts,
        PPOSection(gae_lambda=1.0),
        0.0,
        seq_len=8,
    )
    np.testing.assert_allclose(credited[0].advantages, [0, 0, 1, 1, 1], atol=1e-4)
    np.testing.assert_allclose(credited[1].advantages, [0, 0, -1, -1, -1], atol=1e-4)


def test_what_the_critic_explains_is_told_of_the_samples_that_count():
    groups = [group_of(0.5), group_of(-1.0), group_of(50.0)]
    rewards, counts = np.array([0.5, -1.0, 50.0]), np.array([True, True, False])
    after = [np.random.default_rng(i).normal(size=5).astype(np.float32) for i in range(3)]
    algo = PPOSection(gae_lambda=1.0, whiten=False)
    credited, explained = critic_credit(
        samples_of(groups), after, rewards, counts, ~counts, algo, 0.0, seq_len=8
    )
    emitted = [np.flatnonzero(s.completion_mask) for s in credited[:2]]
    returns = np.concatenate([s.returns[at] for s, at in zip(credited, emitted)])
    values = np.concatenate([v[at - 1] for v, at in zip(after, emitted)])
    np.testing.assert_allclose(returns, np.repeat([0.5, -1.0], 3), rtol=1e-5)
    assert explained == pytest.approx(1 - np.var(returns - values) / np.var(returns), rel=1e-4)


WEIGHTS = {"path": 2.0, "spam": -1.0}


def judged(path, spam=0.0, **more):
    return trajectory(parts={"path": path, "spam": spam, "untold": 9.0}, **more)


def test_parts_arrive_in_the_order_of_their_weights_and_those_that_are_no_numbers_do_not_count():
    groups = [
        group(judged(0.25, 1.0), judged(0.5)),
        group(judged(float("nan")), judged(1.0, reward=float("inf"))),
    ]
    parts, counts = verified_parts(groups, verified_rewards(groups, GRPOSection())[1], WEIGHTS)
    assert parts.tolist() == [[[0.25, 0.5], [0, 0]], [[1.0, 0], [0, 0]]]
    assert counts.tolist() == [[True, True], [False, False]]


def test_what_broke_the_verifier_gets_the_worst_of_its_group_in_every_part():
    broken = trajectory(-2.0, error="crash: exit 1")
    groups = [group(judged(0.5, 0.25), broken, judged(1.0, 0.5)), group(broken, broken, broken)]
    parts, counts = verified_parts(groups, verified_rewards(groups, GRPOSection())[1], WEIGHTS)
    assert parts.tolist() == [[[0.5, 0.5, 1.0], [0, 0, 0]], [[0.25, 0.5, 0.5], [0, 0, 0]]] and counts.all()


def test_a_part_that_no_verdict_has_is_named_with_those_there_are():
    groups = [group(judged(0.5), judged(1.0))]
    with pytest.raises(InputError, match=r"'pth'.*\['path', 'spam', 'untold'\]"):
        verified_parts(groups, np.ones((1, 2), bool), {"pth": 1.0, "path": 1.0})


def test_credit_by_parts_sees_the_honest_part_beside_the_lucky_one():
    """The reward ranks by luck; with each part in its own units the completion with the path is the better
    one.
    """
    luck, path = [3.0, 0.0, 0.0, 3.0], [0.0, 0.1, 0.1, 0.0]
    groups = [group(*(trajectory(a + b, parts={"luck": a, "path": b}) for a, b in zip(luck, path)))]
    rewards, counts = verified_rewards(groups, GRPOSection())
    assert group_credit(samples_of(groups), rewards, counts, GRPOSection(problems_per_batch=2))[1][0, 0] > 0
    algo = GRPOSection(advantage="gdpo", part_weights={"luck": 1.0, "path": 2.0}, problems_per_batch=2)
    parts, counts = verified_parts(groups, counts, algo.part_weights)
    samples, advantages = group_credit(samples_of(groups), parts, counts, algo)
    assert advantages.shape == (1, 4) and (np.sign(advantages) == [[-1, 1, 1, -1]]).all()
    assert samples[1].advantages.tolist() == [0, 0, *[advantages[0, 1]] * 3]
