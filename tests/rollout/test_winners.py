"""Winners: by hand in a table, by the laws of the statistics, and to a file and back."""

import math
import random
from dataclasses import asdict

import pytest

from jaxrl.data.packing import pack
from jaxrl.errors import InputError
from jaxrl.rollout.winners import choose_winners, load_winners, save_winners
from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Verdict

EOS, CUT, STOP = StopReason.EOS, StopReason.MAX_TOKENS, StopReason.STOP_STRING
FATES = ("truncated", "errors", "non_finite", "rejected", "duplicates", "surplus", "winners")


def trajectory(ids, reward=1.0, correct=True, stop=EOS, error=None, uid="p"):
    problem = Problem(uid, ({"role": "user", "content": uid},), {})
    completion = Completion([1, 2], list(ids), [-0.5] * len(ids), stop, f"text {ids}\u2028\u00e9")
    return Trajectory.one_turn(
        problem, completion, Verdict(reward, correct, True, {"part": reward}, error=error), policy_version=3
    )


def group(*trajectories):
    return Group(trajectories[0].problem, trajectories)


def kept_ids(groups, keep_top=8, min_reward=None):
    return [t.rows[0].completion_ids for t in choose_winners(groups, keep_top, min_reward)[0]]


@pytest.mark.parametrize(
    "trajectories, min_reward, expected",
    [
        ([trajectory([7, 0]), trajectory([8, 0], correct=False)], None, [[7, 0]]),
        ([trajectory([7], 1.0), trajectory([8], 1.5)], None, [[8], [7]]),  # by reward,
        # then correctness,
        ([trajectory([7], 1.0, correct=False), trajectory([8, 9], 1.0)], 0.5, [[8, 9], [7]]),
        ([trajectory([7, 8, 9]), trajectory([5, 6])], None, [[5, 6], [7, 8, 9]]),  # then the shorter,
        ([trajectory([9, 9]), trajectory([8, 8])], None, [[9, 9], [8, 8]]),  # then the order sampled
        ([trajectory([7], -2.0)], 0.0, [[7]]),  # correct is enough
        # above, not at
        ([trajectory([7], 0.5, correct=False), trajectory([8], 0.51, correct=False)], 0.5, [[8]]),
        ([trajectory([7], stop=CUT), trajectory([8], stop=STOP)], None, [[8]]),
        ([trajectory([7], error="timeout")], 0.0, []),
        ([trajectory([7], math.nan), trajectory([8], math.inf), trajectory([9], -math.inf)], -9.0, []),
        # said twice
        ([trajectory([7, 8], 1.0), trajectory([9], 2.0), trajectory([7, 8], 1.0)], None, [[9], [7, 8]]),
    ],
)
def test_winners_of_one_problem(trajectories, min_reward, expected):
    assert kept_ids([group(*trajectories)], min_reward=min_reward) == expected


def test_statistics_by_hand():
    first = group(
        trajectory([7, 0], 1.5),
        trajectory([7, 0], 1.5),
        trajectory([8, 8, 0], 1.0),
        trajectory([9] * 4, -2.0, False, CUT),
        trajectory([6, 0], -1.0, False),
        trajectory([5, 0], -2.0, False, error="timeout"),
        trajectory([4, 0], math.nan),
    )
    second = group(trajectory([3, 0], -1.0, correct=False, uid="q"))
    winners, statistics = choose_winners([first, second], keep_top=1, min_reward=None)
    assert winners == [first.trajectories[0]]
    assert asdict(statistics) == dict(
        asked=2,
        solved=1,
        sampled=8,
        correct=4,
        truncated=1,
        errors=1,
        non_finite=1,
        rejected=2,
        duplicates=1,
        surplus=1,
        winners=1,
        reward_sampled=pytest.approx((1.5 + 1.5 + 1.0 - 2.0 - 1.0 - 2.0 - 1.0) / 7),
        reward_kept=1.5,
        length_kept=2.0,
    )


