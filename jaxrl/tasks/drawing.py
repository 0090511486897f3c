"""Problems that are drawn: the same everywhere, no two alike, each in the split that its content decides."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS, Record
from jaxrl.types import Problem

MAX_DRAWS = 20_000  # in a row without a new problem: then there are none left, or next to none


class Claim(Protocol):
    """Whether the JSON values `content`, all that makes a problem what it is, are new and belong to the
    split. Which split that is hangs on `family` where there is one: what splits must not share.
    """

    def __call__(self, content: Any, family: Any = None) -> bool: ...


Draw = Callable[[random.Random, int, Claim], Record | None]


class Drawn:
    """The problems of a task that makes its own, one for each task; it keeps the splits that were asked for.

    Which split a problem belongs to hangs on its content, not on seeds or sizes, so that stages with other
    numbers never mix the splits: 8 of 10 belong to train, 1 to val, 1 to test. Fewer problems are the first
    of more problems.

    Args:
      name: of the task. settings: those that decide how many different problems there are, for the error that
        there are too few.
      seed: of the splits. sizes: split -> how many problems.
      make_draw: seed -> a function that draws one candidate, or None to be asked again. It gets a generator
        of random numbers, the place of the problem in its list, and a `Claim`, to be asked before anything
        expensive is done.
      problem: the task's own way from a record to a problem.
      place: where the sizes stand in a config, for the same error.
    """

    def __init__(
        self,
        name: str,
        settings: str,
        seed: int,
        sizes: dict[str, int],
        make_draw: Callable[[int], Draw],
        problem: Callable[[Record], Problem],
        place: str = "task",
    ):
        self._name, self._settings, self._seed, self._sizes = name, settings, seed, sizes
        self._make_draw, self._problem, self._place = make_draw, problem, place
        self._problems: dict[str, list[Problem]] = {}

    def problems(self, split: str) -> list[Problem]:
        """The split's problems.

        Raises:
          InputError: more asked for than there are, or a split that does not exist.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        if split not in self._problems:
            records = self._records(self._sizes[split], self._seed, split)
            self._problems[split] = [self._problem(record) for record in records]
        return list(self._problems[split])

    def generate(self, count: int, seed: int, split: str | None = None) -> Iterator[Record]:
        """`count` different records of one split, or of any."""
        return self._records(count, seed, split)

    def _records(self, count: int, seed: int, split: str | None) -> Iterator[Record]:
        draw, seen = self._make_draw(seed), set()

        def claim(content: Any, family: Any = None) -> bool:
            mark = digest(content)
            is_free = mark not in seen and split in (
                None,
                _split_of(mark if family is None else digest(family)),
            )
            if is_free:
                seen.add(mark)
            return is_free

        for index in range(count):
            rng = random.Random(f"{self._name}/{split}/{seed}/{index}")
            draws = (draw(rng, index, claim) for _ in range(MAX_DRAWS))
            record = next((record for record in draws if record is not None), None)
            if record is None:
                asked = f"{self._place}.{split} asks" if split else "asked"
                raise InputError(
                    f"{asked} for {count} different problems of {self._name}, and after {index} of them "
                    f"{MAX_DRAWS:,} draws gave no new one that fits; ask for fewer, or change "
                    f"{self._settings}"
                )
            yield record


def digest(content: Any) -> str:
    """16 hexadecimal digits of JSON values."""
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:16]


def _split_of(mark: str) -> str:
    tenth = int(mark, 16) % 10
    return SPLITS[max(0, tenth - 7)]
