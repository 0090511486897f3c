"""A room that takes commands in ALFWorld's grammar and answers in its words: pure state, no chance.

    go to desk 1         take mug 1 from desk 1    heat mug 1 with microwave 1     (cool and clean alike)
    open drawer 1        put mug 1 in/on desk 1    move mug 1 to desk 1            (the same as `put`)
    close drawer 1       use desklamp 1            toggle desklamp 1               (the same as `use`)
    examine mug 1        examine desk 1            look, inventory

What cannot be done, and what is no command, is answered by "Nothing happens." and changes nothing.
"""

import re
from collections.abc import Sequence
from typing import Any

from jaxrl.envs.alfworld.kinds import LAMP, OPENABLE, STATES, THINGS, TOOLS

NOTHING = "Nothing happens."
MAX_COMMAND = 200  # characters; the longest that can be done has 40

_NAME = r"([a-z]+ [0-9]{1,3})"
_ONE = re.compile(_NAME)
_PUT = re.compile(rf"{_NAME} (?:in/on|in|on|to) {_NAME}")
_TAKE = re.compile(rf"{_NAME} from {_NAME}")
_WITH = re.compile(rf"{_NAME} with {_NAME}")


def kind(name: str) -> str:
    """`mug` of `mug 1`."""
    return name.partition(" ")[0]


def listing(names: Sequence[str]) -> str:
    """`a mug 1, a pen 2, and a book 1`; `nothing` where there is none."""
    if not names:
        return "nothing"
    parts = [f"a {name}" for name in names]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f", and {parts[-1]}"


