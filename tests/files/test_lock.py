"""The lock of a run's folder: who holds it, how long it lasts, and what stands in its way."""

import errno
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxrl.errors import InputError
from jaxrl.files import lock as folder_lock
from jaxrl.files.lock import locked

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from jaxrl.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path):
    """Another process that holds the lock until its stdin is closed, or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as refused, locked(folder):
        pass
    return str(refused.value)


def test_the_second_is_refused_with_the_pid_and_host_of_the_first(tmp_path):
    folder = tmp_path / "runs" / "x"
    with other_process(folder) as first:
        said = (
            f"another process is at work in {folder}: pid {first.pid} on host"
            f" {re.escape(socket.gethostname())}, since .*; wait for its end"
        )
        assert re.match(said, refusal(folder)) and "\n" not in refusal(folder)
        assert os.listdir(folder) == ["lock"], "to be refused changes nothing"
        first.stdin.close()
        assert first.wait(timeout=600) == 0
    assert list(tmp_path.iterdir()) == [], "neither does a run that writes nothing"
    with locked(folder):
        assert f"pid {os.getpid()} on host" in (folder / "lock").read_text()


def test_the_first_is_named_although_it_writes_its_name_a_moment_after_taking_the_lock(tmp_path, monkeypatch):
    with (tmp_path / "lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        monkeypatch.setattr(
            folder_lock.time, "sleep", lambda seconds: (tmp_path / "lock").write_text("pid 7 on host h\n")
        )
        assert "at work in" in refusal(tmp_path) and "pid 7 on host h;" in refusal(tmp_path)


@pytest.mark.parametrize("link", ["runs", "runs/x"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, link):
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "gone" / "for" / "good")
    with (
        pytest.raises(InputError, match=f"{tmp_path / link} is a link to what is not there"),
        locked(tmp_path / "runs" / "x"),
    ):
        pass


def test_folders_that_vanish_while_they_are_made_are_made_again(tmp_path, monkeypatch):
    make, calls = folder_lock._make, []

    def robbed(folder, made):
        calls.append(folder)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file or directory")
        make(folder, made)

    monkeypatch.setattr(folder_lock, "_make", robbed)
    with locked(tmp_path / "runs" / "x"):
        assert len(calls) == 2 and (tmp_path / "runs" / "x" / "lock").exists()


def test_a_killed_process_leaves_a_file_and_no_lock(tmp_path):
    with other_process(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=600)
    assert f"pid {first.pid} " in (tmp_path / "lock").read_text()
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text().count("pid") == 1 and f"pid {os.getpid()} " in (
            tmp_path / "lock"
        ).read_text()
    (tmp_path / "lock").write_text("pid 1 on host x" * 100)  # whatever stands in it
    with locked(tmp_path):
        assert (tmp_path / "lock").stat().st_size < 100


def test_in_one_process_too(tmp_path):
    with locked(tmp_path):
        assert f"pid {os.getpid()} " in refusal(tmp_path)
    with locked(tmp_path):
        pass


def test_children_do_not_keep_it(tmp_path):
    """Neither programs that are started nor a fork, while they live on after the process that held it."""
    program = f"""
import os, subprocess, sys
from pathlib import Path
from jaxrl.files.lock import locked
with locked(Path({str(tmp_path)!r})):
    reader = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    started = subprocess.Popen(reader, stdin=0, close_fds=False)
    forked = os.fork()
    if forked == 0:
        os.write(1, b"x")
        os.read(0, 1)
        os._exit(0)
    os.read({{read}}, 1)
    os._exit(0)
"""
    answers, answer = os.pipe()
    wishes, wish = os.pipe()
    try:
        parent = subprocess.Popen(
            [sys.executable, "-c", program.replace("{read}", str(answers))],
            cwd=ROOT,
            stdin=wishes,
            stdout=answer,
            pass_fds=[answers],
        )
        assert parent.wait(timeout=600) == 0
        with locked(tmp_path):
            pass
    finally:
        # both children read the end of their stdin, and leave
        for descriptor in (wish, wishes, answer, answers):
            os.close(descriptor)


def test_a_folder_that_is_made_anew_is_another_folder(tmp_path):
    folder = tmp_path / "x"
    with locked(folder) as check:
        check()
        shutil.rmtree(folder)
        with pytest.raises(InputError, match="was deleted or replaced"):
            check()
        with other_process(folder) as second:
            assert f"pid {second.pid} " in refusal(folder)
            with pytest.raises(InputError, match="was deleted or replaced"):
                check()


def test_the_end_takes_away_its_own_file_only(tmp_path):
    folder = tmp_path / "x"
    with locked(folder):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "lock").write_text("another's")
    assert (folder / "lock").read_text() == "another's"


def test_a_file_that_its_holder_takes_away_meanwhile_locks_nothing(tmp_path, monkeypatch):
    """Between opening the file and locking it the holder may leave; then it is the file of nobody."""
    flock, left = fcntl.flock, []

    def leave_first(descriptor, operation):
        if not left:
            left.append((tmp_path / "lock").unlink())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", leave_first)
    with locked(tmp_path):
        assert left and "pid" in (tmp_path / "lock").read_text() and "pid" in refusal(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_used(number, tmp_path, monkeypatch, caplog):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        assert (
            f"{tmp_path} has no locks ({os.strerror(number)}): nothing keeps a second process out"
            in caplog.text
        )
    assert os.listdir(tmp_path) == []


def test_what_stands_in_its_way_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file/x cannot be written: Not a directory" in refusal(tmp_path / "file" / "x")
    assert f"{tmp_path}/file cannot be written: " in refusal(tmp_path / "file")
    (tmp_path / "lock").mkdir()
    assert "Is a directory; something else stands in its place" in refusal(tmp_path)

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    assert "Read-only file system; choose a place that may be written to" in refusal(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_written_is_let_go(tmp_path, monkeypatch):
    """A lock without room for its text is no lock."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert "No space left on device; make room" in refusal(tmp_path)
    with locked(tmp_path):
        pass


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty"):
        pass
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert (tmp_path / "empty").is_dir() and os.listdir(tmp_path / "a" / "b") == ["kept"]
