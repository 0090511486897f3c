"""Recipe books: what can be crafted from what, how deep, and what is to be done next.

Items are named as they are typed (`oak log`). A *tag* is a generic ingredient (`planks`) for which any of its
members stands. What has no recipe is got from the environment.

A book is made of its recipes alone: no order of sets, folders or hashes has any part in it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jaxrl.errors import InputError

MAX_COUNT = 9_999  # of an item in a command


@dataclass(frozen=True)
class Recipe:
    """`count` of `output` from the inputs (name or tag, count), which differ from each other."""

    output: str
    count: int
    inputs: tuple[tuple[str, int], ...]

    @property
    def command(self) -> str:
        """The line that crafts it."""
        inputs = ", ".join(f"{count} {name}" for name, count in self.inputs)
        return f"craft {self.count} {self.output} using {inputs}"


class Book:
    """Recipes by what comes of them. `tags`: item -> the tag that it is a member of.

    depth[name]: crafts that build on each other at least, 0 for what is got. Recipes that need what they make
    are never on the way to anything (their depth is infinite).
    """

    def __init__(self, recipes: Iterable[Recipe], tags: Mapping[str, str]):
        self.recipes: dict[str, list[Recipe]] = {}
        for recipe in recipes:
            self.recipes.setdefault(recipe.output, []).append(recipe)
        self.tags = dict(tags)
        self.members: dict[str, list[str]] = {}
        for item, tag in sorted(self.tags.items()):
            self.members.setdefault(tag, []).append(item)
        self.items = set(self.recipes) | set(self.tags)
        for recipe in self.all():
            self.items |= {name for name, _ in recipe.inputs if name not in self.members}
        self.depth = self._depths()

    def all(self) -> list[Recipe]:
        return [recipe for recipes in self.recipes.values() for recipe in recipes]

    def is_got(self, item: str) -> bool:
        """Whether the environment gives it: known, no tag, and nothing crafts it."""
        return item in self.items and item not in self.recipes

    def crafted(self, output: str, inputs: list[tuple[str, int]]) -> Recipe | None:
        """The recipe of `output` with exactly these inputs, in any order."""
        return next((recipe for recipe in self.recipes.get(output, ()) if self._fits(recipe, inputs)), None)

    def best(self, item: str) -> Recipe:
        """The recipe of least depth, the first where several are."""
        return min(self.recipes[item], key=self._recipe_depth)

    def member(self, name: str, count: int, below: float, have: Mapping[str, int]) -> str:
        """The item that stands for an ingredient: itself; of a tag, a member of which so many are there and
        whose depth is below that of what needs it (else its own making might need that), or else the member
        of least depth.
        """
        members = self.members.get(name)
        if members is None:
            return name
        there = [item for item in members if have.get(item, 0) >= count and self.depth[item] < below]
        return there[0] if there else min(members, key=lambda item: self.depth[item])

    def plan(self, goal: str, have: Mapping[str, int]) -> list[str]:
        """Commands that make one `goal` out of what is there: every base item got once, in full, then the
        crafts, those that others build on first.
        """
        need, order = {goal: 1}, {goal: 0}
        steps: dict[str, list[str]] = {}
        waiting = [goal]
        while waiting:
            item = max(waiting, key=lambda name: (self.depth[name], name))
            waiting.remove(item)
            missing = need[item] - have.get(item, 0)
            if missing <= 0:
                continue
            if item not in self.recipes:
                steps[item] = [f"get {missing} {item}"]
                continue
            recipe = self.best(item)
            times = math.ceil(missing / recipe.count)
            inputs = tuple(
                (self.member(name, count * times, self.depth[item], have), count)
                for name, count in recipe.inputs
            )
            for name, count in inputs:
                need[name] = need.get(name, 0) + count * times
                if name not in order:
                    order[name] = len(order)
                if name not in waiting:
                    waiting.append(name)
            steps[item] = [Recipe(item, recipe.count, inputs).command] * times
        names = sorted(steps, key=lambda name: (self.depth[name], order[name]))
        return [line for name in names for line in steps[name]]

    def _fits(self, recipe: Recipe, inputs: list[tuple[str, int]]) -> bool:
        left = list(inputs)
        for name, count in sorted(recipe.inputs, key=lambda part: part[0] in self.members):  # tags last
            found = next((i for i in left if name == i[0] or name == self.tags.get(i[0])), None)
            if found is None or found[1] != count:
                return False
            left.remove(found)
        return not left

    def _recipe_depth(self, recipe: Recipe) -> float:
        return 1 + max(self.depth[name] for name, _ in recipe.inputs)

    def _depths(self) -> dict[str, float]:
        """The least numbers with depth = 0 for what is got, else the best recipe's; found by rounds."""
        self.depth = {item: 0.0 if self.is_got(item) else math.inf for item in self.items}
        self.depth |= dict.fromkeys(self.members, math.inf)
        while True:
            before = dict(self.depth)
            for item, recipes in self.recipes.items():
                self.depth[item] = min(map(self._recipe_depth, recipes))
            for tag, members in self.members.items():
                self.depth[tag] = min(self.depth[item] for item in members)
            if self.depth == before:
                return self.depth


def read_command(command: str) -> Recipe:
    """The recipe that a listed command stands for.

    Raises:
      InputError: it is none.
    """
    made, using, inputs = command.removeprefix("craft ").partition(" using ")
    parts = [part.split(" ", 1) for part in [made, *inputs.split(", ")]]
    if not using or not all(len(part) == 2 and is_count(part[0]) for part in parts):
        raise InputError(f"{command[:80]!r} is no recipe; one reads: craft 1 blue dye using 1 lapis lazuli")
    (count, output), *rest = parts
    return Recipe(output, int(count), tuple((name, int(number)) for number, name in rest))


def is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_COUNT
