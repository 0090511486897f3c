"""The lanes of the tests: the table names what exists, the script runs each, every test is in one of them."""

import re
from pathlib import Path

import pytest

from tests.conftest import LANES, lane_of, pytest_collection_modifyitems

TESTS = Path(__file__).parent


def test_every_row_of_the_table_exists():
    for place in (place for rows in LANES.values() for place in rows):
        assert (TESTS / place).exists(), f"tests/conftest.py names {place}"


def test_without_an_argument_the_script_runs_every_lane_once():
    script = (TESTS.parent / "scripts" / "test.sh").read_text()
    (listed,) = re.findall(r"^LANES=\((.*)\)$", script, re.M)
    assert sorted(listed.split()) == sorted(LANES)


def test_every_lane_is_a_marker(pytestconfig):
    markers = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert set(LANES) <= markers


class Item:
    """What a collected test is to the hook."""

    def __init__(self, file, *marks):
        self.path, self.nodeid, self.marks = TESTS / file, file, [getattr(pytest.mark, m).mark for m in marks]

    def iter_markers(self):
        return iter(self.marks)

    def add_marker(self, name):
        self.marks.append(getattr(pytest.mark, name).mark)


@pytest.mark.parametrize(
    "file, marks, lane",
    [
        ("ops/test_kl.py", [], "fast"),
        ("cases/test_math.py", [], "end_to_end"),
        ("cases/test_program_cases.py", [], "sandbox"),  # the row of the file before that of its folder
        ("end_to_end/test_run.py", ["parametrize", "mesh"], "mesh"),
        ("compiled/test_aot.py", ["skipif"], "aot"),
    ],
)
def test_a_test_is_in_the_lane_of_its_mark_else_of_its_place(file, marks, lane):
    item = Item(file, *marks)
    pytest_collection_modifyitems([item])
    assert [mark.name for mark in item.marks if mark.name in LANES] == [lane]


def test_two_lanes_for_one_test_are_an_error():
    with pytest.raises(pytest.UsageError, match="several lanes"):
        pytest_collection_modifyitems([Item("ops/test_kl.py", "mesh", "aot")])


def test_every_collected_test_is_in_exactly_one_lane(request):
    for item in request.session.items:
        lanes = [mark.name for mark in item.iter_markers() if mark.name in LANES]
        assert len(lanes) == 1, (item.nodeid, lanes)


def test_files_with_no_row_are_fast():
    assert lane_of(Path("anything/test_new.py")) == "fast"
