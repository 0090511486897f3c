"""Records for SFT, from JSONL files or the `datasets` library, as lists of messages.

Rendering them is `chat.py`'s business.

A record is one of

    {"messages": [{"role": ..., "content": ...}, ...]}
        with at least one assistant message, not the first
    {"prompt": "..." or [messages], "completion": "..." or [messages]}
        a string is one message: the user's, the assistant's

where a prompt's assistant messages are given, not to be learnt (unless they carry `weight: 1` or
`train: true`), and may carry

    system      a system message that comes before the others
    tools       the functions that the chat may call, as the chat template takes them (a list, or that list as
                JSON text)
    thinking    beside `completion`, beside an assistant message's `content`, or beside `messages` (it then
                belongs to the last assistant message); `reasoning_content` and `reasoning` are other names of
                it

A message may carry `tool_calls` (an assistant's), `tool_call_id` and `name` (a tool's), and `weight: 0` or
`train: false`: its turn is not trained on. What says nothing of what is to be learnt (`HARMLESS`), and what
holds nothing (null, or empty), is left out. Any other key is an error: leaving it out in silence would teach
something else than the record says.
"""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Any

from jaxrl.config.experiment import DataSection
from jaxrl.data.tables import read_hub
from jaxrl.errors import InputError
from jaxrl.files.jsonl import read_rows, short
from jaxrl.types import Message

THINKING = ("thinking", "reasoning_content", "reasoning")
OF_A_RECORD = {"messages", "prompt", "completion", "system", "tools", *THINKING}
OF_A_MESSAGE = {"role", "content", "weight", "train", "tool_calls", *THINKING}
OF_A_TOOLS_MESSAGE = {"role", "content", "weight", "train", "tool_call_id", "name"}
# Where a record or a message comes from and where it is filed.
HARMLESS = frozenset(
    "id uid uuid guid idx index line row key hash prompt_id conversation_id message_id source origin "
    "dataset subset split env seed reward url license author model generator version metadata meta timestamp "
    "date created created_at updated_at language lang tags category topic domain comment notes num_turns "
    "num_tokens".split()
)


def read_records(section: DataSection) -> list[list[Message]]:
    """All records of a data section.

    Raises:
      InputError: a file that cannot be read, a broken or ill-formed record (file, line and place are named),
        no records.
    """
    source = section.file if section.file is not None else section.hub
    if section.file is not None:
        rows = read_rows(section.file)
    else:
        assert section.hub is not None, "the section has no source"
        rows = read_hub(section.hub, None, section.hub_split)
    records = []
    for place, value in rows:
        if section.hub is not None:
            _refuse_filled_up(value, place)
        records.append(parse_record(value, place, section.ignore))
    if not records:
        raise InputError(f"{source} holds no records; check the data section")
    return records


def split_records(
    records: list[list[Message]], val_fraction: float, seed: int
) -> tuple[list[list[Message]], list[list[Message]]]:
    """(train, validation), each in the order given.

    A record's side hangs on its content and the seed, not on its place: reordering a file changes nothing,
    adding a record moves at most the records at the border, and equal records are never on both sides.

    Raises:
      InputError: `val_fraction` asks for a validation split and there are not two different records.
    """
    if val_fraction == 0:
        return list(records), []
    keys = [_digest(record, seed) for record in records]
    order = sorted(set(keys))
    if len(order) < 2:
        raise InputError(
            f"{len(records)} record(s), {len(order)} different: too few to hold out "
            f"val_fraction={val_fraction}; set the stage's val_fraction to 0"
        )
    wanted = max(1, round(val_fraction * len(order)))
    held_out = set(order[: min(wanted, len(order) - 1)])
    train = [record for key, record in zip(keys, records, strict=True) if key not in held_out]
    val = [record for key, record in zip(keys, records, strict=True) if key in held_out]
    return train, val


def with_thinking(thinking: str, answer: str) -> str:
    """The content of an assistant message that thinks before it answers."""
    return f"<think>\n{thinking}\n</think>\n\n{answer}"


# ---------------------------------------------------------------------------------------------------- records


def parse_record(value: Any, place: str, ignore: Collection[str] = ()) -> list[Message]:
    """One record's messages; `place` (file and line) begins every error, `ignore`: keys left out."""
    if not isinstance(value, dict):
        raise InputError(f"{place}: a record must be an object, and this is {_kind(value)}: {short(value)}")
    value = {key: held for key, held in value.items() if key not in ignore}
    if value.get("messages") is not None:
        # which would be a second answer to what is to be learnt
        known = OF_A_RECORD - {"prompt", "completion"}
        messages = parse_messages(value["messages"], place, "messages", ignore)
    elif value.get("prompt") is not None and value.get("completion") is not None:
        known = OF_A_RECORD
        messages = [
            *_prompt(value["prompt"], place, ignore),
            *_completion(value["completion"], place, ignore),
        ]
    else:
        keys = ", ".join(map(repr, value)) or "none"
        raise InputError(
            f"{place}: a record needs `messages`, or `prompt` and `completion`; the keys found are {keys}; "
            "rename or convert them"
        )
    _refuse_unknown(value, known, place, "the record")
    _check_turns(messages, place)
    if (found := _thinking(value, place)) is not None:
        key, thinking = found
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        _think(messages[last], thinking, f"{place}: {key}")
    return with_context(messages, value, place)


