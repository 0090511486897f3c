"""Fields of records from outside: taken out with a check, so that what is wrong is named where it is read."""

from collections.abc import Callable
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.jsonl import short
from jaxrl.tasks.base import Record


def field(record: Record, name: str, holds: str, is_right: Callable[[Any], bool]) -> Any:
    """The field's value.

    Raises:
      InputError: it is missing, or not what it should hold.
    """
    if name not in record:
        raise InputError(f"field {name!r} is missing; it should hold {holds}")
    if not is_right(record[name]):
        raise InputError(f"field {name!r} is {short(record[name])}; it should hold {holds}")
    return record[name]


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
