"""Journals: JSONL files that a run keeps of itself, a row at a time, each on the disk at once, so that a
process that dies costs at most the row it was writing.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from jaxrl.errors import InputError
from jaxrl.files.disk import write_whole, writing
from jaxrl.files.jsonl import parse_line

MEND = "repair or remove the line"

Row = dict[str, Any]

log = logging.getLogger("jaxrl")


class Journal:
    """Owns a file that grows by a row at a time. Every row is written out at once.

    What a process that died has left of its last row is taken away, with a warning, when the file is opened.

    Raises:
      InputError: the file cannot be written. Later, from every method that writes: the disk is full, or the
        file was deleted under its owner.
    """

    def __init__(self, path: Path):
        self.path = path
        with writing(path):
            _mend_end(path)
        self._file = self._open()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; a value that is no plain JSON becomes a number, or null where that is not finite."""
        self.check()
        with writing(self.path):
            self._file.write(_journal_line(row))
            self._file.flush()

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Let the file hold these rows instead of those that it has."""
        self.check()
        write_journal(self.path, rows)
        self.close()
        self._file = self._open()

    def check(self) -> None:
        """InputError where the file at its place is not the one that is written to: rows, and all else that
        the run writes, would be lost or land in another run's folder.
        """
        with writing(self.path):
            is_there = self.path.exists() and os.path.samestat(
                self.path.stat(), os.fstat(self._file.fileno())
            )
        if not is_there:
            raise InputError(
                f"{self.path} was deleted or replaced while the run was at work, and so perhaps all of"
                f" {self.path.parent}; nothing more is written there. Start the run again: it goes on from"
                " the checkpoints that are left, or from the beginning"
            )

    def close(self) -> None:
        with suppress(OSError):  # of a row that the full disk did not take, and that has been told
            self._file.close()

    def _open(self) -> TextIO:
        with writing(self.path):  # half a surrogate, which UTF-8 cannot hold, becomes its escape in JSON
            return self.path.open("a", encoding="utf-8", errors="backslashreplace")


def write_journal(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file such as a `Journal` leaves, all at once: whenever the process dies, it is whole or not
    there.

    Raises:
      InputError: the file cannot be written.
    """
    write_whole(path, "".join(map(_journal_line, rows)))


def read_journal(path: Path) -> list[Row]:
    """The rows of a file that a `Journal` wrote. A torn last row is left out; no file is no rows.

    Raises:
      InputError: something else than such a file, or a broken line that is not the last.
    """
    if not path.exists():
        return []
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; move it away, or restore it") from None
    rows = []
    for number, line in enumerate(lines if _is_torn(tail) else [*lines, tail], start=1):
        row = parse_line(line, path, number, MEND)
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, line {number}: must be a JSON object, and is {type(row).__name__}; {MEND}"
            )
        rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """A value as a journal holds it: what is no JSON becomes a float, and what is not finite null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _journal_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False, default=plain) + "\n"


def _is_torn(tail: bytes) -> bool:
    """Whether what stands behind the last line's end is nothing, or what a process or a machine that died has
    left of a row.
    """
    if not tail.strip(b"\0"):
        return True
    try:
        json.loads(tail)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return tail.startswith(b"{")
    return False


def _mend_end(path: Path) -> None:
    """Take away what a killed run left of its last row, or end that row, lest the next one be written behind
    it.
    """
    if not path.is_file():
        return
    tail = (content := path.read_bytes()).split(b"\n")[-1]
    if tail:
        with path.open("r+b") as file:
            file.seek(len(content))
            if _is_torn(tail):
                file.truncate(len(content) - len(tail))
                log.warning(
                    "%s: the last row was torn when its process died, and is taken away",
                    path,
                    extra={"kind": "torn row"},
                )
            else:
                file.write(b"\n")
