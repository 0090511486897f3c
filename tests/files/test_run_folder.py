"""The folder of a run: one process writes, and what it could not write is everybody's error."""

import pytest

from jaxrl.errors import InputError
from jaxrl.files.disk import write_whole
from jaxrl.files.journal import read_journal
from jaxrl.files.run_folder import RunFolder


def test_the_first_process_writes_and_finds(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.exists("")
    folder.write("", lambda path: path.mkdir())
    assert folder.write("a", lambda path: write_whole(path, "x")) == tmp_path / "run" / "a"
    folder.open("rows", "more")
    folder.append("rows", {"n": 1})
    folder.append("rows", {"n": 2})
    folder.replace("rows", [{"n": 2}])
    folder.close()
    assert folder.exists("a") and (tmp_path / "run" / "a").read_text() == "x"
    assert read_journal(tmp_path / "run" / "rows") == [{"n": 2}]
    with pytest.raises(InputError, match="run/a/b cannot be written: Not a directory"):
        folder.write("a/b", lambda path: path.write_text("x"))


def test_another_process_writes_nothing_and_takes_the_first_ones_word(tmp_path):
    """`agree` is asked the same number of times, in the same order, on every process: else they would wait
    for one another for ever.
    """
    words = iter([True, None, InputError("process 0: a disk is full")])

    def agree(*_):
        if isinstance(word := next(words), InputError):
            raise word  # as `gather` does where another process has left with it
        return word

    folder = RunFolder(tmp_path, writes=False, agree=agree)
    folder.open("rows")
    folder.append("rows", {"n": 1})
    folder.replace("rows", [])
    folder.check()
    assert folder.exists("a")
    folder.write("a", lambda path: path.write_text("x"))
    with pytest.raises(InputError, match="^process 0: a disk is full$"):
        folder.write("a", lambda path: path.write_text("x"))
    folder.close()
    assert list(tmp_path.iterdir()) == [] and next(words, "none is left") == "none is left"


def test_a_journal_that_is_gone_is_missed_by_every_other(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open("rows", "more")
    (tmp_path / "rows").unlink()
    with pytest.raises(InputError, match="rows was deleted or replaced while the run was at work"):
        folder.append("more", {"n": 1})
    folder.close()
    assert (tmp_path / "more").read_bytes() == b""
