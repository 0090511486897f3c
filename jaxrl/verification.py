"""Using a task without a model: judging completions in a file, writing fresh problems to one. No jax, no accelerator."""

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxrl.config_file import make_task_section
from jaxrl.data.jsonl import check_out, read_objects, write_rows
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.base import Task
from jaxrl.tasks.fields import field
from jaxrl.types import Problem, Verdict
from jaxrl.verify.pool import VerifierPool


@dataclasses.dataclass
class Tally:
    """What became of the completions of a file. Each is right, wrong, or an error: a verdict that is missing."""

    rows: int = 0
    right: int = 0
    errors: Counter[str] = dataclasses.field(default_factory=Counter)  # by kind
    seconds: float = 0.0

    def add(self, verdict: Verdict) -> None:
        self.rows += 1
        if verdict.error is not None:
            self.errors[verdict.error.split(":")[0]] += 1
        else:
            self.right += verdict.correct

    def __str__(self) -> str:
        errors = self.errors.total()
        kinds = f" ({', '.join(f'{kind} {count}' for kind, count in self.errors.most_common())})" if errors else ""
        wrong, speed = self.rows - self.right - errors, self.rows / max(self.seconds, 1e-9)
        return f"{self.rows} rows: {self.right} right, {wrong} wrong, {errors} errors{kinds}; {speed:.0f} per second"


def verify_file(
    name: str, overrides: list[str], source: Path, out: Path, workers: int, timeout_s: float, pass_env: Sequence[str] = ()
) -> Tally:
    """Judge every line of a JSONL: a problem's fields, as the task knows them, and `completion`.

    The lines come out in their order with `reward` (null if it is no number), `correct`, `format_ok`, `parts`, `detail`
    and `error` added. The file is streamed, and appears whole or not at all.

    Args:
      name, overrides: the task, and `key=value` for its section.
      workers, timeout_s, pass_env: of the pool.
    Raises:
      InputError: settings, or a line, that do not fit; its number is named.
    """
    check_out(out)
    task = make_task(make_task_section(name, overrides))
    records: deque[dict[str, Any]] = deque()  # on their way to a verdict
    tally = Tally()

    def samples() -> Iterator[tuple[Problem, str]]:
        for place, record in read_objects(source):
            sample = _sample(task, record, place)
            records.append(record)
            yield sample

    with VerifierPool(task.verify, workers, timeout_s, task.failure_reward, pass_env=pass_env) as pool:
        began = time.perf_counter()

        def rows() -> Iterator[dict[str, Any]]:
            for verdict in pool.stream(samples()):
                tally.add(verdict)
                yield records.popleft() | _fields(verdict)
            if tally.rows == 0:
                raise InputError(f"{source} holds no records; give one JSON object per line")

        write_rows(out, rows())
        tally.seconds = time.perf_counter() - began
    return tally


def generate_file(name: str, overrides: list[str], count: int, seed: int, out: Path) -> int:
    """Write `count` fresh records of a task; equal arguments give equal bytes on every machine.

    Returns:
      The number of records.
    Raises:
      InputError: settings that do not fit; a task without a generator.
    """
    check_out(out)
    if count < 1:
        raise InputError(f"--n {count} problems cannot be made; give at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative; give 0 or more")
    task = make_task(make_task_section(name, overrides))
    return write_rows(out, task.generate(count, seed))


def _sample(task: Task, record: dict[str, Any], place: str) -> tuple[Problem, str]:
    try:
        completion = field(record, "completion", "the text that is judged", lambda value: isinstance(value, str))
        return task.problem({key: value for key, value in record.items() if key != "completion"}), completion
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {
        "reward": verdict.reward if math.isfinite(verdict.reward) else None,
        "correct": verdict.correct,
        "format_ok": verdict.format_ok,
        "parts": verdict.parts,
        "detail": verdict.detail,
        "error": verdict.error,
    }
