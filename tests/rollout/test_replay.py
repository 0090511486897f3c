"""The replay buffer: bounded, without doubles, the best kept, hard problems first, and the same after a
save.
"""

import dataclasses
import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from jaxrl.errors import InputError
from jaxrl.rollout.curriculum import FLOOR, SuccessRates
from jaxrl.rollout.replay import Entry, ReplayBuffer
from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Verdict

NO_LIMIT = 10**6
DRAWS = 8000


def offer(uid, ids, version=0, reward=None, correct=True, error=None, stop=StopReason.EOS):
    """(trajectory, advantage). Unless given, the reward follows from the ids, as with a real verifier."""
    reward = float(sum(ids) % 3) if reward is None else reward
    said = Completion([1, len(uid)], list(ids), [-0.1 * (version + 1) * i for i in ids], stop)
    verdict = Verdict(reward, correct, True, error=error)
    return Trajectory.one_turn(Problem(uid, (), {}), said, verdict, version), version + 0.1


def add(buffer, offers, rates=None):
    """The offers as groups of one trajectory."""
    groups = [Group(trajectory.problem, (trajectory,)) for trajectory, _ in offers]
    return buffer.add(groups, [[advantage] for _, advantage in offers], rates or SuccessRates())


def random_offers(rng, count, problems=5):
    """Few problems and few possible completions, so that doubles and ties are common; a third is wrong."""
    return [
        offer(
            f"problem {rng.integers(problems)}",
            rng.integers(1, 4, rng.integers(1, 4)).tolist(),
            version=int(rng.integers(6)),
            correct=bool(rng.random() < 0.67),
        )
        for _ in range(count)
    ]


def random_rates(rng, problems=5):
    return SuccessRates({f"problem {i}": float(rng.integers(4)) / 3 for i in range(problems)})


def held(buffer):
    return {(e["uid"], tuple(e["completion_ids"])): e["policy_version"] for e in buffer.state()}


def test_an_entry_is_what_was_sampled_and_judged():
    said = Completion([1, 2], [3, 4], [-0.5, -0.25], StopReason.STOP_STRING, "text")
    problem = Problem("p", (), {})
    group = Group(problem, (Trajectory.one_turn(problem, said, Verdict(2.0, True, True), 7),))
    buffer = ReplayBuffer(2, 10)
    assert buffer.add([group], np.array([[1.5]], np.float32), SuccessRates()) == 1
    entry = Entry("p", [1, 2], [3, 4], [-0.5, -0.25], 2.0, True, 1.5, 7)
    assert buffer.draw(1, SuccessRates(), (0,)) == [entry] and buffer.state() == [dataclasses.asdict(entry)]


def test_advantages_go_to_their_trajectories_past_those_that_stay_out():
    problems = [Problem("p", (), {}), Problem("q", (), {})]
    rows = [[([1], True), ([2], False), ([3], True)], [([1], False), ([2], True), ([3], True)]]
    groups = [
        Group(
            p,
            tuple(
                Trajectory.one_turn(p, offer("", ids)[0].rows[0], Verdict(1.0, right, True), 0)
                for ids, right in row
            ),
        )
        for p, row in zip(problems, rows)
    ]
    buffer = ReplayBuffer(3, 10)
    assert buffer.add(groups, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], SuccessRates()) == 4
    assert [(e["uid"], e["completion_ids"][0], e["advantage"]) for e in buffer.state()] == [
        ("p", 1, 0.1),
        ("p", 3, 0.3),
        ("q", 2, 0.5),
        ("q", 3, 0.6),
    ]
    with pytest.raises(ValueError):
        buffer.add(groups, [[0.1, 0.2], [0.4, 0.5]], SuccessRates())


@pytest.mark.parametrize(
    "flaw",
    [
        {"correct": False},
        {"error": "timeout"},
        {"stop": StopReason.MAX_TOKENS},
        {"reward": math.nan},
        {"reward": math.inf},
    ],
)
def test_only_verified_and_finished_completions_enter(flaw):
    buffer = ReplayBuffer(2, 10)
    assert add(buffer, [offer("p", [1], **flaw), offer("p", [2])]) == 1
    assert held(buffer) == {("p", (2,)): 0}


def test_a_double_counts_once_and_only_a_newer_one_refreshes():
    buffer = ReplayBuffer(2, 10)
    first = offer("p", [1, 2], version=3)
    assert add(buffer, [first, (first[0], 9.0)]) == 1 and buffer.state()[0]["advantage"] == first[1]
    assert add(buffer, [offer("p", [1, 2], version=2)]) == 0 and held(buffer) == {("p", (1, 2)): 3}
    assert add(buffer, [offer("p", [1, 2], version=5)]) == 0 and len(buffer) == 1
    trajectory, advantage = offer("p", [1, 2], version=5)
    (entry,) = buffer.draw(5, SuccessRates(), (0,))
    fresh = (5, advantage, trajectory.rows[0].sampler_logprobs)
    assert (entry.policy_version, entry.advantage, entry.sampler_logprobs) == fresh
    assert add(buffer, [offer("another problem", [1, 2])]) == 1, (
        "the same words about another problem are no double"
    )


