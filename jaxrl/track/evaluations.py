"""The evaluation table: one row for each evaluated policy, with intervals that say how far a number can be
trusted.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType

from jaxrl.errors import InputError
from jaxrl.files.disk import read_text, write_whole
from jaxrl.stats import jeffreys_interval
from jaxrl.track.format import evaluation_cells, markdown_table, text_table
from jaxrl.types import Verdict

REPAIR = "restore it, or remove it and evaluate again"


@dataclass(frozen=True)
class Row:
    """A policy on a split. Shares are between 0 and 1; the intervals are Jeffreys intervals of `accuracy`.

    A completion whose verification timed out or crashed counts as wrong: it may have brought that about. One
    that could not be judged through no fault of its own (a reward that is no number, as where a sandbox
    fails) is not among the n.
    """

    name: str
    n: int  # completions judged
    correct: int
    accuracy: float
    ci80: tuple[float, float]
    ci95: tuple[float, float]
    mean_reward: float
    coverage: float | None  # None: the task has none
    format_rate: float
    errors: int  # verdicts that are missing, for either reason


def row_from_verdicts(name: str, verdicts: Sequence[Verdict], coverage_key: str = "path_coverage") -> Row:
    """One row from all verdicts of an evaluation.

    Coverage is the mean of the verdicts' part `coverage_key`; where some verdicts have it, one without it (a
    timeout) counts as 0, so that failing cannot raise the mean.

    Raises:
      InputError: no verdicts, or none of a completion that could be judged.
    """
    if not verdicts:
        raise InputError(f"evaluation {name!r} has no problems; check the split and its size")
    judged = [v for v in verdicts if math.isfinite(v.reward)]
    if not judged:
        error = verdicts[0].error
        raise InputError(
            f"evaluation {name!r}: none of {len(verdicts)} completions could be judged ({error}); mend the"
            " verifier"
        )
    n = len(judged)
    correct = sum(v.correct for v in judged)
    covered = [v.parts[coverage_key] for v in judged if coverage_key in v.parts]
    return Row(
        name=name,
        n=n,
        correct=correct,
        accuracy=correct / n,
        ci80=_interval(correct, n, 0.80),
        ci95=_interval(correct, n, 0.95),
        mean_reward=statistics.fmean(v.reward for v in judged),
        coverage=float(sum(covered) / n) if covered else None,
        format_rate=sum(v.format_ok for v in judged) / n,
        errors=sum(v.error is not None for v in verdicts),
    )


def render_table(rows: Sequence[Row]) -> str:
    """Aligned plain text."""
    return text_table(*evaluation_cells([asdict(row) for row in rows]))


def render_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    return markdown_table(*evaluation_cells([asdict(row) for row in rows]))


def save_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Write `eval.json`: a list of objects with the fields of `Row`."""
    write_whole(path, json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1) + "\n")


def load_rows(path: str | Path) -> list[Row]:
    """The rows of an `eval.json`; a file that is not there has none.

    Raises:
      InputError: not a file of `save_rows`, or one that cannot be read.
    """
    if not Path(path).exists():
        return []
    text = read_text(path, REPAIR)
    try:
        values = json.loads(text)
        if not isinstance(values, list):
            raise TypeError(f"it holds a {type(values).__name__} and no list")
        return [
            _checked(Row(**{**value, "ci80": tuple(value["ci80"]), "ci95": tuple(value["ci95"])}))
            for value in values
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is not an evaluation table: {error}; {REPAIR}") from None


def _checked(row: Row) -> Row:
    """The row, if its values are of the kinds that `Row` declares; else a TypeError. JSON writes a float 1.0
    as 1.0.
    """
    kinds = {"name": str, "n": int, "correct": int, "errors": int, "coverage": (int, float, NoneType)}
    for field in fields(Row):
        value = getattr(row, field.name)
        is_interval = field.name.startswith("ci")
        if not all(
            isinstance(part, kinds.get(field.name, (int, float)))
            for part in (value if is_interval else [value])
        ):
            raise TypeError(f"{field.name!r} is {value!r}")
        if is_interval and len(value) != 2:
            raise TypeError(f"{field.name!r} has {len(value)} ends")
    return row


def _interval(successes: int, n: int, level: float) -> tuple[float, float]:
    low, high = jeffreys_interval(successes, n, level)
    return float(low), float(high)
