"""A run's own record: `metrics.jsonl` and `samples.jsonl` in the run folder, and Weights & Biases where the
config asks for it.
"""

import json
import logging
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, TextIO

from jaxrl.config.shared import TrackSection
from jaxrl.errors import InputError
from jaxrl.files.disk import read_text, write_whole, writing
from jaxrl.types import Trajectory

METRICS, SAMPLES, WANDB_ID = "metrics.jsonl", "samples.jsonl", "wandb_id.txt"
FILES = (METRICS, SAMPLES)
log = logging.getLogger("jaxrl")
NUMBER = (int, float, NoneType)  # as JSON has it
# of every row
REQUIRED = {METRICS: {"stage": str, "step": int, "time": (int, float)}, SAMPLES: {"stage": str, "step": int}}
# of a sample
OPTIONAL = {"uid": str, "prompt": str, "completion": str, "reward": NUMBER, "parts": (dict, NoneType)}


class RunLogger:
    """Owns the files of one run. Every row is written out at once, so that a killed run loses at most the row
    it was writing.

    Args:
      folder: the run folder; it exists.
      track: the config's section.
      name: of the run, for Weights & Biases.
      config: the resolved config as plain values, for Weights & Biases.
      enabled: False on every process but the first: nothing is then opened or written.
    Raises:
      InputError: the files cannot be written; Weights & Biases is asked for and cannot be used. Later, from
        every method that writes: the disk is full, or the files were deleted under the run.
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
        """Append one row of metrics: numbers, or arrays of no axes. What is not finite is written as null
        (JSON has no NaN).
        """
        if clash := [key for key in REQUIRED[METRICS] if key in metrics]:
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
        """Drop the rows of later steps and stages than the restored one: a killed run wrote them, and they
        will come again.

        Args:
          stage_order: names of the stages in the order in which they run.
          stage, step: of the checkpoint restored; rows of that step stay. `step=-1` drops the whole stage.
        """
        if not self._files:
            return
        place = {name: i for i, name in enumerate(stage_order)}
        limit = (place[stage], step)
        self.check()
        for name in FILES:
            path = self.folder / name
            rows = read_rows(path)
            kept = [row for row in rows if (place.get(row["stage"], -1), row["step"]) <= limit]
            if len(kept) < len(rows):
                self._files.pop(name).close()
                write_whole(path, "".join(_line(row) for row in kept))
                self._files[name] = _open_to_append(path)

    def check(self) -> None:
        """InputError where the files at their places are not the ones that are written to: rows, and all else
        that the run writes, would be lost or land in another run's folder.
        """
        for name, file in self._files.items():
            path = self.folder / name
            with writing(path):
                is_there = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
            if not is_there:
                raise InputError(
                    f"{path} was deleted or replaced while the run was at work, and so perhaps all of"
                    f" {self.folder}; nothing more is written there. Start the run again: it goes on from the"
                    " checkpoints that are left, or from the beginning"
                )

    def close(self) -> None:
        """Close the files, and finish the Weights & Biases run."""
        for file in self._files.values():
            with suppress(OSError):  # of a row that the full disk did not take, and that has been told
                file.close()
        self._files = {}
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def _open(self) -> None:
        for name in FILES:
            path = self.folder / name
            with writing(path):
                _mend_end(path)
            self._files[name] = _open_to_append(path)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self.check()
        with writing(self.folder / name):
            self._files[name].write(_line(row))
            self._files[name].flush()

    def _log_wandb(self, stage: str, step: int, numbers: Mapping[str, Any]) -> None:
        # Each stage counts its own steps, and a run has one counter only: every stage brings its own axis.
        if stage not in self._wandb_stages:
            self._wandb.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._wandb_stages.add(stage)
        self._wandb.log(
            {
                f"{stage}/step": step,
                **{f"{stage}/{key}": value for key, value in numbers.items() if value is not None},
            }
        )


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
    """The objects of a file that a run appended to, one in a line. A torn last line is left out; no file is
    no rows.

    Raises:
      InputError: something else than such a file, or a broken line that is not the last.
    """
    if not path.exists():
        return []
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; move it away, or restore it") from None
    rows = []
    for number, line in enumerate(lines if _is_torn(tail) else [*lines, tail], start=1):
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}: not UTF-8 at byte {error.start + 1}; repair or remove the line"
            ) from None
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}, column {error.colno}: {error.msg}; repair or remove the line"
            ) from None
        # an integer of thousands of digits, brackets in thousands
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: {error}; repair or remove the line") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, line {number}: must be a JSON object, and is {type(row).__name__}; repair or remove"
                " the line"
            )
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """`read_jsonl` of `metrics.jsonl` or `samples.jsonl`, whose rows say of which stage and step they are.

    Raises:
      InputError: a row that does not, or whose other values are not of the kind that such a row has.
    """
    rows = read_jsonl(path)
    required = REQUIRED[path.name]
    kinds, others = (OPTIONAL, object) if path.name == SAMPLES else ({}, (*NUMBER, str))
    for number, row in enumerate(rows, start=1):
        missing = [key for key in required if key not in row]
        wrong = [
            key for key, value in row.items() if not isinstance(value, {**kinds, **required}.get(key, others))
        ]
        for key in missing + wrong:
            raise InputError(
                f"{path}, line {number}: {key!r} is {row.get(key)!r}, which no run writes; repair or remove"
                " the line"
            )
    return rows


def _is_torn(tail: bytes) -> bool:
    """Whether what stands behind the last line's end is nothing, or what a process or a machine that died has
    left of a row.
    """
    if not tail.strip(b"\0"):
        return True
    try:
        json.loads(tail)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return tail.startswith(b"{")
    return False


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def _open_to_append(path: Path) -> TextIO:
    with writing(path):  # half a surrogate, which UTF-8 cannot hold, is written as its escape in JSON
        return path.open("a", encoding="utf-8", errors="backslashreplace")


def _mend_end(path: Path) -> None:
    """Take away what a killed run left of its last row, or end that row, lest the next one be written behind
    it.
    """
    if not path.is_file():
        return
    tail = (content := path.read_bytes()).split(b"\n")[-1]
    if tail:
        with path.open("r+b") as file:
            file.seek(len(content))
            if _is_torn(tail):
                file.truncate(len(content) - len(tail))
                log.warning("%s: the last row was torn when its process died, and is taken away", path)
            else:
                file.write(b"\n")


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
            "track.wandb needs the `wandb` library; install it with: pip install 'jaxrl[wandb]', or set"
            " track.wandb to null"
        ) from None
    id_file = folder / WANDB_ID
    if not id_file.exists():
        write_whole(id_file, uuid.uuid4().hex[:12])
    run_id = read_text(id_file, "remove it to begin a new run there").strip()
    try:
        return wandb.init(
            project=section.project,
            entity=section.entity,
            mode=section.mode,
            name=name or None,
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=dict(config or {}),
        )
    except wandb.Error as error:
        raise InputError(
            f"Weights & Biases cannot start: {error}; log in, or set track.wandb.mode to offline"
        ) from None
