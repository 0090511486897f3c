"""Verify functions that misbehave, for the pool's tests. What one does is chosen by the text, so that one
pool meets them all.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time

from jaxrl.errors import InputError
from jaxrl.types import Verdict

GOOD = Verdict(reward=1.0, correct=True, format_ok=True, parts={"length": 4.0}, detail="fine")


class Unprintable(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)

    def __str__(self):
        raise ValueError("no text")


def verify(problem, text):
    """The text's length as reward, unless the text is the name of a misdeed."""
    if text in MISDEEDS:
        return MISDEEDS[text]()
    return Verdict(
        reward=float(len(text)),
        correct=True,
        format_ok=True,
        parts={"length": float(len(text))},
        detail=problem.uid,
    )


def fast(problem, text):
    return GOOD


def pid_of_worker(problem, text):
    return Verdict(reward=float(os.getpid()), correct=True, format_ok=True)


def slow(problem, text):
    time.sleep(float(text))
    return GOOD


def start_grandchild(problem, text):
    """A process that would outlive its parent; its number is the reward."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return Verdict(reward=float(child.pid), correct=True, format_ok=True)


def escaping(problem, text):
    """Two processes in sessions of their own, one whose parent is gone at once; then the text is a misdeed or
    nothing.
    """
    if text in MISDEEDS:
        return MISDEEDS[text]()
    if text != "start":
        return GOOD
    read, write = os.pipe()
    for is_orphan in (False, True):
        if os.fork() == 0:
            os.setsid()
            if is_orphan and os.fork() != 0:
                os._exit(0)
            os.write(write, f"{os.getpid()} ".encode())
            time.sleep(600)
            os._exit(0)
    told = b""
    while told.count(b" ") < 2:
        told += os.read(read, 100)
    return Verdict(reward=1.0, correct=True, format_ok=True, detail=told.decode())


def given_reward(problem, text):
    """The text is the reward, or `part` and the value of a part."""
    if text.startswith("part "):
        return Verdict(reward=1.0, correct=True, format_ok=True, parts={"part": float(text[5:])})
    return Verdict(reward=float(text), correct=True, format_ok=True)


def environment_names(problem, text):
    """The names of all variables; or the one that the text names, which may be missing; or what it says, in
    an error.
    """
    if text.startswith("tell "):
        raise RuntimeError(f"refused: {os.environ[text[5:]]}")
    return Verdict(
        reward=0.0, correct=True, format_ok=True, detail=os.environ[text] if text else " ".join(os.environ)
    )


def descriptors_of_a_program(problem, text):
    """What is open in a program that is started without care."""
    listed = subprocess.run(
        ["ls", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    # the last is the folder that `ls` reads
    return Verdict(reward=0.0, correct=True, format_ok=True, detail=" ".join(listed[:-1]))


def environment(problem, text):
    return Verdict(reward=0.0, correct="jax" in sys.modules, format_ok=True, detail=str(os.environ.get(text)))


def _loop():
    while True:
        pass


def _loop_in_c():
    re.match(r"(a+)+$", "a" * 64 + "b")


def _stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def _raise(error):
    raise error


def _print_much():
    for stream in (sys.stdout, sys.stderr):
        stream.write("x" * 10_000_000)
        stream.flush()
    return GOOD


def _write_to_socket():
    """Rubbish on every descriptor that is open."""
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 100)
    return GOOD


def _close_all():
    os.closerange(0, 64)
    time.sleep(600)


def _recurse():
    return _recurse() + 1


MISDEEDS = {
    "loop": _loop,
    "loop in c": _loop_in_c,
    "stop": _stop_itself,
    "exit": lambda: os._exit(3),
    "exit well": lambda: os._exit(0),
    "segv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "raise": lambda: _raise(RuntimeError("broken")),
    "unprintable": lambda: _raise(Unprintable(1, 2)),
    "system exit": lambda: sys.exit("bye"),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "recursion": _recurse,
    "memory": lambda: bytearray(1 << 50),
    "nan": lambda: Verdict(reward=float("nan"), correct=True, format_ok=True),
    "infinite part": lambda: Verdict(reward=1.0, correct=True, format_ok=True, parts={"x": float("inf")}),
    "object": lambda: Verdict(reward=object(), correct=True, format_ok=True),
    "not a verdict": lambda: {"reward": 1.0},
    "none": lambda: None,
    "many parts": lambda: Verdict(
        reward=1.0, correct=True, format_ok=True, parts={str(i): 0.0 for i in range(10_000)}
    ),
    "socket": _write_to_socket,
    "close": _close_all,
    "print": _print_much,
    "long detail": lambda: Verdict(
        reward=1.0, correct=True, format_ok=True, detail="\udcff" + "x" * 10_000_000
    ),
}


class DiesAtStart:
    """Its pickle ends the process that loads it."""

    def __call__(self, problem, text):
        return GOOD

    def __reduce__(self):
        return os._exit, (7,)


class DiesLater:
    """Loads, but the module that it needs is gone by then."""

    def __call__(self, problem, text):
        return GOOD

    def __reduce__(self):
        return __import__, ("module_that_does_not_exist",)


class Refuses:
    """A verifier that finds on its way into a worker that it cannot work there."""

    def __init__(self, reason: str):
        self.reason = reason

    def __setstate__(self, state):
        raise InputError(state["reason"])

    def __call__(self, problem, text):
        raise AssertionError
