"""JSONL files, plain or gzip: one JSON value per line, read and written line by line, so that a file need not
fit into memory. (What a run writes of itself, row by row, is in `journal.py`.)
"""

import gzip
import json
import math
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from jaxrl.errors import InputError
from jaxrl.files.disk import writing
from jaxrl.files.place import COPY, refuse_url

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Row = dict[str, Any]
Bad = Callable[[InputError], None]


def read_rows(path: str | Path, bad: Bad | None = None) -> Iterator[tuple[str, Any]]:
    """(file and line, value) of each line that is not blank.

    Args:
      bad: is told of a line that is wrong, which is then passed over; without it, such a line raises.
    Raises:
      InputError: a file that cannot be read, a line that is not UTF-8 or not JSON, or holds a number that
        JSON does not have.
    """
    refuse_url(path, COPY)
    path, number = Path(path), 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    value = parse_line(line, path, number)
                except InputError as error:
                    if bad is None:
                        raise
                    bad(error)
                else:
                    yield f"{path}, line {number}", value
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "filename", None) is not None:  # it could not be opened
            raise InputError(
                f"data file {path} cannot be read: {reason}; check the path, which is taken from {Path.cwd()}"
            ) from None
        raise InputError(
            f"data file {path} cannot be read after line {number}: {reason}; check the file"
        ) from None


def read_objects(path: str | Path, bad: Bad | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """`read_rows` where every value must be an object; any other is an InputError, or told to `bad`."""
    for place, value in read_rows(path, bad):
        if isinstance(value, dict):
            yield place, value
            continue
        error = InputError(f"{place}: must be a JSON object, and is {short(value)}")
        if bad is None:
            raise error
        bad(error)


def write_rows(path: str | Path, rows: Iterable[Row], goes_on: bool = False, keeps: bool = False) -> int:
    """Write one JSON object per line, each as it comes; the file appears whole or not at all, gzip if it ends
    in `.gz`.

    A link stays, and the file that it stands for is the one that is written. Signals wait until a row is
    asked for, so that none is written by half.

    Args:
      goes_on: the rows that the file has already stay, and these come after them.
      keeps: where the writing is stopped (KeyboardInterrupt), the file holds the rows that were finished;
        else it is what it was.
    Returns:
      The number of rows written.
    Raises:
      InputError: the file cannot be written; a row holds a number that JSON does not have.
    """
    path, count = Path(path), 0
    check_out(path)
    target = Path(os.path.realpath(path))
    # its own: two processes would mix their rows in one
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    with writing(path), _signals_held() as asking:
        try:
            try:
                if goes_on:
                    shutil.copyfile(target, unfinished)
                with _new_file(unfinished, path.suffix == ".gz") as file:
                    for count, row in enumerate(asking(rows), start=1):
                        file.write(_line(row, path, count))
            except KeyboardInterrupt:
                if keeps and count:
                    os.replace(unfinished, target)
                raise
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
    return count


def check_out(path: str | Path) -> None:
    """InputError unless a file can be written there: found before hours of work, not after."""
    refuse_url(path, "give --out the path of a file here, and copy that")
    path, target = Path(path), Path(os.path.realpath(path))
    # Even where stdout is a file: it would be replaced, with all that stands in it already.
    is_stream = os.path.abspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    if target.is_dir():
        reason = "it is a folder"
    elif target.is_symlink():
        reason = "it is a link that leads back to itself"
    elif is_stream or (path.exists() and not path.is_file()):
        reason = "it is a device or a pipe, and the output is a file that appears whole or not at all"
    elif not target.parent.is_dir():
        reason = "its folder does not exist"
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        reason = "its folder is read-only, or not yours to write to"
    else:
        return
    raise InputError(f"{path} cannot be written: {reason}; check --out")


@contextmanager
def _new_file(path: Path, is_gzip: bool) -> Iterator[IO[bytes]]:
    with path.open("ab") as file:
        if is_gzip:  # without name and time, which it would write into its header: equal rows are equal bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
                yield cast(IO[bytes], compressed)
        else:
            yield file


@contextmanager
def _signals_held() -> Iterator[Callable[[Iterable[Row]], Iterator[Row]]]:
    """Inside, signals that stop a program wait. Gives a function that passes rows on, and lets the signals in
    while it asks for one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)

    def asking(rows: Iterable[Row]) -> Iterator[Row]:
        iterator = iter(rows)
        while True:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                row = next(iterator)
            except StopIteration:
                return
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            yield row

    try:
        yield asking
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _line(row: dict[str, Any], path: Path, number: int) -> bytes:
    try:
        return json.dumps(row, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise InputError(
            f"{path}, line {number} would hold a number that JSON does not have (NaN or infinity); mend its "
            "record"
        ) from None
    except RecursionError:
        raise InputError(
            f"{path}, line {number} would nest too deeply to be written; mend its record"
        ) from None


def short(value: Any) -> str:
    """A value as it is shown in an error."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_line(line: bytes, path: Path, number: int, remedy: str | None = None) -> Any:
    """What a line holds; `remedy` closes its errors, instead of one that depends on what is wrong."""
    place = f"{path}, line {number}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        return _DECODER.decode(text)
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x}"
        reason = f"not UTF-8: found {found}; {remedy or 'save the file as UTF-8'}"
        raise InputError(f"{place}, column {error.start + 1}: {reason}") from None
    except json.JSONDecodeError as error:
        found = (
            short(text[error.pos : error.pos + 20]) if text[error.pos :].strip() else "the end of the line"
        )
        reason = f"{error.msg}, found {found}; {remedy or 'one JSON object per line is expected'}"
        raise InputError(f"{place}, column {error.colno}: not JSON: {reason}") from None
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    # Python's own limit, against the time that reading a number takes, quadratic in its digits
    except ValueError:
        raise InputError(
            f"{place}: an integer has more digits than are read; {remedy or 'give it as a string'}"
        ) from None
    except RecursionError:
        raise InputError(
            f"{place}: its brackets nest too deeply to be read; {remedy or 'mend the line'}"
        ) from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # NaN, Infinity, or 1e999, which would come out as Infinity
        raise InputError(
            f"holds {short(text)}, a number that JSON does not have; give null, or leave the field out"
        )
    return value


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
