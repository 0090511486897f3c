"""ScienceWorld (Wang et al. 2022): thirty tasks of elementary science, in rooms with real things in them.

The simulator's score goes from 0 to 100, or to -100 where the task is failed for good. The reward of a turn
is the change of score / 100, so that an episode's is its last score / 100, between -1 and 1; `success` is a
score of 100. Some tasks give points for where one begins: the first action is paid them. (AgentGym gives the
score itself as the last turn's reward; Affine reckons with (score + 100) / 200.)

Problems are pairs of a task and a variation. Which split one belongs to hangs on that pair, as everywhere
here, and not on ScienceWorld's own halves and quarters. Drawing one takes some 0.3 s, since its first
observation is asked for: keep the splits small.

Policies: the expert follows the simulator's own gold path from the first turn on (making it takes seconds);
`random` draws among the combinations of actions and objects that the simulator calls valid.
"""

import random
from typing import TYPE_CHECKING, Any

from jaxrl.envs.formats import Function, read_behind_last
from jaxrl.envs.scienceworld.machine import Machine, machine
from jaxrl.envs.world import Answer, Data
from jaxrl.errors import InputError
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field, is_int, is_text

if TYPE_CHECKING:  # pydantic stays out of the processes that play
    from jaxrl.config.envs import ScienceWorldSection

# AgentGym leaves these out: friction, conductivity of unknown things and the like (its ids 5-*, 9-*, 10-*)
NOT_IN_AGENTGYM = ("5-1", "5-2", "9-1", "9-2", "9-3", "10-1", "10-2")

_THING = {"thing": "a thing"}
_TWO = {"thing": "a thing", "other": "another thing"}
FUNCTIONS = (
    Function("look_around", "look around", "describe the room"),
    Function("look_at", "look at {thing}", "describe a thing", _THING),
    Function("look_in", "look in {thing}", "describe what is inside", _THING),
    Function("go_to", "go to {place}", "go into a room next to this one", {"place": "a room"}),
    Function("open", "open {thing}", "open a door or a container", _THING),
    Function("close", "close {thing}", "close a door or a container", _THING),
    Function("activate", "activate {thing}", "turn a device on", _THING),
    Function("deactivate", "deactivate {thing}", "turn a device off", _THING),
    Function("pick_up", "pick up {thing}", "take a thing along", _THING),
    Function("put_down", "put down {thing}", "drop a thing", _THING),
    Function("move", "move {thing} to {other}", "move a thing to a container", _TWO),
    Function("pour", "pour {thing} into {other}", "pour a liquid into a container", _TWO),
    Function("dunk", "dunk {thing} into {other}", "dunk a container into a liquid", _TWO),
    Function("mix", "mix {thing}", "mix what is in a container", _THING),
    Function("use_on", "use {thing} on {other}", "use a tool", _TWO),
    Function("use", "use {thing}", "use a tool by itself", _THING),
    Function("connect", "connect {thing} to {other}", "connect electrical parts", _TWO),
    Function("disconnect", "disconnect {thing}", "disconnect an electrical part", _THING),
    Function("eat", "eat {thing}", "eat food", _THING),
    Function("flush", "flush {thing}", "flush a toilet", _THING),
    Function("read", "read {thing}", "read a note or a book", _THING),
    Function("focus_on", "focus on {thing}", "say which thing the task is about", _THING),
    Function("inventory", "inventory", "list what you carry"),
    Function("task", "task", "read the task again"),
    Function("wait", "wait", "let ten steps pass"),
    Function("wait1", "wait1", "let one step pass"),
    Function("examine", "examine {thing}", "look at a thing closely", _THING),
    Function(
        "choose", "{number}", "choose where you are asked which thing you mean", {"number": "its number"}
    ),
)
TASK = (
    "You are in a house with a kitchen, a workshop, a greenhouse and more, and have a task of science there. "
    "You see the room where you are. If you are asked which thing you mean, answer with its number."
)


