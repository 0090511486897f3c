"""The environment pool: episodes in child processes, each killed from outside when a turn overruns its time.

What is true of verifiers (`verify/pool.py`) is true of worlds: whatever one does costs its own episode. The
others of a worker that is lost are brought back in a fresh one, where their texts are played again: worlds
have no chance but their problem's, so the answers are the same; where they are not, that episode has failed.

Who is to blame when a worker is lost with several turns under way is not known. One that is overdue while the
worker has answered others is; otherwise those in question are tried again one at a time, alone in a worker.
So is, once, an episode whose world raises `WorldError`: what failed may be shared with others.
"""

import math
import pickle
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxrl.envs.base import StepResult, World
from jaxrl.envs.worker import fingerprint
from jaxrl.types import Problem, Verdict
from jaxrl.verify.guard import ErrorGuard
from jaxrl.verify.process import Request, WorkerProcess
from jaxrl.verify.worker import describe
from jaxrl.verify.workers import Answered, Lost, Workers, check_failure_reward

TURNS_AT_ONCE = 32  # in one process, where the world does not say fewer


@dataclass(frozen=True)
class Answer:
    """What came of a turn: the world's result, or the error that ended the episode.

    error: as in `Verdict`: `timeout`, `crash: ...` or `exception: ...`; the episode is then worth the world's
      failure reward.
    """

    episode: int
    result: StepResult | None
    error: str | None = None


@dataclass(eq=False)
class _Episode:
    """An episode as seen from here.

    texts: the policy's turns, in order. fingerprints: of the answers to them.
    worker: where it lives, None where it has to be brought (back).
    is_asked: a request is under way or waits. is_alone: it takes its turn with no other beside it.
    error: why it has failed before its first turn.
    """

    number: int
    problem: Problem
    texts: list[str] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    worker: WorkerProcess | None = None
    is_asked: bool = True
    is_alone: bool = False
    error: str | None = None

    @property
    def is_answered(self) -> bool:
        return len(self.texts) == len(self.fingerprints)


