r"""Records with cases, in the shapes that data sets have, each read into the form that `cases.py` runs.

    rl-python      verification_info or test_cases        {"test_cases": the list}, or the list:
                                                          [{"type", "fn_name", "input", "output"}, ...]
    APPS, TACO     input_output                           {"inputs": [...], "outputs": [...], "fn_name": ...}
    PRIME          reward_model                           {"ground_truth": the same}
    code_contests  public_tests, private_tests,           {"input": [...], "output": [...]}
                   generated_tests
    LiveCodeBench  public_test_cases, private_test_cases  [{"testtype", "input", "output"}, ...];
                                                          metadata: func_name
    codeforces     examples, official_tests               [{"input", "output"}, ...]

Every shape may stand in every field, as it is, as JSON or as a Python literal. A case without a type is a
function's where a function is named (`fn_name`, or `func_name` in `metadata`), else it is of stdin_stdout.
Fields of one line belong together: all their cases must pass. The private tests of LiveCodeBench are a
pickle, of which the one text inside is read; it is never executed.

A list as input or output of stdin_stdout is its elements on lines of their own. Of a function, a list is the
positional arguments, an object the arguments by name, anything else the only argument; an output [3] stands
for 3, or for [3]: data sets that wrap the value and data sets that do not cannot be told apart. Where the
type is not function_call itself, a text is JSON: an argument per line.
"""

import ast
import base64
import json
import pickletools
import zlib
from collections.abc import Iterator
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.jsonl import short
from jaxrl.tasks.base import Record
from jaxrl.tasks.code.cases import Case, call_case
from jaxrl.tasks.code.names import long_integers
from jaxrl.tasks.code.text import whole_lines
from jaxrl.tasks.fields import field, is_text
from jaxrl.types import Message

