"""Action formats: what is written is read back, each way of saying nothing is told apart, and no text is too
hostile.
"""

import contextlib
import json

import pytest

from jaxrl.envs.formats import (
    MAX_ACTION,
    READERS,
    Function,
    Unreadable,
    read_action,
    read_behind_last,
    read_first_line,
    write_turn,
)
from jaxrl.envs.textcraft.rules import TextCraft
from jaxrl.envs.webshop.rules import WebShop

ACTIONS = [
    (TextCraft, 'craft 1 oak stick using 2 oak board, 1 "odd" {item}'),
    (TextCraft, "get 3 oak log"),
    (TextCraft, "inventory"),
    (WebShop, "search[women's shoes, size 7.5]"),
    (WebShop, "click[back to search]"),
]
GET = (Function("get", "get {item}", "get it", {"item": "number and item"}), Function("look", "look", "look"))


@pytest.mark.parametrize("action_format", READERS)
@pytest.mark.parametrize("rules, action", ACTIONS)
def test_what_is_written_is_read(action_format, rules, action):
    turn = write_turn(action_format, "I say \"so\" # and 'so'.", action, rules.functions)
    assert read_action(action_format, turn, rules.functions) == action
    thinking = f"<think>Action: nothing {{}} ```x```</think>\n{turn}"
    assert read_action(action_format, thinking, rules.functions) == action


@pytest.mark.parametrize(
    "text, action",
    [
        ("Action: get 1 x", "get 1 x"),
        ("Thought: so\nAction:\n  get 1 x  \n", "get 1 x"),
        ("get 1 x", None),
        ("", None),
        ("Action:", None),
        ("Action: get 1 x\nAction: get 2 x", None),
        ("Action: get 1 x\nget 2 x", None),
        ("Action: get\x001 x", None),
        ("Action: get 1 \u202e x", None),
        ("Action: get 1 \ud800 x", None),
        (f"Action: {'x' * (MAX_ACTION + 1)}", None),
        (f"Action: {'x' * MAX_ACTION}", "x" * MAX_ACTION),
    ],
)
def test_react_has_one_action_of_one_line(text, action):
    check("react", text, action)


@pytest.mark.parametrize(
    "call, action",
    [
        ({"thought": "t", "function_name": "get", "arguments": {"item": "1 x"}}, "get 1 x"),
        ({"function_name": "get", "arguments": {"item": 7}}, "get 7"),
        ({"function_name": "look", "arguments": {}}, "look"),
        ({"function_name": "look"}, "look"),
        ({"function_name": "fly", "arguments": {}}, None),
        ({"function_name": "get", "arguments": {}}, None),
        ({"function_name": "get", "arguments": {"item": "1 x", "more": "1"}}, None),
        ({"function_name": "get", "arguments": {"item": ["x"]}}, None),
        ({"function_name": "get", "arguments": {"item": True}}, None),
        ({"function_name": "get", "arguments": {"item": "a\nb"}}, None),
        ({"function_name": ["get"], "arguments": {"item": "x"}}, None),
        ({"arguments": {"item": "x"}}, None),
    ],
)
def test_a_call_has_exactly_the_functions_arguments(call, action):
    check("function_calling", f"Here it is: {json.dumps(call)}", action)


@pytest.mark.parametrize("text", ["", "{", "}{", "[1]", '{"function_name": "get"', "{" * 4000 + "}" * 4000])
def test_a_call_that_is_none(text):
    check("function_calling", text, None)


@pytest.mark.parametrize(
    "code, action",
    [
        ("get('1 x')", "get 1 x"),
        ("# thought\nget(item='1 x')", "get 1 x"),
        ("get(1)", "get 1"),
        ("look()", "look"),
        ("get('1 ' + 'x')", None),
        ("get(__import__('os').getcwd())", None),
        ("look(); look()", None),
        ("x = look()", None),
        ("look", None),
        ("get(*['1 x'])", None),
        ("get(**{'item': '1 x'})", None),
        ("get('1 x', item='2 x')", None),
        ("get()", None),
        ("get(", None),
        ("-" * 1500 + "1", None),
        ("(" * 900 + ")" * 900, None),
        ("\x00", None),
    ],
)
def test_code_is_one_call_with_constants_and_is_never_run(code, action):
    check("code_as_action", code, action)
    check("code_as_action", f"```python\n{code}\n```", action)


def test_two_blocks_of_code_are_no_action():
    check("code_as_action", "```python\nlook()\n```\n```python\nlook()\n```", None)


HOSTILE = [
    "Action:" * 1_500_000,
    "Action: " + "x" * 10_000_000,
    "{" * 10_000_000,
    "{" * 5_000_000 + "}" * 5_000_000,
    "```" * 3_500_000,
    "\n" * 10_000_000,
    "</think>" * 1_200_000,
    "Action:" + " \n" * 5_000_000,
    "\x00\x1b[2J\u202e" * 2_000_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_ten_megabytes_of_anything_are_read(text):
    """In linear time: in quadratic time this would not end."""
    for action_format in READERS:
        check(action_format, text, None)
    assert len(read_behind_last(text)) <= len(text)
    with contextlib.suppress(Unreadable):
        read_first_line(text)


@pytest.mark.parametrize(
    "text, first_line, behind_last",
    [
        ("Thought:\nso\n\nAction:\nget 2 oak log", "get 2 oak log", "get 2 oak log"),
        ("Action: get 2 (oak) log!\nAnd so on", "get 2 oak log", "get 2 (oak) log!\nAnd so on"),
        ("get 2 oak log", "", ""),
        ("click[a]", "", "click[a]"),
        ("Action: one\nAction: two", None, "two"),
        ("Action: click[abc]</s>", "clickabcs", "click[abc"),
    ],
)
def test_the_clients_of_agentgym_read_so(text, first_line, behind_last):
    """By hand, from their source; the last row is their cut of five letters for a mark of four."""
    assert read_behind_last(text) == behind_last
    if first_line is None:
        with pytest.raises(Unreadable, match="Only one 'Action'"):
            read_first_line(text)
    else:
        assert read_first_line(text) == first_line


def check(action_format, text, action):
    if action is not None:
        assert read_action(action_format, text, GET) == action
        return
    with pytest.raises(Unreadable):
        read_action(action_format, text, GET)
