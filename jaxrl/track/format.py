"""How numbers and tables look, in the console and in the report alike. Standard library only; nothing is
printed here.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "–"
BARS = "▁▂▃▄▅▆▇█"


def compact(value: float | None) -> str:
    """A number in at most seven characters: `0.612`, `12.30`, `48.2k`, `3.1e-5`; a dash for None."""
    if value is None:
        return ABSENT
    if isinstance(value, int) and abs(value) < 10_000:
        return str(value)
    if not math.isfinite(value):
        return str(float(value))
    size = abs(value)
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.1f}{suffix}"
    if size == 0:
        return "0"
    if size < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; a dash for None."""
    return ABSENT if value is None else f"{100 * value:.1f}%" if math.isfinite(value) else str(float(value))


def duration(seconds: float | None) -> str:
    """`h:mm:ss`, or `-:--:--` for None."""
    if seconds is None:
        return "-:--:--"
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def data_size(num_bytes: float) -> str:
    """Bytes as MiB or GiB."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GiB"


def sparkline(values: Sequence[float | None], width: int = 48) -> str:
    """A curve in one line of block characters; longer series are averaged into `width` pieces. A gap where
    none is finite.
    """
    pieces = min(width, len(values))
    heights = []
    for i in range(pieces):
        piece = values[i * len(values) // pieces : (i + 1) * len(values) // pieces]
        finite = [v for v in piece if v is not None and math.isfinite(v)]
        heights.append(statistics.fmean(finite) if finite else None)
    known = [h for h in heights if h is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    top = len(BARS) - 1
    return "".join(
        " " if h is None else BARS[round((h - low) / span * top)] if span > 0 else BARS[top // 2]
        for h in heights
    )


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned plain text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        for row in [header, *rows]
    ]
    lines.insert(1, ["─" * w for w in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned like `text_table`."""
    marks = ["---" if i == 0 else "---:" for i in range(len(header))]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, marks, *escaped])


@dataclass(frozen=True)
class Field:
    """A number that people watch: its short label, the metric it is read from, how it is written, and which
    way is up.
    """

    label: str
    metric: str
    write: Callable[[float | None], str] = compact
    is_better: Callable[[Sequence[float]], float] | None = None  # min or max


# In the order of the console line; a stage shows those that it has logged.
FIELDS = (
    Field("reward", "reward/mean", is_better=max),
    Field("correct", "sample/accuracy", percent, max),
    Field("loss", "loss", is_better=min),
    Field("val", "val/loss", is_better=min),
    Field("kl", "kl/ref"),
    Field("clip", "clip_fraction", percent),
    Field("grad", "grad_norm"),
    Field("tok/s", "train/tokens_per_s"),
)


def evaluation_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(header, cells) of evaluation rows as `eval.json` holds them; behind the mean reward stand the means of
    its parts, by their names.
    """
    parts = list(dict.fromkeys(name for row in rows for name in row.get("parts", {})))
    header = ["model", "n", "accuracy", "80% interval", "95% interval", "mean reward"]
    cells = [
        [
            row["name"],
            str(row["n"]),
            percent(row["accuracy"]),
            _interval(row["ci80"]),
            _interval(row["ci95"]),
            compact(row["mean_reward"]),
            *(compact(row.get("parts", {}).get(name)) for name in parts),
            percent(row["format_rate"]),
            str(row["errors"]),
        ]
        for row in rows
    ]
    ends = ["format", "errors"]
    names = [f"{name} (part)" if name in header + ends else name for name in parts]
    return [*header, *names, *ends], cells


def _interval(bounds: Sequence[float]) -> str:
    return f"{100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}%"
