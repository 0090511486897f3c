"""One process at a time in a run's folder."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from jaxrl.errors import InputError
from jaxrl.files.disk import writing

LOCK = "lock"
ATTEMPTS = 100
# what file systems without flock answer
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

log = logging.getLogger("jaxrl")
_held: set[int] = set()  # descriptors of the locks that this process holds


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Make `folder` if it is missing, and keep every other process out of it as long as the block lasts.

    The lock is the kernel's (flock on the file `lock`) and ends with the process, however that ends: a file
    that a killed process has left locks nothing. Its text, pid and host, is for people only. When the block
    ends the file goes, and so does a folder that was made here and is still empty. On a file system without
    flock nothing is locked, and a warning says so.

    Yields:
      A check: InputError if the folder was deleted meanwhile, when it may be made anew and locked by another
      process.
    Raises:
      InputError: another process has it; the folder cannot be written to.
    """
    made: list[Path] = []
    lock, descriptor = folder / LOCK, -1
    try:
        with writing(folder):
            descriptor = _take(folder, made)
        _held.add(descriptor)
        yield partial(_check, descriptor, lock)
    finally:
        if descriptor >= 0:
            _held.discard(descriptor)
            with suppress(OSError):  # of a disk that takes nothing any more; a file that stays locks nothing
                if _is_at(descriptor, lock):
                    lock.unlink()
            os.close(descriptor)
        with suppress(OSError):  # not empty, as after every run that has begun
            for path in made:
                path.rmdir()


def _take(folder: Path, made: list[Path]) -> int:
    """The descriptor that holds the lock.

    `made` gets the folders that had to be made for it, innermost first.
    """
    lock = folder / LOCK
    for _ in range(ATTEMPTS):
        try:
            _make(folder, made)
            # not inherited by programs that are started (PEP 446)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # whoever had made the folder, or one above it, took it away again
            continue
        try:
            _lock(descriptor, folder)
            if _is_at(descriptor, lock):
                holder = f"pid {os.getpid()} on host {socket.gethostname()}, since {time.strftime('%F %T')}\n"
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a file that its holder has taken away meanwhile, which locks nothing
    raise InputError(f"{folder} is made and deleted again and again by others; set another `name`")


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another process is at work in {folder}: {_holder(descriptor)}; wait for its end, or set "
            "another `name`"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning(
            "the file system of %s has no locks (%s): nothing keeps a second process out of this folder, so "
            "start the run once only",
            folder,
            error.strerror,
        )


def _holder(descriptor: int) -> str:
    """What the lock's holder has written: right after taking it, so that one who came second may have to wait
    a moment.
    """
    for _ in range(ATTEMPTS):
        if text := os.pread(descriptor, 200, 0).decode(errors="replace").strip():
            return text
        time.sleep(0.01)
    return "it does not say which"


def _make(folder: Path, made: list[Path]) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        if path.is_symlink():
            raise InputError(f"{path} is a link to what is not there; make that, or set another place")
        with suppress(FileExistsError):  # somebody else was faster
            path.mkdir()
            made.insert(0, path)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether this file is the one that stands at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _check(descriptor: int, lock: Path) -> None:
    if not _is_at(descriptor, lock):
        raise InputError(
            f"{lock.parent} was deleted or replaced while this process was at work in it; start the run again"
        )


def _let_go() -> None:
    """In a forked child: the lock is its parent's, and must not outlive it in here."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
