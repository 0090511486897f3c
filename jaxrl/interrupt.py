"""Ctrl-C, SIGTERM and SIGHUP: the first asks for a save at the next step, the second stops at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class Interrupted(Exception):
    """A run that was asked to stop and has saved its state. `number` is the signal that asked."""

    number = signal.SIGINT


class Interrupt:
    """Owns the signal handlers while it is open. The handler only sets a flag: no step is torn.

    Args:
      gather: (the point's name, a value) -> the values of all processes of the run, see
        `device/processes.py`: whichever of them gets the signal, all stop at the same point.
    """

    def __init__(
        self, gather: Callable[[str, int | None], list[int | None]] = lambda _, mine: [mine]
    ) -> None:
        self.requested = False
        self._number, self._gather = signal.SIGINT, gather

    def stops(self, what: str) -> bool:
        """Whether the run ends here because it was asked to; all processes ask at the same point, `what`."""
        numbers = self._gather(f"signals at {what}", int(self._number) if self.requested else None)
        asked = [number for number in numbers if number is not None]
        if asked:
            self._number = signal.Signals(asked[0])
        return bool(asked)

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, *_ends())}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, Interrupted):
            error.number = self._number

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt(number)
        self.requested, self._number = True, signal.Signals(number)


@contextmanager
def ends_as_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt inside, with their number, so that unfinished files and
    processes are cleaned up; once, not in the clean-up.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for end in previous:
            signal.signal(end, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    previous = {number: signal.getsignal(number) for number in _ends()}
    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ends() -> list[signal.Signals]:
    """What asks a process to end.

    SIGHUP only where it is not ignored: `nohup` is the wish to outlive the terminal.
    """
    return [signal.SIGTERM] + ([] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP])
