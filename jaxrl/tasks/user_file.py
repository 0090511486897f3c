"""Names of a user's Python file, here and in verifier processes, which cannot import it by its own name."""

import importlib.util
import pickle
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import Problem, Verdict


def load(place: str, default: str) -> Any:
    """What `FILE.py:NAME` stands for; without `:NAME`, the file's `default`.

    Raises:
      InputError: no such file, a file that does not run, a name that it does not have.
    """
    file, _, name = place.partition(":")
    name = name or default
    module = load_file(file)
    if not hasattr(module, name):
        raise InputError(f"{file} has no {name!r}; define it, or name another as {file}:NAME")
    return getattr(module, name)


def load_file(file: str | Path) -> ModuleType:
    """Run a Python file, once in a process, as a module whose name no other file has.

    Its folder joins the import path, at the end, so that it can import its neighbours.
    """
    path = Path(file).absolute()
    name = f"jaxrl_user_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"{file} is not a Python file that is there; check the path, which is taken from {Path.cwd()}"
        )
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with errors_named(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def errors_named(path: str | Path) -> Iterator[None]:
    """What the user's code raises inside becomes an InputError with the last of its lines reached."""
    path = Path(path).absolute()
    try:
        yield
    except InputError:  # it says all already
        raise
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines = [error.lineno]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise InputError(f"{place}: {type(error).__name__}: {error}; mend the file") from error


def with_errors_named(function: Callable, path: str | Path) -> Callable:
    """The function, in `errors_named`; where it returns an iterator, what runs inside that one too."""

    def each(values: Iterator[Any]) -> Iterator[Any]:
        with errors_named(path):
            yield from values

    def call(*args: Any, **kwargs: Any) -> Any:
        with errors_named(path):
            result = function(*args, **kwargs)
        return each(result) if isinstance(result, Iterator) else result

    return call


class FromFile:
    """A function of a user's file that can be pickled: the process that receives it runs the file first."""

    def __init__(self, file: str, function: Callable[[Problem, str], Verdict]):
        self.file, self.function = file, function
        # how errors call it
        self.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)

    def __call__(self, problem: Problem, text: str) -> Verdict:
        return self.function(problem, text)

    def __reduce__(self) -> tuple:
        return _from_file, (self.file, pickle.dumps(self.function))


def _from_file(file: str, pickled: bytes) -> FromFile:
    load_file(file)
    return FromFile(file, pickle.loads(pickled))
