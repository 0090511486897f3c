"""The mathematics of shared/cases: every record of math.jsonl through the task, the case 08 through the
command line.
"""

import json

import pytest

from jaxrl.config.tasks import CountdownSection, MathSection
from jaxrl.tasks import make_task
from tests.cases.run_case import CASES, run_case, wrong


def records(name):
    if not (CASES / name).exists():
        pytest.skip(f"{name} is not at {CASES}")
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def test_mathematics():
    pytest.importorskip("mpmath", reason="the extra `math` is not installed")
    tasks = {symbolic: make_task(MathSection(name="math", symbolic=symbolic)) for symbolic in (False, True)}
    for case in records("math.jsonl"):
        task = tasks[case["symbolic"]]
        problem = task.problem(case.get("record") or {"question": "?", "answer": case["gold"]})
        assert task.verify(problem, case["completion"]).correct is case["right"], case


def test_countdown():
    for case in records("programs.jsonl"):
        if case["task"] == "countdown":
            task = make_task(CountdownSection(name="countdown"))
            verdict = task.verify(
                task.problem({"numbers": case["numbers"], "target": case["target"]}), case["completion"]
            )
            assert verdict.correct is case["right"], case


def test_a_pair_is_no_thousands(tmp_path):
    assert wrong(run_case("08-pair-is-no-thousands", tmp_path)) == []
