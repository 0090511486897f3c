r"""Running programs of a model: one process per program and input, shut in as far as the machine allows.

    with Sandbox(Limits(wall_s=4.0), min_level=Level.KERNEL) as sandbox:
        outcome = sandbox.run("print(int(input()) + 1)", stdin=b"41")
        assert outcome.ok and outcome.stdout == b"42\n"

The judge never lives in the process that it judges. This side sends a program and its input, and gets bytes
back; what the right answer is stays here: it is in no argument, file or environment of the child, nor in the
memory of any process that the child was forked from. That is a separate clean interpreter, the zygote
(`inside/sandbox_child.py`), which this side gives descriptors and limits and no more. An exit code says
nothing about an answer; compare stdout, or the values of `functions`.

Layers, each level with all of the one before (the files are in `inside/`):

    PROCESS      a process forked for this input alone; no inherited environment, descriptor or terminal;
                 limits on wall and CPU time, address space, output, file size, descriptors; no capabilities;
                 what it leaves behind is killed.
    KERNEL       seccomp (`sandbox_seccomp.py`: a list of the system calls that exist) and Landlock
                 (`sandbox_seal.py`: Python's library can be read, nothing written): no second process, no
                 network, no signal to others, no file of the machine.
    NAMESPACES   user, pid, mount, network, IPC, UTS and cgroup namespaces: a read-only root folder with
                 Python's library and nothing else, its own process numbers, and a working folder in memory
                 with a quota (`files`), where one is asked for.

The level is measured, not assumed: `probes.py` attacks each new sandbox, from the highest level down,
and the first level at which nothing got through is `Sandbox.level`. Root becomes `nobody` where `nobody` can
read Python's library, else it goes without capabilities. Programs see Python's standard library alone (and
`packages`, where some are named), the same hash seed, locale and time zone everywhere, and no more at a high
level than at a low one, so that a reward does not depend on where it was computed; files (`files` above 0)
are the exception, and need NAMESPACES. Their input is a file in memory, which nobody can change.

Not protected against:
  - Errors in the kernel, in CPUs (side channels), in Python's own parser and in seccomp or Landlock. A
    virtual machine around it all helps.
  - At KERNEL: asking whether a file of the machine exists, how large and how old it is (Landlock does not
    cover `stat`), and which packages are installed beside the standard library (by name). The number of
    threads is bounded by address space, not by `processes`; the same holds at NAMESPACES where root could not
    become `nobody`.
  - At PROCESS: nearly everything. Files of the user can be read, its processes killed, the network used. It
    is for programs of your own.
  - All programs together taking much memory: address space is bounded per process. Where it runs out, the
    kernel takes programs first.
  - What a program says of itself: a `Functions` child can give any answer to a call that a return value could
    be.
  - Time as a channel: a program can tell how busy the machine is.
Other back ends (bubblewrap, gVisor, WASM) are not built in; the whole trainer can be run inside any of them.
"""

import atexit
import hashlib
import importlib.util
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from jaxrl.errors import InputError
from jaxrl.sandbox.functions import Functions
from jaxrl.sandbox.inside.sandbox_program import LENGTH
from jaxrl.sandbox.outcomes import Called, Level, Limits, Outcome, SandboxBusy, SandboxError
from jaxrl.sandbox.probes import find_hole
from jaxrl.sandbox.process import Child, Zygote

__all__ = [
    "Called",
    "Functions",
    "Level",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxBusy",
    "SandboxError",
    "shared_sandbox",
]

ATTEMPTS = 3
CACHE_BYTES = 32 << 20
REMEDIES = {
    Level.PROCESS: "it needs Linux 5.3 or newer with /proc mounted",
    Level.KERNEL: (
        "it needs Linux 5.13 or newer on x86_64 or aarch64, with `landlock` among the kernel's security "
        "modules (option lsm=)"
    ),
    Level.NAMESPACES: (
        "it needs unprivileged user namespaces: kernel.unprivileged_userns_clone=1 and "
        "kernel.apparmor_restrict_unprivileged_userns=0 where these exist, in Docker also --security-opt "
        "seccomp=unconfined"
    ),
}

T = TypeVar("T")


