"""Episodes of several turns: which rows they are, and what every token of them is worth."""

import dataclasses

import numpy as np
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection
from jaxrl.rollout.collate import make_sample
from jaxrl.rollout.credit import critic_credit, group_credit, turn_ends, turn_rewards
from jaxrl.rollout.curriculum import SuccessRates
from jaxrl.rollout.replay import ReplayBuffer
from jaxrl.rollout.winners import choose_winners, load_winners, save_winners
from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Turn, Verdict

EOS, CUT = StopReason.EOS, StopReason.MAX_TOKENS
SEQ_LEN = 16


def said(prompt, ids, logprob=-0.5, stop=EOS, excluded=None):
    return Completion(list(prompt), list(ids), [logprob * i for i in ids], stop, f"said {ids}", excluded)


def episode(*turns, correct=True, uid="p"):
    """Of (completion, reward) pairs."""
    total = sum(reward for _, reward in turns)
    return Trajectory(
        Problem(uid, (), {}), tuple(Turn(*turn) for turn in turns), Verdict(total, correct, True), 0
    )


KEPT = episode((said([1, 2], [3, 4]), 0.25), (said([1, 2, 3, 4, 9, 8], [5, 6, 7]), 1.0))
# the second turn does not see the whole of the first: a template that drops what was thought
DROPPED = episode((said([1, 2], [3, 4]), 0.25), (said([1, 2, 4, 9, 8], [5, 6, 7]), 1.0))


def test_turns_are_one_row_while_each_reads_all_that_was_before():
    (row,) = KEPT.rows
    sample = make_sample(row)
    assert sample.tokens.tolist() == [1, 2, 3, 4, 9, 8, 5, 6, 7]
    assert sample.completion_mask.tolist() == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 3
    assert sample.sampler_logprobs.tolist() == [0, 0, -1.5, -2, 0, 0, -2.5, -3, -3.5]
    assert (row.stop_reason, KEPT.num_tokens, KEPT.completion_ids) == (EOS, 5, [3, 4, 5, 6, 7])


def test_a_turn_that_reads_less_begins_another_row():
    assert DROPPED.rows == [turn.completion for turn in DROPPED.turns]
    assert DROPPED.num_tokens == KEPT.num_tokens


def test_a_task_is_an_episode_of_one_turn():
    completion = said([1, 2], [3, 4])
    one = Trajectory.one_turn(Problem("p", (), {}), completion, Verdict(0.5, True, True), 3)
    assert one.rows == [completion] and one.turns == (Turn(completion, 0.5),)
    assert (one.completion_ids, one.text, one.stop_reason, one.is_cut) == (
        [3, 4],
        completion.text,
        EOS,
        False,
    )


@pytest.mark.parametrize(
    "first, second", [(["a", ""], None), (None, ["", "b", ""]), (["a", ""], ["", "b", ""])]
)
def test_what_a_filter_left_out_stays_with_its_token(first, second):
    (row,) = episode(
        (said([1], [3, 4], excluded=first), 0.0), (said([1, 3, 4, 9], [5, 6, 7], excluded=second), 1.0)
    ).rows
    assert make_sample(row).excluded == [""] + (first or ["", ""]) + [""] + (second or ["", "", ""])


def random_episode(rng, uid="p"):
    """Up to 4 turns; about a third of them do not read the whole of what was before."""
    prompt, turns = rng.integers(1, 50, 2).tolist(), []
    for _ in range(rng.integers(1, 5)):
        completion = said(prompt, rng.integers(1, 50, rng.integers(1, 4)).tolist())
        turns.append((completion, float(rng.normal())))
        keeps = rng.random() < 0.66
        observed = rng.integers(50, 99, rng.integers(1, 3)).tolist()
        prompt = (completion.prompt_ids + completion.completion_ids if keeps else [77]) + observed
    return episode(*turns, uid=uid)


def test_rows_hold_every_emitted_token_once_in_order_and_no_other():
    rng = np.random.default_rng(0)
    for _ in range(50):
        trajectory = random_episode(rng)
        samples = [make_sample(row) for row in trajectory.rows]
        emitted = np.concatenate([s.tokens[s.completion_mask] for s in samples])
        assert emitted.tolist() == trajectory.completion_ids
        assert sum(len(turn_ends(s)) for s in samples) == len(trajectory.turns)
        # what a row holds before a turn is exactly what the policy read there
        prompts = [s.tokens[: end + 1].tolist() for s in samples for end in turn_ends(s)]
        assert prompts == [t.completion.prompt_ids + t.completion.completion_ids for t in trajectory.turns]


def test_all_rows_of_an_episode_have_its_advantage():
    rows = [make_sample(row) for t in (KEPT, DROPPED) for row in t.rows]
    credited, advantages = group_credit(
        rows,
        np.float32([[1.0, 0.0]]),
        np.ones((1, 2), bool),
        GRPOSection(advantage="center"),
        np.array([0, 1, 1]),
    )
    assert advantages.tolist() == [[0.5, -0.5]]
    for sample, advantage in zip(credited, (0.5, -0.5, -0.5)):
        np.testing.assert_array_equal(sample.advantages, np.where(sample.completion_mask, advantage, 0))


