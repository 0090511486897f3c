"""BabyAI in words: the prose and every listed action against the grid, the teacher, AgentGym's ways."""

import copy
import random
import sys

import pytest

from jaxrl.envs.babyai.levels import LEVELS, make, picture
from jaxrl.envs.babyai.policies import Teacher
from jaxrl.envs.babyai.rules import GridWorld
from jaxrl.envs.babyai.view import CHECK, DROP, FORWARD, PICKUP, TOGGLE, View
from jaxrl.envs.world import play
from jaxrl.errors import InputError
from tests.envs import episode_laws as laws

NOT_SOLVED = {
    "PutNextS7N4Carrying",
    "KeyInBox",
    "OpenDoorsOrderN4Debug",
    "UnlockToUnlock",
}  # by minigrid's bot
FEW = ["GoToLocalS8N7", "PickupLoc", "OpenRedDoor"]


@pytest.fixture(autouse=True)
def _package():
    pytest.importorskip("minigrid", reason="the extra `envs` is not installed")


def world(**section):
    return laws.make(**{"name": "babyai", "levels": FEW, "train": 12, "val": 6, "test": 6} | section)


def test_there_are_forty_levels_and_all_begin():
    assert len(LEVELS) == len(set(LEVELS)) == 40
    for level in LEVELS:
        game = GridWorld(make(level, 0), None)
        assert game.opening.startswith(f"Your goal: {game.environment.mission}\n")
        assert "You are facing" in game.opening or "The room has walls around you. You are" in game.opening
        assert game.actions()[:2] == ["turn left", "turn right"] and game.actions()[-1] == CHECK


def test_the_prose_of_a_room_that_was_laid_by_hand():
    from minigrid.core.world_object import Ball, Box, Door, Key

    environment = make("GoToObjS6", 0)
    grid = environment.grid
    for x in range(1, 5):
        for y in range(1, 5):
            grid.set(x, y, None)
    environment.agent_pos, environment.agent_dir = (2, 4), 3  # looks up
    grid.set(2, 2, Ball("red"))
    grid.set(1, 3, Key("blue"))
    grid.set(4, 3, Box("grey"))
    grid.set(4, 1, Ball("red"))
    grid.set(2, 0, Door("green"))
    view = View(environment)
    assert view.prose() == (
        "In front of you in this room, you can see several objects: "
        "There is a red ball 1 right in front of you 2 steps away.  "
        "There is a blue key 1 1 steps in front of you and 1 steps to your left.  "
        "There is a grey box 1 1 steps in front of you and 2 steps to your right.  "
        "There is a green closed door 1 right in front of you 4 steps away.  "
        "There is a red ball 2 3 steps in front of you and 2 steps to your right.  "
        "The room has walls around you. You are not carrying anything."
    )
    things = ["red ball 1", "red ball 2", "blue key 1", "grey box 1"]
    assert set(view.macros()) == {
        *("turn left", "turn right", "move forward", CHECK),
        *("toggle and go through green closed door 1", "go to green closed door 1"),
        *(f"{verb} {thing}" for verb in ("go to", "pick up") for thing in things),
    }
    assert view.macros()["pick up red ball 1"] == [FORWARD, PICKUP]
    environment.step(FORWARD), environment.step(PICKUP)
    view = View(environment)
    assert view.prose().endswith("You are carrying a red ball.")
    assert "drop" in view.macros() and not any(name.startswith("pick up") for name in view.macros())


def test_every_listed_action_does_all_its_steps():
    """On a copy of the grid each macro ends where it says: facing, holding, or in the doorway."""
    rng = random.Random(0)
    for number, level in enumerate(LEVELS[::5]):
        game = GridWorld(make(level, number), None)
        for _ in range(4):
            for name, steps in game.macros.items():
                ahead = copy.deepcopy(game.environment)
                over = False
                for step in steps:
                    before = (
                        tuple(ahead.agent_pos),
                        ahead.agent_dir,
                        ahead.carrying,
                        ahead.grid.encode().tobytes(),
                    )
                    _, _, terminated, truncated, _ = ahead.step(step)
                    over = over or terminated or truncated
                    after = (
                        tuple(ahead.agent_pos),
                        ahead.agent_dir,
                        ahead.carrying,
                        ahead.grid.encode().tobytes(),
                    )
                    assert before != after or over, (level, name)
                if over:
                    continue
                front = ahead.grid.get(*ahead.front_pos)
                if name.startswith("go to "):
                    assert front is not None and f"{front.color} " in name and front.type in name
                if name.startswith("pick up"):
                    assert f"{ahead.carrying.color} {ahead.carrying.type}" in name
                if "go through" in name:
                    assert ahead.grid.get(*ahead.agent_pos).type == "door"
            if game.act(rng.choice(game.actions())).done:
                break


def test_the_teacher_solves_what_the_bot_solves():
    """Every second level once, and those that it does not: there turns pass, without an error or a loop."""
    long = {"GoToImpUnlock", "KeyCorridorS6R3", "SynthSeq", "BossLevelNoUnlock"}
    for level in sorted({*LEVELS[::2], *NOT_SOLVED} - long):
        game = GridWorld(make(level, 1), None)
        teacher = Teacher(game.environment)
        game.teacher = teacher
        for _ in range(120):
            _, action = teacher.choose(game.macros)
            answer = game.act(action)
            if answer.done or action == CHECK:
                break
        if level not in NOT_SOLVED:
            assert answer.reward > 0.1 and answer.metrics["success"] == 1, level


