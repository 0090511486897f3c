"""A run's folder elsewhere, and the local copy that the run works in.

A bucket knows no appending, no renaming and no locks, and all of them keep a run whole. So a run whose
`runs_dir` is a URL works in a folder of this machine; what changes there is sent when it counts, and brought
back when there is no local copy that is as new.

**What stands at the URL is, whenever the process may die, a state from which the run goes on.** Files are
sent one after another, so this rests on their order:

1. what a checkpoint needs beside itself: inputs, tokenizer, winners, the config after them;
2. the journals. Rows that come after the newest checkpoint are dropped when a run is taken up again, and rows
   that are missing before it would be lost: so they are never older than the checkpoint;
3. the files of new checkpoints, which nobody believes in yet;
4. `sent.json`, which names the checkpoints that are whole: the commit;
5. what follows from a checkpoint: evaluations, exports, the report;
6. at last what is no longer here is deleted there.

`sent.json` also has a name for the state, new with every commit. A local copy that bears the same name is as
new as what stands there, or newer, where the network failed; any other is made anew from there.

**Of several processes** each writes its part of a checkpoint to the URL itself, and Orbax at last puts a file
into it by which it goes (`FINISHED`). So checkpoints are neither sent nor brought, and `sent.json` says that
it does not name them; the journals are sent before one is begun (`RunFolder.saving`). What else stands in
the folder is small: the first process brings it anew at every start, and the others fetch what they read of
it (`Follower`).
"""

import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.digests import side_by_side, stamp
from jaxrl.files.disk import AGAIN, check_space, read_json, write_whole, writing
from jaxrl.files.follower import Follower
from jaxrl.files.remote import Remote
from jaxrl.files.remote_lock import LOCK, RemoteLock, TakenOver, locked_remotely

SENT = "sent.json"
OWN = (LOCK, SENT)  # of each side for itself
LOCAL = re.compile(r"wandb/|.*(\.tmp$|\.saving/|\.orbax-checkpoint-tmp)")  # not sent
CHECKPOINT = re.compile(r"(checkpoints/[^/]+/\d+)/")  # counts as a whole or not at all
JOINT = "gs://"  # where Orbax writes itself
FINISHED = "commit_success.txt"  # what Orbax writes last into a checkpoint
EXPORT = re.compile(r"(model|adapter)/")  # made at a run's end, and not read again
# the order above: the first that matches a file's name; what no row names goes first
ORDER = [
    re.compile(pattern)
    for pattern in (
        r"config\.yaml$",
        r"[^/]+\.jsonl$",
        CHECKPOINT.pattern,
        r"eval\.json$",
        r"(model|adapter)/.*\.safetensors$",  # a folder's config.json says that it is whole
        r"(model|adapter)/(?!(adapter_)?config\.json$)",
        r"(model|adapter)/",
        r"report\.md$",
    )
]
COMMIT = 3  # as many rows come before it

Wholes = dict[str, dict[str, int]]  # checkpoint -> its files -> bytes

log = logging.getLogger("jaxrl")