def test_the_price_of_the_kl_is_that_of_all_rows():
    algo = GRPOSection(advantage="center", kl_coef=0.5, kl_in="reward", kl_estimator="k1")
    rows = [make_sample(row) for t in (KEPT, DROPPED) for row in t.rows]
    rows = [
        dataclasses.replace(s, old_logprobs=s.sampler_logprobs, ref_logprobs=s.sampler_logprobs - 0.1)
        for s in rows
    ]
    _, advantages = group_credit(
        rows, np.float32([[1.0, 1.0]]), np.ones((1, 2), bool), algo, np.array([0, 1, 1])
    )
    # both emitted the same five tokens
    np.testing.assert_allclose(advantages, [[0.0, 0.0]], atol=1e-6)


def test_turns_earn_what_they_did_and_the_last_one_what_shaping_takes():
    rows = [make_sample(row) for row in DROPPED.rows]
    assert [x.tolist() for x in turn_rewards(DROPPED, 1.25, rows)] == [[0.25], [1.0]]
    assert [x.tolist() for x in turn_rewards(DROPPED, 1.0, rows)] == [[0.25], [0.75]]
    assert [x.tolist() for x in turn_rewards(KEPT, 1.25, [make_sample(KEPT.rows[0])])] == [[0.25, 1.0]]


def naive_gae(rewards, values, end_value, gamma, lam):
    """Over the emitted tokens of a row: lists in order."""
    advantages, after, value_after = [], 0.0, end_value
    for reward, value in zip(rewards[::-1], values[::-1]):
        after = reward + gamma * value_after - value + gamma * lam * after
        value_after = value
        advantages.append(after)
    return advantages[::-1]


@pytest.mark.parametrize("was_cut", [False, True])
def test_the_critics_credit_of_turns_against_a_naive_loop(was_cut):
    rng = np.random.default_rng(1)
    algo = PPOSection(
        problems_per_batch=2,
        group_size=2,
        gamma=0.9,
        gae_lambda=0.8,
        gae_level="token",
        whiten=False,
        bootstrap_truncated=True,
    )
    trajectories = [random_episode(rng) for _ in range(4)]
    rows_N = [[make_sample(row) for row in t.rows] for t in trajectories]
    samples = [row for rows in rows_N for row in rows]
    owners = np.repeat(np.arange(4), [len(rows) for rows in rows_N])
    assert len(samples) > 4 and len(trajectories[0].turns) > 1, "no case"
    values_after = [rng.normal(size=len(s.tokens)).astype(np.float32) for s in samples]
    rewards = [x for t, rows in zip(trajectories, rows_N) for x in turn_rewards(t, t.verdict.reward, rows)]
    goes_on = np.append(owners[1:] == owners[:-1], False)
    cut = np.full(len(samples), was_cut)
    credited, _ = critic_credit(
        samples, values_after, rewards, np.ones(len(samples), bool), cut, algo, 0.0, SEQ_LEN, goes_on
    )
    for i, (before, after) in enumerate(zip(samples, credited, strict=True)):
        places = np.flatnonzero(before.completion_mask)
        earned = np.zeros(len(before.tokens))
        ends = [p for p in places if p + 1 not in places]
        earned[ends] = rewards[i]
        if was_cut and not goes_on[i]:
            earned[ends[-1]] = 0.0
        values = [values_after[i][p - 1] for p in places]
        if goes_on[i]:
            end_value = values_after[i + 1][np.flatnonzero(samples[i + 1].completion_mask)[0] - 1]
        else:
            end_value = values_after[i][-1] if was_cut else 0.0
        expected = naive_gae(earned[places], values, end_value, 0.9, 0.8)
        np.testing.assert_allclose(after.advantages[places], expected, rtol=1e-4, atol=1e-5)
        assert not after.advantages[~before.completion_mask].any()


def test_winners_and_replay_train_on_what_was_emitted(tmp_path):
    group = Group(KEPT.problem, (KEPT, DROPPED))
    winners, statistics = choose_winners([Group(KEPT.problem, (KEPT,))], 8, None)
    save_winners(tmp_path / "w" / "1.jsonl", [*winners, DROPPED], dataclasses.replace(statistics, winners=2))
    rows, _ = load_winners(tmp_path / "w" / "1.jsonl")
    assert [row.sample is None for row in rows] == [False, False, True]
    for row, sample in zip(rows, [make_sample(r) for t in (KEPT, DROPPED) for r in t.rows], strict=True):
        ids, mask = row.example
        assert (ids, mask) == (sample.tokens.tolist(), sample.completion_mask.tolist())

    buffer = ReplayBuffer(2, 8)
    assert buffer.add([group], [[1.0, 1.0]], SuccessRates()) == 1, "an entry is one row"
    (entry,) = ReplayBuffer(2, 8, buffer.state()).draw(1, SuccessRates(), (0,))
    assert entry.emitted == KEPT.rows[0].emitted
