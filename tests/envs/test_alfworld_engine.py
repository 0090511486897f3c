"""Our household against ALFWorld's own engine, on the same rooms: the same answers, whatever is done."""

import random
import re
import sys

import pytest

from jaxrl.envs.alfworld import engine
from jaxrl.envs.alfworld.goals import GOALS, draw_room
from jaxrl.envs.alfworld.house import NOTHING, House
from jaxrl.envs.alfworld.planner import all_known, next_step
from jaxrl.envs.world import play
from jaxrl.errors import InputError
from tests.envs import episode_laws as laws


@pytest.fixture
def _package():
    pytest.importorskip("alfworld", reason="the extra `envs` is not installed")


def same(text: str) -> tuple[str, list[str]]:
    """An answer without the order of what it lists, and with 0.4's word for putting."""
    text = re.sub(r"You put the (\w+ \d+) in/on the", r"You move the \1 to the", text)
    names = sorted(re.findall(r"an? (\w+ \d+)", text))
    return re.sub(r"(?:,? (?:and )?an? \w+ \d+)+", " ...", text), names


@pytest.mark.parametrize("goal", GOALS)
def test_every_answer_is_that_of_alfworlds_engine(_package, goal):
    """Half of the steps lead to the goal, the others are by chance; some of them do nothing."""
    rng = random.Random(goal)
    data = draw_room(rng, goal, (6, 8), (5, 8))
    own, theirs = House(data), engine.EngineHouse(data)
    assert same(own.intro()) == same(theirs.intro())
    used = 0
    for turn in range(60):
        assert own.is_solved() == theirs.is_solved()
        if own.is_solved():
            break
        command = next_step(all_known(own))[1] if turn > 12 else rng.choice(own.admissible())
        if turn % 5 == 2:
            place, thing = rng.choice(data["places"]), rng.choice(data["things"])[0]
            command = rng.choice(
                [f"take {thing} from {place}", f"open {place}", f"heat {thing} with {place}"]
            )
        if command.startswith("use "):
            used += 1
            if used > 1:
                continue  # theirs knows no lamp that is turned off
        is_lost = command == "look" and own.at is None  # theirs then sees nothing, though it did at first
        answers = own.act(command), theirs.act(command)
        assert is_lost or same(answers[0]) == same(answers[1]), command
    assert own.is_solved() and turn < 59


def test_a_world_on_their_engine(_package):
    world = laws.make(
        name="alfworld", engine="alfworld", places=[4, 6], things=[3, 5], train=1, val=1, test=1
    )
    problem = world.problems("train")[0]
    for policy in ("expert", "heuristic"):
        played = play(world, problem, policy, random.Random(0))
        assert played.success and played.reward == 1


def test_without_alfworld_the_extra_is_named(monkeypatch):
    engine._alfworld.cache_clear()
    monkeypatch.setitem(sys.modules, "alfworld", None)
    with pytest.raises(InputError, match=r"needs the package alfworld.*jaxrl\[envs\].*engine to own"):
        engine.EngineHouse(draw_room(random.Random(0), "pick", (4, 5), (3, 4)))
    engine._alfworld.cache_clear()


def test_nothing_is_their_word_too(_package):
    house = engine.EngineHouse(draw_room(random.Random(0), "pick", (4, 5), (3, 4)))
    assert house.act("dance with me") == NOTHING
