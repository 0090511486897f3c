"""A world for the pool's tests: it counts its turns, and does what the policy names, misdeeds among it."""

import ctypes
import os
import time

from jaxrl.envs.base import StepResult, WorldError
from jaxrl.types import Message, Problem


def problem(number: int = 0) -> Problem:
    return Problem(f"p{number}", (Message(role="user", content=f"begin {number}"),), {"n": number})


MACHINE: list[str] = []  # how often what the episodes of a process share has ended


class Counting:
    """Observations tell the problem, the turns so far and what was said; each turn earns its length."""

    def __init__(self, world, number):
        self.world, self.number, self.said = world, number, []
        self.machine = len(MACHINE)

    def start(self):
        return [Message(role="user", content=f"begin {self.number}")]

    def step(self, text):
        self.said.append(text)
        what, _, argument = text.partition(" ")
        if self.machine != len(MACHINE):
            raise WorldError("the machine has ended")
        observation, reward, done, reason, metrics = (
            f"{self.number}: {self.said}",
            float(len(text)),
            False,
            None,
            {},
        )
        if what == "sleep":
            time.sleep(float(argument))
        elif what == "hang":
            time.sleep(3600)
        elif what == "block":  # every thread: the lock of the interpreter is held
            ctypes.PyDLL(None).sleep(3600)
        elif what == "exit":
            os._exit(3)
        elif what == "segv":
            ctypes.string_at(0)
        elif what == "machine":  # what all episodes of a process share ends, once or (`always`) again
            ends = argument == "always" or not os.path.exists(argument)
            if ends and argument != "always":
                open(argument, "w").close()
            if ends:
                MACHINE.append("ended")
                raise WorldError("the machine has ended")
        elif what == "raise":
            raise RuntimeError("broken")
        elif what == "once":  # what it does once only: a file tells that it has been done
            if not os.path.exists(argument):
                with open(argument, "w"):
                    os._exit(4)
        elif what == "pid":
            observation = str(os.getpid())
        elif what == "secret":
            observation = str(os.environ.get(argument))
        elif what == "nan":
            reward = float("nan")
        elif what == "dict":
            return {"observation": ""}
        elif what == "done":
            done, reason, metrics = True, argument or None, {"success": 1.0}
        return StepResult(observation, reward, done, reason, metrics)


class Strange:
    """See `Counting`. `turns_at_once`, `episodes_at_once`: as the pool reads them."""

    failure_reward = -2.0

    def __init__(self, **limits):
        vars(self).update(limits)

    def environment(self, problem):
        return Counting(self, problem.data["n"])


class Slow(Strange):
    """Every turn takes as long."""

    def __init__(self, seconds):
        self.seconds = seconds

    def environment(self, problem):
        time.sleep(0)
        return _Slow(self, problem.data["n"])


class _Slow(Counting):
    def step(self, text):
        time.sleep(self.world.seconds)
        return super().step("")


class OtherMessages(Strange):
    """Its start is not what the problem says."""

    def environment(self, problem):
        return Counting(self, 99)
