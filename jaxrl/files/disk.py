"""Files on a disk that may be full, read-only or gone: errors in one sentence, whole files or none."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from jaxrl.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
AGAIN = "start the same command again"


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the disk refuses inside is an InputError about `path`, whether Python raises it or a library."""
    try:
        yield
    except Exception as error:
        number = _system_number(error)
        if number is None and not isinstance(error, OSError):
            raise
        reason = str(error) if number is None else os.strerror(number)
        raise InputError(f"{path} cannot be written: {reason}; {_remedy(number)}") from None


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file; whenever the process dies or the disk fills up, it is the old one or the new one.

    A link stays, and the file that it stands for is the one that is written. Half a surrogate, which UTF-8
    cannot hold, is written as `\\udXXX`: inside a JSON string that is its escape.

    Raises:
      InputError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(target.name + ".tmp")
    with writing(path):
        try:
            with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        except BaseException:
            if not unfinished.is_dir():
                unfinished.unlink(missing_ok=True)
            raise


def check_space(folder: str | Path, needed: int, what: str) -> None:
    """InputError unless `folder` is there and its disk has room for `needed` bytes of `what`: found before
    half are written.
    """
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{what} needs up to {needed / 2**20:.1f} MiB, and the disk of {folder} has {free / 2**20:.1f} "
            f"MiB left; nothing of it was written: make room, and {AGAIN}"
        )


def read_text(path: str | Path, remedy: str) -> str:
    """A text file as it is.

    Raises:
      InputError: it cannot be read or is not UTF-8; `remedy` closes the text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read: it is not UTF-8 ({error.reason} at byte {error.start}); {remedy}"
        ) from None


def read_json(path: str | Path, remedy: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      InputError: as `read_text`, or it holds something else.
    """
    text = read_text(path, remedy)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}; {remedy}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, not an object of keys; {remedy}")
    return values


def silence(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere: the interpreter would fail on it once more."""
    with suppress(OSError, ValueError):  # a stream of a test has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _system_number(error: Exception) -> int | None:
    """The system's number of what went wrong. Libraries that are not Python inside have it in their texts
    only: tokenizers and safetensors `(os error 28)`, tensorstore `[os_error_code='28']`.
    """
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)|os_error_code='(\d+)'", str(error))
    return int(found[1] or found[2]) if found else None


def _remedy(number: int | None) -> str:
    if number in FULL:
        return f"make room, and {AGAIN}"
    if number in FORBIDDEN:
        return "choose a place that may be written to"
    if number in (errno.ENOENT, errno.ESTALE):
        return "its folder is not there"
    if number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return "something else stands in its place; move that away"
    return "check the disk"
