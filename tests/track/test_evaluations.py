import dataclasses
import json

import pytest

from jaxrl.errors import InputError
from jaxrl.track.evaluations import load_rows, render_table, row_from_verdicts, save_rows
from jaxrl.types import Verdict

VERDICTS = [
    Verdict(1.0, True, True, {"path_coverage": 1.0}),
    Verdict(0.5, False, True, {"path_coverage": 0.5}),
    Verdict(0.0, False, False, {"path_coverage": 0.0}),
    Verdict(-1.0, False, False, error="timeout"),
]


def test_row_by_hand():
    row = row_from_verdicts("base", VERDICTS)
    assert (row.name, row.n, row.correct, row.accuracy, row.mean_reward, row.format_rate, row.errors) == (
        "base",
        4,
        1,
        0.25,
        0.125,
        0.5,
        1,
    )
    assert row.parts == {"path_coverage": 0.375}, "a verdict that is missing covers nothing"
    assert 0 <= row.ci95[0] < row.ci80[0] < row.accuracy < row.ci80[1] < row.ci95[1] <= 1


def test_what_could_not_be_judged_is_an_error_and_not_wrong():
    missing = [Verdict(float("nan"), False, False, error="sandbox: no memory")] * 3
    row, without = row_from_verdicts("base", [*missing, *VERDICTS]), row_from_verdicts("base", VERDICTS)
    assert row == dataclasses.replace(without, errors=4) and without.errors == 1 and row.n == 4
    with pytest.raises(
        InputError,
        match="'base': none of 3 completions could be judged .sandbox: no memory.; mend the verifier",
    ):
        row_from_verdicts("base", missing)


def test_parts_are_those_that_any_verdict_has_in_the_order_in_which_they_come():
    assert row_from_verdicts("base", [dataclasses.replace(v, parts={}) for v in VERDICTS]).parts == {}
    parts = [{"b": 1.0}, {"b": 0.0, "a": 3.0}, {"b": -0.5}, {}]
    row = row_from_verdicts("base", [dataclasses.replace(v, parts=p) for v, p in zip(VERDICTS, parts)])
    assert list(row.parts.items()) == [("b", 0.125), ("a", 0.75)]
    header, line = (row.split() for row in render_table([row]).splitlines()[::2])
    assert header[-6:] == ["mean", "reward", "b", "a", "format", "errors"] and line[-4:-2] == [
        "0.125",
        "0.750",
    ]


def test_no_verdicts():
    with pytest.raises(InputError, match="no problems"):
        row_from_verdicts("base", [])


def test_tables_are_aligned():
    rows = [row_from_verdicts("base", VERDICTS), row_from_verdicts("a longer name", VERDICTS * 25)]
    lines = render_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[:3] == ["model", "n", "accuracy"] and "25.0%" in lines[2]


def test_file_round_trip(tmp_path):
    rows = [
        row_from_verdicts("base", VERDICTS),
        row_from_verdicts("ü", [dataclasses.replace(v, parts={}) for v in VERDICTS]),
    ]
    save_rows(tmp_path / "eval.json", rows)
    assert load_rows(tmp_path / "eval.json") == rows
    assert load_rows(tmp_path / "none.json") == []
    whole = (tmp_path / "eval.json").read_text()
    changes = [
        ('"n": 4', '"n": "4"'),
        ('"base"', "3"),
        ('"accuracy": 0.25', '"accuracy": null'),
        ('"errors": 1', '"errors": [1]'),
        ('"path_coverage": 0.375', '"path_coverage": "all"'),
        ('"parts": {}', '"parts": []'),
        ('"ci80": [', '"ci80": [1,'),
        ('"ci95": [', '"ci95": ["x",'),
        ('"ci80": [', '"ci80": [[],'),
    ]
    changed = [whole.replace(a, b) for a, b in changes]
    for broken in ["{", "[1]", '[{"name": "a"}]', "3", "", "{}", "null", "[" * 100_000, *changed]:
        assert broken != whole
        (tmp_path / "eval.json").write_text(broken)
        with pytest.raises(InputError, match="not an evaluation table"):
            load_rows(tmp_path / "eval.json")
    (tmp_path / "eval.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        load_rows(tmp_path / "eval.json")
    (tmp_path / "eval.json").unlink()
    (tmp_path / "eval.json").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_rows(tmp_path / "eval.json")
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        save_rows(tmp_path / "eval.json", rows)


def test_a_file_of_the_version_that_had_one_part_and_called_it_coverage(tmp_path):
    """Loaded, shown as it was, and held against rows of today."""
    new = [
        row_from_verdicts("base", VERDICTS),
        row_from_verdicts("none", [dataclasses.replace(v, parts={}) for v in VERDICTS]),
    ]
    save_rows(tmp_path / "eval.json", new)
    values = json.loads((tmp_path / "eval.json").read_text())
    for value in values:
        value["coverage"] = value.pop("parts").get("path_coverage")
    (tmp_path / "eval.json").write_text(json.dumps(values))
    old = load_rows(tmp_path / "eval.json")
    assert old == [dataclasses.replace(new[0], parts={"coverage": 0.375}), new[1]]
    header, _, first, second, third = render_table([*old, new[0]]).splitlines()
    assert header.split()[-4:] == ["coverage", "path_coverage", "format", "errors"]
    assert [line.split()[-4:-2] for line in (first, second, third)] == [
        ["0.375", "–"],
        ["–", "–"],
        ["–", "0.375"],
    ]
