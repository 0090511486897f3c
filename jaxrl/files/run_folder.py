"""The folder of a run, and all that is written under it: by the first process, and by no other.

runs/<name>/  config.yaml  inputs.json  metrics.jsonl  samples.jsonl  events.jsonl  eval.json  report.md
              checkpoints/<stage>/  tokenizer/  model/ (a base made here)  adapter/ (PEFT)
              lock (while a process is at work there)  sent.json (where it is kept at a URL)

Checkpoints are the one exception: all processes write them together (`update/checkpoint.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrl.files.disk import writing
from jaxrl.files.follower import Follower
from jaxrl.files.journal import Journal
from jaxrl.files.mirror import Mirror
from jaxrl.files.place import join

LONG_S = 3600.0  # what one process may take over files (a model written or read), beyond the usual


def alone(what: str, value: Any, extra_s: float = 0.0) -> Any:
    """What a process that shares the run with no other agrees on: what it says itself."""
    return value


class RunFolder:
    """Owns every write under a run's folder. What the first process finds or writes there is so for all.

    `exists` and `write` are asked by every process at the same point of the run, since they wait for one
    another there; a row of a journal is nobody's affair but the first one's.

    Args:
      path: of the folder.
      writes: whether this is the first process.
      agree: (the point's name, a value, how much longer it may take than usual) -> the first process's value,
        on every process; see `device/processes.py`.
      mirror: of a folder that is kept elsewhere, and of which `path` is a copy. What the first process writes
        is sent, and the others fetch it.
    """

    def __init__(
        self,
        path: str | Path,
        writes: bool = True,
        agree: Callable[..., Any] = alone,
        mirror: Mirror | Follower | None = None,
    ):
        self.path, self.writes, self._agree, self._mirror = Path(path), writes, agree, mirror
        self._journals: dict[str, Journal] = {}

    def place(self, name: str) -> str:
        """Where people find a file: its path, or its URL."""
        return str(self.path / name) if self._mirror is None else join(self._mirror.remote.url, name)

    def checkpoints(self, name: str) -> str:
        """Where the checkpoints go that are called so: the path of a folder, or a URL where several processes
        write them, which share no disk.
        """
        return self.place(name) if self._is_joint else str(self.path / name)

    @property
    def _is_joint(self) -> bool:
        return self._mirror is not None and self._mirror.is_joint

    def bring(self) -> None:
        """Where the folder is kept elsewhere: when the first process has brought its copy up to date, so do
        the others.
        """
        if isinstance(self._mirror, Follower):
            self._mirror.pull()

    def exists(self, name: str) -> bool:
        """Whether the first process sees such a file or folder."""
        is_there = self.writes and (self.path / name).exists()  # others would remember that it was not
        return self._agree(f"whether {name} is there", is_there)

    def write(self, name: str, write: Callable[[Path], object]) -> Path:
        """Have the first process call `write` with the path; when this returns, all processes can read it.

        Raises:
          InputError: on every process, what the first one could not write and why.
        """
        path = self.path / name

        def write_and_send() -> None:
            with writing(path):
                write(path)
            self._push()

        self._by_the_first(f"{name or 'the run folder'} written", write_and_send)
        if isinstance(self._mirror, Follower):
            self._mirror.fetch(name)
        return path

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around the writing of a checkpoint: where the folder is kept elsewhere, send what has changed. As
        `write`.

        A checkpoint that all processes write there themselves counts as soon as it is whole, so that what was
        told before it goes first; any other is sent, with that, afterwards.
        """
        if self._is_joint:
            self._send()
        yield
        if not self._is_joint:
            self._send()

    def _send(self) -> None:
        self._by_the_first("what has changed sent", self._push)

    def _push(self) -> None:
        if isinstance(self._mirror, Mirror):
            self._mirror.push()

    def _by_the_first(self, what: str, act: Callable[[], None]) -> None:
        if self.writes:
            act()  # what it raises leaves this process, and all others with it
        self._agree(what, None, LONG_S)

    def open(self, *names: str) -> None:
        """Begin to write journals, where this process writes."""
        for name in names if self.writes else ():
            self._journals[name] = Journal(self.path / name)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One row more in an open journal."""
        if self.writes:
            self.check()
            self._journals[name].append(row)

    def replace(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Let an open journal hold these rows instead of those that it has."""
        if self.writes:
            self._journals[name].replace(rows)

    def check(self) -> None:
        """InputError where an open journal is no longer the file at its place: see `Journal.check`."""
        for journal in self._journals.values():
            journal.check()

    def close(self) -> None:
        """End all journals."""
        for journal in self._journals.values():
            journal.close()
        self._journals = {}
