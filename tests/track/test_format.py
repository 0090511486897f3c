import math

import pytest

from jaxrl.track.format import (
    compact,
    data_size,
    duration,
    evaluation_cells,
    markdown_table,
    percent,
    sparkline,
    text_table,
)


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "–"),
        (0, "0"),
        (7, "7"),
        (-12, "-12"),
        (0.0, "0"),
        (0.6123, "0.612"),
        (-0.6123, "-0.612"),
        (1.5, "1.500"),
        (12.345, "12.35"),
        (123.456, "123.5"),
        (9999.0, "9999.0"),
        (48_200, "48.2k"),
        (1_250_000.0, "1.2M"),
        (3e9, "3.0G"),
        (0.000031, "3.1e-5"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_compact(value, text):
    assert compact(value) == text
    assert len(text) <= 7


def test_units():
    assert [duration(s) for s in (None, 0, 59.6, 3661, 360000)] == [
        "-:--:--",
        "0:00:00",
        "0:01:00",
        "1:01:01",
        "100:00:00",
    ]
    assert [percent(p) for p in (None, 0.0123, 1)] == ["–", "1.2%", "100.0%"]
    assert [data_size(b) for b in (0, 3 * 2**20, 12.4 * 2**30)] == ["0 MiB", "3 MiB", "12.4 GiB"]


def test_sparkline():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2, 2, 2]) == "▄▄▄"
    assert sparkline([0, None, math.nan, 7]) == "▁  █"
    assert sparkline([]) == sparkline([None]) == ""
    assert len(sparkline(list(range(1000)), width=48)) == 48


def test_tables():
    header, rows = ["model", "n"], [["base", "100"], ["a|b", "7"]]
    assert text_table(header, rows) == "model    n\n─────  ───\nbase   100\na|b      7"
    assert markdown_table(header, rows) == "| model | n |\n| --- | ---: |\n| base | 100 |\n| a\\|b | 7 |"


def test_a_part_is_shown_where_there_is_one():
    row = {
        "name": "base",
        "n": 4,
        "accuracy": 0.5,
        "ci80": [0.2, 0.8],
        "ci95": [0.1, 0.9],
        "mean_reward": 1.0,
        "format_rate": 1.0,
        "errors": 0,
    }
    assert "path" not in evaluation_cells([row])[0]
    header, cells = evaluation_cells([row, {**row, "parts": {"path": 0.25}}])
    assert [line[header.index("path")] for line in cells] == ["–", "0.250"]
    assert all(len(line) == len(header) for line in cells)
