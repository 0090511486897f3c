"""A bucket for tests: fsspec's memory behind a protocol of its own, which counts what is asked of it and
fails when a test says so.
"""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

OPERATIONS = ("pipe_file", "put_file", "get_file", "cat_file", "rm_file", "find")


class Dead(BaseException):
    """The machine is gone: nothing that it asks for after this is answered."""


class Bucket(MemoryFileSystem):
    """before, after: called with (number of the operation, its name, the file) around each."""

    protocol = "bucket"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    asked: ClassVar[list[tuple[str, str]]] = []
    lock = threading.Lock()
    before: Callable[[int, str, str], None] = staticmethod(lambda *_: None)
    after: Callable[[int, str, str], None] = staticmethod(lambda *_: None)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("bucket://"))

    @classmethod
    def clear(cls) -> None:
        cls.store, cls.pseudo_dirs, cls.asked = {}, [""], []
        cls.before = cls.after = staticmethod(lambda *_: None)


def _counted(operation: str):
    inner = getattr(MemoryFileSystem, operation)

    def counted(self, *arguments, **named):
        file = arguments[1] if operation == "put_file" else arguments[0]
        with Bucket.lock:
            number = len(Bucket.asked)
            Bucket.asked.append((operation, file))
            Bucket.before(number, operation, file)
        result = inner(self, *arguments, **named)
        Bucket.after(number, operation, file)
        return result

    return counted


for _operation in OPERATIONS:
    setattr(Bucket, _operation, _counted(_operation))
fsspec.register_implementation("bucket", Bucket, clobber=True)


@contextmanager
def dies_at(number: int):
    """The operation of this number, and all later ones, are not answered."""

    def before(at: int, *_) -> None:
        if at >= number:
            raise Dead

    Bucket.asked, Bucket.before = [], staticmethod(before)
    try:
        yield
    finally:
        Bucket.before = staticmethod(lambda *_: None)


def content(folder: str) -> dict[str, bytes]:
    """The files of a folder in the bucket."""
    top = f"/{folder}/"
    return {name[len(top) :]: file.getvalue() for name, file in Bucket.store.items() if name.startswith(top)}