class Mirror:
    """Keeps what stands at a URL equal to a local folder; see the head of this file.

    Args:
      remote: the run's folder elsewhere.
      folder: the local copy, which this process has for itself.
      is_joint: several processes write the checkpoints to the URL themselves.
    """

    def __init__(self, remote: Remote, folder: Path, is_joint: bool = False):
        self.remote, self.folder, self.is_joint = remote, folder, is_joint
        here = _read_here(folder / SENT)
        self.copy: str = here.get("copy") or uuid.uuid4().hex  # names the local copy, as long as it lasts
        self._state: str | None = here.get("state")
        self._stamps: dict[str, list[int]] = here.get("stamps", {})  # of the files as they were sent
        self._wholes: Wholes = {}
        self._there: dict[str, int] = {}  # name -> bytes
        self._begun = False  # a commit of this process stands there
        self.lock: RemoteLock | None = None

    def pull(self) -> None:
        """Make the local copy what stands at the URL, unless it is as new.

        Raises:
          InputError: files there that nothing says to be whole, or none of the run that this is a copy of.
        """
        self._there = {name: size for name, size in self.remote.list().items() if name not in OWN}
        content = self.remote.read(SENT)
        if content is None:
            self._refuse_what_is_not_a_run()
            self._empty()
            return
        state, wholes = _parse(content, self.remote.url)
        self._wholes = self._finished() if wholes is None else wholes
        if state == self._state and not self.is_joint:
            return
        if self._state not in (None, state):
            log.warning("%s was gone on with elsewhere, and %s is made anew", self.remote.url, self.folder)
        names = [name for name in self._there if self._is_needed(name)]
        self._empty()
        check_space(
            self.folder, sum(self._there[name] for name in names), f"the local copy of {self.remote.url}"
        )
        with writing(self.folder):
            side_by_side(lambda name: self.remote.fetch(name, self.folder / name), names)
        self._state, self._stamps = state, {name: _stamp(self.folder / name) for name in names}
        if self.is_joint:
            self._leave_checkpoints(was_joint=wholes is None)
        self._note()

    def _finished(self) -> Wholes:
        """The checkpoints there that Orbax calls whole, where it has written them there."""
        wholes: Wholes = {}
        for name, size in self._there.items():
            if (whole := _whole(name)) is not None and f"{whole}/{FINISHED}" in self._there:
                wholes.setdefault(whole, {})[name] = size
        return wholes

    def _leave_checkpoints(self, was_joint: bool) -> None:
        """Have Orbax say from now on which checkpoints there are whole: of those that were sent from a local
        copy, it shall not believe one that was sent by half.
        """
        for name in [name for name in self._there if _whole(name) is not None]:
            if name.endswith(f"/{FINISHED}") and _whole(name) not in self._wholes:
                self.remote.delete(name)
            del self._there[name]
        if not was_joint:
            self.remote.write(SENT, _sent(self._state, None))

    def push(self) -> None:
        """Send what has changed. When this returns, the run goes on from here wherever it is started.

        Raises:
          InputError: the network does not take it; another process has taken the folder over.
        """
        stamps = {name: _stamp(self.folder / name) for name in _local_files(self.folder)}
        changed = [
            name
            for name, stamp in stamps.items()
            if (self._stamps.get(name), self._there.get(name)) != (stamp, stamp[0])
        ]
        # what somebody has put there beside the run's own files is left alone
        own = [name for name in self._there if name in self._stamps or _whole(name) is not None]
        gone = [name for name in own if name not in stamps]
        if not changed and not gone:
            return
        try:
            if self.lock is not None:
                self.lock.check()
            self._push(sorted(changed, key=_rank), stamps, gone)
        except TakenOver:
            raise
        except InputError as error:
            raise type(error)(
                f"{error}. The run is whole in {self.folder}, as far as it came; {AGAIN} on this machine, to "
                "go on from there"
            ) from None

    def end(self) -> None:
        """Send what was told of the run's end; nothing of one that was refused before it began."""
        if self._begun:
            self.push()

    def _push(self, changed: list[str], stamps: dict[str, list[int]], gone: list[str]) -> None:
        wholes: Wholes = {}
        for name in stamps:
            if (whole := _whole(name)) is not None:
                wholes.setdefault(whole, {})[name] = stamps[name][0]
        rewritten = {_whole(name) for name in changed}
        untouched = {name: files for name, files in self._wholes.items() if name not in rewritten}
        if not self._begun or untouched != self._wholes:
            self._commit(untouched)  # nobody believes in what is about to be written over
        early = [name for name in changed if _rank(name)[0] <= COMMIT]
        self._send(early, stamps)
        self._commit(wholes)
        self._send([name for name in changed if name not in early], stamps)
        for name in gone:
            self.remote.delete(name)
            del self._there[name]
            self._stamps.pop(name, None)
        self._note()

    def _send(self, names: list[str], stamps: dict[str, list[int]]) -> None:
        """Send files in order; those of checkpoints side by side."""
        single = [name for name in names if _whole(name) is None]
        for name in single:
            self.remote.send(name, self.folder / name)
        parts = [name for name in names if _whole(name) is not None]
        side_by_side(lambda name: self.remote.send(name, self.folder / name), parts)
        for name in names:
            self._stamps[name], self._there[name] = stamps[name], stamps[name][0]

    def _commit(self, wholes: Wholes) -> None:
        state = uuid.uuid4().hex
        self.remote.write(SENT, _sent(state, None if self.is_joint else wholes))
        self._state, self._wholes, self._begun = state, wholes, True
        self._note()

    def _note(self) -> None:
        """Write down, for the next process, what was sent. A copy that lacks the checkpoints has no state."""
        state = None if self.is_joint else self._state
        note = {"copy": self.copy, "state": state, "stamps": self._stamps}
        write_whole(self.folder / SENT, json.dumps(note))

    def _is_needed(self, name: str) -> bool:
        """Whether the run goes on from a file: from no export, and from no checkpoint without a commit."""
        whole = _whole(name)
        if whole is None:
            return not EXPORT.match(name)
        return not self.is_joint and name in self._wholes.get(whole, {})

    def _empty(self) -> None:
        """Take the local copy away, the note of what it is a copy of first."""
        with writing(self.folder):
            (self.folder / SENT).unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if path.name == LOCK:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _refuse_what_is_not_a_run(self) -> None:
        url = self.remote.url
        if self._there:
            raise InputError(
                f"{url} holds {min(self._there)} and no {SENT}, so that nothing says whether its checkpoints "
                "are whole; set another `name`, or delete what is there. A run that was copied there goes on "
                "in a folder of a disk, set as runs_dir"
            )
        if self._state is not None:
            raise InputError(
                f"{url} holds nothing any more of the run that {self.folder} is a copy of; restore it, or "
                f"delete {self.folder} to begin anew"
            )


