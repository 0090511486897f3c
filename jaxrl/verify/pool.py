"""The verifier pool: verify functions in child processes, killed from outside at a deadline. This file is the scheduling.

`process.py` is one child as seen from here, `worker.py` as it sees itself. Each has a socket pair of its own; there is no
queue, lock or thread that a dying worker could leave in a bad state. Whatever a verify function does (hangs in C, exits,
crashes, prints without end) costs one sample. This keeps a run alive; it is no sandbox for programs that a model wrote.
"""

import json
import pickle
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import Problem, Verdict
from jaxrl.verify.process import START_TIMEOUT_S, WorkerProcess
from jaxrl.verify.worker import HEADER

MAX_FAILED_STARTS = 3
MAX_ANSWER_BYTES = 1 << 20

Verify = Callable[[Problem, str], Verdict]


class VerifierPool:
    """Owns the worker processes. Use it as a context manager, and from one thread that lives as long as the pool.

        with VerifierPool(task.verify, workers=2, timeout_s=10.0, failure_reward=task.failure_reward) as pool:
            tickets = [pool.submit(problem, text) for problem, text in samples]
            pool.poll()                       # now and then, while something else goes on
            verdicts = pool.gather(tickets)   # in the order of the tickets

    Work advances inside `submit`, `poll`, `results` and `gather`; a worker that has finished waits for the next of these calls.

    Args:
      verify: pickled once into each worker, so a function of an importable module, or a small object of such a class.
      workers: number of processes.
      timeout_s: wall seconds that one sample may take, its worker's start-up not included.
      failure_reward: reward of a sample that timed out, crashed or raised; its Verdict says which in `error`
        (`timeout`, `crash: ...`, `exception: ...`) and `counts` keeps the totals.
    Raises:
      InputError: verify cannot be sent to, or imported by, a worker process.
    """

    def __init__(self, verify: Verify, workers: int, timeout_s: float, failure_reward: float):
        if workers < 1 or timeout_s <= 0:
            raise InputError(f"a pool of {workers} workers with a timeout of {timeout_s} s cannot work; set both above 0")
        self.counts = {"timeouts": 0, "crashes": 0, "exceptions": 0}
        self._verify_name = getattr(verify, "__qualname__", None) or type(verify).__qualname__
        self._timeout_s = timeout_s
        self._failure_reward = failure_reward
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._pending: set[int] = set()  # tickets without a verdict: waiting or with a worker
        self._verdicts: dict[int, Verdict] = {}
        self._last_ticket = 0
        self._failed_starts = 0
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

    # ------------------------------------------------------------------------------------------------------------ use

    def submit(self, problem: Problem, text: str) -> int:
        """Queue one sample; the ticket is for `results` and `gather`."""
        self._check_open()
        self._last_ticket += 1
        self._pending.add(self._last_ticket)
        self._waiting.append((self._last_ticket, pickle.dumps((problem, text))))
        self._hand_out()
        return self._last_ticket

    def poll(self) -> int:
        """Take what has finished and hand out new work, without waiting. Returns the number of samples not finished yet."""
        self._check_open()
        self._advance(wait=False)
        return len(self._pending)

    def results(self, tickets: Iterable[int]) -> Iterator[Verdict]:
        """The verdicts in the order of the tickets, each as soon as it is there. A ticket can be redeemed once."""
        for ticket in tickets:
            while ticket not in self._verdicts:
                self._check_open()
                if ticket not in self._pending:
                    raise KeyError(f"ticket {ticket} was never given out, or its verdict has been taken already")
                self._advance(wait=True)
            yield self._verdicts.pop(ticket)

    def gather(self, tickets: Iterable[int]) -> list[Verdict]:
        """The verdicts in the order of the tickets; waits until all are there."""
        return list(self.results(tickets))

    def close(self) -> None:
        """Kill all workers and what they started. Samples not finished are lost."""
        for worker in self._workers:
            self._selector.unregister(worker.socket)
            worker.kill(grace_s=0.0)
        self._workers = []
        self._selector.close()

    # --------------------------------------------------------------------------------------------------------- advance

    def _advance(self, wait: bool) -> None:
        """One round: read, write, then look at deadlines. In this order, so that an answer that is there counts as in time.

        The time during which this process does something else, while an answer waits or a text is half sent, is not the sample's.
        """
        next_deadline = min(worker.deadline for worker in self._workers)
        timeout = max(0.0, min(next_deadline - time.monotonic(), START_TIMEOUT_S)) if wait else 0.0
        for key, events in self._selector.select(timeout):
            worker = key.data
            if events & selectors.EVENT_READ:
                self._read(worker)
            if events & selectors.EVENT_WRITE and worker in self._workers:
                self._write(worker)
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
                worker.ticket, request = self._waiting.popleft()
                worker.outgoing += HEADER.pack(worker.ticket, len(request)) + request
                self._write(worker)

    def _read(self, worker: WorkerProcess) -> None:
        try:
            chunk = worker.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        worker.incoming += chunk
        if not chunk:
            self._replace(worker, "crash")
        elif len(worker.incoming) >= HEADER.size:
            ticket, size = HEADER.unpack_from(worker.incoming)
            if ticket != worker.ticket or size > MAX_ANSWER_BYTES:
                self._replace(worker, "crash")  # not an answer of worker.py: something else wrote to its socket
            elif len(worker.incoming) >= HEADER.size + size:
                body = bytes(worker.incoming[HEADER.size :])
                worker.incoming.clear()
                self._take_answer(worker, body)

    def _take_answer(self, worker: WorkerProcess, body: bytes) -> None:
        try:
            values = json.loads(body)
            if worker.ready:
                verdict = self._verdict(values)
                self._finish(worker.ticket, verdict)
            elif values["ready"]:
                worker.ready, self._failed_starts = True, 0
            else:
                self._start_error = self._cannot_start(values["error"])
        except (ValueError, KeyError, TypeError):  # as above
            self._replace(worker, "crash")
        else:
            worker.ticket, worker.deadline = None, float("inf")

    def _verdict(self, values: dict[str, Any]) -> Verdict:
        if "error" in values:
            self.counts["exceptions"] += 1
            return self._failure(str(values["error"]))
        return Verdict(**{("error" if name == "verdict_error" else name): value for name, value in values.items()})

    def _write(self, worker: WorkerProcess) -> None:
        """Send what the socket takes now; the rest when it takes more. Never waits, so both directions can be full."""
        try:
            while worker.outgoing:
                del worker.outgoing[: worker.socket.send(worker.outgoing[: 1 << 16])]
                if worker.ready:
                    worker.deadline = time.monotonic() + self._timeout_s  # of a sample: counts from its last byte
        except BlockingIOError:
            pass
        except OSError:
            worker.outgoing.clear()  # it has died; reading will tell
        if worker.is_blocked != bool(worker.outgoing):
            worker.is_blocked = bool(worker.outgoing)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.is_blocked else 0)
            self._selector.modify(worker.socket, events, worker)

    # ---------------------------------------------------------------------------------------------------------- workers

    def _start_worker(self) -> None:
        worker = WorkerProcess(self._timeout_s)
        self._workers.append(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        worker.outgoing += HEADER.pack(worker.ticket, len(self._pickled_verify)) + self._pickled_verify
        self._write(worker)

    def _replace(self, worker: WorkerProcess, reason: str) -> None:
        """A worker has died or must; its sample, if it had one, fails, and a new worker takes its place."""
        self._selector.unregister(worker.socket)
        self._workers.remove(worker)
        ending = worker.kill(grace_s=0.0 if reason == "timeout" else 0.1)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                last = f"{ending} {worker.stderr_tail}".strip()
                self._start_error = self._cannot_start(f"{MAX_FAILED_STARTS} workers in a row did not start; the last: {last}")
        elif worker.ticket is not None:
            self.counts["timeouts" if reason == "timeout" else "crashes"] += 1
            self._finish(worker.ticket, self._failure("timeout" if reason == "timeout" else f"crash: {ending}"))
        self._start_worker()

    def _cannot_start(self, reason: str) -> InputError:
        return InputError(
            f"verify function {self._verify_name!r} cannot be used in worker processes: {reason}; define it (or its class) "
            f"at the top level of a module that can be imported, not in the main script, a notebook or a lambda"
        )

    def _finish(self, ticket: int, verdict: Verdict) -> None:
        self._pending.discard(ticket)
        self._verdicts[ticket] = verdict

    def _failure(self, error: str) -> Verdict:
        return Verdict(self._failure_reward, correct=False, format_ok=False, error=error)

    def _check_open(self) -> None:
        if not self._workers:
            raise RuntimeError("the verifier pool is closed; gather all tickets inside its `with` block")
