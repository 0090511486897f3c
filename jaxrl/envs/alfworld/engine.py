"""The same rooms on ALFWorld's own engine: TextWorld over a PDDL problem of ALFWorld's domain and grammar.

It takes the package `alfworld` (the extra `envs`), no download, and some thousand times as long as `House`. A
`House` goes along beside it, for the expert and for `shaping`.
"""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from jaxrl.envs.alfworld.house import House, kind
from jaxrl.envs.alfworld.kinds import LAMP, OPENABLE, THINGS, TOOLS
from jaxrl.errors import InputError

CAN = {"heat": "heatable", "cool": "coolable", "clean": "cleanable"}
STATE = {"heat": "isHot", "cool": "isCool", "clean": "isClean"}


class EngineHouse(House):
    """A room whose answers are ALFWorld's. `room`: as `House` takes it.

    Raises:
      InputError: alfworld is not installed.
    """

    def __init__(self, room: dict[str, Any]):
        super().__init__(room)
        domain, grammar = _alfworld()
        game = {
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL.", room["goal"]["text"]),
            "pddl_problem": pddl(room),
            "solvable": True,
            "walkthrough": [],
        }
        self._names = {_id(name): name for name in [*self.places, *self.where]}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "game.tw-pddl"
            file.write_text(json.dumps(game), encoding="utf-8")
            self._engine = _start(str(file), self._names)
            self._now = self._engine.reset()

    def intro(self) -> str:
        """Without the title above the first blank line."""
        return str(self._now.feedback).partition("\n\n")[2].strip()

    def act(self, command: str) -> str:
        words = " ".join(command.lower().split()).rstrip(".")
        verb, _, rest = words.partition(" ")
        for between in (" in/on ", " in ", " on "):
            if verb in ("put", "move") and between in rest:
                words = f"move {rest.replace(between, ' to ', 1)}"
                break
        if verb == "toggle":
            words = f"use {rest}"
        super().act(words)
        self._now, _, _ = self._engine.step(words)
        return str(self._now.feedback).strip()

    def is_solved(self) -> bool:
        return bool(self._now.won)


def pddl(room: dict[str, Any]) -> str:
    """A room and its goal as a problem of ALFWorld's domain."""
    places, goal = room["places"], room["goal"]
    things = [thing for thing, _ in room["things"]]
    rtypes = sorted({*map(kind, places), *TOOLS.values()})
    otypes = sorted({*map(kind, things), goal["thing"], "knife", "butterknife"})
    spot = {place: f"loc_bar_{number + 1}" for number, place in enumerate(places)}
    objects = [
        "agent1 - agent",
        *(f"{_type(name)} - rtype" for name in rtypes),
        *(f"{_type(name)} - otype" for name in otypes),
        *(f"{place} - location" for place in ["loc_bar_0", *spot.values()]),
        *(f"{_id(place)} - receptacle" for place in places),
        *(f"{_id(thing)} - object" for thing in things),
    ]
    facts = ["(= (total-cost) 0)", "(atLocation agent1 loc_bar_0)"]
    for place in places:
        facts.append(f"(receptacleAtLocation {_id(place)} {spot[place]})")
        facts.append(f"(receptacleType {_id(place)} {_type(kind(place))})")
        facts += [f"(openable {_id(place)})"] * (kind(place) in OPENABLE)
    for thing, place in room["things"]:
        facts.append(f"(objectType {_id(thing)} {_type(kind(thing))})")
        facts.append(f"(inReceptacle {_id(thing)} {_id(place)})")
        facts.append(f"(objectAtLocation {_id(thing)} {spot[place]})")
        facts.append(f"({'toggleable' if kind(thing) == LAMP else 'pickupable'} {_id(thing)})")
        facts += [
            f"({CAN[verb]} {_id(thing)})"
            for verb in (THINGS[kind(thing)].can if kind(thing) in THINGS else ())
        ]
    fits = [
        (place, thing)
        for thing in otypes
        if thing in THINGS
        for place in THINGS[thing].places
        if place in rtypes
    ]
    facts += [f"(canContain {_type(place)} {_type(thing)})" for place, thing in fits]
    return (
        "(define (problem room) (:domain alfred)\n"
        f"(:objects {' '.join(objects)})\n(:init {' '.join(facts)})\n(:goal {_goal(goal)})\n"
        "(:metric minimize (total-cost)))\n"
    )


def _goal(goal: dict[str, Any]) -> str:
    thing = f"(objectType ?o {_type(goal['thing'])})"
    if goal["kind"] == "examine":
        lamp = f"(objectType ?d {_type(LAMP)}) (isToggled ?d) (objectAtLocation ?d ?l)"
        return (
            "(exists (?d - object) (exists (?l - location) (exists (?a - agent) (exists (?o - object) "
            f"(and {lamp} (atLocation ?a ?l) {thing} (holds ?a ?o))))))"
        )
    there = f"(inReceptacle ?o ?r) {thing} (receptacleType ?r {_type(goal['place'])})"
    if goal["kind"] == "two":
        second = there.replace("?o", "?p").replace("?r", "?q", 1).replace("?r", "?q")
        return (
            "(exists (?o - object) (exists (?p - object) (exists (?r - receptacle) (exists (?q - receptacle) "
            f"(and (not (= ?o ?p)) {there} {second})))))"
        )
    state = f" ({STATE[goal['kind']]} ?o)" if goal["kind"] in STATE else ""
    return f"(exists (?r - receptacle) (exists (?o - object) (and {there}{state})))"


def _id(name: str) -> str:
    return name.replace(" ", "_bar_")


def _type(name: str) -> str:
    """As ALFWorld's domain spells the types that its actions know."""
    known = {"sinkbasin": "SinkBasin", "butterknife": "ButterKnife", LAMP: "DeskLamp"}
    return f"{known.get(name, name.capitalize())}Type"


@cache
def _alfworld() -> tuple[str, str]:
    """The domain and the grammar that the package carries."""
    try:
        import alfworld.info
        import textworld  # noqa: F401
    except ImportError:
        raise InputError(
            "env.engine: alfworld needs the package alfworld, which is not installed; install it with "
            'pip install "jaxrl[envs]", or set env.engine to own'
        ) from None
    folder = Path(alfworld.info.__file__).parent / "data"
    return tuple((folder / f"alfred.{end}").read_text(encoding="utf-8") for end in ("pddl", "twl2"))


def _start(file: str, names: dict[str, str]) -> Any:
    import textworld
    from textworld.core import Wrapper

    class Named(Wrapper):
        """Things are called as the room calls them."""

        def load(self, *arguments: Any, **options: Any) -> None:
            super().load(*arguments, **options)
            for info in self._entity_infos.values():
                info.name = names.get(info.id, info.id)

    wanted = textworld.EnvInfos(won=True, admissible_commands=True, feedback=True)
    return textworld.start(file, wanted, wrappers=[Named])
