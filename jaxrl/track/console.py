"""What a person sees while a run goes on: a status bar and aligned lines on a terminal, plain lines in a file
or a pipe.
"""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from jaxrl.files.disk import silence
from jaxrl.track.format import FIELDS, data_size, duration, text_table

WIDTH = 7  # of a number, so that the lines of a stage stand under one another

log = logging.getLogger("jaxrl")


class LastingStream:
    """A text stream that falls silent when nobody takes what is written to it: a pipe whose reader has left,
    a full disk.

    A run does not end with its console. What is said here stands in the run's files too, and a pager that was
    left, or a `tee` that died, must not cost a night's work. Who wants a run to end sends it a signal (a
    closed terminal does).
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream  # None in a process that was started without one

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # encoding, fileno: what rich asks for

    def _try(self, use: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            use(self._stream)
        except OSError as error:
            lost, self._stream = self._stream, None
            silence(lost)
            log.warning(
                "the console is lost (%s); the run goes on, and metrics.jsonl in its folder tells of it",
                error.strerror,
            )


class Console:
    """Owns the terminal's status bar. Where `enabled` is False (every process but the first) nothing is
    written.

    Args:
      stream: where to write, usually sys.stdout; see `LastingStream` for what happens when it is closed.
      enabled: whether this process speaks.
      log_every: steps between two lines; the bar moves at every step, and the last step always has its line.
      is_terminal: None asks the stream.
      clock: seconds, for the remaining time.
    """

    def __init__(
        self,
        stream: TextIO | None,
        enabled: bool = True,
        log_every: int = 1,
        is_terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream, self._enabled, self._log_every, self._clock = (
            LastingStream(stream),
            enabled,
            log_every,
            clock,
        )
        self._name, self._total, self._seen, self._last = "", 0, 0, clock()
        self._durations: deque[float] = deque(maxlen=20)
        self._rich = self._bar = self._task = None
        if enabled and (self._stream.isatty() if is_terminal is None else is_terminal):
            import rich.console

            terminal = rich.console.Console(
                file=self._stream, force_terminal=True, highlight=False, markup=False, emoji=False
            )
            self._rich = None if terminal.is_dumb_terminal else terminal

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stage(self, name: str, total: int, start: int = 0, detail: str = "", unit: str = "step") -> None:
        """Begin a stage of `total` steps (or whatever `unit` is) of which `start` are done; remaining time is
        measured from here.
        """
        self.close()
        self._name, self._total, self._seen, self._last = name, total, 0, self._clock()
        self._durations.clear()
        parts = [
            name,
            f"{total} {unit}{'' if total == 1 else 's'}",
            f"from step {start}" if start else "",
            detail,
        ]
        text = " · ".join(part for part in parts if part)
        if self._rich is None:
            self._write(f"── {text} ──")
            return
        from rich.rule import Rule
        from rich.text import Text

        self._rich.print()
        self._rich.print(Rule(Text(text, style="bold"), align="left", style="cyan"))
        self._start_bar(start)

    def progress(self, step: int, metrics: Mapping[str, Any], memory: tuple[str, int] | None = None) -> None:
        """Say that `step` steps of the stage are done.

        Args:
          step: counted from 1.
          metrics: of that step; those named in `format.FIELDS` are shown.
          memory: (label, bytes in use), for example ("gpu", 3 * 2**30).
        """
        if not self._enabled:
            return
        remaining = self._remaining(step)
        if self._bar is not None:
            shown = "" if memory is None else f"{memory[0]} {data_size(memory[1])}"
            self._bar.update(self._task, completed=step, eta=duration(remaining), memory=shown)
        if step % self._log_every and step != self._total:
            return
        cells = [
            (field.label, field.write(_number(metrics[field.metric])))
            for field in FIELDS
            if field.metric in metrics
        ]
        if self._rich is None:
            cells.insert(0, ("eta", duration(remaining)))
            cells += [] if memory is None else [(memory[0], data_size(memory[1]))]
            self._write(
                "  ".join([self._place(step), *(f"{label} {value:>{WIDTH}}" for label, value in cells)])
            )
        else:
            self._print_cells(step, cells)

    def note(self, text: str) -> None:
        """A line for the reader's information."""
        self._say(text, "dim")

    def warn(self, text: str) -> None:
        """A line that must not be overlooked."""
        self._say(f"warning: {text}", "bold yellow")

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: first column to the left, the others to the right."""
        if self._rich is None:
            self._write(f"\n{title}\n{text_table(header, rows)}\n")
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, header_style="cyan"
        )
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left")
        for row in rows:
            table.add_row(*(Text(cell, style="" if i else "bold") for i, cell in enumerate(row)))
        self._rich.print(table)

    def close(self) -> None:
        """Take the status bar away; the lines stay. May be called again, and the console used on."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _place(self, step: int) -> str:
        return f"{self._name}  {step:>{len(str(self._total))}}/{self._total}"

    def _remaining(self, step: int) -> float | None:
        """Seconds to the end of the stage, from the median of recent steps; the first one compiles and does
        not count.
        """
        now = self._clock()
        self._seen += 1
        if self._seen > 1:
            self._durations.append(now - self._last)
        self._last = now
        if step >= self._total:
            return 0.0
        return statistics.median(self._durations) * (self._total - step) if self._durations else None

    def _start_bar(self, start: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._bar = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=32, complete_style="cyan", finished_style="green"),
            MofNCompleteColumn(),
            TextColumn("eta {task.fields[eta]}", style="bold", markup=False),
            TextColumn("{task.fields[memory]}", style="dim", markup=False),
            console=self._rich,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(
            self._name, total=self._total, completed=start, eta=duration(None), memory=""
        )
        self._bar.start()

    def _print_cells(self, step: int, cells: list[tuple[str, str]]) -> None:
        from rich.text import Text

        line = Text(self._place(step), style="cyan", no_wrap=True, overflow="ellipsis")
        for i, (label, value) in enumerate(cells):
            line.append(f"  {label} ", style="dim not bold default")
            line.append(f"{value:>{WIDTH}}", style="bold default" if i == 0 else "default")
        self._rich.print(line)

    def _say(self, text: str, style: str) -> None:
        if self._rich is None:
            self._write(text)
        else:
            from rich.text import Text

            self._rich.print(Text(text, style=style))

    def _write(self, text: str) -> None:
        if self._enabled:
            self._stream.write(text + "\n")
            self._stream.flush()


def _number(value: Any) -> float | int | None:
    return value if value is None or isinstance(value, int) else float(value)
