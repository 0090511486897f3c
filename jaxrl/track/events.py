"""The one stream of what befell a run: `events.jsonl` in its folder, the console, and the report.

Two sorts. An alarm is found in the numbers of a step: it comes again when the step does, so a run that is
taken up again drops those after its checkpoint, as it drops its metrics. Everything else happened to a
process (it was started again, fell back to an older checkpoint, gave up on its verifier, mended a torn row):
that does not come again, and stays.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.journal import plain
from jaxrl.files.run_folder import RunFolder
from jaxrl.track.alarms import Alarm
from jaxrl.track.console import Console

EVENTS = "events.jsonl"
ALARM, INFO, WARNING, ERROR = "alarm", "info", "warning", "error"  # the levels


class Events:
    """Takes in what befalls a run, from its stages and from the library's own warnings, and passes it on.

    A row of `events.jsonl` has time, stage and step (null before the first stage), kind, level, sentence, and
    the numbers that it is about. Of an alarm the first of its kind in a stage is kept; how often it sounded,
    the report counts.

    Args:
      folder: of the run; its journal `events.jsonl` has to be open by the time of `start`.
      console: where people read on; None is nowhere.
    """

    def __init__(self, folder: RunFolder, console: Console | None = None):
        self._folder, self._console = folder, console
        self._stage: str | None = None
        self._step: int | None = None
        self._early: list[dict[str, Any]] | None = []  # before the journal is open
        self._kept: set[tuple[str, str]] = set()  # stage and kind of the alarms in the journal
        self._shown: set[tuple[str, str]] = set()  # and of those shown by this process
        self._listener = _Listener(self)
        logging.getLogger("jaxrl").addHandler(self._listener)

    def start(self) -> None:
        """The journal is open: what came before is written now."""
        early, self._early = self._early or [], None
        for row in early:
            self._folder.append(EVENTS, row)

    def move_to(self, stage: str, step: int) -> None:
        """Where the run is from now on, for events that do not know it."""
        self._stage, self._step = stage, step

    def remember(self, rows: Iterable[dict[str, Any]]) -> None:
        """What the journal holds: alarms among it are not written again."""
        self._kept = {(row["stage"], row["kind"]) for row in rows if row["level"] == ALARM}

    def record_alarms(self, alarms: Iterable[Alarm]) -> None:
        """Alarms of this stage and step: each kind is kept once in a stage, and shown once by a process."""
        for alarm in alarms:
            known = (str(self._stage), alarm.kind)
            if known not in self._kept:
                self._kept.add(known)
                self._write(alarm.kind, ALARM, alarm.sentence, alarm.numbers)
            if known not in self._shown and self._console is not None:
                self._shown.add(known)
                self._console.warn(f"{self._stage}, step {self._step}: {alarm.sentence}")

    def record(self, kind: str, level: str, sentence: str, **numbers: float) -> None:
        """An event that is no alarm. The console shows it, but for an error, with which the program ends."""
        self._write(kind, level, sentence, numbers)
        if self._console is not None and level != ERROR:
            (self._console.warn if level == WARNING else self._console.note)(sentence)

    def record_warning(self, record: logging.LogRecord) -> None:
        """A warning of the library, which stderr has shown already."""
        # Where the disk takes nothing, the run's next row says so.
        with suppress(InputError):
            self._write(getattr(record, "kind", record.module), WARNING, record.getMessage(), {})

    def close(self) -> None:
        """Listen no longer."""
        logging.getLogger("jaxrl").removeHandler(self._listener)

    def _write(self, kind: str, level: str, sentence: str, numbers: Mapping[str, Any]) -> None:
        row = {
            "stage": self._stage,
            "step": self._step,
            "time": round(time.time(), 3),
            "kind": kind,
            "level": level,
            "sentence": sentence,
            **{name: plain(value) for name, value in numbers.items()},
        }
        if self._early is not None:
            self._early.append(row)
        else:
            self._folder.append(EVENTS, row)


class _Listener(logging.Handler):
    def __init__(self, events: Events):
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.record_warning(record)
        # Where a program has set up no logging, Python shows warnings only as long as nobody listens.
        if logging.lastResort is not None and not _others_listen(self):
            logging.lastResort.handle(record)


def _others_listen(listener: logging.Handler) -> bool:
    return logging.root.handlers != [] or logging.getLogger("jaxrl").handlers != [listener]
