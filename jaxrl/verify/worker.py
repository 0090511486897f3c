"""The child of a verifier pool: reads requests from a socket, calls the verify function, answers. Started by `pool.py` only.

    python -m jaxrl.verify.worker SOCKET_FD PARENT_PID MEMORY_BYTES CPU_SECONDS

Both directions carry frames: ticket and length, eight bytes each, then the body. The parent sends pickles (the verify function
once, as ticket 0, then pairs of problem and text); this side answers under the same ticket, in JSON alone, so that nothing that
happens here can run code there.
"""

import ctypes
import json
import math
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import Verdict

HEADER = struct.Struct("!QQ")
MAX_TEXT = 2_000
MAX_PARTS = 100
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    descriptor, parent, memory_bytes, cpu_seconds = map(int, arguments)
    die_with(parent)
    limit_resources(memory_bytes)
    connection = socket.socket(fileno=descriptor)
    request = receive(connection)
    if request is None:
        return 0
    try:
        verify = pickle.loads(request[1])
    except BaseException as error:
        is_users = isinstance(error, InputError)  # says itself what to do
        send(connection, 0, {"ready": False, "error": str(error) if is_users else describe(error), "is_users": is_users})
        return 1
    # Up to here stderr is a file, in which the parent finds why a worker did not start. Verify functions get no file to fill.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    send(connection, 0, {"ready": True})
    while (request := receive(connection)) is not None:
        ticket, body = request
        allow_cpu(cpu_seconds)
        send(connection, ticket, answer(verify, body))
    return 0


def answer(verify: Callable[..., Any], body: bytes) -> dict[str, Any]:
    """The verdict as JSON values, or `error`, and its seconds; whatever verify raises, SystemExit included, is one sample's error."""
    began = time.monotonic()
    try:
        problem, text = pickle.loads(body)
        values = verdict_values(verify(problem, text))
    except BaseException as error:
        values = {"error": f"exception: {describe(error)}"}
    return values | {"seconds": time.monotonic() - began}


def verdict_values(verdict: Any) -> dict[str, Any]:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"verify returned {type(verdict).__name__}, not Verdict")
    if len(verdict.parts) > MAX_PARTS:
        raise ValueError(f"the verdict has {len(verdict.parts)} parts; at most {MAX_PARTS} are carried")
    parts = {str(name)[:MAX_TEXT]: float(value) for name, value in verdict.parts.items()}
    for name, value in parts.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, not a finite number")
    reward = float(verdict.reward)
    error = None if verdict.error is None else str(verdict.error)[:MAX_TEXT]
    if not math.isfinite(reward):  # no judgement at all: it goes on as it is, for the trainer to leave the sample out
        error = error or f"reward is {reward}, not a finite number"
    return {
        "reward": reward,
        "correct": bool(verdict.correct) and math.isfinite(reward),
        "format_ok": bool(verdict.format_ok),
        "parts": parts,
        "detail": str(verdict.detail)[:MAX_TEXT],
        "verdict_error": error,
    }


def describe(error: BaseException) -> str:
    """Type and text of an exception, also of one whose own `__str__` fails."""
    try:
        text = str(error)
    except Exception as second:
        text = f"(its text raises {type(second).__name__})"
    return f"{type(error).__name__}: {text}"[:MAX_TEXT]


# --------------------------------------------------------------------------------------------------------------- frames


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


# --------------------------------------------------------------------------------------------------------------- limits


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even in the middle of a call that never returns (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def limit_resources(memory_bytes: int) -> None:
    """Backstops for this machine's sake: the pool's deadline is what ends a sample."""
    set_soft_limit(resource.RLIMIT_CORE, 0)
    set_soft_limit(resource.RLIMIT_AS, memory_bytes)


def allow_cpu(seconds: int) -> None:
    """From now on, so much CPU time; then the kernel ends this process, even if no one is left to enforce the deadline."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    set_soft_limit(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + seconds)


def set_soft_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    except (ValueError, OSError):
        pass  # some systems refuse RLIMIT_AS; the deadline still holds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
