"""The evaluation table: one row for each evaluated policy, with intervals that say how far a number can be
trusted.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.disk import read_text, write_whole
from jaxrl.stats import jeffreys_interval
from jaxrl.track.format import evaluation_cells, text_table
from jaxrl.types import Verdict

EVAL = "eval.json"
ONCE = "coverage"  # the part that rows of version 0.1 had a key for
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
    format_rate: float
    errors: int  # verdicts that are missing, for either reason
    parts: dict[str, float] = field(default_factory=dict)  # means of the verdicts' parts, by their names


def row_from_verdicts(name: str, verdicts: Sequence[Verdict]) -> Row:
    """One row from all verdicts of an evaluation.

    Where some verdicts have a part, one without it (a timeout) counts as 0, so that failing cannot raise the
    mean.

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
    names = dict.fromkeys(name for v in judged for name in v.parts)
    return Row(
        name=name,
        n=n,
        correct=correct,
        accuracy=correct / n,
        ci80=_interval(correct, n, 0.80),
        ci95=_interval(correct, n, 0.95),
        mean_reward=statistics.fmean(v.reward for v in judged),
        format_rate=sum(v.format_ok for v in judged) / n,
        errors=sum(v.error is not None for v in verdicts),
        parts={name: float(sum(v.parts.get(name, 0.0) for v in judged) / n) for name in names},
    )


def render_table(rows: Sequence[Row]) -> str:
    """Aligned plain text."""
    return text_table(*evaluation_cells([asdict(row) for row in rows]))


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
        return [_row(value) for value in values]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is not an evaluation table: {error}; {REPAIR}") from None


def _row(values: dict[str, Any]) -> Row:
    """The row of an object in `eval.json`. One of version 0.1 had one part, under a key of its own."""
    values = dict(values)
    if (only := values.pop(ONCE, None)) is not None:
        values["parts"] = {ONCE: only}
    return _checked(Row(**{**values, "ci80": tuple(values["ci80"]), "ci95": tuple(values["ci95"])}))


def _checked(row: Row) -> Row:
    """The row, if its values are of the kinds that `Row` declares; else a TypeError. JSON writes a float 1.0
    as 1.0.
    """
    kinds = {"name": str, "n": int, "correct": int, "errors": int}
    if not isinstance(row.parts, dict) or not all(
        isinstance(part, (int, float)) for part in row.parts.values()
    ):
        raise TypeError(f"'parts' is {row.parts!r}")
    for name in (column.name for column in fields(Row) if column.name != "parts"):
        value = getattr(row, name)
        is_interval = name.startswith("ci")
        if not all(
            isinstance(part, kinds.get(name, (int, float))) for part in (value if is_interval else [value])
        ):
            raise TypeError(f"{name!r} is {value!r}")
        if is_interval and len(value) != 2:
            raise TypeError(f"{name!r} has {len(value)} ends")
    return row


def _interval(successes: int, n: int, level: float) -> tuple[float, float]:
    low, high = jeffreys_interval(successes, n, level)
    return float(low), float(high)
