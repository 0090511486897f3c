"""Laws that every world keeps, as functions of a world; the tests of each world call them."""

import json
import random
from typing import Any

import pytest
from pydantic import TypeAdapter

from jaxrl.config.envs import EnvSection
from jaxrl.envs import make_world
from jaxrl.envs.base import World
from jaxrl.envs.world import play, replay
from jaxrl.errors import InputError
from jaxrl.stats import jeffreys_interval
from jaxrl.tasks.base import SPLITS
from jaxrl.types import Problem
from tests.tasks.fresh import output_of

HOSTILE = (
    "",
    "Action:",
    "Action: Action: Action:",
    "Thought: x\nAction: " + "a" * 100_000,
    "Action: " + "take " * 40_000,
    "Action: go to " + "9" * 5_000,
    "Action: go to cabinet 1\x00\u202e\U0001f600",
    "Action: " + "(" * 20_000,
    "{" * 20_000,
    '{"function_name": ' + "[" * 20_000,
    "```python\n" + "-" * 5_000 + "1\n```",
    "Action: put in/on",
    "Action: __import__('os').system('true')",
    "\ud800",
)


def make(**section: Any) -> World:
    return make_world(TypeAdapter(EnvSection).validate_python(section))


def check_replay_is_play(world: World, problems: list[Problem], policy: str) -> None:
    """The turns of an episode, given again to a fresh one, are answered in the same way."""
    for index, problem in enumerate(problems):
        played = play(world, problem, policy, random.Random(index))
        assert replay(world, problem, played.turns).results == played.results
        assert played.messages[: len(problem.messages)] == list(problem.messages)


def check_problems_are_json(world: World, problems: list[Problem]) -> None:
    for problem in problems:
        assert world.problem(json.loads(json.dumps(problem.data))) == problem


def check_splits_are_disjoint(world: World) -> None:
    uids = {split: [problem.uid for problem in world.problems(split)] for split in SPLITS}
    every = [uid for split in SPLITS for uid in uids[split]]
    assert all(uids.values())
    assert len(set(every)) == len(every)


def check_hostile_turns_are_answered(world: World, problem: Problem) -> None:
    """Whatever a policy says gets an answer that is not long and pays nothing."""
    for text in HOSTILE:
        environment = world.environment(problem)
        environment.start()
        result = environment.step(text)
        assert result.reward == 0 and len(result.observation) < 20_000
        json.dumps(result.observation)


def check_an_episode_is_used_once(world: World, problem: Problem) -> None:
    environment = world.environment(problem)
    with pytest.raises(InputError, match="has not begun"):
        environment.step("look")
    environment.start()
    with pytest.raises(InputError, match="has begun"):
        environment.start()
    for _ in range(1_000):
        if environment.step("nothing").done:
            break
    with pytest.raises(InputError, match="is over"):
        environment.step("look")


def check_all_is_the_same_everywhere(policy: str, **section: Any) -> None:
    """Problems and an episode hang on nothing but the settings: not on the seed of hashes."""
    program = f"""
import random, json
from tests.envs.episode_laws import make
from jaxrl.envs.world import play
world = make(**{section!r})
problems = [problem for split in ("train", "val", "test") for problem in world.problems(split)]
print(json.dumps([problem.data for problem in problems]))
print(play(world, problems[0], {policy!r}, random.Random(0)).messages)
"""
    assert output_of(program, "1") == output_of(program, "2")


def success(world: World, problems: list[Problem], policy: str) -> tuple[float, tuple[float, float]]:
    """A policy's share of successes, and its interval."""
    won = [play(world, problem, policy, random.Random(i)).success for i, problem in enumerate(problems)]
    return sum(won) / len(won), jeffreys_interval(sum(won), len(won))