def test_the_best_are_those_with_more_reward_then_shorter_then_newer():
    ranked = [
        ("p", [9, 9], 0, 3.0),
        ("p", [4], 0, 2.0),
        ("p", [5, 6], 8, 2.0),
        ("p", [5, 7], 7, 2.0),
        ("p", [8], 9, 1.0),
    ]
    for kept in range(1, 6):
        for order in itertools.permutations(ranked):
            buffer = ReplayBuffer(kept, 100)
            for one in order:
                add(buffer, [offer(*one)])
            assert sorted(e["completion_ids"] for e in buffer.state()) == sorted(
                ids for _, ids, _, _ in ranked[:kept]
            )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("per_problem", [1, 3])
def test_what_is_kept_is_the_best_of_all_ever_offered(seed, per_problem):
    rng = np.random.default_rng(seed)
    buffer, newest = ReplayBuffer(per_problem, NO_LIMIT), {}
    for _ in range(8):
        offers = random_offers(rng, 12)
        add(buffer, offers, random_rates(rng))
        for trajectory, _ in offers:
            key = trajectory.problem.uid, tuple(trajectory.rows[0].completion_ids)
            if trajectory.verdict.correct:
                newest[key] = max(newest.get(key, 0), trajectory.policy_version)
        best = {}
        for uid in {uid for uid, _ in newest}:
            mine = [(-(sum(ids) % 3), len(ids), -newest[u, ids], ids) for u, ids in newest if u == uid]
            best |= {(uid, ids): -minus_version for *_, minus_version, ids in sorted(mine)[:per_problem]}
        assert held(buffer) == best


@pytest.mark.parametrize("seed", range(10))
def test_bounded_always_and_new_entries_are_counted(seed):
    rng = np.random.default_rng(seed)
    per_problem, capacity = (int(n) for n in rng.integers(1, 7, 2))
    buffer = ReplayBuffer(per_problem, capacity)
    for _ in range(30):
        before = set(held(buffer))
        added = add(buffer, random_offers(rng, 6), random_rates(rng))
        assert added == len(set(held(buffer)) - before)
        assert len(buffer) == len(held(buffer)) <= capacity
        assert max(Counter(uid for uid, _ in held(buffer)).values(), default=0) <= per_problem


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_arrival_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    offers, rates = random_offers(rng, 60), random_rates(rng)
    states, draws = [], []
    for pieces in (1, 4, 60):
        buffer = ReplayBuffer(2, NO_LIMIT)
        shuffled = [offers[i] for i in rng.permutation(60)]
        for at in range(pieces):
            add(buffer, shuffled[at::pieces], rates)
        states.append(buffer.state())
        draws.append(buffer.draw(5, rates, (seed, 1)))
    assert states[0] == states[1] == states[2] and draws[0] == draws[1] == draws[2]


def test_the_easiest_make_room_first_and_among_equals_the_oldest():
    rates = SuccessRates({"hard": 0.0, "middle": 0.5, "easy": 0.75, "solved": 1.0})
    offers = [
        offer(uid, [i], version=v)
        for uid in ("solved", "hard", "easy", "middle")
        for i, v in [(1, 4), (2, 6)]
    ]
    hardest_first = [(uid, (i,)) for uid in ("hard", "middle", "easy", "solved") for i in (2, 1)]
    for capacity in range(1, 9):
        at_once, one_by_one = ReplayBuffer(2, capacity), ReplayBuffer(2, capacity)
        add(at_once, offers, rates)
        for one in offers:
            add(one_by_one, [one], rates)
        assert set(held(at_once)) == set(held(one_by_one)) == set(hardest_first[:capacity])


@pytest.mark.parametrize("capacity", range(1, 6))
def test_among_the_equally_easy_and_old_the_names_decide_not_the_order_of_arrival(capacity):
    offers = [offer(uid, [i]) for uid, i in [("a", 1), ("a", 2), ("b", 1), ("b", 3), ("c", 1)]]
    for order in itertools.permutations(offers):
        buffer = ReplayBuffer(2, capacity)
        add(buffer, order)
        assert list(held(buffer)) == [
            (t.problem.uid, tuple(t.rows[0].completion_ids)) for t, _ in offers[:capacity]
        ]


def test_who_makes_room_goes_by_the_rates_of_now():
    buffer = ReplayBuffer(1, 2)
    add(buffer, [offer("a", [1]), offer("b", [1])], SuccessRates({"a": 0.0, "b": 1.0}))
    add(buffer, [offer("c", [1])], SuccessRates({"a": 0.9, "b": 0.1, "c": 0.2}))
    assert {uid for uid, _ in held(buffer)} == {"b", "c"}


