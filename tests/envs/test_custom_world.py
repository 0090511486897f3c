"""Worlds of a user's own file, in both forms; calls of tools in the forms of templates; what is refused."""

import json
import random
from pathlib import Path
from typing import Any, Literal

import pytest

from jaxrl.envs.custom.calls import Call, read_calls, schema_of, write_call, wrong_with
from jaxrl.envs.formats import Unreadable
from jaxrl.envs.world import play, replay
from jaxrl.errors import InputError
from tests.envs import episode_laws as laws

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def make(file, **section):
    return laws.make(name="custom_env", file=str(file), **{"train": 20, "val": 5, "test": 5} | section)


def written(folder, text):
    (folder / "mine.py").write_text(text)
    return folder / "mine.py"


# ----------------------------------------------------------------------------------------------- the examples


@pytest.mark.parametrize("name", ["guess", "tools"])
def test_the_examples_keep_the_laws(name):
    world = make(EXAMPLES / f"{name}.py")
    assert laws.success(world, world.problems("train"), "expert")[0] == 1
    for policy in world.policies():
        laws.check_replay_is_play(world, world.problems("val"), policy)
    laws.check_problems_are_json(world, world.problems("val"))
    laws.check_splits_are_disjoint(world)
    laws.check_hostile_turns_are_answered(world, world.problems("val")[0])


def test_an_episode_of_a_user_is_used_once():
    world = make(EXAMPLES / "guess.py")
    laws.check_an_episode_is_used_once(world, world.problems("val")[0])


def test_all_is_the_same_everywhere():
    for name in ("guess", "tools"):
        laws.check_all_is_the_same_everywhere(
            "expert", name="custom_env", file=str(EXAMPLES / f"{name}.py"), train=5, val=2, test=2
        )


def test_chance_guesses_some_numbers():
    world = make(EXAMPLES / "guess.py", train=200, max_turns=20)
    _, (low, high) = laws.success(world, world.problems("train"), "random")
    assert low < 0.2 < high  # 20 of the numbers up to 100: 1 - 0.99^20 = 0.18


# ------------------------------------------------------------------------------------------------------ tools


@pytest.fixture(scope="module")
def shop():
    return make(EXAMPLES / "tools.py", max_turns=4)


DATA = {"prompt": "Buy tea, and say when you are done.", "wanted": ["tea"], "coins": 6}
BUY_TEA = write_call("buy", {"item": "tea"})


def answers(world, *turns, data=DATA):
    return replay(world, world.problem(data), turns).results


def test_a_prompt_carries_the_tools_and_what_reset_told(shop):
    (message,) = shop.problem(DATA).messages
    assert message["content"] == "Buy tea, and say when you are done. You have 6 coins."
    names = [tool["function"]["name"] for tool in message["tools"]]
    assert names == ["buy", "price"]  # no reset, no get_reward, no policy, no draw
    assert message["tools"][0]["function"] == {
        "name": "buy",
        "description": "Buy one item.",
        "parameters": {
            "type": "object",
            "properties": {"item": {"type": "string", "description": "what to buy"}},
            "required": ["item"],
        },
    }


def test_the_reward_is_asked_for_at_the_end(shop):
    bought, said = answers(shop, BUY_TEA, "There you are.")
    assert bought.observation == "<tool_response>\nYou have 1 coins left.\n</tool_response>"
    assert (bought.reward, bought.done, bought.metrics["tool_calls"]) == (0, False, 1)
    assert (said.reward, said.done, said.stop_reason, said.observation) == (1, True, "env_done", "")
    assert said.metrics["success"] == 1
    price = write_call("price", {"item": "tea"})
    last = answers(shop, BUY_TEA, price, price, price, price)[-1]
    assert (last.reward, last.done, last.stop_reason, last.metrics["success"]) == (1, True, "max_turns", 1)
    assert answers(shop, "I give up.")[0].reward == 0


def test_several_calls_are_answered_in_order(shop):
    (result,) = answers(shop, BUY_TEA + write_call("price", {"item": "rice"}))
    assert result.observation.split("\n")[1::3] == ["You have 1 coins left.", "4"]
    assert result.metrics["tool_calls"] == 2


@pytest.mark.parametrize(
    "turn, word, count",
    [
        (write_call("steal", {}), "no tool 'steal'", "tool_errors"),
        (write_call("reset", {}), "no tool 'reset'", "tool_errors"),
        (write_call("get_reward", {}), "no tool", "tool_errors"),
        (write_call("buy", {}), "needs 'item'", "tool_errors"),
        (write_call("buy", {"item": 3}), "of type string", "tool_errors"),
        (write_call("buy", {"item": "tea", "n": 2}), "does not take 'n'", "tool_errors"),
        (write_call("buy", {"item": "gold"}), "you cannot buy gold", "tool_errors"),
        ("<tool_call>{oops</tool_call>", "not JSON", "parse_errors"),
        ("<tool_call>", "no </tool_call>", "parse_errors"),
        ('<tool_call>{"name": 3}</tool_call>', "needs a 'name'", "parse_errors"),
        (BUY_TEA * 17, "more than 16", "parse_errors"),
    ],
)
def test_what_cannot_be_done_is_an_observation_and_counted(shop, turn, word, count):
    (result,) = answers(shop, turn)
    assert word in result.observation and not result.done and result.reward == 0
    assert result.metrics[count] == 1


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "go", "arguments": {"way": "north", "n": 2}}\n</tool_call>',
        'I go.\n<tool_call>{"name": "go", "arguments": "{\\"way\\": \\"north\\", \\"n\\": 2}"}</tool_call>',
        "<tool_call>\n<function=go>\n<parameter=way>\nnorth\n</parameter>\n<parameter=n>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        '[TOOL_CALLS][{"name": "go", "arguments": {"way": "north", "n": 2}}]',
        '{"name": "go", "parameters": {"way": "north", "n": 2}}',
        '<|python_tag|>{"name": "go", "parameters": {"way": "north", "n": 2}}',
        '<think><tool_call>{"name": "no", "arguments": {}}</tool_call></think>'
        '<tool_call>{"name": "go", "arguments": {"way": "north", "n": 2}}</tool_call>',
    ],
)
def test_every_form_of_a_call_says_the_same(text):
    assert read_calls(text) == [Call("go", {"way": "north", "n": 2})]


