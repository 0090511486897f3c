"""The verifier pool: verify functions in child processes, killed from outside at a deadline. The scheduling.

`workers.py` owns the processes, `worker.py` is one as it sees itself, `keeper.py` what ends all that it has
started. Whatever a verify function does (hangs in C, exits, crashes, prints without end) costs one sample.
This keeps a run alive; it is no sandbox for programs that a model wrote.
"""

import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jaxrl.types import Problem, Verdict
from jaxrl.verify.guard import ErrorGuard
from jaxrl.verify.worker import describe
from jaxrl.verify.workers import Answered, Lost, Workers, check_failure_reward

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
        check_failure_reward(failure_reward)
        self.counts = {"timeouts": 0, "crashes": 0, "exceptions": 0}
        self._failure_reward, self.batch_timeout_s = failure_reward, batch_timeout_s
        self._recycle_after, self._guard = recycle_after, ErrorGuard(max_error_share)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._pending: set[int] = set()  # tickets without a verdict: waiting or with a worker
        self._verdicts: dict[int, Verdict] = {}
        self._last_ticket = self._waiting_bytes = 0
        name = getattr(verify, "__qualname__", None) or type(verify).__qualname__
        self._workers = Workers(
            "jaxrl.verify.worker", verify, f"verify function {name!r}", workers, timeout_s, pass_env
        )

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
        return self._workers.take_times()

    def close(self) -> None:
        """Kill all workers and what they started. Samples not finished are lost."""
        self._workers.close()

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
        for worker in list(self._workers.processes):
            if worker.ticket in tickets:
                self._replace(Lost(worker, "timeout"))
        for ticket in tickets & self._pending:
            self._fail(ticket, "timeouts", "timeout: the batch's")
        self._waiting = deque((ticket, request) for ticket, request in self._waiting if ticket not in tickets)
        self._waiting_bytes = sum(len(request) for _, request in self._waiting)

    def _advance(self, wait: bool, until: float = math.inf) -> None:
        """One round with the workers; those that are idle then get what waits."""
        for event in self._workers.advance(wait, until):
            if isinstance(event, Lost):
                self._replace(event)
            else:
                self._take_answer(event)
        self._hand_out()

    def _hand_out(self) -> None:
        for worker in self._workers.processes:
            if self._waiting and worker.ready and worker.ticket is None:
                ticket, request = self._waiting.popleft()
                self._waiting_bytes -= len(request)
                self._workers.send(worker, ticket, request)

    def _take_answer(self, answered: Answered) -> None:
        worker, ticket = answered.worker, answered.ticket
        try:
            seconds, verdict = self._read(answered.values)
        except (ValueError, KeyError, TypeError, AttributeError):  # no answer of worker.py
            self._replace(Lost(worker, "garbage"), ticket)
            return
        self._workers.times.append(seconds)
        if isinstance(verdict, str):
            self._fail(ticket, "exceptions", verdict)
        else:
            self._finish(ticket, verdict)
        if worker.served >= self._recycle_after:
            self._replace(Lost(worker, "recycled"))

    def _read(self, values: dict[str, Any]) -> tuple[float, Verdict | str]:
        """The seconds that a sample took, and its verdict, or why there is none."""
        seconds = float(values.pop("seconds"))
        if "error" in values:
            return seconds, self._workers.with_hint(values["error"])
        error = values.pop("verdict_error")
        return seconds, Verdict(**values, error=error)

    def _replace(self, lost: Lost, ticket: int | None = None) -> None:
        """A worker has died or must; its sample (`ticket`, if it has answered), if it had one, fails, and a
        new worker takes its place.
        """
        ticket = lost.worker.ticket if ticket is None else ticket
        ending = self._workers.replace(lost)
        if not lost.worker.ready or ticket is None:
            return
        if lost.reason == "timeout":
            self._workers.times.append(self._workers.timeout_s)
            self._fail(ticket, "timeouts", "timeout")
        else:
            self._fail(ticket, "crashes", f"crash: {ending}")

    def _finish(self, ticket: int, verdict: Verdict) -> None:
        self._pending.discard(ticket)
        self._verdicts[ticket] = verdict

    def _fail(self, ticket: int, count: str, error: str) -> None:
        self.counts[count] += 1
        self._finish(ticket, Verdict(self._failure_reward, correct=False, format_ok=False, error=error))

    def _check_open(self) -> None:
        if not self._workers.processes:
            raise RuntimeError("the verifier pool is closed; gather all tickets inside its `with` block")