def with_context(messages: list[Message], record: dict[str, Any], place: str) -> list[Message]:
    """The messages with the `system` message and the `tools` of their record, if it has any.

    Raises:
      InputError: either is not what it should be, or there is a system message already.
    """
    if record.get("system") not in (None, ""):
        if any(message["role"] == "system" for message in messages):
            raise InputError(
                f"{place}: `system` and a message of role 'system' are two system prompts; keep one of them"
            )
        messages = [Message(role="system", content=parse_text(record["system"], place, "system")), *messages]
    if tools := _objects(record.get("tools") or [], place, "tools"):
        messages = [{**messages[0], "tools": tools}, *messages[1:]]
    return messages


def _check_turns(messages: list[Message], place: str) -> None:
    assistants = [message for message in messages if message["role"] == "assistant"]
    if not assistants:
        roles = [message["role"] for message in messages]
        raise InputError(
            f"{place}: messages: no assistant message among roles {roles}; there is nothing to train on"
        )
    if messages[0]["role"] == "assistant":
        raise InputError(f"{place}: messages[0] is an assistant message; a prompt must come before it")
    if not any(message.get("train", True) for message in assistants):
        raise InputError(
            f"{place}: every assistant message has weight 0 (or train: false), so nothing is left to train "
            "on; remove the record"
        )


def _prompt(value: Any, place: str, ignore: Collection[str]) -> list[Message]:
    if not isinstance(value, list):
        return [Message(role="user", content=parse_text(value, place, "prompt"))]
    messages = parse_messages(value, place, "prompt", ignore)
    for item, message in zip(value, messages, strict=True):
        if message["role"] == "assistant" and not (item.get("weight") or item.get("train")):
            message["train"] = False
    if messages[-1]["role"] == "assistant":
        raise InputError(
            f"{place}: prompt ends with an assistant message, and the completion would be another turn, not "
            "its end; join the two"
        )
    return messages


def _completion(value: Any, place: str, ignore: Collection[str]) -> list[Message]:
    if not isinstance(value, list):
        return [Message(role="assistant", content=parse_text(value, place, "completion"))]
    messages = parse_messages(value, place, "completion", ignore)
    if messages[0]["role"] != "assistant":
        raise InputError(
            f"{place}: completion[0] is of role {messages[0]['role']!r}; a completion begins with an "
            "assistant message"
        )
    return messages


# --------------------------------------------------------------------------------------------------- messages


def parse_messages(value: Any, place: str, key: str, ignore: Collection[str] = ()) -> list[Message]:
    """A list of messages; `place` begins every error, `key`: where it stands, `ignore`: keys left out."""
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{place}: {key} must be a list of messages with at least one, and is {_kind(value)}: "
            f"{short(value)}"
        )
    return [_message(item, place, f"{key}[{i}]", ignore) for i, item in enumerate(value)]


def _message(item: Any, place: str, at: str, ignore: Collection[str]) -> Message:
    if not isinstance(item, dict):
        raise InputError(
            f"{place}: {at} must be an object with `role` and `content`, and is {_kind(item)}: {short(item)}"
        )
    item = {key: held for key, held in item.items() if key not in ignore}
    role = parse_text(item.get("role"), place, f"{at}.role")
    _refuse_unknown(item, OF_A_TOOLS_MESSAGE if role == "tool" else OF_A_MESSAGE, place, at)
    calls = item.get("tool_calls")
    content = (
        ""
        if calls and item.get("content") is None
        else parse_text(item.get("content"), place, f"{at}.content")
    )
    message = Message(role=role, content=content)
    if (found := _thinking(item, place, f"{at}.")) is not None:
        key, thinking = found
        if role != "assistant":
            raise InputError(
                f"{place}: {at}.{key} belongs to a message of role {role!r}; only assistant messages think"
            )
        _think(message, thinking, f"{place}: {at}.{key}")
    if calls:
        if role != "assistant":
            raise InputError(
                f"{place}: {at}.tool_calls belongs to a message of role {role!r}; only assistant messages "
                "call tools"
            )
        message["tool_calls"] = [
            _call(call, place, f"{at}.tool_calls[{i}]")
            for i, call in enumerate(_objects(calls, place, f"{at}.tool_calls"))
        ]
    for label in ("tool_call_id", "name"):
        if item.get(label) is not None:
            message[label] = parse_text(item[label], place, f"{at}.{label}")
    if not _is_trained(item, role, place, at):
        message["train"] = False
    return message


