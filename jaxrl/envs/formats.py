"""How a policy says what it does: ReAct, a function call in JSON, or a line of Python; read and written.

    react              Thought:            function_calling   {"thought": "I need wood first.",
                       I need wood first.                      "function_name": "get",
                                                               "arguments": {"item": "2 oak log"}}
                       Action:
                       get 2 oak log       code_as_action     ```python
                                                              # I need wood first.
                                                              get("2 oak log")
                                                              ```

All three say the same action, which is one line of text in the world's own grammar; a world lists its
`Function`s, whose templates lead from calls to lines and back. The forms are those of AgentGym (Xi et al.
2024), and what they say is read more strictly, so that what was done is never a guess:

- one action a turn; several, none, or one of several lines is unreadable (AgentGym takes the first line in
  some worlds, and all that follows the last `Action:` in others: `compat: agentgym`);
- what stands before `</think>` is no action;
- code is never run: one call of a known function with constants (AgentGym hands the text to `eval`).

Reading takes time linear in the text.
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import Formatter

MAX_ACTION = 500  # characters of an action
MAX_CALL = 8_000  # of a call with the thought in it
MAX_CODE = 2_000  # of code, whose nesting the parser must survive


class Unreadable(Exception):
    """A text without one readable action; what it says is for the policy to read."""


@dataclass(frozen=True)
class Function:
    """Something that can be done in a world: `template` is its line, with an `{argument}` in each gap."""

    name: str
    template: str
    meaning: str
    arguments: dict[str, str] = field(default_factory=dict)  # name -> what it holds

    def line(self, arguments: dict[str, str]) -> str:
        return "".join(
            text + (arguments[name] if name else "") for text, name, _, _ in Formatter().parse(self.template)
        )

    def arguments_of(self, line: str) -> dict[str, str] | None:
        """The arguments with which this function's line is the given one; None where it is another's."""
        pattern = "".join(
            re.escape(text) + (f"(?P<{name}>.+?)" if name else "")
            for text, name, _, _ in Formatter().parse(self.template)
        )
        match = re.fullmatch(pattern, line)
        return match.groupdict() if match else None


def instructions(action_format: str, functions: Sequence[Function]) -> str:
    """What the policy is told of the form of its turns."""
    if action_format == "react":
        lines = "\n".join(f"- {function.template}: {function.meaning}" for function in functions)
        return (
            f"The actions are:\n{lines}\n\n"
            "Take one action a turn, and answer in this form:\n\n"
            "Thought:\nwhat you think\n\nAction:\nthe action, on one line"
        )
    if action_format == "function_calling":
        lines = "\n".join(json.dumps(_schema(function)) for function in functions)
        return (
            f"The functions are:\n{lines}\n\n"
            "Call one function a turn, and answer with this JSON object and nothing else:\n\n"
            '{"thought": "what you think", "function_name": "the function", "arguments": {"name": "value"}}'
        )
    lines = "\n".join(f"- {_signature(function)}: {function.meaning}" for function in functions)
    return (
        f"The functions are:\n{lines}\n\n"
        "Call one function a turn, and answer in this form:\n\n"
        "```python\n# what you think\nfunction(argument)\n```"
    )


def read_action(action_format: str, text: str, functions: Sequence[Function]) -> str:
    """The action of a turn, one line.

    Raises:
      Unreadable: there is not exactly one, or it is no line of at most MAX_ACTION printable characters.
    """
    answer = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else text
    return _checked(READERS[action_format](answer, functions))


def write_turn(action_format: str, thought: str, action: str, functions: Sequence[Function]) -> str:
    """The turn that says an action, after a thought of one line.

    Raises:
      Unreadable: no function has this action, where the format needs one.
    """
    if action_format == "react":
        return f"Thought:\n{thought}\n\nAction:\n{action}"
    for function in functions:
        arguments = function.arguments_of(action)
        if arguments is None:
            continue
        if action_format == "function_calling":
            call = {"thought": thought, "function_name": function.name, "arguments": arguments}
            return json.dumps(call, ensure_ascii=False)
        values = ", ".join(repr(value) for value in arguments.values())
        return f"```python\n# {thought}\n{function.name}({values})\n```"
    raise Unreadable(f"no function of this world says {action[:80]!r}")


# ---------------------------------------------------------------------------------------- the ways of reading


def read_first_line(text: str) -> str:
    """AgentGym's TextCraft and BabyAI clients: what stands behind the one `Action:`, up to the line's end,
    without any sign but letters, digits, commas and spaces.

    Raises:
      Unreadable: several `Action:`; none at all is an empty action, which the world answers.
    """
    _, mark, rest = text.partition("Action:")
    if "Action:" in rest:
        raise Unreadable("Error: Only one 'Action' is allowed per response. Please adjust your response.")
    line = rest.lstrip().partition("\n")[0] if mark else ""
    return " ".join(re.sub(r"[^A-Za-z0-9, ]+", "", line).split())


def read_behind_last(text: str) -> str:
    """AgentGym's other clients: all that stands behind the last `Action:`; without one, the whole text where
    it holds an action of WebShop's, else nothing. `</s>` at the end takes a fifth character with it.
    """
    text = text[:-5] if text.endswith("</s>") else text
    _, mark, action = text.rpartition("Action:")
    if mark:
        return action.strip()
    return text.strip() if "search[" in text or "click[" in text else ""


def _read_react(text: str, functions: Sequence[Function]) -> str:
    found = text.count("Action:")
    if found != 1:
        raise Unreadable(
            f"there are {found} of 'Action:' in your answer; take one action"
            if found
            else "there is no 'Action:' in your answer"
        )
    return text.partition("Action:")[2]


def _read_call(text: str, functions: Sequence[Function]) -> str:
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end:
        raise Unreadable("there is no JSON object in your answer")
    if end - start > MAX_CALL:
        raise Unreadable(f"your JSON object is longer than {MAX_CALL} characters")
    try:
        call = json.loads(text[start : end + 1], strict=False)
    except (ValueError, RecursionError):
        raise Unreadable("your answer is not one JSON object") from None
    name, arguments = call.get("function_name"), call.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Unreadable("your JSON object needs 'function_name', a text, and 'arguments', an object")
    return _line(name, (), arguments, functions)


def _read_code(text: str, functions: Sequence[Function]) -> str:
    code = text.strip()
    if "```" in code:
        blocks = code.split("```", 3)
        if len(blocks) != 3:
            raise Unreadable("your answer needs exactly one block of Python code")
        code = blocks[1].removeprefix("python")
    if len(code) > MAX_CODE:
        raise Unreadable(f"your code is longer than {MAX_CODE} characters")
    try:
        body = ast.parse(code.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unreadable("your answer is not Python code") from None
    call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise Unreadable("your code must be one call of one function")
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    if not all(isinstance(value, ast.Constant) for value in values):
        raise Unreadable("the arguments of your call must be texts or numbers")
    if not all(keyword.arg for keyword in call.keywords):
        raise Unreadable("the arguments of your call must be texts or numbers")
    named = {keyword.arg: keyword.value.value for keyword in call.keywords}
    return _line(call.func.id, [value.value for value in call.args], named, functions)


READERS = {"react": _read_react, "function_calling": _read_call, "code_as_action": _read_code}


def _line(name: str, values: Sequence, named: dict, functions: Sequence[Function]) -> str:
    """The action of a call."""
    function = next((function for function in functions if function.name == name), None)
    if function is None:
        raise Unreadable(
            f"there is no function {name[:40]!r}; there are {', '.join(f.name for f in functions)}"
        )
    wanted = list(function.arguments)
    given = dict(zip(wanted, values)) | named
    if len(values) + len(named) != len(wanted) or set(given) != set(wanted):
        raise Unreadable(f"{name} takes these arguments: {', '.join(wanted) or 'none'}")
    if not all(
        isinstance(value, str | int | float) and not isinstance(value, bool) for value in given.values()
    ):
        raise Unreadable(f"the arguments of {name} must be texts or numbers")
    return function.line({key: str(value) for key, value in given.items()})


def _checked(action: str) -> str:
    action = action.strip()
    if not action:
        raise Unreadable("your action is empty")
    if len(action) > MAX_ACTION:
        raise Unreadable(f"your action is longer than {MAX_ACTION} characters")
    if "\n" in action:
        raise Unreadable("your action is more than one line")
    if not action.isprintable():
        raise Unreadable("your action holds signs that cannot be printed")
    return action


def _schema(function: Function) -> dict:
    properties = {name: {"type": "string", "description": text} for name, text in function.arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(function.arguments)}
    return {"name": function.name, "description": function.meaning, "parameters": parameters}


def _signature(function: Function) -> str:
    return f"{function.name}({', '.join(function.arguments)})"