@contextmanager
def mirrored(
    folder: Path, url: str | None, process_id: int = 0, num_processes: int = 1
) -> Iterator[Mirror | Follower | None]:
    """The mirror of a run's folder at `url`, with the local copy brought up to date, and other runs kept out
    as long as the block lasts; None, and nothing done, where the folder is kept here. Of several processes
    the first has the mirror, and the others follow it.

    What the run tells of its end is sent, too; of two errors, the run's own is raised.

    Args:
      folder: the local copy, locked by the first process.
    Raises:
      InputError: see `Remote`, `locked_remotely` and `Mirror`; a place to which several processes cannot
        write one checkpoint.
    """
    if url is None:
        yield None
        return
    if num_processes > 1:
        _check_joint(url)
    remote = Remote(url)
    if process_id > 0:
        yield Follower(remote, folder.with_name(f".{folder.name}.process_{process_id}"))
        return
    mirror = Mirror(remote, folder, is_joint=num_processes > 1)
    with locked_remotely(mirror.remote, mirror.copy) as mirror.lock:
        mirror.pull()
        try:
            yield mirror
        except Exception:
            with suppress(InputError):
                mirror.end()
            raise
        mirror.end()


def _check_joint(url: str) -> None:
    """InputError where several processes cannot write one checkpoint together."""
    if not url.startswith(JOINT):
        raise InputError(
            f"{url} is where several processes cannot write one checkpoint: Orbax does that at {JOINT} alone;"
            " set runs_dir to gs://BUCKET/FOLDER, or to a path that all of them share, such as a network file"
            " system"
        )


def _whole(name: str) -> str | None:
    """The checkpoint that a file belongs to."""
    found = CHECKPOINT.match(name)
    return found and found[1]


def _rank(name: str) -> tuple[int, str]:
    ranks = (i for i, pattern in enumerate(ORDER, start=1) if pattern.match(name))
    return next(ranks, 0), name


def _stamp(path: Path) -> list[int]:
    return list(stamp(path))


def _local_files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name not in OWN and not LOCAL.match(name) and path.is_file():
            yield name


def _read_here(path: Path) -> Mapping[str, Any]:
    return read_json(path, "delete it to take what was sent") if path.is_file() else {}


def _sent(state: str | None, wholes: Wholes | None) -> bytes:
    return json.dumps({"state": state, "checkpoints": wholes}, indent=1).encode()


def _parse(content: bytes, url: str) -> tuple[str, Wholes | None]:
    """The state's name, and the whole checkpoints; None: Orbax says which they are."""
    try:
        values = json.loads(content)
        wholes = values["checkpoints"]
        if wholes is not None:
            wholes = {str(name): dict(files) for name, files in wholes.items()}
        return values["state"], wholes
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{url}/{SENT} cannot be used ({type(error).__name__}: {error}); restore it, or set another "
            "`name`"
        ) from None
