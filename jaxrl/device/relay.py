"""The connection to the first process, made so that it may break.

jax's client aborts its whole process, without a word that a user could read, as soon as its connection to the
coordinator closes. So it is given one that does not close: to this relay, in its own process, which passes
bytes on as long as the coordinator is there, and tells when it is gone. Silence the client bears.
"""

import socket
import threading
import time
from contextlib import suppress

from jaxrl.errors import ProcessLost

CHUNK = 1 << 16


class Relay:
    """Owns a listening socket on the loopback and the connections through it. A context of no more than one
    client, which may connect again.

    address: for the client. is_gone: whether the coordinator has closed a connection.

    Args:
      coordinator: HOST:PORT. timeout_s: for how long it may take until somebody listens there.
    Raises:
      ProcessLost: nobody does.
    """

    def __init__(self, coordinator: str, timeout_s: float):
        host, _, port = coordinator.rpartition(":")
        self._there = (host.strip("[]"), int(port))
        self.is_gone, self._is_closed = False, False
        self._wait_for_coordinator(coordinator, timeout_s)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections; of a coordinator that is gone, leave them to the end of the process."""
        if self.is_gone:
            for each in self._sockets:  # Python would close them at its own end, while the client still looks
                each.detach()
            return
        self._is_closed = True
        for each in self._sockets:
            with suppress(OSError):  # one that its other end has closed
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _wait_for_coordinator(self, coordinator: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection(self._there, timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise ProcessLost(
                        f"process 0 does not answer at {coordinator} within {timeout_s:g} s ({error}); start"
                        " it, check distributed.coordinator, and that its port can be reached from here"
                    ) from None
            time.sleep(0.2)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._there, timeout=30)
                except OSError:
                    self.is_gone = True
                    self._sockets.append(near)  # open, and silent
                    continue
                far.settimeout(None)
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [near, far]
                threading.Thread(target=self._pass_on, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_from_coordinator: bool) -> None:
        with suppress(OSError):  # as good as the end
            while data := source.recv(CHUNK):
                target.sendall(data)
        if is_from_coordinator:
            self.is_gone = self.is_gone or not self._is_closed
        else:
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)  # the client has ended this one
