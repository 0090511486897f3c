"""JSONL files: what is written is what is read, whole or not at all, the same bytes for the same rows."""

import gzip

import pytest

from jaxrl.data.jsonl import check_out, read_objects, read_rows, write_rows
from jaxrl.errors import InputError

ROWS = [{"a": 1, "text": "line\n\u2028 é \ud800"}, {}, {"b": [1.5, None, {"c": "日本"}]}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_round_trip(tmp_path, name):
    assert write_rows(tmp_path / name, iter(ROWS)) == 3
    assert list(read_rows(tmp_path / name)) == [(f"{tmp_path / name}, line {n}", row) for n, row in enumerate(ROWS, start=1)]
    assert [row for _, row in read_objects(tmp_path / name)] == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_gzip_writes_the_same_bytes_under_any_name_and_at_any_time(tmp_path, monkeypatch):
    write_rows(tmp_path / "a.gz", ROWS)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_rows(tmp_path / "b.gz", ROWS)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).count(b"\n") == 3


def rows_that_end_in(error):
    yield from ROWS
    raise error


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt()])
def test_what_is_not_finished_does_not_appear(tmp_path, name, error):
    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(type(error)):
        write_rows(tmp_path / name, rows_that_end_in(error))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"before")]


def test_rows_are_read_as_they_are_asked_for(tmp_path):
    (tmp_path / "rows").write_text('{"a": 1}\nbroken\n')
    rows = read_rows(tmp_path / "rows")
    assert next(rows)[1] == {"a": 1}
    with pytest.raises(InputError, match="line 2, column 1: not JSON"):
        next(rows)


def test_what_json_does_not_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="line 2 would hold a number that JSON does not have"):
        write_rows(tmp_path / "rows", [{"a": 1}, {"a": float("nan")}])
    assert not list(tmp_path.iterdir())


def test_values_that_are_no_objects_are_refused(tmp_path):
    (tmp_path / "rows").write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(InputError, match=r"line 3: must be a JSON object, and is \[1\]"):
        list(read_objects(tmp_path / "rows"))


def test_places_that_cannot_be_written(tmp_path):
    check_out(tmp_path / "new.jsonl")
    for place in (tmp_path, tmp_path / "none" / "new.jsonl"):
        with pytest.raises(InputError, match="cannot be written"):
            check_out(place)
        with pytest.raises(InputError, match="cannot be written"):
            write_rows(place, ROWS)
