"""The curriculum: rates worked out by hand; draws that follow the weights, miss nothing and depend on the
arguments alone.
"""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from scipy import stats

from jaxrl.rollout.curriculum import DECAY, FLOOR, PRIOR, SuccessRates, choose, sample_weighted
from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Verdict

RATES = {"hopeless": 0.0, "hard": 0.1, "half": 0.5, "easy": 0.8, "solved": 1.0}
UIDS = list(RATES)
WEIGHTS = np.array([FLOOR + 4 * r * (1 - r) for r in RATES.values()])
DRAWS = 8000


def group(uid, verdicts):
    problem, said = Problem(uid, (), {}), Completion([1], [2], [-0.5], StopReason.EOS)
    return Group(
        problem,
        tuple(Trajectory.one_turn(problem, said, Verdict(0.0, correct, True), 0) for correct in verdicts),
    )


def test_rates_by_hand():
    rates = SuccessRates()
    assert rates.rate("a") == PRIOR == 0.5
    rates.update([group("a", [True, True, True, False]), group("b", [False, False])])
    assert (rates.rate("a"), rates.rate("b"), rates.rate("c")) == (0.5 * 0.5 + 0.5 * 0.75, 0.25, 0.5)
    rates.update([group("b", [True, False]), group("b", [True, True])])
    assert (rates.rate("a"), rates.rate("b")) == (0.625, 0.5 * (0.5 * 0.25 + 0.5 * 0.5) + 0.5)


def test_what_could_not_be_judged_does_not_count():
    rates, whole = SuccessRates(), group("a", [True, True])
    broken = [
        dataclasses.replace(t, verdict=Verdict(float("nan"), False, False, error="sandbox: no fork"))
        for t in group("a", [False] * 2).trajectories
    ]
    rates.update(
        [Group(whole.problem, whole.trajectories + tuple(broken)), Group(Problem("b", (), {}), tuple(broken))]
    )
    assert (rates.rate("a"), rates.rate("b")) == (0.75, PRIOR)


def test_rates_stay_fractions_and_forget():
    rates, rng = SuccessRates({"a": 1.0}), np.random.default_rng(0)
    for _ in range(200):
        before, verdicts = rates.rate("a"), (rng.random(8) < rng.random()).tolist()
        rates.update([group("a", verdicts)])
        np.testing.assert_allclose(
            rates.rate("a"), DECAY * before + (1 - DECAY) * np.mean(verdicts), rtol=1e-12
        )
        assert 0 <= rates.rate("a") <= 1
    rates.update([group("a", [False])] * 20)
    assert rates.rate("a") < 1e-5


def test_rates_survive_json_exactly():
    rng = np.random.default_rng(1)
    first = SuccessRates()
    first.update([group(f"problem {i}", (rng.random(7) < 0.3).tolist()) for i in rng.integers(0, 20, 100)])
    snapshot, saved = first.state(), json.dumps(first.state())
    second = SuccessRates(json.loads(saved))
    assert second.state() == first.state() and json.dumps(second.state()) == saved
    uids = [f"problem {i}" for i in range(30)]
    np.testing.assert_array_equal(choose(uids, first, 12, (3,)), choose(uids, second, 12, (3,)))
    third = SuccessRates(snapshot)
    for rates in (first, second, third):
        rates.update([group("problem 0", [True, False, False])])
    assert third.state() == second.state() == first.state() != snapshot == json.loads(saved), (
        "a state is a copy"
    )


def test_single_draws_follow_the_weights_and_nothing_is_out_of_reach():
    seen = np.bincount(
        [choose(UIDS, SuccessRates(RATES), 1, (7, step))[0] for step in range(DRAWS)], minlength=5
    )
    assert stats.chisquare(seen, DRAWS * WEIGHTS / WEIGHTS.sum()).pvalue > 1e-3
    assert seen.min() > 0 and UIDS[seen.argmax()] == "half"


def test_pairs_follow_the_law_of_drawing_one_after_the_other():
    pairs = list(itertools.permutations(range(5), 2))
    drawn = [tuple(choose(UIDS, SuccessRates(RATES), 2, (8, step)).tolist()) for step in range(DRAWS)]
    total = WEIGHTS.sum()
    expected = np.array([WEIGHTS[i] / total * WEIGHTS[j] / (total - WEIGHTS[i]) for i, j in pairs])
    rare = DRAWS * expected < 10  # one class for all of them: chi-square wants a handful in each
    seen = np.array([drawn.count(pair) for pair in pairs])
    pooled = [np.append(x[~rare], x[rare].sum()) for x in (seen, DRAWS * expected)]
    assert seen.sum() == DRAWS and stats.chisquare(*pooled).pvalue > 1e-3


def test_more_often_the_nearer_to_half_whatever_the_count():
    uids = [str(i) for i in range(41)]
    rates = SuccessRates({uid: i / 40 for i, uid in enumerate(uids)})
    seen = np.zeros(41)
    for step in range(2000):
        np.add.at(seen, choose(uids, rates, 10, (9, step)), 1)
    from_half = np.abs(np.arange(41) - 20)
    bands = [seen[(from_half >= low) & (from_half < low + 4)].mean() for low in (0, 4, 8, 12, 16)]
    assert bands == sorted(bands, reverse=True) and seen.min() > 0


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 13])
def test_no_problem_comes_again_before_all_have_come(count):
    for step in range(50):
        chosen = choose(UIDS, SuccessRates(RATES), count, (step,))
        assert chosen.shape == (count,) and chosen.dtype == np.int64
        times = np.bincount(chosen, minlength=5)
        assert times.min() >= count // 5 and times.max() <= -(-count // 5)


def test_rounds_are_drawn_anew():
    """Where more is drawn than there is, the second round has an order of its own."""
    rounds = [choose(UIDS, SuccessRates(RATES), 10, (3, step)).reshape(2, 5).tolist() for step in range(20)]
    assert sum(first != second for first, second in rounds) > 10  # by chance 1 in about 50 would be equal


def test_the_rest_beyond_whole_rounds_is_weighted_too():
    last = np.bincount(
        [choose(UIDS, SuccessRates(RATES), 11, (2, step))[-1] for step in range(DRAWS)], minlength=5
    )
    assert stats.chisquare(last, DRAWS * WEIGHTS / WEIGHTS.sum()).pvalue > 1e-3


def test_a_draw_depends_on_the_arguments_alone():
    uids, rates = [str(i) for i in range(50)], SuccessRates({str(i): i / 49 for i in range(50)})
    before = rates.state()
    first = choose(uids, rates, 20, (4, 5))
    np.random.default_rng(0).random(3)
    np.testing.assert_array_equal(first, choose(uids, SuccessRates(before), 20, [4, 5]))
    assert rates.state() == before
    assert not np.array_equal(first, choose(uids, rates, 20, (4, 6)))
    assert not np.array_equal(first, choose(uids, SuccessRates(), 20, (4, 5)))


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="3 problems cannot be chosen from none"):
        choose([], SuccessRates(), 3, (0,))


def test_weights_of_any_size_are_told_apart():
    rng = np.random.default_rng(0)
    firsts = [sample_weighted(np.array([1e-9, 3e-9]), 5, rng).tolist() for _ in range(2000)]
    assert all(sorted(first) == [0, 1] for first in firsts)
    assert stats.binomtest(sum(first[0] for first in firsts), 2000, 0.75).pvalue > 1e-3
