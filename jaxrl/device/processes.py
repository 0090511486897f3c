"""The processes that share a run: how they meet, agree on what one of them knows, and end together.

What they tell one another goes over jax's coordination service, a table of keys and texts that the first
process serves: it needs no device, every wait for it has a name and an end, and it works while devices are
busy. `gather` is the one way to agree; the others are made of it.

Nobody is waited for without end. Each process shows a sign of life every few seconds, and tells the others
why it leaves. Whoever finds that another has left or is silent ends, too: at the next `gather`, or, where it
is held up by a device that waits for the lost one, GRACE_S later by force.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import jax
from jax._src.distributed import global_state  # the one door to the table; Orbax goes through it, too

from jaxrl.cluster import Place, own_gpu
from jaxrl.device.relay import Relay, free_port, wait_for
from jaxrl.errors import PROCESS_LOST, InputError, ProcessLost, TryAgain, exit_code
from jaxrl.files.run_folder import LONG_S
from jaxrl.interrupt import Interrupted

TABLE = "jaxrl"  # what our keys begin with
TOLD = {"again": TryAgain, "input": InputError}  # errors that are everybody's, the more special first
MOST_CHARS = 2000  # of a reason that others are told
BEAT_S = 2.0  # between two signs of life
START_S = 300.0  # how much longer the first meeting may take: hosts do not start at one moment
GRACE_S = 15.0  # between the loss of a process and the end by force
SLICE_MS = 1000  # of a wait, after which signals and losses are looked at
# What devices say when another process has gone in the middle of what they did together: a status, in
# whatever type of error, and one of these words.
OF_OTHERS = re.compile(
    r"(?-i:[A-Z_]+): .*(gloo|nccl|peer|connection|coordination|unavailable|aborted|deadline)",
    re.IGNORECASE | re.DOTALL,
)

A = TypeVar("A")


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return process_id() == 0


def num_processes() -> int:
    """How many share the run."""
    return 1 if _group is None else _group.place.num_processes


def process_id() -> int:
    """Which of them this one is."""
    return 0 if _group is None else _group.place.process_id


def own_share(count: int) -> range:
    """Which of `count` things this process does, where each is done by one."""
    return range(process_id(), count, num_processes())


def gather(what: str, value: A, extra_s: float = 0.0) -> list[A]:
    """The values of all processes, in their order, on every process; all have to ask at the same point.

    Alone, a process is asked nothing: its own value is the list.

    Args:
      what: the point's name in errors, `verdicts of grpo step 3`; the same on all.
      value: plain JSON.
      extra_s: how much longer than `timeout_s` the others may take, where they may have more to do.
    Raises:
      ProcessLost: another process has ended, or does not come.
      InputError: another process has found something that the user can put right.
    """
    return [value] if _group is None else _group.gather(what, value, extra_s)


def agree(what: str, value: A, extra_s: float = 0.0) -> A:
    """The first process's value, on every process."""
    return value if _group is None else _group.gather(what, value if is_first() else None, extra_s)[0]


def on_first(what: str, function: Callable[[], object]) -> None:
    """Call a function on the first process, for all; its InputError is everybody's."""
    if is_first():
        function()  # what it raises leaves this process, and `Group.leave` tells it to the others
    agree(what, None, LONG_S)


def check_same(what: str, digests: Mapping[str, str], remedy: str, extra_s: float = 0.0) -> None:
    """InputError, on every process, where one of them has other things than the first.

    Args:
      digests: by the names of the things. extra_s: as of `gather`.
    """
    first, *others = gather(what, dict(digests), extra_s)
    for n, theirs in enumerate(others, start=1):
        differ = sorted(name for name in first.keys() | theirs.keys() if first.get(name) != theirs.get(name))
        if differ:
            named = ", ".join(differ[:5]) + (f" and {len(differ) - 5} more" if len(differ) > 5 else "")
            raise InputError(f"{what}: process {n} does not have what process 0 has ({named}); {remedy}")


@contextmanager
def joined(place: Place | None, timeout_s: float = 300.0) -> Iterator[None]:
    """Meet the other processes, work with them inside, and leave together; alone, nothing of it.

    To be entered before anything asks for a device, once in the life of a process.

    Raises:
      ProcessLost: the others do not come; one of them ended or fell silent.
      InputError: what another process has raised.
    """
    global _group
    if place is None:
        yield
        return
    group = _group = Group(place, timeout_s)
    try:
        yield
        group.gather("end of the run", None, LONG_S)
    except BaseException as error:
        raised = group.leave(error)
        if raised is not error:
            raise raised from None
        raise
    finally:
        _group = None
        group.close()


