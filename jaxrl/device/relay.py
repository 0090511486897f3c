"""The connections between the first process and the others, made so that they may break.

jax's own client aborts its whole process, without a word that a user could read, as soon as its connection to
the coordinator closes; and its coordinator learns of a process that was killed no sooner than of one that is
slow. So there is a relay at both ends:

    jax's client -> relay of process n  ->  relay of process 0 -> jax's coordinator

The first sees when a process goes, at once and by its number; the other keeps jax's client connected, to
silence, when process 0 has gone. Both tell, and what it means is for `processes.py` to say.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from jaxrl.errors import InputError, ProcessLost

CHUNK = 1 << 16
HELLO = b"jaxrl process %08d\n"  # what the relay of process n sends first

Address = tuple[str, int]


class Relay:
    """Owns a listening socket and the connections that it passes on. Its threads end with it.

    port: that it listens at. met: the processes that have connected. gone: those whose connections have all
      been ended from afar.

    Args:
      listen: where connections come in; port 0 is any free one. target: where they go.
      number: of this process, where it is not the first: told to the relay at the other end. None: the relay
        of process 0, which is told.
    Raises:
      InputError: the address cannot be listened at.
    """

    def __init__(self, listen: Address, target: Address, number: int | None = None):
        self._target, self._number = target, number
        self.met: set[int] = set()
        self.gone: set[int] = set()
        self._open: Counter[int] = Counter()
        self._is_closed = False
        self._sockets: list[socket.socket] = []
        try:
            family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
            dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
            self._listener = socket.create_server(listen, family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise InputError(
                f"process 0 cannot listen at port {listen[1]}: {error.strerror}; give distributed.coordinator"
                " another port"
            ) from None
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def close(self) -> None:
        """End all connections. What is connected to a process 0 that has gone stays so until this process
        ends: Python would close it at its own end, while jax's client still looks.
        """
        self._is_closed = True
        keeps = self._number is not None and bool(self.gone)
        for each in (*self._sockets, self._listener):
            with suppress(OSError):  # the other end has closed it
                if keeps:
                    each.detach()
                else:
                    each.shutdown(socket.SHUT_RDWR)
                    each.close()

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        try:
            number = self._number if self._number is not None else int(_receive(near, len(HELLO % 0))[14:])
        except (ValueError, OSError):  # a stranger, or one who only looked whether somebody is here
            near.close()
            return
        self.met.add(number)
        if (far := self._reach()) is None:
            self.gone.add(0)
            return
        far.settimeout(None)
        self._sockets.append(far)
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._number is not None:
            far.sendall(HELLO % number)
        # jax is at this end: of process 0 the far one, of the others the near one
        here, there, other = (far, near, number) if self._number is None else (near, far, 0)
        self._open[other] += 1
        self._start(self._pass_on, here, there, None)
        self._start(self._pass_on, there, here, other)

    def _reach(self) -> socket.socket | None:
        """A connection to the target. The coordinator of this process may not listen yet; of process 0 it is
        known that it does, or did.
        """
        while not self._is_closed:
            try:
                return socket.create_connection(self._target, timeout=30)
            except OSError:
                if self._number is not None:
                    return None
                time.sleep(0.1)
        return None

    def _pass_on(self, source: socket.socket, target: socket.socket, afar: int | None) -> None:
        """Bytes until the source ends. `afar`: the process behind it, None for jax in this process."""
        with suppress(OSError):  # a reset is as good an end
            while data := source.recv(CHUNK):
                target.sendall(data)
        if afar is None:
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            return
        self._open[afar] -= 1
        if not self._open[afar] and not self._is_closed:
            self.gone.add(afar)


def wait_for(address: Address, timeout_s: float) -> None:
    """Return when somebody listens there.

    Raises:
      ProcessLost: nobody does for so long.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(address, timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ProcessLost(
                    f"process 0 does not answer at {address[0]}:{address[1]} within {timeout_s:g} s"
                    f" ({error}); start it, and check distributed.coordinator, whose port all must reach"
                ) from None
        time.sleep(0.2)


def free_port() -> int:
    """A port of the loopback that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def _receive(connection: socket.socket, count: int) -> bytes:
    """So many bytes; fewer where the other end has no more."""
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data
