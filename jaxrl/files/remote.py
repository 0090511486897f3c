"""A folder elsewhere, reached by fsspec: in a bucket, on a server. fsspec, and what it needs for a protocol,
is imported when one is opened and not before.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jaxrl.errors import InputError, TryAgain

PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs", "abfs": "adlfs"}
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before an operation that has failed is tried again
# what no waiting mends
FINAL = (PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, TypeError, ValueError)

T = TypeVar("T")


class Remote:
    """A folder at a URL. What the network or the other side refuses is tried again for a minute, and is then
    an InputError that says what was done, and to what.

    Files are named by their paths in the folder. An object store replaces one whole or not at all, and shows
    it to everybody at once; a file server may be seen with half of one.

    Raises:
      InputError: a protocol that fsspec does not know, or a package that it needs and is not there.
    """

    def __init__(self, url: str):
        self.url = url
        self._files, self._root = _open(url)
        self._answers = True  # or has not, for the whole of the last operation

    def list(self) -> dict[str, int]:
        """The bytes of every file in the folder and below it."""
        self._files.invalidate_cache()
        try:
            found = self._try("listed", "", lambda: self._files.find(self._root, detail=True))
        except FileNotFoundError:
            return {}
        return {name[len(self._root) :].lstrip("/"): info["size"] for name, info in found.items()}

    def read(self, name: str) -> bytes | None:
        """What a small file holds; None where it is not there."""
        try:
            return self._try("read", name, lambda: self._files.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Let a small file hold this."""
        self._try("written", name, lambda: self._files.pipe_file(self._at(name), content))

    def create(self, name: str, content: bytes) -> bool:
        """Let a file that is not there yet hold this; False, and nothing is changed, where it is there.

        Object stores see to it that of several who try this one has it. Elsewhere fsspec looks first and then
        writes, and two may both believe that they have it.
        """
        if PACKAGES.get(self.url.partition(":")[0]) is None:  # where there are no buckets, there are folders
            self._try("made", "", lambda: self._files.makedirs(self._root, exist_ok=True))
        try:
            self._try("written", name, lambda: self._files.pipe_file(self._at(name), content, mode="create"))
        except FileExistsError:
            return (
                self.read(name) == content
            )  # as where an answer was lost on its way, and it was asked again
        return True

    def send(self, name: str, path: Path) -> None:
        """Let a file be what the one at `path` is."""
        self._try("written", name, lambda: self._files.put_file(str(path), self._at(name)))

    def fetch(self, name: str, path: Path) -> None:
        """Let the file at `path` be what a file here is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._try("read", name, lambda: self._files.get_file(self._at(name), str(path)))

    def delete(self, name: str) -> None:
        """Take a file away; one that is not there is gone already."""
        try:
            self._try("deleted", name, lambda: self._files.rm_file(self._at(name)))
        except FileNotFoundError:
            return

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, done: str, name: str, operation: Callable[[], T]) -> T:
        """What an operation returns; FileNotFoundError and FileExistsError are answers, and no failures.

        After one that has failed for good the next is tried once: what a run does at its end is not waited
        for again and again.
        """
        for wait in (*(WAITS if self._answers else ()), None):
            try:
                result = operation()
                self._answers = True
                return result
            except (FileNotFoundError, FileExistsError):
                self._answers = True
                raise
            except Exception as error:  # every protocol has its own
                if wait is None or isinstance(error, FINAL):
                    self._answers = False
                    place = f"{self.url}/{name}" if name else self.url
                    reason = (str(error) or "no reason given").splitlines()[0][:300]
                    kind = InputError if isinstance(error, FINAL) else TryAgain
                    raise kind(f"{place} cannot be {done}: {type(error).__name__}: {reason}") from None
            time.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError("the last round returns or raises")


def _open(url: str) -> tuple[Any, str]:
    protocol = url.partition(":")[0]
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package = PACKAGES.get(protocol)
        remedy = f"install it with: pip install {package}" if package else "install that"
        raise InputError(f"{url} is not reached without {package or error}; {remedy}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{url} cannot be opened: {error}; check runs_dir") from None
    return files, root
