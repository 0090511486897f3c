"""A task of one's own: put letters into alphabetical order. `jaxrl run examples/sort.yaml` trains a fresh
model on it.
"""

import itertools
import random

from jaxrl.tasks.fields import field
from jaxrl.tasks.rewards import weighted
from jaxrl.types import Problem


def chance(problem, rng):
    return " ".join(rng.sample(problem.data["right"], len(problem.data["right"])))


class Task:
    failure_reward = -0.5  # of a completion whose verification crashed or took too long

    def __init__(self, length=3):
        orders = list(itertools.permutations("abcdefgh", length))
        random.Random(0).shuffle(orders)
        self.orders = {"train": orders[120:], "val": orders[:20], "test": orders[20:120]}

    def problems(self, split):
        return [self.problem({"prompt": "sort " + " ".join(order)}) for order in self.orders[split]]

    def problem(self, record):
        prompt = field(
            record,
            "prompt",
            "'sort' and letters, as 'sort c a b'",
            lambda given: isinstance(given, str) and given.split()[1:],
        )
        return Problem(
            "".join(prompt.split()[1:]),
            ({"role": "user", "content": prompt},),
            {"right": sorted(prompt.split()[1:])},
        )

    def demonstration(self, problem):  # for SFT: the form of an answer, not the answer
        return chance(problem, random.Random(problem.uid))

    def baselines(self):  # rows of every table of results
        return {"chance": chance}

    def verify(self, problem, text):
        said, right = text.split(), problem.data["right"]
        parts = {
            "in_place": sum(a == b for a, b in zip(said, right)) / len(right),
            "surplus": min(5, abs(len(said) - len(right))),
        }
        return weighted(
            parts,
            {"in_place": 1.0, "surplus": -0.1},
            correct=said == right,
            format_ok=len(said) == len(right),
        )
