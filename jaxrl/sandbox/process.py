"""The trusted side's end of the sandbox's processes: the zygote, and one program with its pipes.

`sandbox.py` says what it is for.
"""

import array
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jaxrl.sandbox.outcomes import Level, Limits, Outcome, SandboxBusy, SandboxError

CHILD_PROGRAM = Path(__file__).resolve().parent / "inside" / "sandbox_child.py"
# Everything that a program finds in os.environ: the same hashes, texts and times on every machine.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
FOR_THE_LOADER = ("LD_LIBRARY_PATH",)  # the child program takes it out again
START_S = 30.0  # for the zygote, on a busy machine
SET_UP_S = 30.0  # for one program, until its first instruction
CLOSE_S = 2.0  # for the child program, to end when its socket is closed
END_S = 30.0  # from SIGKILL to the last trace
STDERR_TAIL = 4000
CHUNK = 1 << 16
FRAME_BYTES = 64  # of an answer, around its value
SIGKILL, SIGXCPU = 9, 24
# A program that was ready to run and got no CPU for this share of its wall time, and so many seconds at
# least, has not had its time.
STARVED, STARVED_S = 0.25, 0.5
CREDENTIALS = struct.Struct("3i")  # process, user, group


class Zygote:
    """The child program, which forks a process for every program. Owns it: `close`, or the end of this
    process, ends it.
    """

    def __init__(self, level: Level, packages: list[str]):
        """packages: paths of those that programs may import. Raises SandboxError: it cannot be started at
        this level here.
        """
        self.level = level
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # -I would also ignore PYTHONHASHSEED; with nothing else in the environment, -s -P -S are as good.
        command = [sys.executable, "-s", "-P", "-S", "-B", str(CHILD_PROGRAM)]
        with other, tempfile.TemporaryFile() as stderr:
            try:
                self._process = subprocess.Popen(
                    [*command, str(other.fileno()), str(os.getpid()), str(int(level)), *packages],
                    pass_fds=[other.fileno()],
                    env=ENVIRONMENT
                    | {name: os.environ[name] for name in FOR_THE_LOADER if name in os.environ},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                raise SandboxError(f"{sys.executable} cannot be started: {error}") from None
            other.close()
            self._control.settimeout(START_S)
            try:
                hello = self._control.recv(4096)
            except OSError as error:
                hello = f"failed: no word from the child program: {error}".encode()
            if hello != b"ready":
                self.close()
                stderr.seek(0)
                failure = hello.removeprefix(b"failed: ") or stderr.read()[-1000:]
                raise SandboxError(
                    failure.decode(errors="replace").strip() or "the child program ended at once"
                )
        self._control.settimeout(SET_UP_S)

    def spawn(self, limits: Limits, descriptors: list[int]) -> None:
        """Have it fork for one program, which gets these descriptors."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        try:
            self._control.sendmsg([json.dumps(vars(limits)).encode()], [rights])
        except OSError as error:
            raise SandboxError(f"the child program is gone: {error}") from None

    def close(self) -> None:
        self._control.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Child:
    """One program, from its start to its end.

    `pump` moves bytes and watches the limits; the rest reads what has come.
    """

    def __init__(self, zygote: Zygote, limits: Limits, stdin: bytes | None = None):
        """stdin: what the program reads; None opens a channel for the answers to calls instead."""
        self.limits = limits
        self.is_ready = False  # the program has begun
        self.has_ended = False  # all its processes are gone
        self.answers = bytearray()
        self._level = zygote.level
        self._stdout, self._stderr, self._messages = bytearray(), bytearray(), bytearray()
        self._stdout_bytes = self._stderr_bytes = 0
        self._outgoing = memoryview(b"")
        self._reason: str | None = None  # of being killed by us
        self._wall_left = limits.wall_s
        self._deadline = time.monotonic() + SET_UP_S
        self._began = self._ended = 0.0
        self._pid = 0
        self._waited = self._waited_before = 0.0  # for a CPU
        self._watch, watch = socket.socketpair()
        # the kernel names the sender of `ready`: the program
        self._watch.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        reader, self._requests = os.pipe()
        pairs = [os.pipe() for _ in range(3 if stdin is None else 2)]
        theirs = [watch.fileno(), reader, readable(stdin or b""), *(writer for _, writer in pairs)]
        self._sources = {self._watch.fileno(): self._take_message}
        for (descriptor, _), take in zip(pairs, (self._take_stdout, self._take_stderr, self._take_answer)):
            self._sources[descriptor] = take
        self._poll = select.poll()
        for descriptor in self._sources:
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)
        os.set_blocking(self._requests, False)
        try:
            zygote.spawn(limits, theirs)
        except SandboxError:
            self.close()
            raise
        finally:
            watch.close()
            for descriptor in theirs[1:]:
                os.close(descriptor)

    def send(self, data: bytes) -> None:
        """Add to what goes to the program's process, the program itself first; `pump` sends it."""
        if not self._outgoing and self._requests >= 0:
            self._poll.register(self._requests, select.POLLOUT)
        self._outgoing = memoryview(bytes(self._outgoing) + data)

    def pump(self, done: Callable[[], bool], close_requests: bool = False) -> None:
        """Move bytes until `done` says so or all processes have ended; after `kill`, until they have ended.

        Once the program has begun, its wall time runs in here only.

        Raises:
          SandboxError: the set-up failed, or something does not end.
        """
        if self.is_ready and self._reason is None:
            self._deadline = time.monotonic() + self._wall_left
        while not self.has_ended and (self._reason is not None or not done()):
            for descriptor, _ in self._poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
                if descriptor == self._requests:
                    self._write(close_requests)
                else:
                    self._read(descriptor)
            if self._deadline <= time.monotonic() and not self.has_ended:
                if not self.is_ready or self._reason is not None:
                    raise SandboxError("the processes of a program do not start, or do not end, in time")
                self.kill("busy" if self._is_starved() else "wall")
        self._wall_left = self._deadline - time.monotonic()

    def kill(self, reason: str) -> None:
        """Ask the zygote to kill it; `pump` waits for the end."""
        if self._reason is None and not self.has_ended:
            self._reason, self._deadline = reason, time.monotonic() + END_S
            with suppress(OSError):
                self._watch.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close everything; what still runs is killed by the zygote."""
        for descriptor in [*self._sources, self._requests]:
            if descriptor >= 0 and descriptor != self._watch.fileno():
                os.close(descriptor)
        self._sources, self._requests = {}, -1
        self._watch.close()

    def _is_starved(self) -> bool:
        """Whether much of the wall time went by with the program ready to run, and no CPU for it. One that
        sleeps, or waits for itself, is not ready.
        """
        self._waited = waited_for_cpu(self._pid) - self._waited_before
        return self._waited > max(STARVED * self.limits.wall_s, STARVED_S)

    # ------------------------------------------------------------------------------------------------ outcome

    def outcome(self) -> Outcome:
        """How it ended. To be asked when `has_ended`.

        Raises:
          SandboxBusy: its wall time went by while it waited for a CPU.
          SandboxError: it did not begin, or the zygote is gone without a word.
        """
        lines = self._messages.decode(errors="replace").splitlines()
        if not self.is_ready:
            raise SandboxError(f"set-up: {' '.join(lines) or 'the process ended without a word'}")
        seconds = self._ended - self._began
        if lines[-1].startswith("ended "):
            status, cpu_s = int(lines[-1].split()[1]), float(lines[-1].split()[2])
        elif self._reason is not None or self._level <= Level.PROCESS:
            # killed by us with all around it; or, at PROCESS, it has killed the zygote
            status, cpu_s = SIGKILL, 0.0
        else:
            raise SandboxError(f"the zygote is gone, or told nothing: {' '.join(lines)}")
        reason, code = self._ending(status, cpu_s)
        if reason == "busy":
            raise SandboxBusy(
                f"the machine is busy: of {seconds:.1f} s a program waited {self._waited:.1f} s for a CPU, "
                "so that its wall limit says nothing; have fewer workers, or raise wall_s"
            )
        return Outcome(reason, code, bytes(self._stdout), bytes(self._stderr), seconds)

    def _ending(self, status: int, cpu_s: float) -> tuple[str, int | None]:
        code = os.waitstatus_to_exitcode(status)
        if self._reason is not None:
            return self._reason, None
        if code == -SIGXCPU or (code == -SIGKILL and cpu_s >= self.limits.cpu_s):
            return "cpu", None
        if code < 0:
            return "signal", -code
        last = self._stderr.rstrip().rsplit(b"\n", 1)[-1]
        return ("memory", None) if code == 1 and last.startswith(b"MemoryError") else ("exit", code)

    # -------------------------------------------------------------------------------------------------- bytes

    def _write(self, close_after: bool) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self._requests, self._outgoing[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:  # the program has closed its end
            self._outgoing = memoryview(b"")
            close_after = True
        self._poll.unregister(self._requests)
        if close_after:
            os.close(self._requests)
            self._requests = -1

    def _read(self, descriptor: int) -> None:
        try:
            data = self._hear() if descriptor == self._watch.fileno() else os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._sources[descriptor](data)
            return
        self._poll.unregister(descriptor)
        if descriptor == self._watch.fileno():
            self._ended = time.monotonic()
            self.has_ended = True
            for other in self._sources:
                if other != descriptor:
                    self._drain(other)

    def _hear(self) -> bytes:
        """The next message, and who sent it, as long as the program has not begun: only its process says
        `ready`.
        """
        data, ancillary, *_ = self._watch.recvmsg(CHUNK, socket.CMSG_SPACE(CREDENTIALS.size))
        if not self.is_ready and ancillary:
            self._pid = CREDENTIALS.unpack_from(ancillary[0][2])[0]
        return data

    def _drain(self, descriptor: int) -> None:
        """What the dead have left in a pipe; it holds no more than a pipe can."""
        with suppress(OSError):
            while data := os.read(descriptor, CHUNK):
                self._sources[descriptor](data)

    def _take_message(self, data: bytes) -> None:
        self._messages += data
        if not self.is_ready and self._messages.startswith(b"ready\n"):
            self.is_ready, self._began = True, time.monotonic()
            self._deadline = self._began + self._wall_left
            self._waited_before = waited_for_cpu(self._pid)

    def _take_stdout(self, data: bytes) -> None:
        self._stdout_bytes += len(data)
        self._stdout += data[: self.limits.output_bytes - len(self._stdout)]
        self._check(self._stdout_bytes)

    def _take_stderr(self, data: bytes) -> None:
        self._stderr_bytes += len(data)
        self._stderr = (self._stderr + data)[-STDERR_TAIL:]
        self._check(self._stderr_bytes)

    def _take_answer(self, data: bytes) -> None:
        self.answers += data
        self._check(len(self.answers) - FRAME_BYTES)

    def _check(self, size: int) -> None:
        if size > self.limits.output_bytes:
            self.kill("output")
            self._reason = self._reason or "output"  # it may have ended already


def readable(content: bytes) -> int:
    """A descriptor of a file in memory with this content, which nobody can change. Programs are judged with a
    file as their input: some ask for its size, or read all of it at once.
    """
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(
            descriptor,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
        )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def waited_for_cpu(pid: int) -> float:
    """Seconds that a process was ready to run and did not: those of its thread that waited longest. 0 where
    no kernel tells.
    """
    waited = [0]
    with suppress(OSError, ValueError, IndexError):  # it is gone, or the kernel does not keep count
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                waited.append(int(file.read().split()[1]))
    return max(waited) / 1e9


def stalled_s() -> float:
    """Seconds, since the machine was started, in which something waited for a CPU. 0 where no kernel
    tells.
    """
    with suppress(OSError, ValueError, IndexError), open("/proc/pressure/cpu", encoding="ascii") as file:
        return int(file.readline().rpartition("total=")[2]) / 1e6
    return 0.0
