"""ALFWorld's household tasks (Shridhar et al. 2021), in rooms of our own: see `house.py` and `goals.py`.

The reward is the true one: 1 for the turn after which the goal holds, which ends the episode; else 0.
Policies: the expert knows the state and goes straight to the goal; the heuristic knows what it has been told
and looks for the rest, so that an imitator can learn from it; `random` draws among the actions that do
something.

Departures from ALFWorld 0.4.2, whose engine answers the same, but for the order of things, with `engine:
alfworld` (`engine.py`): rooms are drawn, not taken from 120 scenes; `put` is understood like `move`, and
answered as in 0.3; one can look around again before the first step; a lamp that is turned off lights nothing;
nothing is sliced, and nothing lies in things.
"""

import random
from typing import TYPE_CHECKING, Any

from jaxrl.envs.alfworld.engine import EngineHouse
from jaxrl.envs.alfworld.goals import GOALS, draw_room
from jaxrl.envs.alfworld.house import House, kind
from jaxrl.envs.alfworld.kinds import LAMP, ROOMS, STATES, THINGS, TOOLS
from jaxrl.envs.alfworld.planner import all_known, known_from, next_step
from jaxrl.envs.formats import Function, read_behind_last
from jaxrl.envs.world import Answer, Data
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field

if TYPE_CHECKING:  # pydantic stays out of the processes that play
    from jaxrl.config.envs import AlfWorldSection

_THING = {"thing": "a thing and its number, such as mug 1"}
_PLACE = {"place": "a piece of furniture and its number, such as desk 1"}

FUNCTIONS = (
    Function("go_to", "go to {place}", "walk to a piece of furniture", _PLACE),
    Function("take", "take {thing} from {place}", "pick up a thing where you stand", _THING | _PLACE),
    Function("put", "put {thing} in/on {place}", "put down what you carry where you stand", _THING | _PLACE),
    Function("open", "open {place}", "open what is closed", _PLACE),
    Function("close", "close {place}", "close what is open", _PLACE),
    Function("use", "use {thing}", "turn a lamp on or off", _THING),
    Function("heat", "heat {thing} with {place}", "heat what you carry", _THING | _PLACE),
    Function("cool", "cool {thing} with {place}", "cool what you carry", _THING | _PLACE),
    Function("clean", "clean {thing} with {place}", "clean what you carry", _THING | _PLACE),
    Function(
        "examine", "examine {name}", "look closely", {"name": "what you carry, or the furniture you stand at"}
    ),
    Function("look", "look", "look around"),
    Function("inventory", "inventory", "see what you carry"),
)
TASK = (
    "You are in a room of a house, and have a task there. Walk from one piece of furniture to the next; you "
    "see what is in or on the one where you stand, once it is open. You can carry one thing at a time. What "
    "cannot be done is answered by: Nothing happens."
)


class AlfWorld:
    """The rules; `section`: see `config/envs.py`."""

    name = "alfworld"
    task = TASK
    functions = FUNCTIONS
    failure_reward = 0.0
    policies = ("expert", "heuristic", "random")
    read_agentgym = staticmethod(read_behind_last)

    def __init__(self, section: "AlfWorldSection"):
        self.section = section

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        goal = self.section.goals[index % len(self.section.goals)]
        room = draw_room(rng, goal, self.section.places, self.section.things)
        family = [room["places"], room["things"]]  # no two splits share a room, whatever is asked there
        return room if claim(room, family) else None

    def game(self, data: Data) -> "Household":
        make = EngineHouse if self.section.engine == "alfworld" else House
        return Household(make(checked_room(data)), self.section.list_actions, self.section.compat)

    def choose(self, policy: str, game: "Household", rng: random.Random) -> tuple[str, str]:
        if policy == "random":
            return "I try something.", rng.choice(game.actions())
        return next_step(all_known(game.house) if policy == "expert" else known_from(game.told))


class Household:
    """One game.

    Args:
      house: of our own, or on ALFWorld's engine.
      list_actions: `never`, at the `start`, or `always`: whether observations end with what can be done.
      compat: `agentgym`: the list stands at the start alone, an unreadable turn gets the last observation.
    """

    def __init__(self, house: House, list_actions: str, compat: str | None):
        self.house = house
        self.list_actions = "start" if compat else list_actions
        self.compat = compat
        self.opening = self._with_actions(house.intro(), self.list_actions != "never")
        self.told = [self.opening]

    def act(self, action: str) -> Answer:
        if self.compat and not action:
            return Answer(f"Invalid Action.\n\n{self.told[-1]}", metrics={"parse_errors": 1.0})
        text = self.house.act(action)
        done = self.house.is_solved()
        self.told.append(self._with_actions(text, self.list_actions == "always" and not done))
        return Answer(self.told[-1], float(done), done, {"success": float(done)} if done else {})

    def progress(self) -> float:
        """Milestones that stand now: in the hand, treated, where it should be; for two things, of both."""
        house, goal = self.house, self.house.goal
        if house.is_solved():
            return 1.0
        in_hand = house.hand is not None and kind(house.hand) == goal["thing"]
        if goal["kind"] == "two":
            placed = any(
                kind(thing) == goal["thing"]
                for place, things in house.contents.items()
                if kind(place) == goal["place"]
                for thing in things
            )
            return 0.5 * placed + 0.25 * in_hand
        if goal["kind"] in TOOLS:
            is_treated = in_hand and STATES[goal["kind"]] in house.state.get(house.hand, ())
            return (in_hand + is_treated) / 3
        return 0.5 * in_hand

    def actions(self) -> list[str]:
        return self.house.admissible()

    def close(self) -> None:
        """Nothing is held."""

    def _with_actions(self, text: str, listed: bool) -> str:
        return f"{text}\nAVAILABLE ACTIONS: {','.join(self.actions())}" if listed else text


def checked_room(data: Data) -> Data:
    """The room, with the names in it that the house knows what to do with.

    Raises:
      InputError: naming the field that is missing or wrong.
    """
    furniture = [name for room in ROOMS.values() for name in room]
    places = field(
        data, "places", "a list of furniture, such as 'desk 1'", lambda v: _are_names(v, furniture)
    )
    known = [*THINGS, LAMP]

    def are_pairs(value: Any) -> bool:
        pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
        return (
            pairs
            and _are_names([thing for thing, _ in value], known)
            and all(place in places for _, place in value)
        )

    field(data, "things", "a list of [thing, place], such as ['mug 1', 'desk 1']", are_pairs)
    goal = field(data, "goal", "an object with kind, thing, place and text", lambda v: isinstance(v, dict))
    field(goal, "kind", f"one of {', '.join(GOALS)}", lambda value: isinstance(value, str) and value in GOALS)
    field(goal, "thing", "a kind of thing", lambda value: isinstance(value, str) and value in THINGS)
    needs_place = goal["kind"] != "examine"
    field(goal, "place", "a kind of furniture", lambda v: v in furniture or (v is None and not needs_place))
    field(goal, "text", "a text", lambda value: isinstance(value, str))
    return data


def _are_names(value: Any, kinds: list[str]) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
        and all(kind(name) in kinds and name.partition(" ")[2].isdecimal() for name in value)
    )
