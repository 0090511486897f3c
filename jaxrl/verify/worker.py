"""The child of a verifier pool: reads requests from a socket, calls the verify function, answers. `enter` is
how any worker begins.

    python -m jaxrl.verify.worker SOCKET_FD PARENT_PID MEMORY_BYTES CPU_SECONDS

Both directions carry frames: ticket and length, eight bytes each, then the body. The parent sends pickles
(the verify function once, as ticket 0, then pairs of problem and text); this side answers under the same
ticket, in JSON alone, so that nothing that happens here can run code there.
"""

import contextlib
import functools
import json
import math
import os
import pickle
import resource
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import MAX_REWARD, Verdict
from jaxrl.verify import environment
from jaxrl.verify.keeper import work_under_keeper

HEADER = struct.Struct("!QQ")
MAX_TEXT = 2_000
MAX_PARTS = 100
USER_MODULE = "jaxrl_user_"  # begins the names that `tasks/user_file.py` gives to modules


def main(arguments: list[str]) -> int:
    connection, verify, cpu_seconds = enter(arguments)
    while (request := receive(connection)) is not None:
        ticket, body = request
        allow_cpu(cpu_seconds)
        send(connection, ticket, answer(verify, body))
    return 0


def enter(arguments: list[str]) -> tuple[socket.socket, Any, int]:
    """Become a worker: under a keeper, with limits. Returns the socket, what the pool has sent to be served,
    and the CPU seconds of a request; ends the process where there is nothing to serve.
    """
    descriptor, parent, memory_bytes, cpu_seconds = map(int, arguments)
    set_soft_limit(resource.RLIMIT_CORE, 0)
    work_under_keeper(parent, descriptor)
    # for this machine's sake: the pool's deadline is what ends a request
    set_soft_limit(resource.RLIMIT_AS, memory_bytes)
    os.set_inheritable(descriptor, False)  # programs that a request runs have no business with it
    connection = socket.socket(fileno=descriptor)
    request = receive(connection)
    if request is None:
        sys.exit(0)
    try:
        served = pickle.loads(request[1])
    except BaseException as error:
        is_users = isinstance(error, InputError)  # says itself what to do
        said = str(error) if is_users else describe(error)
        send(connection, 0, {"ready": False, "error": said, "is_users": is_users})
        sys.exit(1)
    # Up to here stderr is a file, in which the parent finds why a worker did not start. What is served gets
    # no file to fill.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    send(connection, 0, {"ready": True})
    return connection, served, cpu_seconds


def answer(verify: Callable[..., Any], body: bytes) -> dict[str, Any]:
    """The verdict as JSON values, or `error`, and its seconds; whatever verify raises, SystemExit included,
    is one sample's error.
    """
    began = time.monotonic()
    try:
        problem, text = pickle.loads(body)
        values = verdict_values(verify(problem, text))
    except BaseException as error:
        values = {"error": failure(error)}
    return values | {"seconds": time.monotonic() - began}


def failure(error: BaseException) -> str:
    """What an exception is called in a verdict."""
    return f"exception: {describe(error)}{_line_of_user(error)}"


def verdict_values(verdict: Any) -> dict[str, Any]:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"verify returned {type(verdict).__name__}, not Verdict")
    if len(verdict.parts) > MAX_PARTS:
        raise ValueError(f"the verdict has {len(verdict.parts)} parts; at most {MAX_PARTS} are carried")
    parts = {told(name): float(value) for name, value in verdict.parts.items()}
    for name, value in parts.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, not a finite number")
        if abs(value) > MAX_REWARD:
            raise ValueError(f"{name} is {value}, beyond the {MAX_REWARD:g} that can be reckoned with")
    reward = float(verdict.reward)
    error = None if verdict.error is None else told(verdict.error)
    # no judgement at all: it goes on as it is, for the trainer to leave the sample out
    if not math.isfinite(reward):
        error = error or f"reward: {reward} is not a finite number"
    # none either: float32 makes an infinity of it, if not here then of its square
    elif abs(reward) > MAX_REWARD:
        error = error or f"reward: {reward} is beyond the {MAX_REWARD:g} that can be reckoned with"
        reward = math.copysign(math.inf, reward)
    return {
        "reward": reward,
        "correct": bool(verdict.correct) and math.isfinite(reward),
        "format_ok": bool(verdict.format_ok),
        "parts": parts,
        "detail": told(verdict.detail),
        "verdict_error": error,
    }


def describe(error: BaseException) -> str:
    """Type and text of an exception, also of one whose own `__str__` fails."""
    try:
        text = str(error)
    except Exception as second:
        text = f"(its text raises {type(second).__name__})"
    return told(f"{type(error).__name__}: {text}")


def _line_of_user(error: BaseException) -> str:
    """Where in a file of the user's own it was raised, the last of its lines reached; empty if in none."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).startswith(USER_MODULE):
            place = f" ({os.path.basename(frame.f_code.co_filename)}, line {line})"
    return place


def told(text: Any, limit: int = MAX_TEXT) -> str:
    """A worker's text as it goes to files and people: not too long, and with the secrets that it was given as
    their names.
    """
    text = str(text)[: 2 * limit]
    for value, name in _secrets().items():
        text = text.replace(value, f"[{name}]")
    return text[:limit]


@functools.cache
def _secrets() -> dict[str, str]:
    return environment.secrets(os.environ)


# ----------------------------------------------------------------------------------------------------- frames


def send(connection: socket.socket, ticket: int, values: dict[str, Any]) -> None:
    body = json.dumps(values).encode()
    connection.sendall(HEADER.pack(ticket, len(body)) + body)


def receive(connection: socket.socket) -> tuple[int, bytes] | None:
    """Ticket and body of one frame, or None where the parent has closed its end."""
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    ticket, size = HEADER.unpack(header)
    body = _exactly(connection, size)
    return None if body is None else (ticket, body)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    body = bytearray()
    while len(body) < size:
        chunk = connection.recv(min(size - len(body), 1 << 20))
        if not chunk:
            return None
        body += chunk
    return bytes(body)


# ----------------------------------------------------------------------------------------------------- limits


def allow_cpu(seconds: int) -> None:
    """From now on, so much CPU time; then the kernel ends this process, even if no one is left to enforce the
    deadline.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    set_soft_limit(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + seconds)


def set_soft_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with contextlib.suppress(ValueError, OSError):  # some systems refuse RLIMIT_AS; the deadline still holds
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
