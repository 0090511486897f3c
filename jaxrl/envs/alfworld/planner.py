"""The next command towards a household's goal, from what is known of the room.

One planner serves two policies: the expert, who knows the whole state of a `House`, and the heuristic, who
knows what the observations have told and looks into one place after the other until it has seen enough.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from jaxrl.envs.alfworld.goals import GOALS
from jaxrl.envs.alfworld.house import House, kind
from jaxrl.envs.alfworld.kinds import LAMP, LAMP_STANDS, OPENABLE, STATES, THINGS, TOOLS

Step = tuple[str, str]  # a thought and a command


@dataclass
class Known:
    """What somebody knows of a room.

    goal: the kind of goal, of thing and of furniture (None where there is none). contents: place -> things;
    None where nobody has looked. treated: things that have been heated, cooled or cleaned as asked.
    """

    goal: tuple[str, str, str | None]
    contents: dict[str, list[str] | None]
    opened: set[str] = field(default_factory=set)
    treated: set[str] = field(default_factory=set)
    at: str | None = None
    hand: str | None = None

    def is_shut(self, place: str) -> bool:
        return kind(place) in OPENABLE and place not in self.opened

    def things(self) -> Iterable[tuple[str, str]]:
        """(thing, place) as far as known, what is where one stands first."""
        places = sorted(self.contents, key=lambda place: place != self.at)
        return ((thing, place) for place in places for thing in self.contents[place] or ())


def next_step(known: Known) -> Step:
    """A thought and a command that bring the goal nearer; `look` where nothing more can be done."""
    goal, wanted, target = known.goal
    if known.hand is None:
        return _fetch(known)
    if kind(known.hand) != wanted:
        return _put_down(known, THINGS[kind(known.hand)].places, f"I do not need the {known.hand}")
    if goal == "examine":
        return _light(known)
    if goal in TOOLS and known.hand not in known.treated:
        tool = _place_of_kind(known, TOOLS[goal])
        if tool is None:
            return _explore(known, (), f"a {TOOLS[goal]}")
        if known.at != tool:
            return f"I take it to the {tool}.", f"go to {tool}"
        return f"Now I {goal} it.", f"{goal} {known.hand} with {tool}"
    return _put_down(known, (target,), f"The {known.hand} is to go to a {target}")


def _fetch(known: Known) -> Step:
    goal, wanted, target = known.goal
    for thing, place in known.things():
        is_done = kind(place) == target and (goal not in TOOLS or thing in known.treated)
        if kind(thing) == wanted and not is_done:
            if known.at != place:
                return f"There is a {thing} at the {place}.", f"go to {place}"
            if known.is_shut(place):
                return f"The {place} is closed, and the {thing} is in it.", f"open {place}"
            return f"I need the {thing}.", f"take {thing} from {place}"
    return _explore(known, THINGS[wanted].places, f"a {wanted}")


def _put_down(known: Known, kinds: Iterable[str | None], reason: str) -> Step:
    spots = [place for wish in kinds for place in known.contents if kind(place) == wish]
    spots.sort(key=lambda place: (place != known.at, known.is_shut(place)))
    if not spots:
        return "There is no place for it.", "look"
    if known.at != spots[0]:
        return f"{reason}.", f"go to {spots[0]}"
    if known.is_shut(spots[0]):
        return f"{reason}, and the {spots[0]} is closed.", f"open {spots[0]}"
    return f"{reason}.", f"put {known.hand} in/on {spots[0]}"


def _light(known: Known) -> Step:
    for thing, place in known.things():
        if kind(thing) == LAMP:
            if known.at != place:
                return f"There is a {thing} at the {place}.", f"go to {place}"
            return f"I turn on the {thing}.", f"use {thing}"
    return _explore(known, LAMP_STANDS, f"a {LAMP}")


def _explore(known: Known, likely: Iterable[str], what: str) -> Step:
    """Look where nobody has looked: where one stands, then in the likeliest kinds, then in the told order."""
    rank = {name: number for number, name in enumerate(likely)}
    unseen = [place for place, contents in known.contents.items() if contents is None]
    if not unseen:
        return f"I have looked everywhere for {what}.", "look"
    place = min(unseen, key=lambda place: (place != known.at, rank.get(kind(place), len(rank))))
    if known.at != place:
        return f"I need {what}; one may be at the {place}.", f"go to {place}"
    return f"I need {what}; the {place} is closed.", f"open {place}"


def _place_of_kind(known: Known, wish: str) -> str | None:
    return next((place for place in known.contents if kind(place) == wish), None)


def all_known(house: House) -> Known:
    """Everything about a room."""
    goal = house.goal
    state = STATES.get(goal["kind"])
    return Known(
        goal=(goal["kind"], goal["thing"], goal["place"]),
        contents=dict(house.contents),
        opened=house.opened,
        treated={thing for thing, states in house.state.items() if state in states},
        at=house.at,
        hand=house.hand,
    )


_ITEM = re.compile(r"an? ([a-z]+ \d+)")
_TASK = re.compile(r"Your task is to: ([^\n]*)")
_ASKED = {
    re.compile(re.escape(form).replace(r"\{o\}", r"(?P<o>\w+)").replace(r"\{r\}", r"(?P<r>\w+)")): goal
    for goal, forms in sorted(GOALS.items(), key=lambda row: row[0] == "pick")  # "put a hot {o} ..." first
    for form in forms
}
_ARRIVE = re.compile(r"You arrive at (\w+ \d+)\.")
_SHOWN = re.compile(r"(?:On the (\w+ \d+)|The (\w+ \d+) is open\. In it), you see ([^.]*)\.")
_CLOSE = re.compile(r"You close the (\w+ \d+)\.")
_TAKE = re.compile(r"You pick up the (\w+ \d+) from the (\w+ \d+)\.")
_PUT = re.compile(r"You (?:put the (\w+ \d+) in/on|move the (\w+ \d+) to) the (\w+ \d+)\.")
_TREAT = re.compile(r"You (heat|cool|clean) the (\w+ \d+) using the")


def known_from(observations: list[str]) -> Known:
    """What an episode's observations, the first of them included, have told.

    Raises:
      ValueError: the first of them tells no room and no task of these kinds.
    """
    task = _TASK.search(observations[0])
    found = ((form.match(task[1]), goal) for form, goal in _ASKED.items()) if task else ()
    match, goal = next(((match, goal) for match, goal in found if match), (None, ""))
    if match is None:
        raise ValueError(f"no task that is known in {observations[0][:300]!r}")
    names = match.groupdict()
    room = observations[0][: task.start()]
    known = Known((goal, names["o"], names.get("r")), dict.fromkeys(_ITEM.findall(room)))
    for text in observations[1:]:
        _learn(known, text)
    return known


def _learn(known: Known, text: str) -> None:
    if match := _ARRIVE.search(text):
        known.at = match[1]
    for on, inside, things in _SHOWN.findall(text):
        if inside:
            known.opened.add(inside)
        known.contents[on or inside] = _ITEM.findall(things)
    if match := _CLOSE.search(text):
        known.opened.discard(match[1])
    if match := _TAKE.search(text):
        known.hand = match[1]
        _discard(known.contents[match[2]], match[1])
    if match := _PUT.search(text):
        known.hand = None
        things = known.contents[match[3]]
        if things is not None:
            things.append(match[1] or match[2])
    if match := _TREAT.search(text):
        verb, thing = match.groups()
        if verb == known.goal[0]:
            known.treated.add(thing)
        elif "clean" not in (verb, known.goal[0]):  # heated after it was cooled, or the other way about
            known.treated.discard(thing)


def _discard(things: list[str] | None, thing: str) -> None:
    if things and thing in things:
        things.remove(thing)