class House:
    """The state of one room.

    Args:
      room: plain JSON. `places`: names of the furniture, in the order in which it is told; `things`: [name,
        place] pairs; `goal`: `kind` (one of `goals.GOALS`), `thing`, `place` (kinds) and `text`.
    """

    __slots__ = ("at", "contents", "goal", "hand", "lit", "opened", "places", "state", "where")

    def __init__(self, room: dict[str, Any]):
        self.places: list[str] = room["places"]
        self.goal: dict[str, Any] = room["goal"]
        self.contents: dict[str, list[str]] = {place: [] for place in self.places}
        self.where: dict[str, str | None] = {}  # None: in the hand
        for thing, place in room["things"]:
            self.contents[place].append(thing)
            self.where[thing] = place
        self.at: str | None = None
        self.hand: str | None = None
        self.opened: set[str] = set()
        self.lit: set[str] = set()
        self.state: dict[str, set[str]] = {}  # thing -> hot, cool, clean

    def intro(self) -> str:
        """What is read first."""
        return f"{self._middle()}\n\nYour task is to: {self.goal['text']}"

    def act(self, command: str) -> str:
        """Do what a command says, and tell."""
        if len(command) > MAX_COMMAND:
            return NOTHING
        verb, _, rest = " ".join(command.lower().split()).rstrip(".").partition(" ")
        match verb:
            case "go" if rest.startswith("to ") and _ONE.fullmatch(rest, 3):
                return self._go(rest[3:])
            case "take" if pair := _TAKE.fullmatch(rest):
                return self._take(*pair.groups())
            case "put" | "move" if pair := _PUT.fullmatch(rest):
                return self._put(*pair.groups())
            case "open" | "close":
                return self._set_open(rest, verb == "open")
            case "use" | "toggle":
                return self._use(rest)
            case "heat" | "cool" | "clean" if pair := _WITH.fullmatch(rest):
                return self._treat(verb, *pair.groups())
            case "examine":
                return self._examine(rest)
            case "look" if not rest:
                return (
                    f"You are facing the {self.at}. Next to it, you see nothing."
                    if self.at
                    else self._middle()
                )
            case "inventory" if not rest:
                return f"You are carrying: a {self.hand}." if self.hand else "You are not carrying anything."
        return NOTHING

    def is_solved(self) -> bool:
        """Whether the goal holds now."""
        wanted, place = self.goal["thing"], self.goal["place"]
        if self.goal["kind"] == "examine":
            return self.hand is not None and kind(self.hand) == wanted and self._is_lit()
        state = STATES.get(self.goal["kind"])
        there = [
            thing
            for spot in self.places
            if kind(spot) == place
            for thing in self.contents[spot]
            if kind(thing) == wanted and (state is None or state in self.state.get(thing, ()))
        ]
        return len(there) >= (2 if self.goal["kind"] == "two" else 1)

    def admissible(self) -> list[str]:
        """All commands that would do something now, in a fixed order."""
        at, hand = self.at, self.hand
        commands = [f"go to {place}" for place in self.places if place != at]
        commands += ["look", "inventory"]
        if hand:
            commands.append(f"examine {hand}")
        if at is None:
            return commands
        commands.append(f"examine {at}")
        if kind(at) in OPENABLE:
            commands.append(f"close {at}" if at in self.opened else f"open {at}")
        seen = self.contents[at] if self._is_open(at) else []
        for thing in seen:
            if kind(thing) == LAMP:
                commands.append(f"use {thing}")
            elif hand is None:
                commands.append(f"take {thing} from {at}")
        if hand:
            if self._is_open(at) and kind(at) in THINGS[kind(hand)].places:
                commands.append(f"put {hand} in/on {at}")
            commands += [
                f"{verb} {hand} with {at}" for verb in THINGS[kind(hand)].can if kind(at) == TOOLS[verb]
            ]
        return commands

    def _middle(self) -> str:
        return f"You are in the middle of a room. Looking quickly around you, you see {listing(self.places)}."

    def _is_open(self, place: str) -> bool:
        return kind(place) not in OPENABLE or place in self.opened

    def _is_lit(self) -> bool:
        return any(self.where[lamp] == self.at for lamp in self.lit)

    def _look_at(self, place: str) -> str:
        if kind(place) not in OPENABLE:
            return f"On the {place}, you see {listing(self.contents[place])}."
        if place not in self.opened:
            return f"The {place} is closed."
        return f"The {place} is open. In it, you see {listing(self.contents[place])}."

    def _go(self, place: str) -> str:
        if place not in self.contents or place == self.at:
            return NOTHING
        self.at = place
        return f"You arrive at {place}. {self._look_at(place)}"

    def _take(self, thing: str, place: str) -> str:
        is_there = self.at == place and self.where.get(thing) == place and self._is_open(place)
        if self.hand or not is_there or kind(thing) == LAMP:
            return NOTHING
        self.contents[place].remove(thing)
        self.where[thing] = None
        self.hand = thing
        return f"You pick up the {thing} from the {place}."

    def _put(self, thing: str, place: str) -> str:
        can = self.hand == thing and self.at == place and self._is_open(place)
        if not can or kind(place) not in THINGS[kind(thing)].places:
            return NOTHING
        self.contents[place].append(thing)
        self.where[thing] = place
        self.hand = None
        return f"You put the {thing} in/on the {place}."

    def _set_open(self, place: str, is_open: bool) -> str:
        if place != self.at or kind(place) not in OPENABLE or (place in self.opened) == is_open:
            return NOTHING
        if not is_open:
            self.opened.remove(place)
            return f"You close the {place}."
        self.opened.add(place)
        return f"You open the {place}. {self._look_at(place)}"

    def _use(self, thing: str) -> str:
        if kind(thing) != LAMP or self.at is None or self.where.get(thing) != self.at:
            return NOTHING
        if thing in self.lit:
            self.lit.remove(thing)
            return f"You turn off the {thing}."
        self.lit.add(thing)
        return f"You turn on the {thing}."

    def _treat(self, verb: str, thing: str, tool: str) -> str:
        can = self.hand == thing and self.at == tool and kind(tool) == TOOLS[verb]
        if not can or verb not in THINGS[kind(thing)].can:
            return NOTHING
        states = self.state.setdefault(thing, set())
        if verb != "clean":  # what is hot is no longer cool
            states -= {"hot", "cool"}
        states.add(STATES[verb])
        return f"You {verb} the {thing} using the {tool}."

    def _examine(self, name: str) -> str:
        if name == self.at:
            return self._look_at(name)
        if name != self.hand:
            return NOTHING
        states = self.state.get(name, set())
        words = [word for word in ("hot", "cool", "clean") if word in states]
        if not words:
            return f"There's nothing special about {name}."
        return f"This is a {' and '.join(words).replace('cool', 'cold')} {name}."
