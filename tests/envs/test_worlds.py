"""Laws of every world: replay is play, splits share nothing, the expert succeeds, and nothing that a policy
says breaks an episode.
"""

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl.config.envs import env_sections
from jaxrl.config.experiment import TASKS
from jaxrl.config.file import make_env_section
from jaxrl.envs import ENVS
from jaxrl.envs.formats import READERS
from jaxrl.envs.world import play, replay
from jaxrl.errors import InputError
from jaxrl.stats import jeffreys_interval
from jaxrl.types import Problem
from tests.envs.worlds import NAMES, played, world_of

ROOT = Path(__file__).resolve().parents[2]
worlds = pytest.mark.parametrize("name", NAMES)


def test_every_section_has_a_world_and_no_world_is_called_as_a_task():
    assert sorted(env_sections()) == sorted(ENVS)
    assert not set(ENVS) & set(TASKS), "the command line takes either"
    with pytest.raises(InputError, match="unknown world 'chess'; the worlds are: agentgym, "):
        make_env_section("chess", {})


@worlds
def test_the_expert_always_succeeds_and_chance_seldom(name):
    world = world_of(name)
    assert all(t.success and t.reward == 1.0 and t.stop_reason == "env_done" for t in played(world, "expert"))
    assert all(t.metrics["score"] == 1.0 and t.metrics["parse_errors"] == 0 for t in played(world, "expert"))
    lucky = sum(t.success for t in played(world, "random", "train"))
    assert jeffreys_interval(lucky, 40)[1] < 0.6


@worlds
@pytest.mark.parametrize("policy", ["expert", "heuristic", "random"])
@pytest.mark.parametrize(
    "values",
    [{}, {"action_format": "function_calling", "shaping": 0.5}, {"compat": "agentgym", "max_turns": 12}],
    ids=str,
)
def test_replay_is_play(name, policy, values):
    world = world_of(name, **values)
    for transcript in played(world, policy):
        problem = Problem("", (), json.loads(json.dumps(transcript.problem.data)))  # through a file
        again = replay(world, problem, transcript.turns)
        assert (again.messages, again.results) == (transcript.messages, transcript.results)
        assert not again.unused
        longer = replay(world, problem, [*transcript.turns, "more"])
        assert (longer.results, longer.unused) == (transcript.results, 1)


@worlds
def test_the_formats_say_the_same_episode(name):
    by_format = [
        [(t.results, len(t.turns)) for t in played(world_of(name, action_format=action_format), "random")]
        for action_format in READERS
    ]
    assert by_format[0] == by_format[1] == by_format[2]


@worlds
def test_no_problem_is_in_two_splits_whatever_seed_and_sizes(name):
    first, second = world_of(name), world_of(name, seed=1, train=90, val=9)
    data = {
        split: {
            json.dumps(problem.data, sort_keys=True)
            for world in (first, second)
            for problem in world.problems(split)
        }
        for split in ("train", "val", "test")
    }
    assert all(not data[a] & data[b] for a, b in itertools.combinations(data, 2))
    assert [p.data for p in second.problems("val")] != [p.data for p in first.problems("val")][:9]
    uids = [problem.uid for split in data for problem in first.problems(split)]
    assert len(uids) == len(set(uids)) == 80
    more = world_of(name, train=41)
    assert [p.uid for p in more.problems("train")][:40] == [p.uid for p in first.problems("train")]


@worlds
def test_what_is_shown_at_first_is_what_the_problem_says(name):
    for values in ({}, {"compat": "agentgym"}):
        world = world_of(name, **values)
        for problem in world.problems("val"):
            assert tuple(world.environment(problem).start()) == problem.messages
            assert problem == world.problem(problem.data)


PROGRAM = """
import random, sys
from jaxrl.config.file import make_env_section
from jaxrl.envs import make_world
from jaxrl.envs.world import play
for name in sys.argv[1:]:
    world = make_world(make_env_section(name, {"train": 5, "val": 5, "test": 0}))
    for problem in world.problems("train") + world.problems("val"):
        for policy in world.policies():
            print(play(world, problem, policy, random.Random(0)))
"""


def test_no_hash_seed_and_no_process_changes_an_episode():
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *NAMES],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] and len(said[0]) > 10_000


@worlds
@pytest.mark.parametrize("compat", [None, "agentgym"])
def test_nothing_that_a_policy_says_breaks_an_episode(name, compat):
    world = world_of(name, compat=compat, shaping=0.25, max_turns=400)
    rng = random.Random(0)
    signs = "Action: getcraft usingsearch[click]{}\"'\n\t\x00\x1b\u202e\ud800é日1234567890,"
    environment = world.environment(world.problems("val")[0])
    environment.start()
    words = environment.game.actions()
    for turn in range(300):
        noise = "".join(rng.choices(signs, k=rng.randint(0, 60)))
        text = (
            rng.choice(["", "Action: "])
            + rng.choice(["", noise, rng.choice(words)])
            + rng.choice(["", noise])
        )
        result = environment.step("x" * 10_000_000 if turn == 0 else text)
        assert len(result.observation) < 20_000
        if result.done:
            environment = world.environment(world.problems("val")[0])
            environment.start()


@worlds
def test_turns_that_cannot_be_read_are_answered_and_counted(name):
    problem = world_of(name).problems("val")[0]
    transcript = replay(world_of(name, max_turns=3), problem, ["nothing", "Action: a\nAction: b", "Action:"])
    assert transcript.metrics["parse_errors"] == 3
    assert transcript.stop_reason == "max_turns" and transcript.reward == 0 and not transcript.success
    assert all("could not be read" in result.observation for result in transcript.results)
    good = play(world_of(name), problem, "expert", random.Random(0)).turns
    mixed = replay(world_of(name), problem, [turn for each in good for turn in ("nothing", each)])
    assert mixed.success and mixed.metrics["parse_errors"] == len(good), "an unread turn changes nothing"
    there = replay(world_of(name, compat="agentgym"), problem, ["nothing", *good])
    assert there.success and there.metrics["parse_errors"] == 1


@worlds
def test_an_episode_is_used_once(name):
    world = world_of(name)
    problem = world.problems("val")[0]
    environment = world.environment(problem)
    with pytest.raises(InputError, match=f"this episode of {name} has not begun; call start first"):
        environment.step("Action: x")
    environment.start()
    with pytest.raises(InputError, match="has begun before; ask the world for a new one"):
        environment.start()
    for turn in play(world, problem, "expert", random.Random(0)).turns:
        environment.step(turn)
    with pytest.raises(InputError, match="is over; ask the world for a new one"):
        environment.step("Action: x")
    with pytest.raises(InputError, match=f"unknown policy 'wizard' of {name}; it has: expert, "):
        world.act("wizard", world.environment(problem), random.Random(0))


@worlds
def test_shaping_pays_for_the_way_and_is_never_hidden(name):
    """It adds up to its weight times how far the episode came, and what is not shaping is the true reward."""
    plain, shaped = world_of(name), world_of(name, shaping=0.5)
    for policy in ("expert", "random"):
        for one, other in zip(played(plain, policy), played(shaped, policy), strict=True):
            assert one.turns == other.turns
            paid = other.metrics["shaping"]
            assert other.reward == pytest.approx(one.reward + paid)
            assert other.metrics["score"] == one.reward == one.metrics["score"]
            assert -1e-9 <= paid <= 0.5 + 1e-9
            if policy == "expert":
                assert paid == pytest.approx(0.5)


@worlds
def test_data_of_no_problem_are_refused(name):
    with pytest.raises(InputError, match="field '"):
        world_of(name).problem({})
