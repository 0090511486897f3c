"""The worker processes of a pool: started, listened to, replaced; killed from outside at a deadline.

`process.py` is one of them as seen from here. Each has a socket pair of its own; there is no queue, lock or
thread that a dying worker could leave in a bad state. What is asked of them, and what is done about one that
is lost, is the pool's business (`pool.py`, `envs/pool.py`).
"""

import json
import logging
import math
import os
import pickle
import selectors
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import MAX_REWARD
from jaxrl.verify.environment import hint, withheld
from jaxrl.verify.process import START_TIMEOUT_S, HungUp, WorkerProcess

log = logging.getLogger("jaxrl")
MAX_FAILED_STARTS = 3


@dataclass(frozen=True)
class Answered:
    """A worker has answered a request."""

    worker: WorkerProcess
    ticket: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """A worker has died (`crash`), or one of its requests is overdue (`timeout`): it is to be replaced. A
    pool replaces one for reasons of its own, too.
    """

    worker: WorkerProcess
    reason: str


class Workers:
    """Owns the processes. For one thread that lives as long as they do.

    times: seconds of each request, noted by the pool. waited_s: what `advance` has waited.

    Args:
      module: what each runs, `jaxrl.verify.worker` for example.
      served: pickled once into each worker, so a function of an importable module, or a small object of such
        a class. name: what errors call it.
      count: of processes, at most 64 or four per core.
      timeout_s: wall seconds that one request may take, the worker's start-up not included.
      pass_env: environment variables that workers see although they look like secrets; see `environment.py`.
    Raises:
      InputError: what is served cannot be sent to, or imported by, a worker process; numbers that make no
        sense; a variable in pass_env that is not set.
    """

    def __init__(
        self, module: str, served: Any, name: str, count: int, timeout_s: float, pass_env: Sequence[str]
    ):
        if count < 1 or not 0 < timeout_s <= 86_400:  # the workers' limit on CPU time follows from it
            raise InputError(
                f"a pool of {count} workers with verify.timeout_s={timeout_s} cannot work; set both above "
                "0, the timeout to a day at most"
            )
        if count > (most := max(64, 4 * (os.cpu_count() or 1))):
            raise InputError(
                f"a pool of {count} workers is more than the {most} that make sense on this machine; lower "
                "verify.workers"
            )
        self.timeout_s, self.waited_s = timeout_s, 0.0
        self.times: list[float] = []
        self.processes: list[WorkerProcess] = []
        self._module, self._name, self._pass_env = module, name, tuple(pass_env)
        self._hidden = withheld(os.environ, pass_env)
        self._failed_starts = 0
        self._start_error: InputError | None = None
        try:
            self._pickled = pickle.dumps(served)
        except Exception as error:
            raise self._cannot_start(f"it cannot be pickled ({error})") from None
        self._selector = selectors.DefaultSelector()
        try:
            for _ in range(count):
                self._start()
            while not all(worker.ready for worker in self.processes):
                for event in self.advance(wait=True):
                    assert isinstance(event, Lost), "nothing was asked"
                    self.replace(event)
        except BaseException:
            self.close()
            raise

    def take_times(self) -> dict[str, float]:
        """Seconds since the last call: mean and longest of a request, and what callers have waited."""
        times, waited_s = self.times or [0.0], self.waited_s
        self.times, self.waited_s = [], 0.0
        return {
            "time/verify_mean_s": sum(times) / len(times),
            "time/verify_max_s": max(times),
            "time/verify_wait_s": waited_s,
        }

    def close(self) -> None:
        """Kill all workers and what they started."""
        for worker in self.processes:
            self._selector.unregister(worker.socket)
            worker.kill(grace_s=0.0)
        self.processes = []
        self._selector.close()

    def send(self, worker: WorkerProcess, ticket: int, body: bytes, timeout_s: float | None = None) -> None:
        """Begin a request."""
        worker.send(ticket, body, self.timeout_s if timeout_s is None else timeout_s)
        self._watch(worker)

    def advance(self, wait: bool, until: float = math.inf) -> Iterator[Answered | Lost]:
        """One round: read, write, then look at deadlines. In this order, so that an answer that is there
        counts as in time. What has happened is yielded while it goes on: the caller takes all of it, and
        replaces a worker that is lost before it asks for the next.

        The time during which this process does something else, while an answer waits or a text is half sent,
        is not the request's.

        Raises:
          InputError: workers that cannot start.
        """
        began = time.monotonic()
        next_deadline = min(until, *(worker.deadline for worker in self.processes))
        seconds = max(0.0, min(next_deadline - began, START_TIMEOUT_S)) if wait else 0.0
        events_by_worker = self._selector.select(seconds)
        self.waited_s += time.monotonic() - began if wait else 0.0
        for key, events in events_by_worker:
            worker = key.data
            if events & selectors.EVENT_READ:
                yield from self._read(worker)
            if events & selectors.EVENT_WRITE and worker in self.processes:
                worker.flush()
                self._watch(worker)
        for worker in list(self.processes):
            if worker.deadline <= time.monotonic():
                yield from self._read(worker)  # the answer may have come while others were being killed
            if worker in self.processes and worker.deadline <= time.monotonic():
                yield Lost(worker, "timeout")
        if self._start_error is not None:
            raise self._start_error

    def replace(self, lost: Lost) -> str:
        """Let another worker take the place of one that is lost; its requests are lost with it. Returns how
        it ended, as text.
        """
        worker = lost.worker
        self._selector.unregister(worker.socket)
        self.processes.remove(worker)
        ending = worker.kill(grace_s=0.1 if lost.reason == "crash" else 0.0)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                last = f"{ending} {worker.stderr_tail}".strip()
                self._start_error = self._cannot_start(
                    f"{MAX_FAILED_STARTS} workers in a row did not start; the last: {last}"
                )
        elif lost.reason == "crash" and not worker.requests:  # which no verdict tells of
            log.warning(
                "a verifier process ended between two samples (%s); another takes its place",
                ending,
                extra={"kind": "worker restart"},
            )
        self._start()
        return ending

    def with_hint(self, error: str) -> str:
        """A worker's error, and what may mend it where it names a variable that workers do not see."""
        return error + hint(error, self._hidden)

    def _read(self, worker: WorkerProcess) -> Iterator[Answered | Lost]:
        try:
            while (answer := worker.receive()) is not None:
                ticket, values = answer[0], json.loads(answer[1])
                if not isinstance(values, dict):
                    raise HungUp
                if worker.ready:
                    worker.served += 1
                    yield Answered(worker, ticket, values)
                    if worker not in self.processes:  # the caller has replaced it
                        return
                else:
                    self._take_start(worker, values)
        # it died, or what came is no answer of its module
        except (HungUp, ValueError, KeyError):
            yield Lost(worker, "crash")

    def _take_start(self, worker: WorkerProcess, values: dict[str, Any]) -> None:
        if values["ready"]:
            worker.ready, self._failed_starts = True, 0
        else:
            error = self.with_hint(values["error"])
            self._start_error = InputError(error) if values["is_users"] else self._cannot_start(error)

    def _watch(self, worker: WorkerProcess) -> None:
        """Have `select` tell when the worker's socket takes more, as long as there is more to send."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outgoing else 0)
        if self._selector.get_key(worker.socket).events != events:
            self._selector.modify(worker.socket, events, worker)

    def _start(self) -> None:
        try:
            worker = WorkerProcess(self._module, self.timeout_s, self._pass_env)
        except OSError as error:
            raise InputError(
                f"a verifier process cannot be started: {error}; lower verify.workers, or raise the system's "
                "limits"
            ) from None
        self.processes.append(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self.send(worker, 0, self._pickled, START_TIMEOUT_S)

    def _cannot_start(self, reason: str) -> InputError:
        return InputError(
            f"{self._name} cannot be used in worker processes: {reason}; define it "
            "(or its class) at the top level of a module that can be imported, not in the main script, a "
            "notebook or a lambda"
        )


def check_failure_reward(reward: object) -> None:
    """InputError for one that is no number, or beyond MAX_REWARD; a user's own may be anything."""
    if not isinstance(reward, Real) or abs(float(reward)) > MAX_REWARD:
        raise InputError(
            f"the failure reward {reward!r} is no number between -{MAX_REWARD:g} and "
            f"{MAX_REWARD:g}; set one that is"
        )
