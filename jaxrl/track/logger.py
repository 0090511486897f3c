"""A run's own record: `metrics.jsonl` and `samples.jsonl` in the run folder, and Weights & Biases where the config asks for it."""

import json
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.config_sections import TrackSection
from jaxrl.errors import InputError
from jaxrl.types import Trajectory

METRICS, SAMPLES, WANDB_ID = "metrics.jsonl", "samples.jsonl", "wandb_id.txt"
PLACE = ("stage", "step", "time")  # keys of every row that no metric may take


class RunLogger:
    """Owns the files of one run. Every row is written out at once, so that a killed run loses at most the row it was writing.

    Args:
      folder: the run folder; it exists.
      track: the config's section.
      name: of the run, for Weights & Biases.
      config: the resolved config as plain values, for Weights & Biases.
      enabled: False on every process but the first: nothing is then opened or written.
    Raises:
      InputError: Weights & Biases is asked for and cannot be used.
    """

    def __init__(
        self,
        folder: str | Path,
        track: TrackSection = TrackSection(),
        name: str = "",
        config: Mapping[str, Any] | None = None,
        enabled: bool = True,
    ):
        self.folder = Path(folder)
        self._files = {}
        self._wandb = None
        self._wandb_stages: set[str] = set()
        if enabled:
            self._open()
            if track.wandb is not None:
                self._wandb = _start_wandb(self.folder, track.wandb, name, config)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one row of metrics: numbers, or arrays of no axes. What is not finite is written as null (JSON has no NaN)."""
        if clash := [key for key in PLACE if key in metrics]:
            raise ValueError(f"metrics {clash} take the names of the row's own keys; rename them")
        if not self._files:
            return
        numbers = {key: _plain(value) for key, value in metrics.items()}
        self._append(METRICS, {"stage": stage, "step": step, "time": round(time.time(), 3), **numbers})
        if self._wandb is not None:
            self._log_wandb(stage, step, numbers)

    def log_samples(self, stage: str, step: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """Append completions for people to read; `sample_row` makes them."""
        if self._files:
            for sample in samples:
                self._append(SAMPLES, {"stage": stage, "step": step, **sample})

    def truncate_after(self, stage_order: Sequence[str], stage: str, step: int) -> None:
        """Drop the rows of later steps and stages than the restored one: a killed run wrote them, and they will come again.

        Args:
          stage_order: names of the stages in the order in which they run.
          stage, step: of the checkpoint restored; rows of that step stay. `step=-1` drops the whole stage.
        """
        if not self._files:
            return
        place = {name: i for i, name in enumerate(stage_order)}
        limit = (place[stage], step)
        for file in self._files.values():
            file.close()
        for name in (METRICS, SAMPLES):
            path = self.folder / name
            rows = read_jsonl(path)
            kept = [row for row in rows if (place.get(row["stage"], -1), row["step"]) <= limit]
            _replace(path, kept)
        self._open()

    def close(self) -> None:
        """Close the files, and finish the Weights & Biases run."""
        for file in self._files.values():
            file.close()
        self._files = {}
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def _open(self) -> None:
        for name in (METRICS, SAMPLES):
            path = self.folder / name
            _cut_torn_line(path)
            self._files[name] = path.open("a", encoding="utf-8")

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self._files[name].write(json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")
        self._files[name].flush()

    def _log_wandb(self, stage: str, step: int, numbers: Mapping[str, Any]) -> None:
        # Each stage counts its own steps, and a run has one counter only: every stage brings its own axis.
        if stage not in self._wandb_stages:
            self._wandb.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._wandb_stages.add(stage)
        self._wandb.log({f"{stage}/step": step, **{f"{stage}/{key}": value for key, value in numbers.items() if value is not None}})


def sample_row(trajectory: Trajectory, advantage: float | None = None) -> dict[str, Any]:
    """What `samples.jsonl` keeps of a trajectory. `advantage` is None for evaluations."""
    completion, verdict = trajectory.completion, trajectory.verdict
    return {
        "uid": trajectory.problem.uid,
        "prompt": "\n\n".join(message["content"] for message in trajectory.problem.messages),
        "completion": completion.text,
        "num_tokens": len(completion.completion_ids),
        "stop_reason": str(completion.stop_reason),
        "reward": _plain(verdict.reward),
        "parts": {name: _plain(value) for name, value in verdict.parts.items()},
        "advantage": _plain(advantage),
        "correct": verdict.correct,
        "format_ok": verdict.format_ok,
        "detail": verdict.detail,
        "error": verdict.error,
        "policy_version": trajectory.policy_version,
    }


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that a run appended to. A torn last line is left out; no file is no rows.

    Raises:
      InputError: a broken line that is not the last.
    """
    if not path.is_file():
        return []
    *lines, tail = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}, column {error.colno}: {error.msg}; repair or remove the line") from None
    try:
        return [*rows, json.loads(tail)] if tail else rows
    except json.JSONDecodeError:
        return rows


def _cut_torn_line(path: Path) -> None:
    """Take away what a killed run left of its last row, lest the next row be written behind it."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _replace(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows anew; whenever the process dies, the file is the old one or the new one."""
    new = path.with_suffix(".tmp")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _start_wandb(folder: Path, section, name: str, config: Mapping[str, Any] | None):
    try:
        import wandb
    except ImportError:
        raise InputError(
            "track.wandb needs the `wandb` library; install it with: pip install 'jaxrl[wandb]', or set track.wandb to null"
        ) from None
    id_file = folder / WANDB_ID
    if not id_file.is_file():
        id_file.write_text(uuid.uuid4().hex[:12])
    try:
        return wandb.init(
            project=section.project,
            entity=section.entity,
            mode=section.mode,
            name=name or None,
            id=id_file.read_text().strip(),
            resume="allow",
            dir=str(folder),
            config=dict(config or {}),
        )
    except wandb.Error as error:
        raise InputError(f"Weights & Biases cannot start: {error}; log in, or set track.wandb.mode to offline") from None
