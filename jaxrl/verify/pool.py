"""The verifier pool: verify functions in child processes, killed from outside at a deadline. The scheduling.

`process.py` is one child as seen from here, `worker.py` as it sees itself, `keeper.py` what ends all that it
has started. Each has a socket pair of its own; there is no queue, lock or thread that a dying worker could
leave in a bad state. Whatever a verify function does (hangs in C, exits, crashes, prints without end) costs
one sample. This keeps a run alive; it is no sandbox for programs that a model wrote.
"""

import json
import logging
import math
import os
import pickle
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import MAX_REWARD, Problem, Verdict
from jaxrl.verify.environment import hint, withheld
from jaxrl.verify.guard import ErrorGuard
from jaxrl.verify.process import START_TIMEOUT_S, HungUp, WorkerProcess
from jaxrl.verify.worker import describe

log = logging.getLogger("jaxrl")
MAX_FAILED_STARTS = 3
MAX_WAITING_BYTES = 64 << 20

Verify = Callable[[Problem, str], Verdict]


class VerifierPool:
    """Owns the worker processes. A context manager, for one thread that lives as long as the pool.

        with VerifierPool(task.verify, workers=2, timeout_s=10.0, failure_reward=task.failure_reward) as pool:
            tickets = [pool.submit(problem, text) for problem, text in samples]
            pool.poll()                       # now and then, while something else goes on
            verdicts = pool.gather(tickets)   # in the order of the tickets

    Work advances inside these calls; a worker that has finished waits for the next of them. `submit` waits
    where MAX_WAITING_BYTES of samples are queued already, so that any number can be submitted; `stream`
    bounds the verdicts too.

    Args:
      verify: pickled once into each worker, so a function of an importable module, or a small object of such
        a class.
      workers: number of processes, at most 64 or four per core.
      timeout_s: wall seconds that one sample may take, its worker's start-up not included.
      failure_reward: reward of a sample that timed out, crashed or raised; its Verdict says which in `error`
        (`timeout`, `crash: ...`, `exception: ...`) and `counts` keeps the totals.
      batch_timeout_s: wall seconds that `gather` waits for its tickets; those not finished then time out.
      recycle_after: samples after which a worker is replaced by a fresh one.
      max_error_share: see `ErrorGuard`, to which `gather` shows its verdicts.
      pass_env: environment variables that workers see although they look like secrets; see `environment.py`.
    Raises:
      InputError: verify cannot be sent to, or imported by, a worker process; a failure reward that is no
        number, or beyond MAX_REWARD; a variable in pass_env that is not set.
    """

    def __init__(
        self,
        verify: Verify,
        workers: int,
        timeout_s: float,
        failure_reward: float,
        *,
        batch_timeout_s: float = math.inf,
        recycle_after: int = 10_000,
        max_error_share: float = 1.0,
        pass_env: Sequence[str] = (),
    ):
        if workers < 1 or not 0 < timeout_s <= 86_400:  # the workers' limit on CPU time follows from it
            raise InputError(
                f"a pool of {workers} workers with verify.timeout_s={timeout_s} cannot work; set both above "
                "0, the timeout to a day at most"
            )
        if workers > (most := max(64, 4 * (os.cpu_count() or 1))):
            raise InputError(
                f"a pool of {workers} workers is more than the {most} that make sense on this machine; lower "
                "verify.workers"
            )
        given: object = failure_reward  # a user's task may have anything there
        if not isinstance(given, Real) or abs(failure_reward) > MAX_REWARD:
            raise InputError(
                f"the failure reward {failure_reward!r} is no number between -{MAX_REWARD:g} and "
                f"{MAX_REWARD:g}; set one that is"
            )
        self._pass_env, self._hidden = tuple(pass_env), withheld(os.environ, pass_env)
        self.counts = {"timeouts": 0, "crashes": 0, "exceptions": 0}
        self.batch_timeout_s, self._recycle_after, self._guard = (
            batch_timeout_s,
            recycle_after,
            ErrorGuard(max_error_share),
        )
        self._sample_times: list[float] = []
        self._waited_s = 0.0
        self._verify_name = getattr(verify, "__qualname__", None) or type(verify).__qualname__
        self._timeout_s, self._failure_reward = timeout_s, failure_reward
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._pending: set[int] = set()  # tickets without a verdict: waiting or with a worker
        self._verdicts: dict[int, Verdict] = {}
        self._last_ticket = self._failed_starts = self._waiting_bytes = 0
        self._start_error: InputError | None = None
        self._selector = selectors.DefaultSelector()
        self._workers: list[WorkerProcess] = []
        try:
            self._pickled_verify = pickle.dumps(verify)
        except Exception as error:
            raise self._cannot_start(f"it cannot be pickled ({error})") from None
        try:
            for _ in range(workers):
                self._start_worker()
            while not all(worker.ready for worker in self._workers):
                self._advance(wait=True)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------- use

    def submit(self, problem: Problem, text: str) -> int:
        """Queue one sample; the ticket is for `results` and `gather`."""
        self._check_open()
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._advance(wait=True)
        self._last_ticket += 1
        self._pending.add(self._last_ticket)
        try:
            request = pickle.dumps((problem, text))
        except Exception as error:  # whatever the problem's objects raise is one sample's error
            self._fail(
                self._last_ticket, "exceptions", f"exception: cannot be sent to a worker: {describe(error)}"
            )
        else:
            self._waiting.append((self._last_ticket, request))
            self._waiting_bytes += len(request)
            self._hand_out()
        return self._last_ticket

    def poll(self) -> int:
        """Take what has finished and hand out new work, without waiting. Returns how many are unfinished."""
        self._check_open()
        self._advance(wait=False)
        return len(self._pending)

    def results(self, tickets: Iterable[int]) -> Iterator[Verdict]:
        """The verdicts in the order of the tickets, each as soon as it is there.

        A ticket can be redeemed once.
        """
        for ticket in tickets:
            self._wait_for(ticket, until=math.inf)
            yield self._verdicts.pop(ticket)

    def gather(
        self,
        tickets: Iterable[int],
        exchange: Callable[[list[Verdict]], list[Verdict]] = lambda verdicts: verdicts,
    ) -> list[Verdict]:
        """The verdicts of a batch in the order of its tickets; waits until all are there, or its time is up.

        Args:
          exchange: makes of them the verdicts of a larger batch, other parts of which others have verified.
        Raises:
          InputError: too many of the last batches' samples are errors.
        """
        tickets = list(tickets)
        until = time.monotonic() + self.batch_timeout_s
        for ticket in tickets:
            if not self._wait_for(ticket, until):
                self._give_up(set(tickets))
        verdicts = exchange(list(self.results(tickets)))
        self._guard.check(verdicts)
        return verdicts

    def stream(self, samples: Iterable[tuple[Problem, str]], ahead: int = 1024) -> Iterator[Verdict]:
        """The verdicts of samples in their order, however many; at most `ahead` are out at a time."""
        tickets: deque[int] = deque()
        for problem, text in samples:
            tickets.append(self.submit(problem, text))
            self.poll()
            if len(tickets) == ahead:
                yield from self.results([tickets.popleft()])
        yield from self.results(tickets)

    def take_times(self) -> dict[str, float]:
        """Seconds since the last call: the mean and the longest of a sample, and what callers have waited."""
        times, waited_s = self._sample_times or [0.0], self._waited_s
        self._sample_times, self._waited_s = [], 0.0
        return {
            "time/verify_mean_s": sum(times) / len(times),
            "time/verify_max_s": max(times),
            "time/verify_wait_s": waited_s,
        }

    def close(self) -> None:
        """Kill all workers and what they started. Samples not finished are lost."""
        for worker in self._workers:
            self._selector.unregister(worker.socket)
            worker.kill(grace_s=0.0)
        self._workers = []
        self._selector.close()

    # ------------------------------------------------------------------------------------------------ advance

    def _wait_for(self, ticket: int, until: float) -> bool:
        """Whether the ticket's verdict came before that moment."""
        while ticket not in self._verdicts:
            self._check_open()
            if ticket not in self._pending:
                raise KeyError(f"ticket {ticket} was never given out, or its verdict has been taken already")
            if time.monotonic() >= until:
                return False
            self._advance(wait=True, until=until)
        return True

    def _give_up(self, tickets: set[int]) -> None:
        """Fail what is not finished of a batch whose time is up."""
        self._advance(wait=False)
        for worker in list(self._workers):
            if worker.ticket in tickets:
                self._replace(worker, "timeout")
        for ticket in tickets & self._pending:
            self._fail(ticket, "timeouts", "timeout: the batch's")
        self._waiting = deque((ticket, request) for ticket, request in self._waiting if ticket not in tickets)
        self._waiting_bytes = sum(len(request) for _, request in self._waiting)

    def _advance(self, wait: bool, until: float = math.inf) -> None:
        """One round: read, write, then look at deadlines. In this order, so that an answer that is there
        counts as in time.

        The time during which this process does something else, while an answer waits or a text is half sent,
        is not the sample's.
        """
        began = time.monotonic()
        next_deadline = min(until, *(worker.deadline for worker in self._workers))
        events_by_worker = self._selector.select(
            max(0.0, min(next_deadline - began, START_TIMEOUT_S)) if wait else 0.0
        )
        self._waited_s += time.monotonic() - began if wait else 0.0
        for key, events in events_by_worker:
            worker = key.data
            if events & selectors.EVENT_READ:
                self._read(worker)
            if events & selectors.EVENT_WRITE and worker in self._workers:
                worker.flush()
                self._watch(worker)
        for worker in list(self._workers):
            if worker.deadline <= time.monotonic():
                self._read(worker)  # the answer may have come while others were being killed
            if worker in self._workers and worker.deadline <= time.monotonic():
                self._replace(worker, "timeout")
        self._hand_out()
        if self._start_error is not None:
            raise self._start_error

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and worker.ticket is None:
                ticket, request = self._waiting.popleft()
                self._waiting_bytes -= len(request)
                worker.send(ticket, request)
                self._watch(worker)

    def _read(self, worker: WorkerProcess) -> None:
        try:
            body = worker.receive()
            if body is None:
                return
            self._take_answer(worker, json.loads(body))
        # it died, or what came is no answer of worker.py
        except (HungUp, ValueError, KeyError, TypeError, AttributeError):
            self._replace(worker, "crash")
        else:
            if worker.served >= self._recycle_after:
                self._replace(worker, "recycled")

    def _take_answer(self, worker: WorkerProcess, values: dict[str, Any]) -> None:
        if worker.ready:
            assert worker.ticket is not None, "`receive` takes the answer of a ticket alone"
            seconds = float(values.pop("seconds"))
            if "error" in values:
                self._fail(worker.ticket, "exceptions", self._with_hint(values["error"]))
            else:
                values["error"] = values.pop("verdict_error")
                self._finish(worker.ticket, Verdict(**values))
            self._sample_times.append(seconds)
            worker.served += 1
        elif values["ready"]:
            worker.ready, self._failed_starts = True, 0
        else:
            error = self._with_hint(values["error"])
            self._start_error = InputError(error) if values["is_users"] else self._cannot_start(error)
        worker.ticket, worker.deadline = None, math.inf

    def _with_hint(self, error: str) -> str:
        return error + hint(error, self._hidden)

    def _watch(self, worker: WorkerProcess) -> None:
        """Have `select` tell when the worker's socket takes more, as long as there is more to send."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outgoing else 0)
        if self._selector.get_key(worker.socket).events != events:
            self._selector.modify(worker.socket, events, worker)

    # ------------------------------------------------------------------------------------------------ workers

    def _start_worker(self) -> None:
        try:
            worker = WorkerProcess(self._timeout_s, self._pass_env)
        except OSError as error:
            raise InputError(
                f"a verifier process cannot be started: {error}; lower verify.workers, or raise the system's "
                "limits"
            ) from None
        self._workers.append(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        worker.send(0, self._pickled_verify)
        self._watch(worker)

    def _replace(self, worker: WorkerProcess, reason: str) -> None:
        """A worker has died or must; its sample, if it had one, fails, and a new worker takes its place."""
        self._selector.unregister(worker.socket)
        self._workers.remove(worker)
        ending = worker.kill(grace_s=0.1 if reason == "crash" else 0.0)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                last = f"{ending} {worker.stderr_tail}".strip()
                self._start_error = self._cannot_start(
                    f"{MAX_FAILED_STARTS} workers in a row did not start; the last: {last}"
                )
        elif worker.ticket is not None:
            if reason == "timeout":
                self._sample_times.append(self._timeout_s)
                self._fail(worker.ticket, "timeouts", "timeout")
            else:
                self._fail(worker.ticket, "crashes", f"crash: {ending}")
        elif reason == "crash":  # which no verdict tells of
            log.warning(
                "a verifier process ended between two samples (%s); another takes its place",
                ending,
                extra={"kind": "worker restart"},
            )
        self._start_worker()

    def _cannot_start(self, reason: str) -> InputError:
        return InputError(
            f"verify function {self._verify_name!r} cannot be used in worker processes: {reason}; define it "
            "(or its class) at the top level of a module that can be imported, not in the main script, a "
            "notebook or a lambda"
        )

    def _finish(self, ticket: int, verdict: Verdict) -> None:
        self._pending.discard(ticket)
        self._verdicts[ticket] = verdict

    def _fail(self, ticket: int, count: str, error: str) -> None:
        self.counts[count] += 1
        self._finish(ticket, Verdict(self._failure_reward, correct=False, format_ok=False, error=error))

    def _check_open(self) -> None:
        if not self._workers:
            raise RuntimeError("the verifier pool is closed; gather all tickets inside its `with` block")
