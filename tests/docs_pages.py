"""What tests read in the pages of docs/."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
OTHERS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
OF_A_ROW = {"stage", "step", "time"}  # what every line of metrics.jsonl has


def documented_metrics() -> list[str]:
    """The first column of the tables of metrics in docs/metrics.md, `<...>` for names that a run chooses."""
    tables, _, _ = PAGES["metrics.md"].partition("## Other files of a run")
    return re.findall(r"^\| `([^`]+)` \|", tables, re.MULTILINE)


def undocumented_in(run: Path) -> set[str]:
    """What docs/metrics.md does not explain of the metrics in a run's folder."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return undocumented(key for row in rows for key in row)


def undocumented(keys: Iterable[str]) -> set[str]:
    """Those of some keys of metrics.jsonl that docs/metrics.md does not explain."""
    patterns = [
        re.compile(re.sub(r"<\w+>", r"\\w+", re.escape(name).replace(r"\<", "<").replace(r"\>", ">")))
        for name in documented_metrics()
    ]
    return {key for key in set(keys) - OF_A_ROW if not any(p.fullmatch(key) for p in patterns)}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
