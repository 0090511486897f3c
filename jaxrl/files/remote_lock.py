"""One process at a time in a run's folder elsewhere: a small file there, renewed as long as its owner lives.

An object store has no lock that ends with its process. So the file changes every `BEAT` seconds, and one
that does not change for `PATIENCE` seconds is nobody's; both are measured by the clock of whoever waits, and
no two clocks are compared. What this cannot promise: a process that is held up for longer (a machine that
sleeps, a network that is gone) and wakes again may write until it looks at the lock, which it does at every
beat and before it sends anything.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.remote import Remote

LOCK = "lock"
BEAT = 20.0
PATIENCE = 90.0

log = logging.getLogger("jaxrl")


class TakenOver(InputError):
    """Another process has the folder now."""


class RemoteLock:
    """The lock of a folder elsewhere, held. See `locked_remotely`."""

    def __init__(self, remote: Remote, copy: str):
        self._remote, self._copy, self._token = remote, copy, uuid.uuid4().hex
        self._since = time.strftime("%F %T")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="jaxrl remote lock", daemon=True)

    def check(self) -> None:
        """TakenOver where another process has taken the folder over."""
        if _token(found := _read(self._remote)) != self._token:
            raise TakenOver(
                f"{self._remote.url} was taken over by another process while this one was at work in it "
                f"({_holder(found)}); nothing more is sent there. Stop one of the two; the same command goes "
                "on from what is there"
            )

    def take(self) -> None:
        """Own the lock, once whoever has it is known to be gone; see `locked_remotely`."""
        while not self._remote.create(LOCK, self._content()):
            found = _read(self._remote)
            if found is None:  # given back in between
                continue
            if found.get("copy") != self._copy:
                _wait_for_a_beat(self._remote, found)
            self._remote.delete(LOCK)
        self._thread.start()

    def give_back(self) -> None:
        """Let others in; where the network does not let it, they find that the lock beats no more."""
        self._end.set()
        self._thread.join()
        with suppress(InputError):
            if _token(_read(self._remote)) == self._token:
                self._remote.delete(LOCK)

    def _content(self) -> bytes:
        holder = f"pid {os.getpid()} on host {socket.gethostname()}, since {self._since}"
        beat = uuid.uuid4().hex
        return json.dumps({"holder": holder, "copy": self._copy, "token": self._token, "beat": beat}).encode()

    def _keep(self) -> None:
        """Beat until the end. A beat that the network does not take is the next commit's affair."""
        while not self._end.wait(BEAT):
            with suppress(InputError):
                if _token(_read(self._remote)) != self._token:
                    return  # lost, as the next check says
                self._remote.write(LOCK, self._content())


@contextmanager
def locked_remotely(remote: Remote, copy: str) -> Iterator[RemoteLock]:
    """Keep every other process out of a folder elsewhere as long as the block lasts.

    The lock of a process that is dead is taken over: at once, if it had the same local copy, which the kernel
    lets one process at a time have; else when it has not changed for `PATIENCE` seconds.

    Args:
      copy: names the local copy that this process has for itself.
    Raises:
      InputError: another process is at work there.
    """
    lock = RemoteLock(remote, copy)
    lock.take()
    try:
        yield lock
    finally:
        lock.give_back()


def _wait_for_a_beat(remote: Remote, found: dict[str, Any]) -> None:
    """Return when the lock's owner has shown no life; InputError when it has."""
    log.warning(
        "%s is locked by another process (%s): waiting %.0f s for a sign that it lives",
        remote.url,
        _holder(found),
        PATIENCE,
    )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(BEAT / 4, PATIENCE))
        if (now := _read(remote)) != found:
            if now is None:
                return
            raise InputError(
                f"another process is at work in {remote.url}: {_holder(now)}; wait for its end, or set "
                "another `name`"
            )


def _read(remote: Remote) -> dict[str, Any] | None:
    content = remote.read(LOCK)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{remote.url}/{LOCK} is no lock of a run; delete it if nobody is at work there")
    return found


def _token(found: dict[str, Any] | None) -> Any:
    return (found or {}).get("token")


def _holder(found: dict[str, Any] | None) -> str:
    return str((found or {}).get("holder") or "it does not say which")