class Group:
    """This process among those of its run. Owns the connection to them and the threads that watch it.

    phase: what this process is at. lost: why it cannot go on, once that is so; is_told: another has said so.
    """

    def __init__(self, place: Place, timeout_s: float):
        self.place, self.timeout_s, self.phase = place, timeout_s, "the first meeting"
        self.lost: ProcessLost | InputError | None = None
        self.is_told = False
        self._others = [n for n in range(place.num_processes) if n != place.process_id]
        self._count = 0
        self._closed, self._ended = threading.Event(), threading.Event()  # it leaves; it has left
        self._client: Any = None
        self._answered = time.monotonic() + START_S  # when the table did
        # of each other: its last sign of life, what it was at then, and when that came
        self._signs = dict.fromkeys(self._others, ("", self.phase, self._answered))
        self._watchers = [threading.Thread(target=f, daemon=True) for f in (self._beat, self._judge)]
        self._relay = self._meet()
        self._watchers[1].start()  # before jax, which has no end but an abort for a meeting that fails
        try:
            _start_jax(place, self._address, timeout_s + 2 * START_S)
        except BaseException:
            self._closed.set()
            self._ended.set()
            self._relay.close()
            raise
        self._client = global_state.client
        self._watchers[0].start()

    def _meet(self) -> Relay:
        """Connect to the first process, or wait until all have connected to this one."""
        host, _, port = self.place.coordinator.rpartition(":")
        there, limit_s = (host.strip("[]"), int(port)), self.timeout_s + START_S
        if self.place.process_id > 0:
            wait_for(there, limit_s)
            relay = Relay(("127.0.0.1", 0), there, self.place.process_id)
            self._address = f"127.0.0.1:{relay.port}"
            return relay
        inner, until = free_port(), time.monotonic() + limit_s
        self._address = f"127.0.0.1:{inner}"
        relay = Relay((_listening_at(there[0]), there[1]), ("127.0.0.1", inner), others=self._others)
        while missing := sorted(set(self._others) - relay.met):
            if time.monotonic() > until:
                relay.close()
                raise ProcessLost(
                    f"process {', '.join(map(str, missing))} of {self.place.num_processes} has not come to"
                    f" {self.place.coordinator} within {limit_s:g} s; start all of them, and check that they"
                    " reach that host and port"
                )
            time.sleep(0.1)
        return relay

    # ----------------------------------------------------------------------------------------------- agreeing

    def gather(self, what: str, value: Any, extra_s: float) -> list[Any]:
        """See `gather`."""
        self._count, self.phase = self._count + 1, what
        own = self.place.process_id
        self._set(f"at/{self._count}/{own}", [what, value])
        limit_s = self.timeout_s + extra_s
        values = [value] * self.place.num_processes
        for n in self._others:
            there, values[n] = json.loads(self._wait_for(n, limit_s))
            if there != what:
                raise RuntimeError(
                    f"process {n} is at {there!r} while process {own} is at {what!r}: a defect, for all run"
                    " one program"
                )
        self.phase = f"what comes after {what}"
        if self._count > 2:  # who has come here has read what was there two times ago
            self._client.key_value_delete(f"{TABLE}/at/{self._count - 2}/{own}")
        return values

    def _wait_for(self, n: int, limit_s: float) -> str:
        until = time.monotonic() + limit_s
        while self.lost is None:
            try:
                return self._client.blocking_key_value_get(f"{TABLE}/at/{self._count}/{n}", SLICE_MS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    time.sleep(SLICE_MS / 1000)  # the watchers will say what it means
            if time.monotonic() > until and self.lost is None:
                self.lost = self._missing(n, limit_s)
        raise self.lost

    def _missing(self, n: int, limit_s: float) -> ProcessLost:
        _, phase, seen = self._signs.get(n, ("", self.phase, self._answered))
        return ProcessLost(
            f"process {n} has not come to {self.phase!r} within {limit_s:g} s (its last sign of life"
            f" came {time.monotonic() - seen:.0f} s ago, from {phase!r}); look at its output. Started again,"
            " the run goes on from its last checkpoint; distributed.timeout_s gives a slow process more time"
        )

    # ---------------------------------------------------------------------------------------------- the table

    def _set(self, key: str, value: Any) -> None:
        self._client.key_value_set(f"{TABLE}/{key}", json.dumps(value), allow_overwrite=True)

    def _of_all(self, key: str) -> dict[int, Any]:
        found = self._client.key_value_dir_get(f"{TABLE}/{key}/")
        return {int(name.rpartition("/")[2]): json.loads(text) for name, text in found}

    # ----------------------------------------------------------------------------------------------- watching

    def _beat(self) -> None:
        """Show signs of life, and look at those of the others, and at what they say when they leave."""
        while self.lost is None and not self._closed.wait(BEAT_S):
            try:
                self._set(f"alive/{self.place.process_id}", [str(time.monotonic()), self.phase])
                signs, left = self._of_all("alive"), self._of_all("left")
            except jax.errors.JaxRuntimeError:
                continue  # `_judge` sees how long nobody has answered
            self._answered = time.monotonic()
            for n in self._others:
                if n in signs and signs[n][0] != self._signs[n][0]:
                    self._signs[n] = (*signs[n], self._answered)
            if self.lost is None and (others := sorted(left.keys() & set(self._others))):
                self.lost, self.is_told = self._told(others[0], *left[others[0]]), True

    def _judge(self) -> None:
        """Find who is silent; and end this process by force where it does not end by itself."""
        while self.lost is None and not self._closed.wait(0.5):
            now = time.monotonic()
            silent = [n for n in self._others if now - self._signs[n][2] > self.timeout_s]
            if gone := sorted(self._relay.gone - self._closing()):
                self._closed.wait(BEAT_S)  # `_beat` may just be reading why
                self._without_a_word(gone[0])
            elif self.place.process_id > 0 and now - self._answered > self.timeout_s:
                self.lost = self._missing(0, self.timeout_s)
            elif silent:
                self.lost = self._missing(silent[0], self.timeout_s)
        if not self._ended.wait(4 * GRACE_S if self._closed.is_set() else GRACE_S):
            if self.lost is not None:
                os.write(2, f"error: {self.lost}\n".encode())
            os._exit(PROCESS_LOST if self.lost is None else exit_code(self.lost))

    def _told(self, n: int, kind: str, text: str, phase: str) -> ProcessLost | InputError:
        """What the end of another process is to this one."""
        if kind in TOLD:
            return TOLD[kind](f"process {n}: {text}")
        return ProcessLost(
            f"process {n} has ended at {phase!r}, and this one waits for it at {self.phase!r}: {text}; look"
            " at its output. Started again, the run goes on from its last checkpoint"
        )

    def _without_a_word(self, n: int) -> None:
        """A connection has ended, and no reason was given: the first process, which sees that of the others,
        gives one for them.
        """
        if self.lost is None:
            reason = ("", "it was killed, or crashed", self._signs[n][1])
            self.lost, self.is_told = self._told(n, *reason), True
            if self.place.process_id == 0 and self._client:
                with suppress(jax.errors.JaxRuntimeError):  # nobody is there any more
                    self._set(f"left/{n}", reason)

    # ------------------------------------------------------------------------------------------------ leaving

    def leave(self, error: BaseException) -> BaseException:
        """Tell the others why this process ends; returns what it ends with, which another may have caused."""
        if isinstance(error, Interrupted):
            return error
        if isinstance(error, Exception) and OF_OTHERS.match(str(error)):
            until = time.monotonic() + GRACE_S
            while self.lost is None and time.monotonic() < until:
                time.sleep(0.1)
        if isinstance(error, Exception):  # who was stopped by a signal says so, whatever befell the others
            error = self.lost or error
        if self.is_told:
            return error
        kind = next((name for name, cls in TOLD.items() if isinstance(error, cls)), "")
        text = str(error) if kind else f"{type(error).__name__}: {error}"
        reason = [kind, text[:MOST_CHARS], self.phase]
        with suppress(jax.errors.JaxRuntimeError):  # nobody is there any more
            self._set(f"left/{self.place.process_id}", reason)
        return error

    def close(self) -> None:
        """Leave the table; the first process, which serves it, when all others have."""
        self._closed.set()
        if self.place.process_id == 0 or not self._relay.gone:
            with suppress(jax.errors.JaxRuntimeError):
                self._set(f"closed/{self.place.process_id}", None)
                until = time.monotonic() + GRACE_S + 5
                while self.place.process_id == 0 and time.monotonic() < until and not self._is_alone():
                    time.sleep(0.1)
            jax.distributed.shutdown()
            self._relay.close()
        else:
            # jax would wait for an answer at the interpreter's end
            _orphans.append(self._client)
            global_state.client = None
            self._relay.close(keeps_connections=True)
        self._ended.set()
        for watcher in self._watchers:  # the interpreter's end is no place to be in the middle of a call
            watcher.join(timeout=2)

    def _is_alone(self) -> bool:
        """Whether all others have left."""
        return set(self._others) <= set(self._of_all("closed")) | self._relay.gone

    def _closing(self) -> set[int]:
        """The processes that are at their orderly end. None where nobody answers."""
        with suppress(jax.errors.JaxRuntimeError):
            return set(self._of_all("closed")) if self._client and self._relay.gone - {0} else set()
        return set()


def _listening_at(host: str) -> str:
    """Where process 0 listens: at the loopback alone where the coordinator is there, else everywhere."""
    if host in ("localhost", "127.0.0.1", "::1"):
        return "::1" if host == "::1" else "127.0.0.1"
    return "::" if socket.has_dualstack_ipv6() else ""


_group: Group | None = None
_orphans: list[Any] = []  # clients whose coordinator is gone: to take one apart is to ask it


def _start_jax(place: Place, address: str, timeout_s: float) -> None:
    """After this, jax sees the devices of all processes."""
    # its handler of SIGTERM would be in place of ours
    jax.config.update("jax_enable_preemption_service", False)
    # else the end of one process is the abort of all others
    jax.config.update("jax_enable_recoverability", True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address,
        place.num_processes,
        place.process_id,
        own_gpu(),
        coordinator_bind_address=address,
        cluster_detection_method="deactivate",  # it asks networks
        initialization_timeout=round(timeout_s),
        heartbeat_timeout_seconds=round(10 * timeout_s),  # `Group` looks at signs of life itself
        shutdown_timeout_seconds=10,
    )