def random_groups(rng, problems, k):
    def one(uid):
        ids = [rng.randrange(3) for _ in range(rng.randint(1, 3))]
        reward = rng.choice([-2.0, -0.5, 0.5, 1.0, 1.5, math.nan])
        return trajectory(
            ids,
            reward,
            rng.random() < 0.5,
            rng.choice([EOS, EOS, STOP, CUT]),
            rng.choice([None] * 4 + ["crash"]),
            uid,
        )

    return [group(*(one(f"p{p}") for _ in range(k))) for p in range(problems)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("keep_top, min_reward", [(1, None), (2, 0.0), (8, None)])
def test_laws(seed, keep_top, min_reward):
    groups = random_groups(random.Random(seed), problems=6, k=8)
    winners, statistics = choose_winners(groups, keep_top, min_reward)
    assert sum(getattr(statistics, fate) for fate in FATES) == statistics.sampled == 48
    assert (statistics.asked, statistics.winners) == (6, len(winners))
    by_problem = [[w for w in winners if w.problem.uid == group.problem.uid] for group in groups]
    assert [w for own in by_problem for w in own] == winners  # in the order of the problems
    assert statistics.solved == sum(map(bool, by_problem))
    for own, group in zip(by_problem, groups):
        assert len(own) <= keep_top and all(w in group.trajectories for w in own)
        assert len({tuple(w.rows[0].completion_ids) for w in own}) == len(own)
        places = [(-w.verdict.reward, not w.verdict.correct, len(w.rows[0].completion_ids)) for w in own]
        assert places == sorted(places)
        for w in own:
            assert (
                w.rows[0].stop_reason is not CUT
                and w.verdict.error is None
                and math.isfinite(w.verdict.reward)
            )
            assert w.verdict.correct or (min_reward is not None and w.verdict.reward > min_reward)
    # problems do not compete
    assert choose_winners(groups[::-1], keep_top, min_reward)[1].winners == statistics.winners


def test_nothing_sampled_and_nothing_won():
    assert choose_winners([], 1, None)[1].reward_sampled is None
    winners, statistics = choose_winners([group(trajectory([7], math.nan))], 1, None)
    assert winners == [] and (statistics.reward_sampled, statistics.reward_kept, statistics.length_kept) == (
        None,
        None,
        None,
    )


def test_to_a_file_and_back(tmp_path):
    winners, statistics = choose_winners(random_groups(random.Random(1), 5, 8), keep_top=2, min_reward=None)
    path = tmp_path / "stage" / "1.jsonl"
    save_winners(path, winners, statistics)
    loaded, again = load_winners(path)
    assert again == statistics and len(loaded) == len(winners) > 2
    for line, winner in zip(loaded, winners):
        assert (line.prompt_ids, line.completion_ids) == (
            winner.rows[0].prompt_ids,
            winner.rows[0].completion_ids,
        )
        assert (line.sample["uid"], line.sample["completion"]) == (winner.problem.uid, winner.rows[0].text)
    assert [file.name for file in path.parent.iterdir()] == ["1.jsonl"]


def test_no_winners_have_a_file_too(tmp_path):
    nothing, statistics = choose_winners([group(trajectory([7], correct=False))], 1, None)
    save_winners(tmp_path / "1.jsonl", nothing, statistics)
    assert load_winners(tmp_path / "1.jsonl") == ([], statistics)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: text.index("\n") + 1],
        lambda text: "{}\n" + text,
        lambda text: text[:-20] + "\n",
    ],
)
def test_a_broken_file_is_named(damage, tmp_path):
    path = tmp_path / "1.jsonl"
    save_winners(path, *choose_winners([group(trajectory([7]), trajectory([8]))], 2, None))
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match=r"1\.jsonl is not a file of winners"):
        load_winners(path)


def test_the_loss_is_on_what_was_sampled_and_nothing_else(tmp_path):
    save_winners(tmp_path / "1.jsonl", *choose_winners([group(trajectory([7, 8, 0]))], 1, None))
    (winner,), _ = load_winners(tmp_path / "1.jsonl")
    rows = pack([winner.example], seq_len=8)
    assert rows.tokens.tolist() == [[1, 2, 7, 8, 0, 0, 0, 0]]
    assert rows.loss_mask.tolist() == [[False, False, True, True, True, False, False, False]]