def test_the_laws():
    made = world()
    problems = made.problems("val")
    for policy in made.policies():
        laws.check_replay_is_play(made, problems[:3], policy)
    laws.check_problems_are_json(made, problems)
    laws.check_splits_are_disjoint(made)
    laws.check_hostile_turns_are_answered(made, problems[0])
    laws.check_an_episode_is_used_once(made, problems[0])
    assert laws.success(made, made.problems("train"), "expert")[0] == 1
    assert laws.success(made, made.problems("train"), "heuristic")[0] > 0.5


def test_no_two_splits_share_a_grid():
    made = world(levels=["GoToObjS6"], train=20, val=5, test=5)
    grids = {
        split: {str(picture(make(p.data["level"], p.data["seed"]))) for p in made.problems(split)}
        for split in ("train", "val", "test")
    }
    assert [len(grids[split]) for split in grids] == [20, 5, 5]
    assert len(set.union(*grids.values())) == 30


def test_all_is_the_same_everywhere():
    laws.check_all_is_the_same_everywhere("random", name="babyai", levels=FEW, train=3, val=2, test=2)


def test_the_reward_is_minigrids():
    made = world(levels=["GoToRedBallGrey"])
    for problem in made.problems("train")[:5]:
        played = play(made, problem, "expert", random.Random(0))
        environment = make(problem.data["level"], problem.data["seed"])
        steps = 0
        bot = Teacher(environment)
        while bot.next is not None and bot.next <= TOGGLE:
            _, reward, terminated, _, _ = environment.step(step := bot.next)
            bot.follow(step)
            steps += 1
            if terminated:
                break
        assert (
            played.reward == pytest.approx(reward) == pytest.approx(1 - 0.9 * steps / environment.max_steps)
        )


def test_agentgyms_ways():
    plain, like = world(), world(compat="agentgym")
    game = like.environment(like.problems("train")[1]).game
    assert any(name.startswith("pickup ") for name in game.actions())
    assert not any(name.startswith("pick up") for name in game.actions())
    assert game.act("please check it").observation.startswith("You can take the following actions: turn left")
    assert (
        "not recognized"
        in plain.environment(plain.problems("train")[1]).game.act("please check it").observation
    )
    data = {"level": "GoToSeqS5R2", "seed": 1}
    told = {
        compat: world(compat=compat).problem(data).messages[-1]["content"] for compat in (None, "agentgym")
    }
    assert "after you" in told[None] and "after you" not in told["agentgym"]
    assert laws.success(like, like.problems("train"), "expert")[0] == 1


def test_a_slow_success_never_ends_an_episode_of_agentgyms():
    for compat, done in ((None, True), ("agentgym", False)):
        game = GridWorld(make("GoToRedBallGrey", 0), compat)
        game.environment.step_count = int(game.environment.max_steps * 0.6)
        game.teacher = Teacher(game.environment)
        for _ in range(20):
            answer = game.act(game.teacher.choose(game.macros)[1])
            if answer.reward > 0 or answer.done:
                break
        assert 0.3 < answer.reward < 0.5 and answer.done is done


def test_both_names_of_picking_up_are_understood():
    game = GridWorld(make("PickupLoc", 0), None)
    name = next(name for name in game.actions() if name.startswith("pick up"))
    assert "carrying a" in game.act(name.replace("pick up", "pickup").upper()).observation


def test_a_thing_that_is_put_down_lies_in_front():
    game = GridWorld(make("PickupDistDebug", 3), None)
    name = next(name for name in game.actions() if name.startswith("pick up"))
    if not game.act(name).done:
        assert game.macros["drop"] == [DROP]
        assert "right in front of you 1 steps away" in game.act("drop").observation


def test_an_unknown_level_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(InputError, match="'GoNowhere'; the levels are"):
        world(levels=["GoNowhere"])
    with pytest.raises(InputError, match="level"):
        world().problem({"level": "GoNowhere", "seed": 1})
    with pytest.raises(InputError, match="seed"):
        world().problem({"level": "Open", "seed": -1})


def test_without_minigrid_the_extra_is_named(monkeypatch):
    from jaxrl.envs.babyai import levels

    levels._maker.cache_clear()
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(InputError, match=r"needs the package minigrid.*jaxrl\[envs\]"):
        world()
    levels._maker.cache_clear()


def test_levels_without_a_grid_left_give_way_and_then_it_is_said():
    rules = world(levels=["GoToObjS6", "GoToRedBallGrey"]).rules
    grids = []
    assert rules.draw(random.Random(0), 0, lambda grid: len(grids) > 200 or grids.append(grid))["level"] == (
        "GoToRedBallGrey"
    )
    with pytest.raises(InputError, match="of each of the 2 levels gave no new grid; ask for fewer"):
        rules.draw(random.Random(0), 9, lambda grid: False)
