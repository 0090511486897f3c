"""The process between a verifier pool and one worker: whatever the worker has started ends with it.

    pool --- keeper --- worker --- what a verify function starts

Signals to a process group miss a child that has made a session of its own. So the keeper is the `subreaper`
of everything below it: a process whose parent has died becomes the keeper's child, and no process below it
can leave. It ends when the worker does, when the pool asks (SIGTERM), or when the pool's process is gone,
even by SIGKILL; in each case it kills its children until it has none. Linux only; elsewhere there is no
keeper, and the worker's process group is all that is killed.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HEARD = {signal.SIGTERM, signal.SIGCHLD}


def work_under_keeper(parent: int, descriptor: int) -> None:
    """Fork: returns in the child, which is the worker; this process stays as its keeper until all has ended.

    Args:
      parent: the pool's process. descriptor: the worker's socket, which the keeper must not hold open.
    """
    if sys.platform != "linux":
        _end_unless_child_of(parent)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    _end_unless_child_of(parent)
    keeper = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_unless_child_of(keeper)
        return
    os.close(descriptor)
    status = _wait_for(worker)
    _kill_children()
    _end_as(status)


def _end_unless_child_of(parent: int) -> None:
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)


def _wait_for(worker: int) -> int:
    """The status with which the worker ended; SIGTERM ends it."""
    while True:
        if signal.sigwait(HEARD) == signal.SIGTERM:
            os.kill(worker, signal.SIGKILL)  # not yet waited for, so the number is still its own
            return os.waitpid(worker, 0)[1]
        # one signal may stand for several; orphans end here too
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                return ended[1]


def _kill_children() -> None:
    """Kill the children until there are none: those of a killed one become this process's, and are killed in
    the next round.
    """
    with suppress(ChildProcessError):
        while True:
            # raises where there is no child: the usual case
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            for pid in _children():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        # suppressed where it is not a process, or gone
        with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
            if int(file.read().rsplit(b")", 1)[1].split()[1]) == os.getpid():
                found.append(int(name))
    return found


def _end_as(status: int) -> None:
    """End the way the worker did: the pool tells the user how."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(OSError):  # SIGKILL's cannot be set, and need not be
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
