"""The household: its grammar by hand, its goals by an independent search, its policies."""

import random
from collections import deque

import pytest

from jaxrl.envs.alfworld.goals import GOALS, draw_room
from jaxrl.envs.alfworld.house import NOTHING, House
from jaxrl.envs.alfworld.planner import all_known, known_from, next_step
from jaxrl.errors import InputError
from tests.envs import episode_laws as laws

ROOM = {
    "places": ["desk 1", "drawer 1", "fridge 1", "microwave 1", "sinkbasin 1", "shelf 1"],
    "things": [["mug 1", "drawer 1"], ["pen 1", "desk 1"], ["desklamp 1", "desk 1"], ["book 2", "desk 1"]],
    "goal": {"kind": "heat", "thing": "mug", "place": "shelf", "text": "put a hot mug in shelf."},
}


def house(**goal) -> House:
    return House(ROOM | {"goal": ROOM["goal"] | goal})


@pytest.fixture(scope="module")
def world():
    return laws.make(name="alfworld", train=60, val=12, test=12)


SCRIPT = """
look > You are in the middle of a room. Looking quickly around you, you see a desk 1, a drawer 1, \
a fridge 1, a microwave 1, a sinkbasin 1, and a shelf 1.
inventory > You are not carrying anything.
take pen 1 from desk 1 > Nothing happens.
go to desk 1 > You arrive at desk 1. On the desk 1, you see a pen 1, a desklamp 1, and a book 2.
look > You are facing the desk 1. Next to it, you see nothing.
open desk 1 > Nothing happens.
take desklamp 1 from desk 1 > Nothing happens.
use desklamp 1 > You turn on the desklamp 1.
examine desklamp 1 > Nothing happens.
toggle desklamp 1 > You turn off the desklamp 1.
go to drawer 1 > You arrive at drawer 1. The drawer 1 is closed.
take mug 1 from drawer 1 > Nothing happens.
examine mug 1 > Nothing happens.
open drawer 1 > You open the drawer 1. The drawer 1 is open. In it, you see a mug 1.
take mug 1 from drawer 1 > You pick up the mug 1 from the drawer 1.
examine drawer 1 > The drawer 1 is open. In it, you see nothing.
close drawer 1 > You close the drawer 1.
inventory > You are carrying: a mug 1.
examine mug 1 > There's nothing special about mug 1.
GO TO  Fridge 1. > You arrive at fridge 1. The fridge 1 is closed.
heat mug 1 with fridge 1 > Nothing happens.
cool mug 1 with fridge 1 > You cool the mug 1 using the fridge 1.
examine mug 1 > This is a cold mug 1.
go to microwave 1 > You arrive at microwave 1. The microwave 1 is closed.
heat mug 1 with microwave 1 > You heat the mug 1 using the microwave 1.
put mug 1 in/on microwave 1 > Nothing happens.
go to sinkbasin 1 > You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.
clean mug 1 with sinkbasin 1 > You clean the mug 1 using the sinkbasin 1.
examine mug 1 > This is a hot and clean mug 1.
put mug 1 in/on desk 1 > Nothing happens.
move mug 1 to sinkbasin 1 > You put the mug 1 in/on the sinkbasin 1.
"""


def test_every_command_is_answered_in_the_grammar():
    room = house()
    for line in SCRIPT.strip().splitlines():
        command, answer = line.split(" > ")
        assert room.act(command) == answer, command
    assert not room.is_solved()


def test_what_can_be_done_is_exactly_what_does_something():
    """The list of `admissible`, against trying every sentence of the grammar, along random walks."""
    rng = random.Random(3)
    for goal in GOALS:
        data = draw_room(rng, goal, (5, 7), (4, 6))
        names = [*data["places"], *(thing for thing, _ in data["things"])]
        sentences = [f"{verb} {a}" for verb in ("go to", "open", "close", "use", "examine") for a in names]
        pairs = ("take from", "put in/on", "heat with", "cool with", "clean with")
        sentences += [
            f"{pair.split()[0]} {a} {pair.split()[1]} {b}" for pair in pairs for a in names for b in names
        ]
        done: list[str] = []
        for _ in range(12):
            can = set()
            for sentence in [*sentences, "look", "inventory"]:
                room = House(data)
                for command in done:
                    room.act(command)
                if room.act(sentence) != NOTHING:
                    can.add(sentence)
            room = House(data)
            for command in done:
                room.act(command)
            listed = room.admissible()
            assert len(listed) == len(set(listed)) and set(listed) == can
            done.append(rng.choice(listed))


