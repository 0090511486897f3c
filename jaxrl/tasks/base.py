"""What a task is: problems with a verifiable answer, in three splits.

The protocol alone; the tasks are in their own files.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from jaxrl.types import Problem, Verdict

SPLITS = ("train", "val", "test")

Baseline = Callable[[Problem, random.Random], str]
Record = dict[str, Any]  # plain JSON: a line of a file


class Task(Protocol):
    """A family of problems. Host code: no jax, no state that changes, the same problems on every machine.

    failure_reward: the reward of a sample whose verification timed out or crashed, in the task's own units;
      it should be what a completion without any readable answer gets, so that breaking the verifier never
      pays.
    verify: pure and cheap. The callable itself is pickled once into each verifier process, so it must not
      drag the question lists with it: a small callable object, or a function of an importable module.
    """

    failure_reward: float

    def problems(self, split: str) -> list[Problem]:
        """The problems of `train`, `val` or `test`, in a fixed order; no two splits share one."""

    def demonstration(self, problem: Problem) -> str | None:
        """A reference completion to imitate, or None where the task has none."""

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge one completion. Where that fails through no fault of the completion's (a sandbox that cannot
        start), the reward is NaN and `error` says why, beginning with `sandbox:`; the sample is then left out
        and counted.
        """

    def texts(self) -> Iterable[str]:
        """Texts that hold every word of the task's prompts and completions: what a tokenizer made for the
        task knows.
        """

    def phrases(self) -> list[str]:
        """Pieces of text that never change inside; a tokenizer made for the task has each as one token."""

    def baselines(self) -> dict[str, Baseline]:
        """Completions that know nothing of the answer, by name: every table of results shows these beside the
        policy.
        """

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        """`count` fresh records, each with a `prompt`; the same bytes on every machine, whatever the split
        sizes are.

        Raises:
          InputError: the task has no generator, or cannot make so many.
        """

    def problem(self, record: Record) -> Problem:
        """A record of `generate`, or one with the dataset's own field names, as a problem; other fields do
        not matter.

        Raises:
          InputError: naming the field that is missing or wrong, and saying what it should hold. The caller
            says where it stands.
        """


def example_texts(task: Task) -> list[str]:
    """What is asked and answered in a task's train split: every word that a tokenizer for it has to know."""
    pairs = (
        (problem.messages[0]["content"], task.demonstration(problem)) for problem in task.problems("train")
    )
    return [text for pair in pairs for text in pair if text is not None]
