"""Journals: a row is on the disk at once, what a dead process left is mended, a lost file is missed."""

import pytest

from jaxrl.errors import InputError
from jaxrl.files.journal import Journal, read_journal


def test_rows_are_on_disk_at_once_and_are_read_as_they_were(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    rows = [{"text": "line\n\u2028é"}, {"half": "a\ud800b"}, {"number": 0.1, "none": None}]
    for count, row in enumerate(rows, start=1):
        journal.append(row)
        assert read_journal(path) == rows[:count]
    journal.close()
    assert read_journal(tmp_path / "none.jsonl") == []


def test_what_is_kept_is_all_that_is_there_and_it_goes_on_from_it(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    for number in range(4):
        journal.append({"n": number})
    journal.replace([{"n": 1}])
    journal.append({"n": 9})
    assert read_journal(journal.path) == [{"n": 1}, {"n": 9}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    journal.close()


def test_what_cannot_be_kept_leaves_the_rows_as_they_were(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    journal.append({"n": 1})
    (tmp_path / "a.jsonl.tmp").mkdir()  # where the new file would be written
    with pytest.raises(InputError, match="cannot be written"):
        journal.replace([])
    journal.append({"n": 2})
    assert read_journal(journal.path) == [{"n": 1}, {"n": 2}]
    journal.close()