class Sandbox:
    """Runs programs, each in a fresh process. A context manager, for one thread; owns the zygote.

    Args:
      limits: of every program that brings none of its own.
      min_level: below this nothing is run.
      max_level: above this nothing is tried.
      packages: names of installed packages that programs may import beside the standard library, which is all
        that they see else.
    Attributes:
      level: the highest level that held when this was made.
      shortfall: why the next one does not hold here; empty at max_level.
    Raises:
      InputError: min_level cannot be had here; the text says what got through, or what is missing. A package
        is not installed.
    """

    level: Level
    shortfall: str

    def __init__(
        self,
        limits: Limits = Limits(),
        min_level: Level = Level.KERNEL,
        max_level: Level = Level.NAMESPACES,
        packages: tuple[str, ...] = (),
    ):
        if min_level > max_level:
            raise InputError(
                f"sandbox min_level={min_level.name} is above max_level={max_level.name}; lower it or raise "
                "max_level"
            )
        if sys.platform != "linux":
            raise InputError(
                f"programs that a model wrote are run on Linux only, not on {sys.platform}; use a Linux "
                "machine or container"
            )
        self.limits = limits
        self._packages = [path for name in packages if (path := path_of_package(name)) is not None]
        self._zygote: Zygote | None = None
        self._cache = OutcomeCache(CACHE_BYTES)
        self._find_level(min_level, max_level)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote and everything that it has started. A later `run` starts a new one."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    # ---------------------------------------------------------------------------------------------------- use

    def run(self, program: str, stdin: bytes = b"", limits: Limits | None = None) -> Outcome:
        """Run a program as `python main.py` would; the same again (limits, too) is answered from memory.

        What the wall clock ended, or a SIGKILL that is not ours, is not remembered: a busy machine may have
        done that.

        Raises:
          SandboxBusy: the wall limit struck while it was waiting for a CPU: the machine was too busy to say
            anything of it.
          SandboxError: it could not be set up, three times in a row.
          InputError: limits with files=... below Level.NAMESPACES.
        """
        limits = self._checked(limits)
        source = program.encode("utf-8", "surrogatepass")
        key = (hashlib.blake2b(LENGTH.pack(len(source)) + source + stdin).digest(), limits)
        outcome = self._cache.get(key)
        if outcome is None:
            outcome = self._insist(lambda: self._run(source, stdin, limits))
            if outcome.reason != "wall" and (outcome.reason, outcome.code) != ("signal", 9):
                self._cache.put(key, outcome)
        return outcome

    def functions(self, program: str, limits: Limits | None = None) -> Functions:
        """A child of its own, which has executed a program and answers calls: see `Functions`.

        Raises: as `run`.
        """
        limits = self._checked(limits)
        return self._insist(lambda: Functions(self._fork(limits), program))

    # --------------------------------------------------------------------------------------------------- work

    def _run(self, source: bytes, stdin: bytes, limits: Limits) -> Outcome:
        child = self._fork(limits, stdin)
        try:
            child.send(LENGTH.pack(len(source)) + source)
            child.pump(lambda: False, close_requests=True)
            return child.outcome()
        finally:
            child.close()

    def _fork(self, limits: Limits, stdin: bytes | None = None) -> Child:
        if self._zygote is None:
            self._zygote = Zygote(max(self.level, Level.PROCESS), self._packages)
        try:
            return Child(self._zygote, limits, stdin)
        except OSError as error:  # this process has no descriptors left
            raise SandboxError(f"no pipes for a program: {error}") from None

    def _insist(self, action: Callable[[], T]) -> T:
        """Failures of ours are tried again with a new zygote; those of programs are outcomes, and never come
        here.
        """
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except SandboxBusy:  # again would be as busy, and whoever waits for us has a limit of its own
                raise
            except SandboxError:
                self.close()
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def _checked(self, limits: Limits | None) -> Limits:
        limits = limits or self.limits
        if limits.files and self.level < Level.NAMESPACES:
            raise InputError(
                f"sandbox limit files={limits.files} needs level NAMESPACES, for its quota, and this machine "
                f"offers {self.level.name} ({self.shortfall}); set files=0"
            )
        return limits

    def _find_level(self, min_level: Level, max_level: Level) -> None:
        self.shortfall = ""
        for level in sorted(Level, reverse=True):
            if level > max_level:
                continue
            self.level = level
            if level == Level.NONE:
                break
            try:
                hole = find_hole(lambda program, limits: self._run(program.encode(), b"", limits), level)
            except SandboxError as error:
                hole = str(error)
            if hole is None:
                break
            self.close()
            self.shortfall = f"{level.name} does not hold here: {hole}; {REMEDIES[level]}"
            if level <= min_level:
                raise InputError(
                    f"programs that a model wrote are not run: {self.shortfall}, or set min_level to "
                    f"{Level(level - 1).name}"
                )
        if self.shortfall:
            warnings.warn(f"the sandbox's level is {self.level.name}. {self.shortfall}", stacklevel=3)


class OutcomeCache:
    """Outcomes by program, input and limits; the least recently used go when all exceed max_bytes."""

    OVERHEAD = 500  # bytes of an entry with empty outputs, about

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._outcomes: OrderedDict[tuple[bytes, Limits], Outcome] = OrderedDict()

    def get(self, key: tuple[bytes, Limits]) -> Outcome | None:
        if key in self._outcomes:
            self._outcomes.move_to_end(key)
        return self._outcomes.get(key)

    def put(self, key: tuple[bytes, Limits], outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        self._bytes += self._size(outcome)
        while self._bytes > self._max_bytes:
            self._bytes -= self._size(self._outcomes.popitem(last=False)[1])

    def _size(self, outcome: Outcome) -> int:
        return self.OVERHEAD + len(outcome.stdout) + len(outcome.stderr)


def path_of_package(name: str) -> str | None:
    """The folder or file of an installed package; None for one of the standard library, which is there.

    Raises:
      InputError: there is none of this name.
    """
    if name in sys.stdlib_module_names:
        return None
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = folders[0] if folders else spec.origin if spec is not None else None
    if path is None or not os.path.exists(path):
        raise InputError(
            f"the package {name!r}, which programs are to import, is not installed beside jaxrl; install it, "
            "or take it out of packages"
        )
    return os.path.abspath(path)


_shared: dict[tuple[int, Limits, Level, tuple[str, ...]], Sandbox] = {}


def shared_sandbox(
    limits: Limits = Limits(), min_level: Level = Level.KERNEL, packages: tuple[str, ...] = ()
) -> Sandbox:
    """This process's sandbox for these arguments: made at the first call, closed at exit. For verify
    functions in a pool's workers.

    Raises: as `Sandbox`.
    """
    key = (os.getpid(), limits, min_level, packages)  # a process that was forked makes its own
    if key not in _shared:
        _shared[key] = Sandbox(limits, min_level, packages=packages)
        atexit.register(_shared[key].close)
    return _shared[key]
