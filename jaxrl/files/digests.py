"""SHA-256 of files: what says that a file is still the one it was."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from jaxrl.errors import InputError

Stamp = tuple[int, int, int, int]
A = TypeVar("A")
B = TypeVar("B")


def stamp(path: Path) -> Stamp:
    """(size, time of the last change to the content, time of the last change at all, inode): as long as these
    stay, so does the file.

    The third is the kernel's and cannot be set back, as the second can (`touch -r`, `cp -p`). What these do
    not show is a disk that loses a bit by itself.

    Raises:
      InputError: a file that is not there or cannot be asked about.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the file") from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal; read once in a process as long as its stamp stays.

    Raises:
      InputError: a file that cannot be read.
    """
    return _sha256(os.path.abspath(path), stamp(path))


def sha256_of_all(paths: Iterable[Path]) -> list[str]:
    """`sha256` of each, as many at a time as there are cores."""
    return side_by_side(sha256, paths)


def side_by_side(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """The results in order; for functions that read and hash, which let other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


@lru_cache(maxsize=10_000)
def _sha256(path: str, _: Stamp) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the file") from None
