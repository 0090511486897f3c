"""The connections between the first process and the others, made so that they may break.

jax's own client aborts its whole process, without a word that a user could read, as soon as its connection to
the coordinator closes; and its coordinator learns of a process that was killed no sooner than of one that is
slow. So there is a relay at both ends:

    jax's client -> relay of process n  ->  relay of process 0 -> jax's coordinator

The first sees when a process goes, at once and by its number; the other keeps jax's client connected, to
silence, when process 0 has gone. Both tell, and what it means is for `processes.py` to say.
"""

import errno
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from jaxrl.errors import ProcessLost, TryAgain

CHUNK = 1 << 16
HELD_S = 45.0  # how long the port may be another's
HELLO = b"jaxrl process %08d %s\n"  # what the relay of process n sends first, with a number of its own
NONCE = 16  # characters of that number

Address = tuple[str, int]


class Relay:
    """Owns a listening socket and the connections that it passes on. Its threads end with it.

    port: that it listens at. met: the processes that have connected. gone: those whose connections have all
      been ended from afar.

    Args:
      listen: where connections come in; port 0 is any free one. target: where they go.
      number: of this process, where it is not the first: told to the relay at the other end. None: the relay
        of process 0, which is told.
      others: the processes that may connect to process 0, each from one relay: whoever else comes (of another
        run, or started twice) is sent away.
    Raises:
      TryAgain: the address cannot be listened at.
    """

    def __init__(
        self, listen: Address, target: Address, number: int | None = None, others: Collection[int] = ()
    ):
        self._target, self._number, self._others = target, number, frozenset(others)
        self._nonce = secrets.token_hex(NONCE // 2).encode()
        self._nonces: dict[int, bytes] = {}  # of those who have come
        self.met: set[int] = set()
        self.gone: set[int] = set()
        self._open: Counter[int] = Counter()
        self._is_closed = False
        self._sockets: list[socket.socket] = []
        self._listener = _listen(listen)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def close(self, keeps_connections: bool = False) -> None:
        """End all connections.

        Args:
          keeps_connections: where process 0 has gone, what was connected to it stays so until this process
            ends: Python would close it at its own end, while jax's client still looks.
        """
        self._is_closed = True
        for each in (self._listener, *self._sockets):
            with suppress(OSError):  # the other end has closed it
                if keeps_connections and each is not self._listener:
                    each.detach()
                else:
                    each.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *(() if keeps_connections else self._sockets)):
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
        number = self._number if self._number is not None else self._who(near)
        if number is None:
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
            far.sendall(HELLO % (number, self._nonce))
        # jax is at this end: of process 0 the far one, of the others the near one
        here, there, other = (far, near, number) if self._number is None else (near, far, 0)
        self._open[other] += 1
        self._start(self._pass_on, here, there, None)
        self._start(self._pass_on, there, here, other)

    def _who(self, near: socket.socket) -> int | None:
        """The process that has connected; None for a stranger, or one who only looked whether somebody is
        here.
        """
        try:
            said = _receive(near, len(HELLO % (0, b"0" * NONCE)))
            number, nonce = int(said[14:22]), said[23:-1]
        except (ValueError, OSError):
            return None
        is_known = said == HELLO % (number, nonce) and number in self._others
        return number if is_known and self._nonces.setdefault(number, nonce) == nonce else None

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


def _listen(address: Address) -> socket.socket:
    """A socket that listens there, waited for a moment: the run before may hold it while it ends."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    until = time.monotonic() + HELD_S
    while True:
        try:
            return socket.create_server(address, family=family, dualstack_ipv6=dual)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise TryAgain(
                    f"process 0 cannot listen at port {address[1]}: {error.strerror}; give"
                    " distributed.coordinator another port"
                ) from None
        time.sleep(0.2)


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
