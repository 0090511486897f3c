"""A task of one's own: letters into alphabetical order. `jaxrl run examples/sort.yaml` trains on it."""

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
        holds_letters = lambda given: isinstance(given, str) and given.split()[1:]
        prompt = field(record, "prompt", "'sort' and letters, as 'sort c a b'", holds_letters)
        letters = prompt.split()[1:]
        return Problem("".join(letters), ({"role": "user", "content": prompt},), {"right": sorted(letters)})

    def demonstration(self, problem):  # for SFT: the form of an answer, not the answer
        return chance(problem, random.Random(problem.uid))

    def baselines(self):  # rows of every table of results
        return {"chance": chance}

    def verify(self, problem, text):
        answer, right = text.split(), problem.data["right"]
        surplus = abs(len(answer) - len(right))
        in_place = sum(a == b for a, b in zip(answer, right)) / len(right)
        parts, weights = (
            {"in_place": in_place, "surplus": min(5, surplus)},
            {"in_place": 1.0, "surplus": -0.1},
        )
        return weighted(parts, weights, correct=answer == right, format_ok=not surplus)
