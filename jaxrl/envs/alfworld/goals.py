"""Rooms with a task in them: the six kinds of goal, their wordings, and how a room is drawn, in JSON."""

import random
from collections import Counter
from typing import Any

from jaxrl.envs.alfworld.kinds import LAMP, LAMP_STANDS, ROOMS, THINGS, TOOLS

# {o}: the kind of thing, {r}: the kind of furniture it is to end in or on
GOALS = {
    "pick": ("put some {o} on {r}.", "put a {o} in {r}."),
    "examine": ("look at {o} under the desklamp.", "examine the {o} with the desklamp."),
    "clean": ("clean some {o} and put it in {r}.", "put a clean {o} in {r}."),
    "heat": ("heat some {o} and put it in {r}.", "put a hot {o} in {r}."),
    "cool": ("cool some {o} and put it in {r}.", "put a cool {o} in {r}."),
    "two": ("put two {o} in {r}.", "find two {o} and put them in {r}."),
}


def candidates(goal: str) -> list[tuple[str, str, str | None]]:
    """The (room, thing, target) of a kind of goal that can be asked for, in a fixed order."""
    found = []
    for room, furniture in ROOMS.items():
        for thing, (rooms, places, can) in THINGS.items():
            fit = [place for place in places if place in furniture]
            if room not in rooms or (goal in TOOLS and (goal not in can or TOOLS[goal] not in furniture)):
                continue
            if goal == "examine":
                found += [(room, thing, None)] * any(stand in furniture for stand in LAMP_STANDS)
            elif len(fit) > 1:  # it has somewhere else to begin
                found += [(room, thing, place) for place in fit if TOOLS.get(goal) != place]
    return found


_CANDIDATES = {goal: candidates(goal) for goal in GOALS}


def draw_room(
    rng: random.Random, goal: str, num_places: tuple[int, int], num_things: tuple[int, int]
) -> dict[str, Any]:
    """A room and a goal that can be reached in it and does not hold yet. Everything that opens is closed.

    Args:
      goal: one of GOALS. num_places, num_things: fewest and most pieces of furniture, and things; a goal gets
        what it needs even where that is more.
    Returns:
      what `House` takes.
    """
    room, thing, target = rng.choice(_CANDIDATES[goal])
    places = _furnish(rng, room, thing, target, goal, rng.randint(*num_places))
    things = _strew(rng, room, places, thing, target, goal, rng.randint(*num_things))
    text = rng.choice(GOALS[goal]).format(o=thing, r=target)
    return {
        "places": places,
        "things": things,
        "goal": {"kind": goal, "thing": thing, "place": target, "text": text},
    }


def _furnish(
    rng: random.Random, room: str, thing: str, target: str | None, goal: str, count: int
) -> list[str]:
    """The furniture, numbered by kind, in the order in which it is told."""
    stands = [place for place in LAMP_STANDS if place in ROOMS[room]]
    starts = [place for place in THINGS[thing].places if place in ROOMS[room] and place != target]
    needed = [rng.choice(starts)]
    needed += [target] if target else [rng.choice(stands)]
    needed += [TOOLS[goal]] if goal in TOOLS else []
    kinds = list(dict.fromkeys(needed))
    bag = [kind for kind, most in ROOMS[room].items() for _ in range(most - (kind in kinds))]
    kinds += rng.sample(bag, min(len(bag), max(0, count - len(kinds))))
    return rng.sample(_numbered(rng, kinds), len(kinds))


def _strew(
    rng: random.Random, room: str, places: list[str], thing: str, target: str | None, goal: str, count: int
) -> list[list[str]]:
    """[thing, place] pairs: those that the goal is about, none of them where it should end, and others."""
    kinds = [thing] * (rng.randint(2, 3) if goal == "two" else rng.choice((1, 1, 2)))
    at_home = [name for name, kind in THINGS.items() if room in kind.rooms and name != thing]
    kinds += [rng.choice(at_home) for _ in range(count - len(kinds))]
    pairs = []
    for name in _numbered(rng, kinds):
        kind = name.split()[0]
        spots = [
            place
            for place in places
            if place.split()[0] in THINGS[kind].places and not (kind == thing and place.split()[0] == target)
        ]
        if spots:  # what fits nowhere is not there
            pairs.append([name, rng.choice(spots)])
    stands = [place for place in places if place.split()[0] in LAMP_STANDS]
    if goal == "examine" or (stands and rng.random() < 0.3):
        pairs.append([f"{LAMP} 1", rng.choice(stands)])
    rng.shuffle(pairs)
    return pairs


def _numbered(rng: random.Random, kinds: list[str]) -> list[str]:
    """`mug 2`, `mug 1` and so on: which of a kind has which number is chance."""
    counts = Counter(kinds)
    numbers = {kind: rng.sample(range(1, counts[kind] + 1), counts[kind]) for kind in sorted(counts)}
    return [f"{kind} {numbers[kind].pop()}" for kind in kinds]