class EnvironmentPool:
    """Owns the worker processes and the episodes in them. A context manager, for one thread that lives as
    long as the pool.

        with EnvironmentPool(world, workers=2, timeout_s=10.0) as pool:
            episode = pool.begin(problem)
            pool.step(episode, "Action: look around")
            for answer in pool.wait():      # or `poll`, which does not wait
                print(answer.episode, answer.result, answer.error)
            pool.end(episode)               # where the policy goes no further

    Every `step` has exactly one answer. Answers come in the order in which worlds give them. Work advances
    inside these calls alone.

    Args:
      world: pickled once into each worker. `turns_at_once` of its attributes, if it has it, bounds the turns
        taken at once in a process (in threads; 1, for a world that is not safe there, in the main thread);
        `episodes_at_once` the episodes that live in a process, beyond which others wait to begin.
      workers, timeout_s, batch_timeout_s, recycle_after, max_error_share, pass_env: as `VerifierPool` has
        them, a sample being a turn; where an episode is brought back its turns have as much time together as
        one by one.
    Raises:
      InputError: as `VerifierPool`.
    """

    def __init__(
        self,
        world: World,
        workers: int,
        timeout_s: float,
        *,
        batch_timeout_s: float = math.inf,
        recycle_after: int = 10_000,
        max_error_share: float = 1.0,
        pass_env: Sequence[str] = (),
    ):
        check_failure_reward(world.failure_reward)
        self.failure_reward = float(world.failure_reward)
        self.batch_timeout_s, self._recycle_after = batch_timeout_s, recycle_after
        self.counts = {"timeouts": 0, "crashes": 0, "exceptions": 0, "brought_back": 0}
        self._guard = ErrorGuard(max_error_share)
        self._turns_at_once = int(getattr(world, "turns_at_once", TURNS_AT_ONCE))
        self._episodes_at_once = getattr(world, "episodes_at_once", math.inf)
        self._episodes: dict[int, _Episode] = {}
        self._waiting: deque[_Episode] = deque()
        self._under_way: dict[int, tuple[_Episode, int]] = {}  # ticket -> episode, answers that must be equal
        self._living: Counter[WorkerProcess] = Counter()  # episodes in each worker
        self._over: dict[WorkerProcess, list[int]] = {}  # episodes that a worker may forget
        self._answers: deque[Answer] = deque()
        self._last_episode = self._last_ticket = 0
        name = getattr(world, "name", None) or type(world).__qualname__
        self._workers = Workers(
            "jaxrl.envs.worker", (world, self._turns_at_once), f"world {name!r}", workers, timeout_s, pass_env
        )

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------- use

    def begin(self, problem: Problem) -> int:
        """Let an episode of a problem begin, whose messages are what the policy reads; returns its number."""
        self._check_open()
        self._last_episode += 1
        episode = _Episode(self._last_episode, problem)
        self._episodes[episode.number] = episode
        self._waiting.append(episode)
        self._recycle()
        self._hand_out()
        return episode.number

    def step(self, number: int, text: str) -> None:
        """Take a turn in an episode whose turns before have been answered."""
        self._check_open()
        episode = self._episodes[number]
        assert episode.is_answered, "the turn before has no answer yet"
        episode.texts.append(text)
        if episode.error is not None:
            self._forget(episode, Answer(number, None, episode.error))
        elif not episode.is_asked:
            episode.is_asked = True
            self._waiting.append(episode)
            self._hand_out()

    def end(self, number: int) -> None:
        """Let go of an episode that the policy ends."""
        if episode := self._episodes.get(number):
            self._forget(episode)

    def poll(self) -> list[Answer]:
        """The answers that have come since the last call, without waiting."""
        self._check_open()
        self._advance(wait=False)
        return self._take()

    def wait(self, until: float = math.inf) -> list[Answer]:
        """The answers that have come, at least one; none where no turn is under way, or none was answered by
        that moment (`time.monotonic`).
        """
        self._check_open()
        while not self._answers and (self._waiting or self._under_way) and time.monotonic() < until:
            self._advance(wait=True, until=until)
        return self._take()

    def give_up(self) -> None:
        """Fail every episode with a turn that is not answered: the batch's time is up."""
        self._advance(wait=False)
        for worker in list(self._workers.processes):
            if worker.ready and worker.requests:
                self._lose(Lost(worker, "given up"))
        for episode in list(self._episodes.values()):
            if not episode.is_answered:
                self._fail(episode, "timeouts", "timeout: the batch's")
        self._waiting = deque(episode for episode in self._waiting if episode.number in self._episodes)

    def check(self, verdicts: Sequence[Verdict]) -> None:
        """InputError if too many of the last batches' episodes have failed."""
        self._guard.check(verdicts)

    def take_times(self) -> dict[str, float]:
        """Seconds since the last call: the mean and the longest of a turn, and what callers have waited."""
        return self._workers.take_times()

    def close(self) -> None:
        """Kill all workers and what they started. Episodes are lost."""
        self._workers.close()

    # ------------------------------------------------------------------------------------------------ advance

    def _take(self) -> list[Answer]:
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def _advance(self, wait: bool, until: float = math.inf) -> None:
        for event in self._workers.advance(wait, until):
            if isinstance(event, Lost):
                self._lose(event)
            else:
                self._take_answer(event)
        self._hand_out()

    def _recycle(self) -> None:
        """Replace workers that have served long enough, where no episode lives."""
        for worker in list(self._workers.processes):
            if worker.served >= self._recycle_after and not worker.requests and not self._living[worker]:
                self._lose(Lost(worker, "recycled"))

    def _hand_out(self) -> None:
        """Send the requests for which there is room, those of episodes that must be alone first: a worker
        that one of these waits for takes nothing else.
        """
        if all(len(worker.requests) >= self._turns_at_once for worker in self._workers.processes):
            return
        waiting = sorted(self._waiting, key=lambda episode: not episode.is_alone)
        self._waiting.clear()
        reserved: set[WorkerProcess] = set()
        for episode in waiting:
            worker = episode.worker or self._place(reserved)
            if worker is None or worker in reserved or not self._has_room(worker, episode):
                self._waiting.append(episode)
                if episode.is_alone and worker is not None:
                    reserved.add(worker)
            else:
                self._send(episode, worker)

    def _place(self, reserved: set[WorkerProcess]) -> WorkerProcess | None:
        """Where an episode may begin: the ready worker with the fewest turns under way, then episodes."""
        return min(
            (
                worker
                for worker in self._workers.processes
                if worker.ready and worker not in reserved and self._living[worker] < self._episodes_at_once
            ),
            key=lambda worker: (len(worker.requests), self._living[worker]),
            default=None,
        )

    def _has_room(self, worker: WorkerProcess, episode: _Episode) -> bool:
        if episode.is_alone:
            return not worker.requests
        has_lonely = any(self._under_way[ticket][0].is_alone for ticket in worker.requests)
        return len(worker.requests) < self._turns_at_once and not has_lonely

    def _send(self, episode: _Episode, worker: WorkerProcess) -> None:
        begins = episode.worker is None
        texts = episode.texts if begins else episode.texts[-1:]
        problem, over = episode.problem if begins else None, self._over.pop(worker, [])
        try:
            body = pickle.dumps((episode.number, problem, texts, over))
        except Exception as error:  # whatever the problem's objects raise is one episode's error
            self._over[worker] = over
            self._fail(episode, "exceptions", f"exception: cannot be sent to a worker: {describe(error)}")
            return
        self.counts["brought_back"] += begins and len(episode.fingerprints) > 0
        if begins:
            episode.worker = worker
            self._living[worker] += 1
        self._last_ticket += 1
        before = len(episode.fingerprints) if begins else 0
        self._under_way[self._last_ticket] = episode, before
        self._workers.send(worker, self._last_ticket, body, self._workers.timeout_s * (begins + len(texts)))

    def _take_answer(self, answered: Answered) -> None:
        episode, before = self._under_way.pop(answered.ticket)
        values = answered.values
        try:
            self._workers.times.append(float(values["seconds"]))
            error, result = values.get("error"), values.get("result")
            is_equal = error is not None or values["before"] == episode.fingerprints[:before]
            step = None if result is None else StepResult(**result)
        except (ValueError, KeyError, TypeError):  # no answer of worker.py
            ending = self._lose(Lost(answered.worker, "garbage"))
            if episode.number in self._episodes:
                self._fail(episode, "crashes", f"crash: {ending}")
            return
        was_alone, episode.is_asked, episode.is_alone = episode.is_alone, False, False
        if episode.number not in self._episodes:  # ended meanwhile
            self._over.setdefault(answered.worker, []).append(episode.number)
        elif error is not None and values.get("again") and not was_alone:
            self._living[answered.worker] -= 1
            episode.worker, episode.is_asked, episode.is_alone = None, True, True
            self._waiting.append(episode)
        elif error is not None:
            self._fail(episode, "exceptions", self._workers.with_hint(error))
        elif not is_equal:
            error = (
                "exception: the world answers otherwise when the same turns are played again in a fresh "
                "process; let all its chance come from the problem's data"
            )
            self._fail(episode, "exceptions", error)
        elif step is not None:
            episode.fingerprints.append(fingerprint(result))
            if step.done:
                self._forget(episode, Answer(episode.number, step))
            else:
                self._answers.append(Answer(episode.number, step))
        elif not episode.is_answered:  # it has begun, and there is a turn to take by now
            episode.is_asked = True
            self._waiting.append(episode)

    # ------------------------------------------------------------------------------------------------- losses

    def _lose(self, lost: Lost) -> str:
        """A worker has died or must: the episodes to blame fail, the others will be brought back. Returns how
        it ended.
        """
        worker, now = lost.worker, time.monotonic()
        lost_at_work = [
            (self._under_way.pop(ticket)[0], request)
            for ticket, request in worker.requests.items()
            if worker.ready
        ]
        in_question = {
            episode
            for episode, request in lost_at_work
            if lost.reason == "crash" or (lost.reason == "timeout" and request.deadline <= now)
        }
        guilty = {
            episode
            for episode, request in lost_at_work
            if episode in in_question and (len(lost_at_work) == 1 or _was_well(worker, request))
        }
        ending = self._workers.replace(lost)
        self._over.pop(worker, None)
        self._living.pop(worker, None)
        for episode in self._episodes.values():
            if episode.worker is worker:
                episode.worker = None
        for episode, _ in lost_at_work:
            if episode.number not in self._episodes:  # ended meanwhile
                continue
            if episode not in guilty:
                episode.is_alone = episode in in_question
                self._waiting.append(episode)
            elif lost.reason == "timeout":
                self._workers.times.append(self._workers.timeout_s)
                self._fail(episode, "timeouts", "timeout")
            else:
                self._fail(episode, "crashes", f"crash: {ending}")
        return ending

    def _fail(self, episode: _Episode, count: str, error: str) -> None:
        """End an episode with an error, which is told as the answer to its turn, or to the next one."""
        self.counts[count] += 1
        episode.error, episode.is_asked = error, False
        if not episode.is_answered:
            self._forget(episode, Answer(episode.number, None, error))

    def _forget(self, episode: _Episode, answer: Answer | None = None) -> None:
        del self._episodes[episode.number]
        if answer is not None:
            self._answers.append(answer)
        if episode in self._waiting:
            self._waiting.remove(episode)
        if episode.worker is not None:
            self._living[episode.worker] -= 1
            if not episode.is_asked:
                self._over.setdefault(episode.worker, []).append(episode.number)

    def _check_open(self) -> None:
        if not self._workers.processes:
            raise RuntimeError("the environment pool is closed; play inside its `with` block")


def _was_well(worker: WorkerProcess, request: Request) -> bool:
    """Whether a worker that has lost a request by timeout answered others late in its time."""
    return request.deadline <= time.monotonic() and worker.answered > (request.sent + request.deadline) / 2