def shortest(data) -> int:
    """The fewest commands to the goal, by searching all sequences of them."""
    queue, seen = deque([()]), set()
    while queue:
        done = queue.popleft()
        room = House(data)
        for command in done:
            room.act(command)
        if room.is_solved():
            return len(done)
        state = str(
            [room.at, room.hand, sorted(room.opened), sorted(room.lit), sorted(map(str, room.where.items()))]
        )
        state += str({thing: sorted(states) for thing, states in sorted(room.state.items())})
        if state in seen:
            continue
        seen.add(state)
        skipped = ("look", "inventory", "examine", "close")
        queue.extend((*done, c) for c in room.admissible() if not c.startswith(skipped))
    raise AssertionError("no way to the goal")


@pytest.mark.parametrize("goal", ["pick", "examine", "heat"])
def test_the_expert_takes_next_to_no_detour(goal):
    rng = random.Random(1)
    for _ in range(3):
        data = draw_room(rng, goal, (3, 4), (2, 3))
        room, steps = House(data), 0
        while not room.is_solved():
            room.act(next_step(all_known(room))[1])
            steps += 1
        assert shortest(data) <= steps <= shortest(data) + 2  # it takes any of the things asked for


@pytest.mark.parametrize("goal", GOALS)
def test_no_room_is_solved_at_first_and_the_expert_solves_it_from_wherever_it_is(goal):
    rng = random.Random(goal)
    for _ in range(60):
        room = House(draw_room(rng, goal, (1, 30), (1, 25)))
        assert not room.is_solved()
        for _ in range(rng.randint(0, 60)):  # by chance first: doors open, things in wrong places
            if not room.is_solved():
                assert room.act(rng.choice(room.admissible())) != NOTHING
        for _ in range(14):
            if not room.is_solved():
                assert room.act(next_step(all_known(room))[1]) != NOTHING
        assert room.is_solved()


def test_the_heuristic_knows_what_it_was_told_and_no_more():
    rng = random.Random(5)
    for goal in GOALS:
        room = House(draw_room(rng, goal, (8, 20), (8, 20)))
        told, opened = [room.intro()], set()
        for _ in range(60):
            told.append(room.act(rng.choice(room.admissible())))
            known = known_from(told)
            assert (known.at, known.hand, known.opened) == (room.at, room.hand, room.opened)
            assert known.treated == all_known(room).treated
            opened |= {room.at} if room.at and not known.is_shut(room.at) else set()
            seen = {place: things for place, things in known.contents.items() if things is not None}
            assert seen == {place: room.contents[place] for place in opened}


def test_policies_in_episodes(world):
    problems = world.problems("train")
    assert laws.success(world, problems, "expert")[0] == 1
    assert laws.success(world, problems, "heuristic")[0] == 1
    share, (low, high) = laws.success(world, problems, "random")
    assert share < 0.2 and low < 0.01 < high < 0.3


def test_no_two_splits_share_a_room():
    """Rooms so small that they come again and again, under another wording of the same goal."""
    sizes = {"places": [2, 2], "things": [1, 1], "train": 2500, "val": 300, "test": 300}
    world = laws.make(name="alfworld", goals=["pick"], **sizes)
    rooms = {
        split: {str((p.data["places"], p.data["things"])) for p in world.problems(split)}
        for split in ("train", "val", "test")
    }
    assert len(rooms["train"]) < 2500
    assert not rooms["train"] & rooms["val"] and not (rooms["train"] | rooms["val"]) & rooms["test"]


@pytest.mark.parametrize("action_format", ["react", "function_calling", "code_as_action"])
@pytest.mark.parametrize("compat", [None, "agentgym"])
def test_the_expert_succeeds_in_every_format(action_format, compat):
    world = laws.make(
        name="alfworld",
        train=6,
        val=0,
        test=0,
        action_format=action_format,
        compat=compat,
        list_actions="always",
    )
    assert laws.success(world, world.problems("train"), "expert")[0] == 1
    assert laws.success(world, world.problems("train"), "heuristic")[0] == 1


def test_agentgym_lists_actions_once_and_repeats_what_it_told():
    world = laws.make(name="alfworld", train=1, val=0, test=0, compat="agentgym")
    environment = world.environment(world.problems("train")[0])
    opening = environment.start()[-1]["content"]
    assert "AVAILABLE ACTIONS: go to " in opening
    assert environment.step("I say nothing").observation == f"Invalid Action.\n\n{opening}"
    assert "AVAILABLE" not in environment.step("Thought: t\nAction: look").observation


@pytest.mark.parametrize(
    "change, word",
    [
        ({"places": ["chair 1"]}, "places"),
        ({"places": 3}, "places"),
        ({"things": [["mug 1", "bed 9"]]}, "things"),
        ({"things": [["mug", "desk 1"]]}, "things"),
        ({"goal": {"kind": "pick"}}, "thing"),
        ({"goal": {**ROOM["goal"], "kind": ["heat"]}}, "kind"),
        ({"goal": {**ROOM["goal"], "place": None}}, "place"),
    ],
)
def test_data_that_are_no_room_are_refused(world, change, word):
    with pytest.raises(InputError, match=word):
        world.problem(ROOM | change)
    assert world.problem(ROOM).messages