TYPES = {
    "stdin_stdout": "stdin_stdout",
    "function_call": "function_call",
    "stdin": "stdin_stdout",
    "functional": "function_call",
}
FIELDS = (
    ("verification_info",),
    ("test_cases",),
    ("input_output",),
    ("tests",),
    ("reward_model",),
    ("public_test_cases", "private_test_cases"),
    ("public_tests", "private_tests", "generated_tests"),
    ("examples", "official_tests"),
)
STATEMENTS = ("prompt", "question", "question_content", "description", "problem")
MORE = {"input_format": "Input:\n{}", "output_format": "Output:\n{}", "starter_code": "```python\n{}\n```"}
MAX_UNPACKED = 256 << 20
# Of a pickle that is one text: the text, and what may stand around it.
TEXT_CODES = frozenset(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"))
OTHER_CODES = frozenset(("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"))


def read_statement(record: Record) -> tuple[tuple[Message, ...], str]:
    """What is asked in words, and messages ahead of it, where the prompt is a list of them.

    With `input_format` and `output_format`, where the problem does not say them itself (codeforces), and the
    code to begin with.

    Raises:
      InputError: none of STATEMENTS, or not what it should be.
    """
    name = next((name for name in STATEMENTS if name in record), STATEMENTS[0])
    value, ahead = record.get(name), ()
    if (
        isinstance(value, list)
        and value
        and all(isinstance(message, dict) and is_text(message.get("content")) for message in value)
    ):
        *ahead, last = [
            Message(role=str(message.get("role")), content=message["content"]) for message in value
        ]
        if last["role"] != "user":
            raise InputError(
                f"field {name!r} ends with a message of {last['role']!r}; the last should be the user's, "
                "with the problem"
            )
        value = last["content"]
    statement = field({name: value} if name in record else {}, name, "the problem in words", is_text)
    for more, form in MORE.items():
        text = record.get(more) or ""
        if not isinstance(text, str):
            raise InputError(f"field {more!r} is {short(text)}; it should hold a text")
        if text.strip():
            statement = f"{statement.rstrip()}\n\n{form.format(text.rstrip())}"
    return tuple(ahead), statement


def read_cases(record: Record) -> list[Case]:
    """The cases of a record, of the first line of FIELDS that it has.

    Raises:
      InputError: no such field, no cases, or a case that is not as it should be, an unknown type above all.
    """
    names = next(
        (names for line in FIELDS if (names := [name for name in line if not _is_empty(record.get(name))])),
        None,
    )
    if names is None:
        others = ", ".join(name for line in FIELDS[2:] for name in line)
        raise InputError(
            "fields 'verification_info' and 'test_cases' are both missing or empty, and so are those of "
            f"other data sets ({others}); one should hold the cases to pass"
        )
    with long_integers():
        cases = [case for name in names for case in _read_field(record, name)]
    if not cases:
        raise InputError(
            f"field {names[0]!r} is {short(record[names[0]])}; it should hold at least one case, under "
            "'test_cases'"
        )
    return cases


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _read_field(record: Record, name: str) -> Iterator[Case]:
    value = _parsed(record[name], name)
    if isinstance(value, dict) and "ground_truth" in value:
        value = _parsed(value["ground_truth"], name)
    around = [record, _metadata(record, name)]
    if isinstance(value, dict):
        around.insert(0, value)
        value = value["test_cases"] if "test_cases" in value else _rows(value, name)
    if not isinstance(value, list):
        raise InputError(
            f"field {name!r} is {short(record[name])}; it should hold at least one case, under 'test_cases'"
        )
    for number, case in enumerate(value, start=1):
        place = f"{name}, case {number}"
        if not isinstance(case, dict):
            raise InputError(
                f"{place} is {short(case)}; it should be an object with `type`, `input` and `output`"
            )
        yield _read_case(case, [case, _metadata(case, place), *around], place)


def _rows(columns: dict[str, Any], name: str) -> Any:
    """The cases of {"inputs": [...], "outputs": [...]}, or {"input": [...], "output": [...]}."""
    for inputs, outputs in (("inputs", "outputs"), ("input", "output")):
        if inputs in columns and outputs in columns:
            ins, outs = columns[inputs], columns[outputs]
            if not isinstance(ins, list) or not isinstance(outs, list) or len(ins) != len(outs):
                raise InputError(
                    f"field {name!r} has {short(ins)} as {inputs} and {short(outs)} as {outputs}; give lists "
                    "of equal length"
                )
            return [{"input": one, "output": other} for one, other in zip(ins, outs)]
    return None


def _metadata(value: dict[str, Any], place: str) -> dict[str, Any]:
    """LiveCodeBench's `metadata`, where it is an object; other data sets have other things there."""
    metadata = value.get("metadata")
    if isinstance(metadata, str) and metadata.lstrip().startswith("{"):
        metadata = _parsed(metadata, f"metadata of {place}")
    return metadata if isinstance(metadata, dict) else {}


def _read_case(case: dict[str, Any], around: list[dict[str, Any]], place: str) -> Case:
    """around: objects that may name the function, the case itself first."""
    name = next(
        (
            named[key]
            for named in around
            for key in ("fn_name", "func_name")
            if named.get(key) not in (None, "")
        ),
        None,
    )
    kind = case.get("type", case.get("testtype"))
    if kind is None:
        kind = "stdin_stdout" if name is None else "functional"
    if kind not in TYPES:
        raise InputError(f"{place} has the type {short(kind)}; the types are: {', '.join(TYPES)}")
    for key in ("input", "output"):
        if key not in case:
            raise InputError(f"{place} has no {key!r}; give it")
    if TYPES[kind] == "stdin_stdout":
        return {
            "type": TYPES[kind],
            "input": _lines("" if case["input"] is None else case["input"]),
            "output": _text(case["output"]),
        }
    name = field(
        {} if name is None and "fn_name" not in case else {"fn_name": name},
        "fn_name",
        "the name of a function",
        _is_name,
    )
    given, output = case["input"], case["output"]
    expected = [*(output if isinstance(output, list) and len(output) == 1 else []), output]
    if kind != "function_call":
        given = _arguments(given)
        expected = (
            [_value(output), *([] if case.get("testtype") else expected)]
            if isinstance(output, str)
            else expected
        )
    return call_case(name, given, expected)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _arguments(given: Any) -> Any:
    """A text as arguments in JSON, one on each line; a text that is not, as the only argument."""
    if not isinstance(given, str):
        return given
    try:
        return [json.loads(line) for line in given.strip().split("\n")]
    except (ValueError, RecursionError):
        return [given]


def _value(output: str) -> Any:
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return output


def _parsed(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    for parse in (json.loads, _unpacked, lambda text: json.loads(json.dumps(ast.literal_eval(text)))):
        try:
            return parse(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    raise InputError(f"field {name!r} is {short(value)}; it should hold JSON or a Python literal")


def _unpacked(text: str) -> Any:
    """The JSON in a text in a pickle, compressed, in base64. Raises ValueError: it is anything else."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    texts = []
    for code, argument, _ in pickletools.genops(data):  # reads the codes, and does nothing that they say
        if code.name in TEXT_CODES:
            texts.append(argument)
        elif code.name not in OTHER_CODES:
            raise ValueError(f"a pickle with {code.name}, which is more than a text")
    return json.loads("".join(texts))


def _lines(value: Any) -> str:
    """An input: of a list, its elements on lines of their own; of what is no text, its JSON. A last line that
    does not end is ended.
    """
    if isinstance(value, list):
        return "".join(_lines(item) or "\n" for item in value)
    return whole_lines(value if isinstance(value, str) else json.dumps(value))


def _text(value: Any) -> str:
    """An output, without line ends at its end."""
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return value.rstrip("\n") if isinstance(value, str) else json.dumps(value)
