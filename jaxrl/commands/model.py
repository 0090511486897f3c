"""What the verbs on a model directory share: the policy, its tokenizer, lines of ids."""

import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxrl.data.dates import asks_for_date, fix_moment
from jaxrl.data.tokenizer import find_tokenizer, num_tokens
from jaxrl.errors import InputError
from jaxrl.files.jsonl import read_objects
from jaxrl.model.policy import Policy

log = logging.getLogger("jaxrl")


def with_tokens_of(tokenizer, policy: Policy) -> Policy:
    """The policy that draws no ids that its tokenizer does not have; without a tokenizer as it is."""
    return policy if tokenizer is None else replace(policy, num_tokens=num_tokens(tokenizer))


def tokenizer_at(moment: datetime | None, folder: Path):
    """The folder's tokenizer, if it has one, whose templates are told this moment when they ask for the
    date.
    """
    tokenizer = find_tokenizer(folder)
    if tokenizer is not None:
        moment = moment or datetime.now()
        fix_moment(tokenizer, moment)
        if asks_for_date(tokenizer):
            log.warning("the chat template asks for the date, and is told %s (--date)", moment.date())
    return tokenizer


def read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file and line, object) of every line that is not blank.

    Raises:
      InputError: unreadable file, a line that is not a JSON object, no lines.
    """
    records = list(read_objects(path))
    if not records:
        raise InputError(f"{path} has no lines; give one JSON object per line")
    return records


def token_ids(record: dict[str, Any], column: str, place: str, vocab_size: int) -> list[int]:
    """The ids in a line's column, each of which the model has; InputError, which begins with `place`."""
    if column not in record:
        raise InputError(
            f"{place}: has no column {column!r}, a list of token ids; the keys found are"
            f" {', '.join(map(repr, record)) or 'none'}"
        )
    ids = record[column]
    if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
        raise InputError(
            f"{place}, column {column!r}: must be a list of token ids with at least one, and is"
            f" {str(ids)[:60]}"
        )
    if not all(0 <= i < vocab_size for i in ids):
        raise InputError(f"{place}, column {column!r}: holds a token id outside 0..{vocab_size - 1}")
    return ids
