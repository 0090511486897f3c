"""JSONL files: what is written is what is read, whole or not at all, the same bytes for the same rows."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, read_objects, read_rows, write_rows

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"a": 1, "text": "line\n\u2028 é \ud800"}, {}, {"b": [1.5, None, {"c": "日本"}]}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_round_trip(tmp_path, name):
    assert write_rows(tmp_path / name, iter(ROWS)) == 3
    assert list(read_rows(tmp_path / name)) == [
        (f"{tmp_path / name}, line {n}", row) for n, row in enumerate(ROWS, start=1)
    ]
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


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing yet"])
def test_a_link_stays_and_its_file_is_written(tmp_path, there):
    target, link = tmp_path / "folder" / "target.jsonl", tmp_path / "link.jsonl"
    target.parent.mkdir()
    if there:
        target.write_text("before")
    link.symlink_to(target)
    check_out(link)
    assert write_rows(link, ROWS) == 3
    assert link.is_symlink() and [row for _, row in read_objects(target)] == ROWS
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link.jsonl", "target.jsonl"]


def test_what_is_no_file_is_refused_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "lost").symlink_to(tmp_path / "none" / "new.jsonl")
    reasons = {
        "pipe": "a device or a pipe",
        "link": "a device or a pipe",
        "circle": "back to itself",
        "lost": "its folder",
    }
    for name, reason in reasons.items():
        for write in (check_out, lambda place: write_rows(place, ROWS)):
            with pytest.raises(InputError, match=f"{name} cannot be written: .*{reason}"):
                write(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo() and all(
        (tmp_path / name).is_symlink() for name in ("link", "circle", "lost")
    )
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "value, reason",
    [
        ("[" * 200_000, "its brackets nest too deeply"),
        ("[" * 5000 + "]" * 5000, "its brackets nest too deeply"),
        ("1" * 5000, "an integer has more digits than are read"),
        ("NaN", "holds 'NaN', a number that JSON does not have"),
        ("[-Infinity]", "holds '-Infinity', a number"),
        ("1e999", "holds '1e999', a number"),
    ],
    ids=["open brackets", "brackets", "long integer", "nan", "infinity", "beyond float"],
)
def test_values_that_json_or_python_does_not_take_are_refused_with_their_line(tmp_path, value, reason):
    (tmp_path / "rows").write_text(f'{{"a": 1}}\n{{"a": {value}}}\n')
    with pytest.raises(InputError, match=f"rows, line 2: {reason}"):
        list(read_rows(tmp_path / "rows"))


def test_numbers_that_json_has_are_read_as_they_were(tmp_path):
    texts = ["0.1", "-0.0", "1e308", "5e-324", "1E+2", str(10**4000), "-7"]
    (tmp_path / "rows").write_text(f"[{', '.join(texts)}]")
    ((_, values),) = read_rows(tmp_path / "rows")
    assert [repr(value) for value in values] == [repr(json.loads(text)) for text in texts]


def test_a_row_that_nests_too_deeply_is_not_written(tmp_path):
    row = {}
    for _ in range(100_000):
        row = {"a": row}
    with pytest.raises(InputError, match="line 1 would nest too deeply"):
        write_rows(tmp_path / "rows", [row])
    assert not list(tmp_path.iterdir())


def test_a_flipped_byte_of_a_gzip_file_is_one_clear_error(tmp_path):
    write_rows(tmp_path / "rows.gz", [{"a": n, "b": "x" * n} for n in range(30)])
    whole, refused = (tmp_path / "rows.gz").read_bytes(), 0
    for place in range(10, len(whole)):  # behind the header
        (tmp_path / "rows.gz").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            list(read_rows(tmp_path / "rows.gz"))
        except InputError as error:
            assert "rows.gz" in str(error) and "line " in str(error)
            refused += 1
    assert refused == len(whole) - 10


def test_what_stands_for_stdout_is_refused_even_where_that_is_a_file(tmp_path):
    """It would be replaced, and with it all that `>>` was to be added to."""
    program = (
        "import sys\nfrom jaxrl.files.jsonl import check_out\nfor place in sys.argv[1:]: check_out(place)"
    )
    for place in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with (tmp_path / "all.jsonl").open("a") as all_rows:
            ended = subprocess.run(
                [sys.executable, "-c", program, place],
                cwd=ROOT,
                stdout=all_rows,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert f"{place} cannot be written: it is a device or a pipe" in ended.stderr


def test_a_folder_that_takes_nothing_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="its folder is read-only"):
        check_out(tmp_path / "out.jsonl")


def test_two_processes_that_write_one_file_do_not_mix_their_rows(tmp_path, monkeypatch):
    """The last one to end has it, whole."""
    out = tmp_path / "out.jsonl"

    def rows_while_another_writes():
        yield {"first": 1}
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            write_rows(out, [{"second": n} for n in range(5)])
        yield {"first": 2}

    write_rows(out, rows_while_another_writes())
    assert [row for _, row in read_rows(out)] == [{"first": 1}, {"first": 2}]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
