"""`jaxrl verify`: judges the completions in a file, or plays its episodes again. No jax, no accelerator."""

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxrl.config.envs import env_sections
from jaxrl.config.file import make_env_section, make_task_section, read_overrides
from jaxrl.envs.records import Replay
from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, read_objects, write_rows
from jaxrl.tasks import make_task
from jaxrl.tasks.base import Task
from jaxrl.tasks.fields import field
from jaxrl.types import Problem, Verdict
from jaxrl.verify.pool import VerifierPool

Read = Callable[[dict[str, Any]], tuple[Problem, str]]


@dataclasses.dataclass
class Tally:
    """What became of the completions of a file. Each is right, wrong, or an error: a verdict that is missing.

    kept: those that were judged before. skipped: records that were passed over; first_skipped: what was wrong
      with the first.
    """

    rows: int = 0
    right: int = 0
    errors: Counter[str] = dataclasses.field(default_factory=Counter)  # by kind
    seconds: float = 0.0
    kept: int = 0
    skipped: int = 0
    first_skipped: str = ""

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        if row["error"] is not None:
            self.errors[row["error"].split(":")[0]] += 1
        else:
            self.right += row["correct"]

    def skip(self, error: InputError) -> None:
        self.skipped += 1
        self.first_skipped = self.first_skipped or str(error)

    def __str__(self) -> str:
        errors = self.errors.total()
        kinds = (
            f" ({', '.join(f'{kind} {count}' for kind, count in self.errors.most_common())})"
            if errors
            else ""
        )
        wrong, speed = self.rows - self.right - errors, (self.rows - self.kept) / max(self.seconds, 1e-9)
        kept = f", {self.kept} of them judged before" if self.kept else ""
        skipped = (
            f"; {self.skipped} bad records skipped, the first: {self.first_skipped}" if self.skipped else ""
        )
        return (
            f"{self.rows} rows{kept}: {self.right} right, {wrong} wrong, {errors} errors{kinds}{skipped}; "
            f"{speed:.0f} per second"
        )


def verify_file(
    name: str,
    overrides: list[str],
    source: Path,
    out: Path,
    workers: int,
    timeout_s: float,
    *,
    pass_env: Sequence[str] = (),
    skip_bad: bool = False,
    resume: bool = False,
) -> Tally:
    """Judge every line of a JSONL: a problem's fields, as the task knows them, and `completion`; or a record
    of an episode of a world, whose turns are played again (`envs/records.py`).

    The lines come out in their order with `reward` (null if it is no number), `correct`, `format_ok`,
    `parts`, `detail` and `error` added. The file is streamed, and written when all is judged, or when a
    signal stops it, with the rows that are finished by then, unless it is the input itself, which then stays
    as it is.

    Args:
      name, overrides: the task or the world, and `key=value` for its section.
      workers, timeout_s, pass_env: of the pool.
      skip_bad: pass over lines that are no record of the task, and count them.
      resume: go on from the rows that a stopped command has left in `out`.
    Raises:
      InputError: settings, or a line, that do not fit; its number is named.
    """
    check_out(out)
    if resume and not out.exists():
        raise InputError(f"{out} is not there, so there is nothing to go on from; leave --resume out")
    keeps = out.resolve() != source.resolve()  # else the records that have no verdict yet would be gone
    read, judge = _judge(name, overrides)
    tally = Tally()
    samples = _samples(read, source, tally, skip_bad)
    if resume:
        samples = _without_kept(samples, source, out, tally)
    with VerifierPool(judge.verify, workers, timeout_s, judge.failure_reward, pass_env=pass_env) as pool:
        began = time.perf_counter()
        try:
            write_rows(out, _judged(pool, samples, source, tally), goes_on=resume, keeps=keeps)
        except KeyboardInterrupt as stop:
            if tally.rows and keeps:
                stop.add_note(
                    f"the first {tally.rows} rows are judged and in {out}; the same command with --resume "
                    "goes on from them"
                )
            raise
        tally.seconds = time.perf_counter() - began
    return tally


def _judge(name: str, overrides: list[str]) -> tuple[Read, Task | Replay]:
    """How a record becomes a sample, and who judges samples."""
    if name in env_sections():
        values = read_overrides(overrides)
        make_env_section(name, values)  # finds what is wrong with them
        replay = Replay(name, values)
        return replay.read, replay
    task = make_task(make_task_section(name, overrides))
    return lambda record: _sample(task, record), task


def _samples(
    read: Read, source: Path, tally: Tally, skip_bad: bool
) -> Iterator[tuple[str, dict[str, Any], tuple[Problem, str]]]:
    """Where a record stands, the record, and what is judged of it."""
    for place, record in read_objects(source, tally.skip if skip_bad else None):
        try:
            sample = read(record)
        except InputError as error:
            named = InputError(f"{place}: {error}")
            if not skip_bad:
                raise named from None
            tally.skip(named)
        else:
            yield place, record, sample


def _without_kept(samples: Iterator, source: Path, out: Path, tally: Tally) -> Iterator:
    """The samples behind those whose verdicts are in `out`; these are counted."""
    kept = read_objects(out)
    for place, record, sample in samples:
        judged = next(kept, None)
        if judged is None:
            yield place, record, sample
            continue
        if not _is_of(record, judged[1]):
            changed = "the input or its order has changed"
            raise InputError(
                f"{judged[0]} is not {place} with a verdict; {changed}: leave --resume out to judge all "
                "of it anew"
            )
        tally.kept += 1
        tally.add(judged[1])
    if next(kept, None) is not None:
        raise InputError(
            f"{out} has more rows than {source} has records; leave --resume out to judge all of them anew"
        )


def _judged(pool: VerifierPool, samples: Iterator, source: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """The records with their verdicts, in their order."""
    waiting: deque[dict[str, Any]] = deque()  # for a verdict

    def to_judge() -> Iterator[tuple[Problem, str]]:
        for _, record, sample in samples:
            waiting.append(record)
            yield sample

    for verdict in pool.stream(to_judge()):
        row = waiting.popleft() | _fields(verdict)
        yield row
        tally.add(row)  # it is written
    if tally.rows == 0:
        first = f"; the first of {tally.skipped} bad ones: {tally.first_skipped}" if tally.skipped else ""
        raise InputError(f"{source} holds no records; give one JSON object per line{first}")


def _is_of(record: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether the row is this record with a verdict."""
    verdict = _fields(Verdict(0.0, False, False)).keys()
    return verdict <= row.keys() and all(
        row.get(key) == value for key, value in record.items() if key not in verdict
    )


def _sample(task: Task, record: dict[str, Any]) -> tuple[Problem, str]:
    completion = field(record, "completion", "the text that is judged", lambda value: isinstance(value, str))
    return task.problem({key: value for key, value in record.items() if key != "completion"}), completion


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {
        "reward": verdict.reward if math.isfinite(verdict.reward) else None,
        "correct": verdict.correct,
        "format_ok": verdict.format_ok,
        "parts": verdict.parts,
        "detail": verdict.detail,
        "error": verdict.error,
    }
