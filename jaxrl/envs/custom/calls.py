"""Calls of tools, as chat templates write them, read from a model's text; and the schema of a method.

    <tool_call>{"name": "look", "arguments": {}}</tool_call>                    Qwen 2.5 and 3, Hermes
    <tool_call><function=go><parameter=way>north</parameter></function></tool_call>         Qwen3-Coder
    [TOOL_CALLS][{"name": "look", "arguments": {}}]                             Mistral
    {"name": "look", "parameters": {}}                                          Llama 3

Reading takes time linear in the text, and runs nothing of it.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jaxrl.envs.formats import Unreadable
from jaxrl.errors import InputError

MAX_CALLS = 16  # of one turn
MAX_CALL = 20_000  # characters


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


def read_calls(text: str) -> list[Call]:
    """The calls in a turn, in order; none for one that says something without calling.

    Raises:
      Unreadable: a call that is begun, and is none.
    """
    text = text.rpartition("</think>")[2].strip()
    if "<tool_call>" in text:
        pieces = [piece.partition("</tool_call>") for piece in text.split("<tool_call>")[1:]]
        if not all(end for _, end, _ in pieces):
            raise Unreadable("a <tool_call> has no </tool_call>")
        values = [_tagged(inside.strip()) for inside, _, _ in pieces[: MAX_CALLS + 1]]
    elif "[TOOL_CALLS]" in text:
        values = _listed(_json(text.partition("[TOOL_CALLS]")[2].strip()))
    else:
        text = text.removeprefix("<|python_tag|>")
        try:
            values = _listed(_json(text)) if text[:1] in ("{", "[") else []
        except Unreadable:
            return []  # it is not marked as a call, and need not be one
        if not all(_is_call(value) for value in values):
            return []
    if len(values) > MAX_CALLS:
        raise Unreadable(f"there are more than {MAX_CALLS} tool calls in your answer")
    return [_call(value) for value in values]


def write_call(name: str, arguments: dict[str, Any]) -> str:
    """A call as Qwen's and Hermes' templates write it."""
    call = {"name": name, "arguments": arguments}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _json(text: str) -> Any:
    if len(text) > MAX_CALL:
        raise Unreadable(f"a tool call is longer than {MAX_CALL} characters")
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        raise Unreadable("a tool call is not JSON") from None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_PARAMETER = re.compile(r"<parameter=([\w.-]+)>([^<]*)</parameter>")


def _tagged(text: str) -> Any:
    """What stands in a `<tool_call>`: JSON, or Qwen3-Coder's tags, whose values are JSON or plain text."""
    if not text.startswith("<function="):
        return _json(text)
    if len(text) > MAX_CALL:
        raise Unreadable(f"a tool call is longer than {MAX_CALL} characters")
    name, mark, inside = text.removeprefix("<function=").partition(">")
    if not mark or not inside.rstrip().endswith("</function>"):
        raise Unreadable("a <function=...> has no </function>")
    return {"name": name, "arguments": {key: _value(raw) for key, raw in _PARAMETER.findall(inside)}}


def _value(text: str) -> Any:
    text = text.removeprefix("\n").removesuffix("\n")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and ("arguments" in value or "parameters" in value)
    )


def _call(value: Any) -> Call:
    if not _is_call(value):
        raise Unreadable("a tool call needs a 'name', a text, and 'arguments', an object")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):  # some templates write them as JSON in a text
        arguments = _json(arguments)
    if not isinstance(arguments, dict):
        raise Unreadable("the 'arguments' of a tool call must be an object")
    return Call(value["name"], arguments)


# ---------------------------------------------------------------------------------------------------- schemas

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
_HOLDS = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_ARGUMENT = re.compile(r"(\w+)\s*(?:\([^)]*\))?:\s*(.*)")


def schema_of(method: Callable) -> dict[str, Any]:
    """A tool as chat templates take it, from the docstring and the type hints of a method.

    The description is the docstring up to `Args:`; under `Args:` stands one `name: meaning` per argument.

    Raises:
      InputError: no docstring, an argument without a type hint or of a type that JSON does not have.
    """
    name, doc = method.__name__, inspect.getdoc(method)
    if not doc:
        raise InputError(f"the tool {name!r} has no docstring; say there what it does and what it takes")
    described, _, arguments = doc.partition("Args:")
    meanings = _meanings(arguments)
    hints = typing.get_type_hints(method)
    properties, required = {}, []
    for argument, parameter in inspect.signature(method).parameters.items():
        if argument == "self":
            continue
        if argument not in hints or parameter.kind not in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        ):
            raise InputError(f"the tool {name!r} takes {argument!r} without a type hint, or as *{argument}")
        properties[argument] = _type_of(hints[argument], f"{name}({argument})")
        if argument in meanings:
            properties[argument]["description"] = meanings[argument]
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": name, "description": " ".join(described.split()), "parameters": parameters}
    return {"type": "function", "function": function}


def wrong_with(arguments: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """What is wrong with the arguments of a call, or None. It looks at names and outermost types."""
    function = schema["function"]
    known, required = function["parameters"]["properties"], function["parameters"]["required"]
    takes = ", ".join(known) or "nothing"
    if unknown := sorted(set(arguments) - set(known)):
        return f"{function['name']} does not take {unknown[0][:80]!r}; it takes: {takes}"
    if missing := [name for name in required if name not in arguments]:
        return f"{function['name']} needs {missing[0]!r}"
    for name, value in arguments.items():
        if not _fits(value, known[name]):
            return f"{name!r} must be of type {known[name].get('type', known[name])}"
    return None


def _meanings(text: str) -> dict[str, str]:
    """name -> meaning, of the lines under `Args:`, up to the next heading; deeper lines go on."""
    found: dict[str, str] = {}
    lines = inspect.cleandoc(text).splitlines()
    last = None
    for line in lines:
        match = _ARGUMENT.fullmatch(line.strip())
        if line.strip() in ("Returns:", "Raises:", "Example:", "Examples:"):
            break
        if match and (last is None or len(line) - len(line.lstrip()) == last[1]):
            last = (match[1], len(line) - len(line.lstrip()))
            found[last[0]] = match[2]
        elif last and line.strip():
            found[last[0]] += f" {line.strip()}"
    return found


def _type_of(hint: Any, place: str) -> dict[str, Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if origin in (list, dict):
        word = {"type": _TYPES[origin]}
        return word | {"items": _type_of(inner[0], place)} if origin is list and inner else word
    if origin is Literal:
        kinds = {type(value) for value in inner}
        if len(kinds) == 1 and kinds <= set(_TYPES):
            return {"type": _TYPES[kinds.pop()], "enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        kept = [kind for kind in inner if kind is not type(None)]
        if len(kept) == 1:
            return _type_of(kept[0], place) | {"nullable": True}
    raise InputError(
        f"the tool argument {place} has the type {hint}; use str, int, float, bool, list, dict, Literal, or "
        "one of these or None"
    )


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    if value is None:
        return schema.get("nullable", False) or "type" not in schema
    if "type" not in schema:
        return True
    if isinstance(value, bool) and schema["type"] != "boolean":
        return False
    return isinstance(value, _HOLDS[schema["type"]]) and value in schema.get("enum", [value])
