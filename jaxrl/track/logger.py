"""A run's own record: `metrics.jsonl`, `samples.jsonl` and `events.jsonl` in the run folder, and Weights &
Biases where the config asks for it.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any

from jaxrl.config.shared import TrackSection
from jaxrl.errors import InputError, ProcessLost
from jaxrl.files.disk import read_text, write_whole
from jaxrl.files.journal import MEND, plain, read_journal
from jaxrl.files.run_folder import RunFolder
from jaxrl.track.alarms import in_step
from jaxrl.track.console import Console
from jaxrl.track.events import ALARM, ERROR, EVENTS, INFO, Events
from jaxrl.types import Trajectory

METRICS, SAMPLES, WANDB_ID = "metrics.jsonl", "samples.jsonl", "wandb_id.txt"
FILES = (METRICS, SAMPLES, EVENTS)
NUMBER = (int, float, NoneType)  # as JSON has it
REQUIRED = {  # of every row
    METRICS: {"stage": str, "step": int, "time": (int, float)},
    SAMPLES: {"stage": str, "step": int},
    EVENTS: {
        "stage": (str, NoneType),
        "step": (int, NoneType),
        "time": (int, float),
        "kind": str,
        "level": str,
        "sentence": str,
    },
}
# of a sample
OPTIONAL = {"uid": str, "prompt": str, "completion": str, "reward": NUMBER, "parts": (dict, NoneType)}


class RunLogger:
    """Writes the record of one run. Every row is written out at once, so that a killed run loses at most the
    row it was writing.

    events: the stream that a stage's other events go to.

    Args:
      folder: the run folder; it exists. On every process but the first nothing is opened or written.
      track: the config's section.
      name: of the run, for Weights & Biases.
      config: the resolved config as plain values, for Weights & Biases.
      console: where events are told; None is nowhere.
    Raises:
      InputError: the files cannot be written; Weights & Biases is asked for and cannot be used. Later, from
        every method that writes: the disk is full, or the files were deleted under the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        track: TrackSection | None = None,
        name: str = "",
        config: Mapping[str, Any] | None = None,
        console: Console | None = None,
    ):
        self.folder = folder
        self._has_begun = (folder.path / METRICS).exists()  # by an earlier process
        self._wandb = None
        self._wandb_stages: set[str] = set()
        self.events = Events(folder, console)
        try:
            folder.open(*FILES)
            self.events.start()
            if folder.writes:
                self.events.remember(read_run_file(folder.path / EVENTS))
                if track is not None and track.wandb is not None:
                    self._wandb = _start_wandb(folder.path, track.wandb, name, config)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        if isinstance(
            error, (InputError, ProcessLost)
        ):  # a verifier given up, a run that has diverged, a full disk, a process lost
            with suppress(InputError):
                self.events.record("end", ERROR, str(error))
        self.close()

    def begin(self, stage_order: Sequence[str], stage: str, step: int) -> None:
        """A stage begins, or goes on from a checkpoint. Rows of later steps and stages are dropped: a killed
        run wrote them, and they will come again.

        Args:
          stage_order: names of the stages in the order in which they run.
          stage, step: of the checkpoint restored; rows of that step stay. `step=-1` drops the whole stage.
        """
        self.events.move_to(stage, max(step, 0))
        if not self.folder.writes:
            return
        place = {name: i for i, name in enumerate(stage_order)}
        self.folder.check()
        for name in FILES:
            rows = read_run_file(self.folder.path / name)
            kept = [
                row
                for row in rows
                if (name == EVENTS and row["level"] != ALARM)
                or (place.get(row["stage"], -1), row["step"]) <= (place[stage], step)
            ]
            if len(kept) < len(rows):
                self.folder.replace(name, kept)
            if name == EVENTS:
                self.events.remember(kept)
        if self._has_begun:
            self._has_begun = False
            where = f"at step {step}" if step > 0 else "from its start"
            self.events.record("restart", INFO, f"{stage}: the run is taken up again {where}")

    def log(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one row of metrics: numbers, or arrays of no axes. What is not finite is written as null
        (JSON has no NaN). The alarms that are in them are events.
        """
        if clash := [key for key in REQUIRED[METRICS] if key in metrics]:
            raise ValueError(f"metrics {clash} take the names of the row's own keys; rename them")
        self.events.move_to(stage, step)
        if not self.folder.writes:
            return
        numbers = {key: plain(value) for key, value in metrics.items()}
        self.folder.append(METRICS, {"stage": stage, "step": step, "time": round(time.time(), 3), **numbers})
        if self._wandb is not None:
            self._log_wandb(stage, step, numbers)
        self.events.record_alarms(in_step(numbers))

    def log_samples(self, stage: str, step: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """Append completions for people to read; `sample_row` makes them."""
        for sample in samples:
            self.folder.append(SAMPLES, {"stage": stage, "step": step, **sample})

    def check(self) -> None:
        """InputError where the files at their places are not the ones that are written to."""
        self.folder.check()

    def close(self) -> None:
        """Close the files, and finish the Weights & Biases run."""
        self.events.close()
        self.folder.close()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

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
    """What `samples.jsonl` keeps of a trajectory. `advantage` is None for evaluations; `turns` is there for
    episodes of a world.
    """
    verdict = trajectory.verdict
    row = {
        "uid": trajectory.problem.uid,
        "prompt": "\n\n".join(message["content"] for message in trajectory.problem.messages),
        "completion": trajectory.text,
        "num_tokens": trajectory.num_tokens,
        "stop_reason": str(trajectory.stop_reason),
        "reward": plain(verdict.reward),
        "parts": {name: plain(value) for name, value in verdict.parts.items()},
        "advantage": plain(advantage),
        "correct": verdict.correct,
        "format_ok": verdict.format_ok,
        "detail": verdict.detail,
        "error": verdict.error,
        "policy_version": trajectory.policy_version,
    }
    if trajectory.ended is not None:
        row["turns"] = [
            {
                "completion": turn.completion.text,
                "num_tokens": len(turn.completion.completion_ids),
                "reward": plain(turn.reward),
                "observation": turn.observation,
            }
            for turn in trajectory.turns
        ]
    return row


def read_run_file(path: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, `samples.jsonl` or `events.jsonl`, each with the keys that it always has.

    Raises:
      InputError: as `read_journal`; a row without such a key, or whose values are not of the kind that such
        a row has.
    """
    rows = read_journal(path)
    required = REQUIRED[path.name]
    kinds, others = (OPTIONAL, object) if path.name == SAMPLES else ({}, (*NUMBER, str))
    for number, row in enumerate(rows, start=1):
        missing = [key for key in required if key not in row]
        wrong = [
            key for key, value in row.items() if not isinstance(value, {**kinds, **required}.get(key, others))
        ]
        for key in missing + wrong:
            raise InputError(
                f"{path}, line {number}: {key!r} is {row.get(key)!r}, which no run writes; {MEND}"
            )
    return rows


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
