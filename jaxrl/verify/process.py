"""One worker of a verifier pool, as the parent sees it: started, spoken to, killed.

What it does is in `worker.py`; the process that is started here is its keeper (`keeper.py`), which ends as
the worker ends.

Nothing here waits for a verify function, whatever it does; `kill` waits for the keeper, some milliseconds,
seconds at the most.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress

from jaxrl.verify import environment
from jaxrl.verify.worker import HEADER

START_TIMEOUT_S = 60.0
KEEPER_S = 5.0  # to kill what the worker has started
MAX_ANSWER_BYTES = 1 << 20
# of address space, a backstop; libraries of numbers reserve much that they never touch
MEMORY_BYTES = 8 << 30


class HungUp(Exception):
    """The child has closed its socket, or something other than `worker.py` has written to it."""


class WorkerProcess:
    """One child process with its socket.

    ready: it has loaded its verify function. served: samples it has answered.
    ticket: of the request that it works on, None when idle; 0 is the start-up.
    deadline: when the answer must be there (`time.monotonic`).
    outgoing: what is to be sent when the socket takes more.
    """

    def __init__(self, timeout_s: float, pass_env: Sequence[str] = ()):
        """Start it; timeout_s is the wall time of one sample, from which the backstop for CPU time follows.

        pass_env: variables that it sees although they look like secrets.
        """
        self.ready = False
        self.served = 0
        self.ticket: int | None = None
        self.deadline = time.monotonic() + START_TIMEOUT_S
        self.outgoing = bytearray()
        self.stderr_tail = ""
        self._incoming = bytearray()
        self._timeout_s = timeout_s
        self._stderr = tempfile.TemporaryFile()
        self.socket, child_socket = socket.socketpair()
        self.socket.setblocking(False)
        cpu_seconds = int(2 * timeout_s) + 10
        numbers = (child_socket.fileno(), os.getpid(), MEMORY_BYTES, cpu_seconds)
        with child_socket:
            self._process = subprocess.Popen(
                # -P: the folder that the parent happens to run in is on the path only if the parent has it
                # there
                [sys.executable, "-P", "-m", "jaxrl.verify.worker", *map(str, numbers)],
                pass_fds=[child_socket.fileno()],
                env=environment.of_worker(pass_env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
            )

    def send(self, ticket: int, body: bytes) -> None:
        """Begin a request; the socket takes what it can, `flush` sends the rest."""
        self.ticket = ticket
        self.outgoing += HEADER.pack(ticket, len(body)) + body
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now. Both directions can be full without a lock-up."""
        try:
            while self.outgoing:
                del self.outgoing[: self.socket.send(self.outgoing[: 1 << 16])]
                if self.ready:
                    # of a sample: counts from its last byte
                    self.deadline = time.monotonic() + self._timeout_s
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()  # it has died; reading will tell

    def receive(self) -> bytes | None:
        """The answer to the request, or None if it is not all there yet.

        Raises:
          HungUp: the child is of no more use.
        """
        try:
            chunk = self.socket.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            chunk = b""
        if not chunk:
            raise HungUp
        self._incoming += chunk
        if len(self._incoming) < HEADER.size:
            return None
        ticket, size = HEADER.unpack_from(self._incoming)
        if ticket != self.ticket or size > MAX_ANSWER_BYTES:
            raise HungUp
        if len(self._incoming) < HEADER.size + size:
            return None
        body = bytes(self._incoming[HEADER.size :])
        self._incoming.clear()
        return body

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
