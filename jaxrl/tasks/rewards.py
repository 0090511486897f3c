"""Rewards put together: weighted parts, and a user's function that has the last word in any task."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace

from jaxrl.errors import InputError
from jaxrl.tasks.user_file import load
from jaxrl.types import Problem, Verdict

Reward = Callable[[Problem, str, Verdict], Verdict | float]


def weighted(
    parts: Mapping[str, float],
    weights: Mapping[str, float],
    correct: bool,
    format_ok: bool = True,
    detail: str = "",
) -> Verdict:
    """A verdict whose reward is a weighted sum of named parts.

        reward = sum over the parts of weight * part

    The parts are logged one by one, unweighted, as `reward/<name>`.

    Raises:
      ValueError: parts and weights are not of the same names.
    """
    if set(parts) != set(weights):
        raise ValueError(
            f"the parts are {sorted(parts)} and the weights {sorted(weights)}; give each part its weight"
        )
    numbers = {name: float(value) for name, value in parts.items()}
    return Verdict(
        sum(weights[name] * numbers[name] for name in numbers), correct, format_ok, numbers, detail
    )


class Shaped:
    """A task's verify function, and after it the `reward` of a user's file, which sees the task's verdict.

    A function that returns a number sets the reward alone: the verdict stays correct or not, and the task's
    own reward becomes its part `task`. One that returns a Verdict replaces it. Where the task has no verdict
    (`error`) there is nothing to shape, and the function is not asked.

    Args:
      verify: the task's. place: `FILE.py` or `FILE.py:NAME`.
    Raises:
      InputError: a file that does not run or has no such function, or one with other arguments.
    """

    def __init__(self, verify: Callable[[Problem, str], Verdict], place: str):
        self.verify, self.place = verify, place
        self.reward: Reward = load(place, "reward")
        _check_arguments(self.reward, place)
        self.__qualname__ = place  # how errors call it

    def __call__(self, problem: Problem, text: str) -> Verdict:
        verdict = self.verify(problem, text)
        if verdict.error is not None:
            return verdict
        given = self.reward(problem, text, verdict)
        if isinstance(given, Verdict):
            return given
        try:
            reward = float(given)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.place} returned {given!r}, neither a number nor a Verdict") from None
        return replace(verdict, reward=reward, parts={**verdict.parts, "task": verdict.reward})

    def __reduce__(self) -> tuple:
        return Shaped, (self.verify, self.place)  # the process that receives it runs the file itself


def _check_arguments(reward: Reward, place: str) -> None:
    """InputError where a function cannot be called as we do, TRL's `reward(completions, **kwargs)`, say."""
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):  # it has none that could be read
        return
    try:
        signature.bind(None, "", None)
    except TypeError:
        raise InputError(
            f"{place}: its arguments are {signature}; a reward is called for one completion at a time, as "
            "reward(problem, text, verdict), where problem.data has the record's fields"
        ) from None