def _call(call: dict[str, Any], place: str, at: str) -> dict[str, Any]:
    """A call as {"type": "function", "function": {"name", "arguments"}}, where JSON text as arguments has
    become an object.
    """
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InputError(
            f"{place}: {at} must hold a `function` with its `name` and `arguments`, and is {short(call)}"
        )
    arguments = _json(function.get("arguments", {}), place, f"{at}.arguments")
    if not isinstance(arguments, dict):
        raise InputError(
            f"{place}: {at}.arguments must be an object, or one as JSON text, and is {short(arguments)}"
        )
    labels = {"id": call["id"]} if call.get("id") is not None else {}
    return {**labels, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _is_trained(item: dict[str, Any], role: str, place: str, at: str) -> bool:
    """Whether neither `weight` nor `train` takes an assistant's turn out of the loss."""
    train, weight = item.get("train"), item.get("weight")
    if train is not None and not isinstance(train, bool):
        raise InputError(f"{place}: {at}.train must be true or false, and is {short(train)}")
    if weight is not None and weight not in (0, 1):
        raise InputError(
            f"{place}: {at}.weight is {short(weight)}; a turn is trained on (1) or not (0), there is nothing "
            "between"
        )
    marks = {bool(value) for value in (train, weight) if value is not None}
    if len(marks) > 1:
        raise InputError(
            f"{place}: {at}: train: {train} and weight: {weight} say different things; keep one of them"
        )
    if role != "assistant" and True in marks:
        raise InputError(
            f"{place}: {at} has role {role!r} and is to be trained on; only assistant messages can be"
        )
    return False not in marks or role != "assistant"


def _thinking(item: dict[str, Any], place: str, at: str = "") -> tuple[str, str] | None:
    """(key, thinking) of a record or a message, whichever name it goes by."""
    found = {key: parse_text(item[key], place, f"{at}{key}") for key in THINKING if item.get(key) is not None}
    if len(set(found.values())) > 1:
        raise InputError(
            f"{place}: {' and '.join(at + key for key in found)} are names of one thing and differ; keep one "
            "of them"
        )
    return next(iter(found.items()), None)


def _think(message: Message, thinking: str, what: str) -> None:
    if message["content"].lstrip().startswith("<think>"):
        raise InputError(f"{what}: its message's content begins with <think> already; keep one of the two")
    message["content"] = with_thinking(thinking, message["content"])


# ----------------------------------------------------------------------------------------------------- values


def parse_text(value: Any, place: str, key: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{place}: {key} must be a string, and is {_kind(value)}: {short(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can spell half a surrogate pair; no tokenizer can take it.
        raise InputError(
            f"{place}: {key} holds half a surrogate pair at character {error.start}; repair the text"
        ) from None
    return value


def _refuse_unknown(item: dict[str, Any], known: Collection[str], place: str, what: str) -> None:
    unknown = [
        key
        for key, held in item.items()
        if key not in known and key not in HARMLESS and held not in (None, "", [], {})
    ]
    if unknown:
        raise InputError(
            f"{place}: {what} has {', '.join(f'`{key}`' for key in unknown)}, which nothing here would heed; "
            "if that may be, remove it, or (SFT) name it: data: {ignore: "
            f"[{', '.join(map(_in_yaml, unknown))}]}}"
        )


def _objects(value: Any, place: str, key: str) -> list[dict[str, Any]]:
    """A list of objects, or one that is spelt as JSON text, as `datasets` have it whose columns must be of
    one type.
    """
    value = _json(value, place, key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{place}: {key} must be a list of objects, and is {_kind(value)}: {short(value)}")
    return value


def _json(value: Any, place: str, key: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(parse_text(value, place, key))
    except (ValueError, RecursionError):
        raise InputError(f"{place}: {key} is text that is not JSON: {short(value)}; repair it") from None


def _refuse_filled_up(row: dict[str, Any], place: str) -> None:
    """InputError where `datasets` may have put keys that the record did not have: it gives all objects of a
    column the same ones.
    """
    messages = row["messages"] if isinstance(row.get("messages"), list) else []
    calls = [
        call
        for message in messages
        if isinstance(message, dict) and isinstance(message.get("tool_calls"), list)
        for call in message["tool_calls"]
    ]
    arguments = [(call.get("function") or call).get("arguments") for call in calls if isinstance(call, dict)]
    for key, value in [("tools", row.get("tools")), *(("arguments", value) for value in arguments)]:
        if value is not None and _holds_null(value):
            raise InputError(
                f"{place}: {key} hold nulls, with which `datasets` fills objects up; give `tools` and "
                "`arguments` as JSON text"
            )


def _holds_null(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_holds_null, inside))


def _in_yaml(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][\w-]*", key) else json.dumps(key, ensure_ascii=False)


def _digest(record: list[Message], seed: int) -> str:
    return hashlib.sha256(json.dumps([seed, record], ensure_ascii=True).encode()).hexdigest()


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), type(value).__name__)
