"""`report.md`: what a run did, in one page made from the files of its folder. Reads files only; it can be
made while the run goes on.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxrl.config.file import read_yaml
from jaxrl.config.shared import ExpectSection
from jaxrl.files.disk import write_whole
from jaxrl.files.place import is_url, join
from jaxrl.track.alarms import in_step
from jaxrl.track.evaluations import EVAL, load_rows
from jaxrl.track.events import ALARM, EVENTS
from jaxrl.track.expected import compare
from jaxrl.track.format import FIELDS, Field, compact, duration, evaluation_cells, markdown_table, sparkline
from jaxrl.track.logger import METRICS, SAMPLES, read_run_file

CONFIG, REPORT = "config.yaml", "report.md"
SHOWN_CHARS = 2000  # of a completion; what is left out is counted

FileRows = list[dict[str, Any]]


def write_report(run_dir: str | Path) -> Path:
    """Write `report.md` from `config.yaml`, `metrics.jsonl`, `samples.jsonl`, `events.jsonl` and `eval.json`;
    those not there yet are left out.

    Returns:
      the path written.
    Raises:
      InputError: not a run folder, or one of its files is broken.
    """
    folder = Path(run_dir)
    config = read_yaml(folder / CONFIG, "give the folder of a run")
    metrics, samples, events = (read_run_file(folder / name) for name in (METRICS, SAMPLES, EVENTS))
    evaluation = list(map(asdict, load_rows(folder / EVAL)))
    stages = _by_stage(metrics)
    kinds = {stage.get("name"): stage.get("kind") for stage in config.get("stages", [])}
    parts = [_header(config, folder)]
    if alarms := [event for event in events if event["level"] == ALARM]:
        parts.append("## Alarms\n\n" + "\n".join(_alarm_lines(alarms, stages)))
    if others := [event for event in events if event["level"] != ALARM]:
        parts.append("## Events\n\n" + "\n".join(map(_event, others)))
    if evaluation:
        parts.append("## Evaluation\n\n" + markdown_table(*evaluation_cells(evaluation)))
    if config.get("expect"):
        expected = compare(
            ExpectSection.model_validate(config["expect"]),
            {row["name"]: row["accuracy"] for row in evaluation},
        )
        parts += ["\n".join(f"- {sentence}" for sentence in expected)] if expected else []
    parts += [_stage_section(name, kinds.get(name), rows) for name, rows in stages.items()]
    if samples:
        parts.append(_samples_section(samples))
    if not stages and not evaluation:
        parts.append("No step has been logged yet.")
    path = folder / REPORT
    write_whole(path, "\n\n".join(parts) + "\n")
    return path


def _alarm_lines(alarms: FileRows, stages: Mapping[str, FileRows]) -> list[str]:
    """Each alarm where it first sounded, and in how many of the steps that its stage has done by now."""
    steps: dict[tuple[str, str], list[int]] = {}
    for stage, rows in stages.items():
        for row in rows:
            for alarm in in_step(row):
                steps.setdefault((stage, alarm.kind), []).append(row["step"])
    lines = []
    for event in alarms:
        sounded = steps.get((event["stage"], event["kind"]))
        of = len(stages.get(event["stage"], []))
        often = f" (in {len(sounded)} of {of} steps, last in step {sounded[-1]})" if sounded else ""
        lines.append(f"- **{event['stage']}, step {event['step']}: {event['sentence']}{often}**")
    return lines


def _event(event: Mapping[str, Any]) -> str:
    moment = time.strftime("%F %T", time.localtime(event["time"]))
    return f"- {moment}, {event['level']}: {' '.join(event['sentence'].split())}"


def _header(config: Mapping[str, Any], folder: Path) -> str:
    model = config.get("model") or {}
    source = model.get("path") or "a fresh model of `model.architecture`"
    lora = config.get("lora")
    name, runs_dir = config.get("name", folder.name), str(config.get("runs_dir", ""))
    lines = [
        f"# {name}",
        "",
        *([f"- kept at: {join(runs_dir, name)}"] if is_url(runs_dir) else []),
        f"- seed: {config.get('seed', 0)}",
        f"- model: {source}",
        (
            f"- trained: {'all weights' if not lora else 'LoRA of rank ' + str(lora.get('rank'))} (a stage"
            " may differ)"
        ),
        f"- stages: {', '.join(stage.get('name', '?') for stage in config.get('stages', []))}",
        f"- again: `jaxrl run {CONFIG}` with the `{CONFIG}` of this folder",
    ]
    return "\n".join(lines)


def _stage_section(name: str, kind: str | None, rows: FileRows) -> str:
    steps = [row["step"] for row in rows]
    facts = [f"steps {min(steps)} to {max(steps)}", f"wall time {duration(_wall_time(rows))}"]
    if speeds := _series(rows, "train/tokens_per_s"):
        facts.append(f"{compact(statistics.median(speeds))} tokens/s (median)")
    lines = [f"## {name}" + (f" ({kind})" if kind and kind != name else ""), "", ", ".join(facts)]
    shown = [
        field for field in FIELDS if field.metric != "train/tokens_per_s" and _series(rows, field.metric)
    ]
    if shown:
        lines += [
            "",
            markdown_table(
                ["metric", "first", "last", "best", "median"], [_metric_cells(field, rows) for field in shown]
            ),
        ]
    curves = [(f.label, f.metric) for f in shown if f.metric in ("reward/mean", "loss", "val/loss")]
    if curves and len(rows) > 1:
        width = max(len(label) for label, _ in curves)
        lines += ["", "```text"]
        for label, metric in curves:
            values = [row.get(metric) for row in rows if metric in row]
            known = _series(rows, metric)
            lines.append(
                f"{label:<{width}}  {sparkline(values)}  {compact(min(known))} … {compact(max(known))}"
            )
        lines.append("```")
    return "\n".join(lines)


def _metric_cells(field: Field, rows: FileRows) -> list[str]:
    values = _series(rows, field.metric)
    best = None if field.is_better is None else field.is_better(values)
    return [
        f"{field.label} (`{field.metric}`)",
        *(field.write(v) for v in (values[0], values[-1], best, statistics.median(values))),
    ]


def _samples_section(samples: FileRows) -> str:
    last = sorted(
        _last_step(samples),
        key=lambda sample: (sample.get("reward") is not None, sample.get("reward")),
        reverse=True,
    )
    picks = {"best": 0, "median": len(last) // 2, "worst": len(last) - 1}
    lines = [f"## Completions of {last[0]['stage']}, step {last[0]['step']}"]
    shown = set()
    for label, i in picks.items():
        if i not in shown:
            shown.add(i)
            lines += ["", _sample(label, last[i])]
    return "\n".join(lines)


def _sample(label: str, sample: Mapping[str, Any]) -> str:
    facts = [f"reward {compact(sample.get('reward'))}"]
    facts += [f"{name} {compact(value)}" for name, value in (sample.get("parts") or {}).items()]
    facts += [f"stopped by {sample['stop_reason']}"] if sample.get("stop_reason") else []
    facts += [f"error: {sample['error']}"] if sample.get("error") else []
    blocks = [f"### {label}: {sample.get('uid', '')}".rstrip(": "), ", ".join(facts)]
    if sample.get("prompt"):
        blocks.append(_fenced(sample["prompt"]))
    blocks.append(_fenced(sample.get("completion", "")))
    return "\n\n".join(blocks)


def _fenced(text: str) -> str:
    """A code block that the text cannot close, whatever a model wrote into it."""
    hidden = len(text) - SHOWN_CHARS
    shown = text if hidden <= 0 else f"{text[:SHOWN_CHARS]}\n[{hidden} more characters]"
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}text\n{shown}\n{fence}"


def _by_stage(metrics: FileRows) -> dict[str, FileRows]:
    stages: dict[str, FileRows] = {}
    for row in metrics:
        stages.setdefault(row["stage"], []).append(row)
    return stages


def _last_step(samples: FileRows) -> FileRows:
    return [s for s in samples if (s["stage"], s["step"]) == (samples[-1]["stage"], samples[-1]["step"])]


def _series(rows: FileRows, metric: str) -> list[float]:
    return [row[metric] for row in rows if row.get(metric) is not None]


def _wall_time(rows: FileRows) -> float:
    """Seconds that the steps took; without `time/step_s` from first row to last, pauses between two launches
    included.
    """
    steps = _series(rows, "time/step_s")
    return sum(steps) if len(steps) == len(rows) else rows[-1]["time"] - rows[0]["time"]
