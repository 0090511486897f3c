"""Who plays BabyAI by script: minigrid's own bot as teacher, and one that goes by what it reads."""

import copy
import random
import re
from typing import Any

from jaxrl.envs.babyai.view import CHECK, DROP, FORWARD, LEFT, RIGHT, TOGGLE

MAX_SUBGOALS = 200  # looked at in one decision; where the bot goes in circles it would go on for ever
LOOKAHEAD = 40  # steps of the bot that one action may stand for

_ONE_STEP = {LEFT: "turn left", RIGHT: "turn right", FORWARD: "move forward", DROP: "drop", TOGGLE: "toggle"}


class Lost(Exception):
    """The bot does not know how to go on, by its own assertions or because it went in circles."""


class _Stack(list):
    """The bot's subgoals; gives up where one decision looks at too many of them."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        if self.looks > MAX_SUBGOALS:
            raise Lost("the bot goes in circles")
        return super().__getitem__(index)


class Teacher:
    """minigrid's bot, which knows the whole grid, over AgentGym's actions.

    It takes the action that stands for most of the bot's next steps, exactly those. It cannot solve every
    level (`PutNextS7N4Carrying`, `KeyInBox`, most of `OpenDoorsOrderN4Debug`, some seeds of others): it then
    says so and lets the turns pass.

    Args:
      environment: minigrid's, unwrapped.
    """

    def __init__(self, environment: Any):
        from minigrid.utils.baby_ai_bot import BabyAIBot

        self.environment = environment
        self.bot: Any = None
        self.next: int | None = None  # the bot's next step
        self.plan: list[int] = []  # and those after it, as far as they were foreseen
        self.lost = ""
        self._guarded(self._begin, BabyAIBot)

    def _begin(self, make_bot: Any) -> None:
        bot = make_bot(self.environment)
        bot.stack = _Stack(bot.stack)
        self.bot, self.next = bot, int(bot.replan())

    def follow(self, step: int) -> None:
        """The environment has taken a step, whoever chose it."""
        self.plan = self.plan[1:] if self.plan[:1] == [step] else []
        if self.next is not None:
            self._guarded(self._replan, step)

    def _replan(self, step: int) -> None:
        self.bot.stack.looks = 0
        self.next = int(self.bot.replan(self.environment.actions(step)))

    def _guarded(self, work: Any, argument: Any) -> None:
        """The bot gives up by an assertion, or by whatever else goes wrong inside it: it is lost then, and
        `lost` says why.
        """
        try:
            work(argument)
        except Exception as error:
            self.next, self.lost = None, f"{type(error).__name__}: {error}"

    def choose(self, macros: dict[str, list[int]]) -> tuple[str, str]:
        """(thought, action)."""
        self.plan = self.plan or self._foreseen()
        fitting = [name for name, steps in macros.items() if steps and steps == self.plan[: len(steps)]]
        if not fitting:
            return "I do not know how to go on.", CHECK
        action = max(fitting, key=lambda name: len(macros[name]))
        return f"To reach the goal I {action}.", action

    def _foreseen(self) -> list[int]:
        """The bot's next steps, as far as it makes them without surprise, found on a copy."""
        if self.next is None:
            return []
        ahead = copy.deepcopy(self)
        plan: list[int] = []
        while ahead.next is not None and ahead.next <= TOGGLE and len(plan) < LOOKAHEAD:
            step = ahead.next
            plan.append(step)
            _, _, terminated, truncated, _ = ahead.environment.step(step)
            if terminated or truncated:
                break
            ahead.follow(step)
        return plan


_LISTED = re.compile(r'"([^"]*)"')
_PART = re.compile(
    r"(go to|pick up|open|put) (?:the|a) "
    r"((?:(?:red|green|blue|purple|yellow|grey) )?(?:ball|box|key|door|object))"
)


def by_sight(mission: str, observation: str, rng: random.Random) -> tuple[str, str]:
    """Go by the first part of the mission whose thing can be acted on now; else through doors, or about.

    (thought, action); it sees the mission and the last observation alone, and remembers nothing.
    """
    line = observation.rpartition("Available actions: ")[2]
    actions = _LISTED.findall(line)
    if not actions:
        return "I look what can be done.", "turn left"
    for verb, what in _PART.findall(mission):
        colour, _, kind = what.rpartition(" ")
        verbs = {"open": ("toggle and go through",), "put": ("pick up", "drop")}.get(verb, (verb,))
        for action in actions:
            is_it = colour in action and (kind == "object" or kind in action)
            if action.startswith(verbs) and (is_it or action == "drop"):
                return f"The goal is to {verb} the {what}.", action
    doors = [action for action in actions if "go through" in action]
    if doors and rng.random() < 0.5:
        return "I look behind a door.", rng.choice(doors)
    moves = [
        action for action in ("move forward", "move forward", "turn left", "turn right") if action in actions
    ]
    return "I look around.", rng.choice(moves)