class ScienceWorld:
    """The rules; `section`: see `config/envs.py`.

    Raises:
      InputError: the package or Java is missing; an unknown task.
    """

    name = "scienceworld"
    task = TASK
    functions = FUNCTIONS
    failure_reward = 0.0
    policies = ("expert", "random")
    read_agentgym = staticmethod(read_behind_last)

    def __init__(self, section: "ScienceWorldSection"):
        self.section = section
        self._machine()
        from scienceworld.constants import ID2TASK

        self.known = set(ID2TASK.values())
        excluded = NOT_IN_AGENTGYM if section.compat else ()
        every = tuple(name for number, name in ID2TASK.items() if number not in excluded)
        self.tasks = tuple(section.tasks or every)
        for name in self.tasks:
            if name not in self.known:
                raise InputError(f"env.tasks has {name!r}; the tasks are: {', '.join(sorted(self.known))}")

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        start = index % len(self.tasks)
        for task in (*self.tasks[start:], *self.tasks[:start]):  # some have 30 variations for all splits
            most = self._variations(task)
            for variation in rng.sample(range(most), most):
                if claim([task, variation]):
                    return {"task": task, "variation": variation}
        raise InputError(
            f"scienceworld has no more than {index} variations of {len(self.tasks)} tasks for a split; ask "
            "for fewer problems, or name more tasks in env.tasks"
        )

    def game(self, data: Data) -> "Experiment":
        task = field(data, "task", "one of ScienceWorld's tasks", lambda v: is_text(v) and v in self.known)
        most = self._variations(task)
        variation = field(
            data, "variation", f"a whole number from 0 to {most - 1}", lambda v: is_int(v) and 0 <= v < most
        )
        return Experiment(self._machine(), task, variation, self.section.simplifications)

    def choose(self, policy: str, game: "Experiment", rng: random.Random) -> tuple[str, str]:
        if policy == "expert":
            path = game.gold_path()
            action = path[game.turns] if game.turns < len(path) else "look around"
            return "This is the next step of the plan.", action
        return "I try something.", rng.choice(game.actions())

    def _machine(self) -> Machine:
        return machine(self.section.heap_mb, self.section.timeout_s)

    def _variations(self, task: str) -> int:
        current = self._machine()
        interface = current.interface()
        try:
            return int(current.call(interface.getTaskMaxVariations, task))
        finally:
            current.release(interface)


class Experiment:
    """One game, in an interface of the machine's."""

    def __init__(self, current: Machine, task: str, variation: int, simplifications: str):
        self._machine, self._loaded = current, (task, variation, simplifications)
        self._interface: Any = current.interface()
        self.turns, self.score = 0, 0
        self._gold: list[str] | None = None
        self._call("load", *self._loaded, False)
        self._call("reset")
        described = self._call("getTaskDescription")
        self.opening = f"{described}\n{self._call('step', 'look around')}"

    def act(self, action: str) -> Answer:
        self.turns += 1
        observation = str(self._call("step", action))
        before, self.score = self.score, round(100 * float(self._call("getScore")))
        # a task is completed, or failed for good, by a step that changes the score
        done = self.score != before and bool(self._call("getCompleted"))
        success = self.score >= 100
        metrics = {"success": float(success)} if done else {}
        return Answer(observation, (self.score - before) / 100, done, metrics)

    def progress(self) -> float:
        """The score, where it is positive."""
        return max(0, self.score) / 100

    def actions(self) -> list[str]:
        """What the simulator calls valid; it takes it a second."""
        return list(self._call("getValidActionObjectCombinations"))

    def gold_path(self) -> list[str]:
        """The simulator's own way through the task, made in an interface of its own."""
        if self._gold is None:
            other = self._machine.interface()
            self._machine.call(other.load, *self._loaded, True)
            self._gold = list(self._machine.call(other.getGoldActionSequence))
            self._machine.release(other)
        return self._gold

    def close(self) -> None:
        if self._interface is not None:
            self._machine.release(self._interface)
            self._interface = None

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._machine.call(getattr(self._interface, method), *arguments)
