"""Two starts of one run: the second is refused at once, the first ends as if alone."""

import re

import pytest

from tests.cases.run_case import run_case


def test_two_runs_in_one_folder(tmp_path):
    """The second comes while the first still imports, or already trains: who came first is first."""
    said = run_case("14-two-runs-in-one-folder", tmp_path)
    assert re.findall(
        r"second (\S+) s after the first: rc (\d+) and (\d+); tracebacks in: *$", said, re.M
    ) == [("0.5", "0", "2"), ("1", "0", "2"), ("1.5", "0", "2")], said
    told = (tmp_path / "14-two-runs-in-one-folder" / "2.log").read_text()
    assert re.fullmatch(r"error: another process is at work in runs/x: pid \d+ on host .+\n", told)
