"""What outside users met where programs are judged: exits, inputs, outputs, blocks, bodies. The kinds are in
tests/tasks and tests/verify.
"""

import json

import pytest

from tests.cases.run_case import CASES, run_case, wrong
from tests.tasks.boxed import make, needs_linux

pytestmark = needs_linux
NAMES = [
    "01-exit-quit",
    "02-stdin-empty-lines",
    "03-stdout-floats",
    "05-closing-fence-then-prose",
    "06-fences-inside-and-longer",
    "07-leetcode-prelude",
    "20-base-model-goes-on",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_case_is_right(name, tmp_path):
    assert wrong(run_case(name, tmp_path)) == []


def test_the_records_of_programs():
    if not (CASES / "programs.jsonl").exists():
        pytest.skip("the records are not there")
    rows = [json.loads(line) for line in (CASES / "programs.jsonl").read_text(encoding="utf-8").splitlines()]
    tasks = {name: make(name, wall_s=30.0) for name in ("code", "deduction")}
    judged = [row for row in rows if row["task"] in tasks]
    problems = [tasks[row["task"]].problem(row["record"]) for row in judged]
    verdicts = [
        (row["why"], tasks[row["task"]].verify(problem, row["completion"]))
        for row, problem in zip(judged, problems)
        if "completion" in row
    ]
    # those that are debatable too
    assert len(verdicts) >= 7 and [pair for pair in verdicts if not pair[1].correct] == []
