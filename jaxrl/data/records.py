"""Records for SFT, from JSONL files or the `datasets` library, as lists of messages. Rendering them is `chat.py`'s business.

A record is one of

    {"messages": [{"role": ..., "content": ...}, ...]}        at least one assistant message, not the first
    {"prompt": "..." or [messages], "completion": "..."}      a string prompt is one user message

and may carry `thinking`: beside `completion`, beside an assistant message's `content`, or beside `messages` (it then
belongs to the last assistant message).
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl.config import DataSection
from jaxrl.data.jsonl import read_rows, short
from jaxrl.errors import InputError
from jaxrl.types import Message


def read_records(section: DataSection) -> list[list[Message]]:
    """All records of a data section.

    Raises:
      InputError: a file that cannot be read, a broken or ill-formed record (file, line and place are named), no records.
    """
    source = section.file if section.file is not None else section.hub
    rows = read_rows(section.file) if section.file is not None else _hub_rows(section.hub, section.hub_split)
    records = [parse_record(value, place) for place, value in rows]
    if not records:
        raise InputError(f"{source} holds no records; check the data section")
    return records


def split_records(records: list[list[Message]], val_fraction: float, seed: int) -> tuple[list[list[Message]], list[list[Message]]]:
    """(train, validation), each in the order given.

    A record's side hangs on its content and the seed, not on its place: reordering a file changes nothing, adding a
    record moves at most the records at the border, and equal records are never on both sides.

    Raises:
      InputError: `val_fraction` asks for a validation split and there are not two different records.
    """
    if val_fraction == 0:
        return list(records), []
    keys = [_digest(record, seed) for record in records]
    order = sorted(set(keys))
    if len(order) < 2:
        raise InputError(
            f"{len(records)} record(s), {len(order)} different: too few to hold out val_fraction={val_fraction}; set it to 0"
        )
    wanted = max(1, round(val_fraction * len(order)))
    held_out = set(order[: min(wanted, len(order) - 1)])
    train = [record for key, record in zip(keys, records, strict=True) if key not in held_out]
    val = [record for key, record in zip(keys, records, strict=True) if key in held_out]
    return train, val


def with_thinking(thinking: str, answer: str) -> str:
    """The content of an assistant message that thinks before it answers."""
    return f"<think>\n{thinking}\n</think>\n\n{answer}"


def parse_record(value: Any, place: str) -> list[Message]:
    """One record's messages; `place` (file and line) begins every error."""
    if not isinstance(value, dict):
        raise InputError(f"{place}: a record must be an object, and this is {_kind(value)}: {short(value)}")
    if value.get("messages") is not None:
        messages = parse_messages(value["messages"], place, "messages")
    elif value.get("prompt") is not None and value.get("completion") is not None:
        messages = _prompt(value["prompt"], place)
        messages.append(Message(role="assistant", content=parse_text(value["completion"], place, "completion")))
    else:
        keys = ", ".join(map(repr, value)) or "none"
        raise InputError(f"{place}: a record needs `messages`, or `prompt` and `completion`; the keys found are {keys}")
    assistants = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not assistants:
        roles = [message["role"] for message in messages]
        raise InputError(f"{place}: messages: no assistant message among roles {roles}; there is nothing to train on")
    if assistants[0] == 0:
        raise InputError(f"{place}: messages[0] is an assistant message; a prompt must come before it")
    if value.get("thinking") is not None:
        answer = messages[assistants[-1]]
        answer["content"] = with_thinking(parse_text(value["thinking"], place, "thinking"), answer["content"])
    return messages


def _prompt(value: Any, place: str) -> list[Message]:
    if isinstance(value, list):
        return parse_messages(value, place, "prompt")
    return [Message(role="user", content=parse_text(value, place, "prompt"))]


def parse_messages(value: Any, place: str, key: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{place}: {key} must be a list of messages with at least one, and is {_kind(value)}: {short(value)}")
    messages = []
    for i, item in enumerate(value):
        at = f"{key}[{i}]"
        if not isinstance(item, dict):
            raise InputError(f"{place}: {at} must be an object with `role` and `content`, and is {_kind(item)}: {short(item)}")
        if item.get("tool_calls"):
            raise InputError(f"{place}: {at}.tool_calls: tool calls are not supported; write them into `content`, or remove the record")
        role, content = parse_text(item.get("role"), place, f"{at}.role"), parse_text(item.get("content"), place, f"{at}.content")
        if item.get("thinking") is not None:
            if role != "assistant":
                raise InputError(f"{place}: {at}.thinking belongs to a message of role {role!r}; only assistant messages think")
            content = with_thinking(parse_text(item["thinking"], place, f"{at}.thinking"), content)
        messages.append(Message(role=role, content=content))
    return messages


def parse_text(value: Any, place: str, key: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{place}: {key} must be a string, and is {_kind(value)}: {short(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can spell half a surrogate pair; no tokenizer can take it.
        raise InputError(f"{place}: {key} holds half a surrogate pair at character {error.start}; repair the text") from None
    return value


def _hub_rows(name: str, split: str) -> Iterator[tuple[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise InputError(f"data.hub={name!r} needs the `datasets` library; install it with: pip install 'jaxrl[datasets]'") from None
    try:
        saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
        rows = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, split=split)
        if isinstance(rows, datasets.DatasetDict):
            rows = rows[split]
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"dataset {name!r}, split {split!r} cannot be loaded: {error}; check data.hub and data.hub_split") from None
    for i, row in enumerate(rows):
        yield f"{name} ({split}), record {i}", row


def _digest(record: list[Message], seed: int) -> str:
    return hashlib.sha256(json.dumps([seed, record], ensure_ascii=True).encode()).hexdigest()


def _kind(value: Any) -> str:
    return "missing" if value is None else {dict: "an object", list: "a list", str: "a string"}.get(type(value), f"{type(value).__name__}")
