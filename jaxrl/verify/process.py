"""One child process of a verifier pool, as the parent sees it: started, spoken to, killed. What it does is in `worker.py`."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

START_TIMEOUT_S = 60.0
MEMORY_BYTES = 8 << 30  # of address space, a backstop; libraries of numbers reserve much that they never touch


class WorkerProcess:
    """One child process with its socket, and what has been sent to and heard from it. Ticket 0 is the start-up."""

    def __init__(self, timeout_s: float):
        """Start it; timeout_s is the wall time of one sample, from which the backstop for CPU time follows."""
        self.ready = False
        self.ticket: int | None = 0
        self.deadline = time.monotonic() + START_TIMEOUT_S
        self.outgoing = bytearray()
        self.incoming = bytearray()
        self.is_blocked = False
        self.stderr_tail = ""
        self._stderr = tempfile.TemporaryFile()
        self.socket, child_socket = socket.socketpair()
        self.socket.setblocking(False)
        cpu_seconds = int(2 * timeout_s) + 10
        numbers = (child_socket.fileno(), os.getpid(), MEMORY_BYTES, cpu_seconds)
        with child_socket:
            self._process = subprocess.Popen(
                # -P: the folder that the parent happens to run in is on the path only if the parent has it there
                [sys.executable, "-P", "-m", "jaxrl.verify.worker", *map(str, numbers)],
                pass_fds=[child_socket.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
            )

    def kill(self, grace_s: float) -> str:
        """Kill the process and what it has started, close everything. Returns how it ended, as text.

        grace_s: for one that has hung up, the time to end by itself, so that the text tells why.
        """
        pid = self._process.pid
        end = time.monotonic() + grace_s
        # WNOWAIT leaves a dead process in the table: its number, which is also the group's, cannot go to a stranger meanwhile.
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < end:
            time.sleep(0.002)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self.socket.close()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 2000))
        self.stderr_tail = self._stderr.read().decode(errors="replace").strip()
        self._stderr.close()
        code = self._process.returncode
        return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _environment() -> dict[str, str]:
    """Of a worker: the parent's import path, no accelerator, one thread of arithmetic."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
