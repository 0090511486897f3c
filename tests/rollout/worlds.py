"""Small worlds for tests of episodes: what they answer hangs on all that was said, and on nothing else."""

import time
import zlib

from jaxrl.envs.base import StepResult
from jaxrl.types import Message, Problem

COLOURS = ("red", "green", "blue")


def problem(number: int) -> Problem:
    content = COLOURS[number % 3] * (number + 1)
    return Problem(f"p{number}", (Message(role="user", content=content),), {"n": number})


class Colours:
    """Answers every turn with a colour and pays for it; ends after `turns` of them, some sooner. `delays`:
    seconds before the answers to each problem, by turns.
    """

    failure_reward = -3.0

    def __init__(self, turns: int = 3, delays=(), crashes=()):
        self.turns, self.delays, self.crashes = turns, delays, crashes

    def environment(self, problem):
        return _Colours(self, problem)


class _Colours:
    def __init__(self, world, problem):
        self.world, self.problem, self.said = world, problem, []

    def start(self):
        return list(self.problem.messages)

    def step(self, text):
        self.said.append(text)
        number = self.problem.data["n"]
        if self.world.delays:
            time.sleep(self.world.delays[(number + len(self.said)) % len(self.world.delays)])
        if number in self.world.crashes and len(self.said) == 2:
            raise RuntimeError("the world is broken")
        digest = zlib.crc32(repr((number, self.said)).encode())
        ends = len(self.said) == self.world.turns or digest % 5 == 0
        return StepResult(
            COLOURS[digest % 3],
            reward=digest % 97 / 8,
            done=ends,
            stop_reason="env_done" if ends else None,
            metrics={"parse_errors": float(digest % 7 == 0)} | ({"success": digest % 2} if ends else {}),
        )


class OneTurn:
    """A task as a world of one turn."""

    def __init__(self, verify, failure_reward: float):
        self.verify, self.failure_reward = verify, failure_reward

    def environment(self, problem):
        return _OneTurn(self, problem)


class _OneTurn:
    def __init__(self, world, problem):
        self.world, self.problem = world, problem

    def start(self):
        return list(self.problem.messages)

    def step(self, text):
        verdict = self.world.verify(self.problem, text)
        errors = {} if verdict.format_ok else {"parse_errors": 1.0}
        metrics = verdict.parts | errors | {"success": float(verdict.correct)}
        return StepResult(verdict.detail, verdict.reward, True, None, metrics)


class Letters:
    """Two turns, each of which pays 1 for a text that ends at once, and a half for one that begins early in
    the alphabet.
    """

    failure_reward = 0.0

    def environment(self, problem):
        return _Letters(problem)


class _Letters:
    def __init__(self, problem):
        self.problem, self.turns = problem, 0

    def start(self):
        return list(self.problem.messages)

    def step(self, text):
        self.turns += 1
        reward = 1.0 if text == "" else 0.5 if text[0] < "a" else 0.0
        return StepResult("green", reward, done=self.turns == 2)