@pytest.mark.parametrize("text", ["", "42", '{"answer": 3}', "[1, 2]", "{", "no call", "[[", '"name"', "[]"])
def test_what_is_no_call_is_none(text):
    assert read_calls(text) == []


def test_calls_survive_writing_and_reading():
    rng = random.Random(0)
    signs = 'aé"\\\n</tool> {}[]\u202e'
    for _ in range(200):
        arguments = {"".join(rng.choices("abc_", k=3)): "".join(rng.choices(signs, k=9)) for _ in range(3)}
        assert read_calls(write_call("tool", arguments)) == [Call("tool", arguments)]


def test_schemas_say_what_docstrings_and_hints_say():
    def tool(
        self,
        a: int,
        way: Literal["up", "down"],
        b: list[str] | None = None,
        c: dict[str, int] | None = None,
        d: Any = 1,
    ):
        """Do it,
        and well.

        Args:
            a: how often,
                at most
            b (list): of what
            way: whither: up or down
        Returns:
            nothing
        """

    function = schema_of(tool)["function"]
    assert function["description"] == "Do it, and well."
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "how often, at most"},
            "way": {"type": "string", "enum": ["up", "down"], "description": "whither: up or down"},
            "b": {"type": "array", "items": {"type": "string"}, "nullable": True, "description": "of what"},
            "c": {"type": "object", "nullable": True},
            "d": {},
        },
        "required": ["a", "way"],
    }
    schema = schema_of(tool)
    assert wrong_with({"a": 1, "way": "up", "b": None, "d": [3]}, schema) is None
    for wrong in ({"a": True}, {"a": 1.5}, {"way": "left"}, {"c": []}, {"a": None}):
        assert wrong_with({"a": 1, "way": "up"} | wrong, schema)


# -------------------------------------------------------------------------------------------- what is refused

START = "class Environment:\n    def __init__(self, problem): pass\n    def start(self): return 'go'\n"


@pytest.mark.parametrize(
    "text, word",
    [
        ("x = 1", "has no 'Environment'"),
        ("class Environment:\n    def start(self): return 'go'", "neither `start` and `step` nor `reset`"),
        ("class Environment:\n    def reset(self): pass", "no `get_reward`"),
        (
            "class Environment:\n    def reset(self): pass\n    def get_reward(self): pass\n"
            "    def go(self): pass",
            "'go' has no docstring",
        ),
        (
            "class Environment:\n    def reset(self): pass\n    def get_reward(self): pass\n"
            "    def go(self, way):\n        'go'",
            "'way' without a type hint",
        ),
        (START + "    def step(self, text): pass", "set env.train_file"),
        (START + "    def step(self, text): pass\n    def draw(): pass", "line 5|draw"),
    ],
)
def test_a_class_that_is_no_world_is_refused(tmp_path, text, word):
    with pytest.raises(InputError, match=word):
        make(written(tmp_path, text)).problems("train")


def test_an_error_of_the_users_names_file_and_line(tmp_path):
    text = START + "    def step(self, text):\n        return 1 / 0, 0.0, False\n"
    text += "    def draw(rng, index): return {'n': rng.random()}\n"
    world = make(written(tmp_path, text))
    environment = world.environment(world.problems("train")[0])
    environment.start()
    with pytest.raises(InputError, match="mine.py, line 5: ZeroDivisionError"):
        environment.step("x")


def test_problems_may_come_from_files(tmp_path):
    records = [{"prompt": f"Buy tea {i}.", "wanted": ["tea"], "coins": 9} for i in range(4)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = (EXAMPLES / "tools.py").read_text().replace("def draw", "def _draw")
    world = make(written(tmp_path, text), train_file=str(tmp_path / "r.jsonl"), train=3)
    assert [problem.data for problem in world.problems("train")] == records[:3]
    assert world.problems("test") == []
    assert play(world, world.problems("train")[0], "expert", random.Random(0)).success
    assert [problem.data for problem in world.draw(2, 5, "train")] == records[:2]
    (tmp_path / "r.jsonl").write_text('{"wanted": [], "coins": 1}\n')
    with pytest.raises(InputError, match="r.jsonl, line 1.*prompt"):
        world.problems("train")


def test_a_call_that_is_too_long_or_too_deep_is_unreadable():
    for inside in ("[" * 19_000, "{" * 30_000, '{"name": "a", "arguments": ' + "[" * 15_000):
        with pytest.raises(Unreadable):
            read_calls(f"<tool_call>{inside}</tool_call>")
