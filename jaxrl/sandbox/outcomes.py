"""The words of the sandbox: levels, limits, and how a program or a call ended."""

import math
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from jaxrl.errors import InputError

# Below these no interpreter starts; files=0 means that nothing can be written. wall_s and cpu_s: a hundredth
# of a second.
LEAST = {"memory_mb": 64, "output_bytes": 1, "file_mb": 1, "files": 0, "open_files": 16, "processes": 1}

MAX_SHOWN = 120  # characters of a value in a verdict's detail


class Level(IntEnum):
    """How far a program is shut in. Each level has all of the one before."""

    NONE = 0  # a process of its own, but its limits do not hold here
    PROCESS = 1  # + limits on time, memory, output; no inherited environment or descriptors
    KERNEL = 2  # + seccomp and Landlock: no other process, no network, no file but Python's library
    # + user, pid, mount, network, IPC and UTS namespaces: the rest of the machine is not there
    NAMESPACES = 3


class SandboxError(Exception):
    """The sandbox could not be set up or broke down: never the program's fault, so no reward follows."""


class SandboxBusy(SandboxError):
    """The machine was too busy to say whether a program would have kept its limits."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
      wall_s: seconds of waiting for the program, its set-up not included; of `functions`: of all calls
        together.
      cpu_s: seconds of CPU time, rounded up to whole ones.
      memory_mb: address space, the interpreter's own 20 MB included.
      output_bytes: bytes on stdout, the same number on stderr, and in the answer to one call.
      files: files and folders it may create in its working folder. 0: nothing can be written. More needs
        Level.NAMESPACES.
      file_mb: the working folder's size, where `files` is not 0.
      open_files: descriptors open at the same time.
      processes: threads at the same time, where the sandbox can count them (see `sandbox.py`); a second
        process is never allowed from Level.KERNEL on.
    """

    wall_s: float = 10.0
    cpu_s: float = 5.0
    memory_mb: int = 512
    output_bytes: int = 1 << 20
    file_mb: int = 16
    files: int = 0
    open_files: int = 64
    processes: int = 16

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and not isinstance(value, int):
                raise InputError(f"sandbox limit {field.name}={value!r} is not a whole number; set one")
            least = LEAST.get(field.name, 0.01)
            if not math.isfinite(value) or value < least:
                raise InputError(f"sandbox limit {field.name}={value} cannot work; set at least {least}")


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Args:
      reason: `exit` (code: its exit code), `signal` (code: the signal's number), or the limit that ended it:
        `wall`, `cpu`, `memory`, `output`. `memory` stands where an uncaught MemoryError ended it; a program
        that handles its own goes on.
      stdout: all of it, at most `output_bytes`.
      stderr: the last 4,000 bytes.
      seconds: wall time from the first instruction of the program to its end.
    An exit code of 0 alone says nothing about the program's answer: os._exit(0) has it too. Compare stdout.
    """

    reason: str
    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        return self.reason == "exit" and self.code == 0


@dataclass(frozen=True)
class Called:
    """What one call of a program's function gave: a value, or an exception's text in `raised`, or (the
    program has ended) its outcome.

    is_missing: there is no such function; `raised` says why.
    """

    value: Any = None
    raised: str | None = None
    outcome: Outcome | None = None
    is_missing: bool = False

    @property
    def ok(self) -> bool:
        return self.raised is None and self.outcome is None


# ------------------------------------------------------------------------- in words, for a verdict's detail


def ending(outcome: Outcome) -> str:
    """Of a program that should have ended well, or not at all."""
    if outcome.reason == "exit":
        last = outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"ended with exit code {outcome.code}" + (f": {shown(last)}" if last else "")
    if outcome.reason == "signal":
        return f"was killed by signal {outcome.code}"
    return f"ran into the {outcome.reason} limit"


def failing(called: Called) -> str:
    """Of a call that gave no value."""
    return ending(called.outcome) if called.outcome is not None else f"raised {shown(called.raised)}"


def shown(value: Any) -> str:
    """A text as it is, any other value as Python writes it, cut to MAX_SHOWN characters."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a {type(value).__name__} with too many digits to be shown"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