def test_draws_are_distinct_and_as_many_as_there_are():
    buffer, rates = ReplayBuffer(2, 100), SuccessRates()
    assert buffer.draw(3, rates, (0,)) == []
    add(buffer, [offer(uid, [i]) for uid in "abc" for i in (1, 2)])
    for count, seed in itertools.product((0, 1, 4, 6, 50), range(20)):
        drawn = buffer.draw(count, rates, (seed,))
        assert len({(e.uid, *e.completion_ids) for e in drawn}) == len(drawn) == min(count, 6)
        assert drawn == buffer.draw(count, rates, [seed])
    assert len({str(buffer.draw(6, rates, (seed,))) for seed in range(20)}) > 1


def test_hard_problems_are_drawn_more_often_in_proportion():
    by_uid = {"hard": 0.0, "middle": 0.5, "solved": 1.0}
    buffer, rates = ReplayBuffer(1, 10), SuccessRates(by_uid)
    add(buffer, [offer(uid, [1]) for uid in by_uid])
    drawn = [[entry.uid for entry in buffer.draw(2, rates, (3, step))] for step in range(DRAWS)]
    weights = np.array([1 - rate + FLOOR for rate in by_uid.values()])
    first = [sum(uids[0] == uid for uids in drawn) for uid in by_uid]
    assert stats.chisquare(first, DRAWS * weights / weights.sum()).pvalue > 1e-3
    among_two = [sum(uid in uids for uids in drawn) for uid in by_uid]
    assert among_two == sorted(among_two, reverse=True) and min(first) > 0


@pytest.mark.parametrize("seed", range(5))
def test_saved_and_read_again_it_is_the_same_buffer(seed):
    rng = np.random.default_rng(seed)
    first, rates = ReplayBuffer(2, 7), random_rates(rng)
    offers = [(trajectory, np.float32(rng.normal())) for trajectory, _ in random_offers(rng, 40)]
    add(first, offers, rates)
    saved = json.dumps(first.state(), allow_nan=False)
    second = ReplayBuffer(2, 7, entries=json.loads(saved))
    assert (
        second.state() == first.state()
        and json.dumps(second.state()) == saved
        and len(second) == len(first) > 0
    )
    more = random_offers(rng, 10)
    for step in range(20):
        assert first.draw(3, rates, (seed, step)) == second.draw(3, rates, (seed, step))
    assert add(first, more, rates) == add(second, more, rates)
    assert first.state() == second.state() and json.dumps(second.state()) != saved


def test_bounds_that_became_smaller_hold_for_what_was_saved():
    buffer = ReplayBuffer(3, 100)
    add(buffer, [offer(uid, [3 * i], version=i) for uid in "abc" for i in (1, 2, 3)])
    assert set(held(ReplayBuffer(1, 100, entries=buffer.state()))) == {(uid, (9,)) for uid in "abc"}
    assert set(held(ReplayBuffer(3, 2, entries=buffer.state()))) == {("a", (9,)), ("b", (9,))}


@pytest.mark.parametrize("change", [lambda e: e.pop("reward"), lambda e: e.update(more=1)])
def test_a_state_of_another_make_is_refused(change):
    buffer = ReplayBuffer(2, 10)
    add(buffer, [offer("p", [1]), offer("p", [2])])
    state = buffer.state()
    change(state[1])
    assert buffer.state()[1] != state[1], "a state is a copy"
    with pytest.raises(
        InputError, match="entry 1 of a saved replay buffer has .* where .* belong; resume with the version"
    ):
        ReplayBuffer(2, 10, entries=state)
    with pytest.raises(InputError, match="entry 0 of a saved replay buffer has .'str'. where"):
        ReplayBuffer(2, 10, entries=["uid"])


def test_a_buffer_that_was_saved_before_there_were_sets_is_taken():
    buffer = ReplayBuffer(2, 10)
    add(buffer, [offer("p", [1])])
    older = [{name: value for name, value in entry.items() if name != "excluded"} for entry in buffer.state()]
    assert ReplayBuffer(2, 10, older).state() == buffer.state() and buffer.state()[0]["excluded"] is None


def test_where_the_advantage_is_what_teaches_none_enters_without_one():
    """And a newer copy from a group that is solved by now does not displace the one that teaches."""
    buffer = ReplayBuffer(2, 10, needs_advantage=True)
    teaches, _ = offer("a", [1, 2], version=1)
    newer, _ = offer("a", [1, 2], version=2)
    other, _ = offer("b", [3], version=2)
    buffer.add([Group(teaches.problem, (teaches,))], [[0.7]], SuccessRates())
    assert buffer.add([Group(t.problem, (t,)) for t in (newer, other)], [[0.0], [0.0]], SuccessRates()) == 0
    assert [(entry["uid"], entry["advantage"]) for entry in buffer.state()] == [("a", 0.7)]
