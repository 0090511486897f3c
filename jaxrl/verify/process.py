"""One worker of a pool, as the parent sees it: started, spoken to, killed.

What it does is in `worker.py`, of verifiers here and of environments in `envs/`; the process that is started
here is its keeper (`keeper.py`), which ends as the worker ends.

Nothing here waits for what a worker works on, whatever that does; `kill` waits for the keeper, some
milliseconds, seconds at the most.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from jaxrl.verify import environment
from jaxrl.verify.worker import HEADER

START_TIMEOUT_S = 60.0
KEEPER_S = 5.0  # to kill what the worker has started
MAX_ANSWER_BYTES = 1 << 20
# of address space, a backstop; libraries of numbers reserve much that they never touch
MEMORY_BYTES = 8 << 30


class HungUp(Exception):
    """The child has closed its socket, or something other than its module has written to it."""


@dataclass
class Request:
    """What a worker works on.

    timeout_s: wall seconds that it may take. sent: when the last of it went out (`time.monotonic`).
    deadline: when the answer must be there. unsent: of its bytes.
    """

    timeout_s: float
    sent: float
    deadline: float
    unsent: int


class WorkerProcess:
    """One child process with its socket.

    ready: it has loaded what it serves. served: requests it has answered.
    requests: those that it works on, by ticket; ticket 0 is the start-up.
    outgoing: what is to be sent when the socket takes more.
    answered: when the last answer came (`time.monotonic`).
    """

    def __init__(self, module: str, timeout_s: float, pass_env: Sequence[str] = ()):
        """Start it.

        module: what the child runs, of arguments as in `worker.py`.
        timeout_s: the wall time of one request, from which the backstop for CPU time follows.
        pass_env: variables that it sees although they look like secrets.
        """
        self.ready = False
        self.served = 0
        self.requests: dict[int, Request] = {}
        self.outgoing = bytearray()
        self.answered = 0.0
        self.stderr_tail = ""
        self._incoming = bytearray()
        self._unsent: deque[Request] = deque()
        self._stderr = tempfile.TemporaryFile()
        self.socket, child_socket = socket.socketpair()
        self.socket.setblocking(False)
        cpu_seconds = int(2 * timeout_s) + 10
        numbers = (child_socket.fileno(), os.getpid(), MEMORY_BYTES, cpu_seconds)
        with child_socket:
            self._process = subprocess.Popen(
                # -P: the folder that the parent happens to run in is on the path only if the parent has it
                # there
                [sys.executable, "-P", "-m", module, *map(str, numbers)],
                pass_fds=[child_socket.fileno()],
                env=environment.of_worker(pass_env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
            )

    @property
    def ticket(self) -> int | None:
        """The oldest request that it works on, None when it is idle."""
        return next(iter(self.requests), None)

    @property
    def deadline(self) -> float:
        """When the next answer must be there."""
        return min((request.deadline for request in self.requests.values()), default=math.inf)

    def send(self, ticket: int, body: bytes, timeout_s: float) -> None:
        """Begin a request; the socket takes what it can, `flush` sends the rest."""
        now, frame = time.monotonic(), HEADER.pack(ticket, len(body)) + body
        request = Request(timeout_s, now, now + timeout_s, len(frame))
        self.requests[ticket] = request
        self._unsent.append(request)
        self.outgoing += frame
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now. Both directions can be full without a lock-up."""
        try:
            while self.outgoing:
                count = self.socket.send(self.outgoing[: 1 << 16])
                del self.outgoing[:count]
                self._has_sent(count)
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()  # it has died; reading will tell

    def _has_sent(self, count: int) -> None:
        """The time of a request counts from its last byte."""
        now = time.monotonic()
        for request in self._unsent:
            request.sent, request.deadline = now, now + request.timeout_s
        while self._unsent and (first := self._unsent[0]).unsent <= count:
            count -= first.unsent
            self._unsent.popleft()
        if self._unsent:
            self._unsent[0].unsent -= count

    def receive(self) -> tuple[int, bytes] | None:
        """The answer to a request, with its ticket, or None if none is there as a whole; there may be more.

        Raises:
          HungUp: the child is of no more use.
        """
        while (answer := self._take_frame()) is None:
            try:
                chunk = self.socket.recv(1 << 16)
            except BlockingIOError:
                return None
            except OSError:
                chunk = b""
            if not chunk:
                raise HungUp
            self._incoming += chunk
        return answer

    def _take_frame(self) -> tuple[int, bytes] | None:
        if len(self._incoming) < HEADER.size:
            return None
        ticket, size = HEADER.unpack_from(self._incoming)
        if ticket not in self.requests or size > MAX_ANSWER_BYTES:
            raise HungUp
        end = HEADER.size + size
        if len(self._incoming) < end:
            return None
        body = bytes(self._incoming[HEADER.size : end])
        del self._incoming[:end], self.requests[ticket]
        if not self.requests:
            self._incoming.clear()  # of no request
        self.answered = time.monotonic()
        return ticket, body

    def kill(self, grace_s: float) -> str:
        """Kill the process and what it has started, close everything. Returns how it ended, as text.

        grace_s: for one that has hung up, the time to end by itself, so that the text tells why.
        """
        pid = self._process.pid
        self._wait_for_end(grace_s)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)  # to the keeper, which kills all that is below it
        self._wait_for_end(KEEPER_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # where there is no keeper, or it was stopped
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KEEPER_S)
        self.socket.close()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 2000))
        self.stderr_tail = self._stderr.read().decode(errors="replace").strip()
        self._stderr.close()
        code = self._process.returncode
        return (
            f"killed by {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"exit code {code}"
        )

    def _wait_for_end(self, seconds: float) -> None:
        """WNOWAIT leaves a dead process in the table: its number, which is also the group's, cannot go to a
        stranger meanwhile.
        """
        end = time.monotonic() + seconds
        while (
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            and time.monotonic() < end
        ):
            time.sleep(0.002)
