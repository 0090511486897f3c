"""Deduction as a whole: demonstrations pass, those who know nothing fail, no text breaks it, the same bytes
everywhere.
"""

import json
import math
import pickle
import random

import pytest

from jaxrl.errors import InputError
from jaxrl.types import Problem
from tests.tasks.boxed import break_sandbox, fenced, make, needs_linux, write_lines
from tests.tasks.fresh import output_of

ROW = {
    "prompt": "Read two integers from one line and print their sum.",
    "program": "a, b = map(int, input().split())\nprint(a + b)",
    "inputs": "1 2",
    "output": "3",
    "verification_info": json.dumps(
        {
            "test_cases": [
                {"type": "stdin_stdout", "input": f"{a} {b}\n", "output": f"{a + b}\n"}
                for a, b in ((1, 2), (0, 0), (-5, 3))
            ]
        }
    ),
    "difficulty": "introductory",
}


@pytest.fixture(scope="module")
def default():
    return make("deduction", train=60, val=20, test=40)


@needs_linux
def test_demonstrations_pass_and_baselines_fail(default):
    rng = random.Random(0)
    for problem in default.problems("test"):
        verdict = default.verify(problem, default.demonstration(problem))
        assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (
            1.0,
            True,
            True,
            None,
        ), verdict
        for name, baseline in default.baselines().items():
            verdict = default.verify(problem, baseline(problem, rng))
            assert (verdict.reward, verdict.correct, verdict.error) == (0.0, False, None), (name, verdict)
            assert verdict.detail.startswith("case ")


def test_the_splits_share_nothing_and_stages_agree(default):
    splits = {split: default.problems(split) for split in ("train", "val", "test")}
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 60,
        "val": 20,
        "test": 40,
    }
    uids = [problem.uid for problems in splits.values() for problem in problems]
    assert len(set(uids)) == 120
    assert [p.uid for p in make("deduction", train=30).problems("train")] == uids[:30]
    other = make("deduction", train=200, seed=7)
    assert not {p.uid for p in other.problems("train")} & set(uids[60:])


def test_records_are_the_schemas_and_come_back_as_problems(default):
    for record in default.generate(20, seed=3):
        assert set(record) == {"prompt", "program", "verification_info"}
        problem = default.problem({**record, "anything": 1})
        assert problem.messages[0]["content"] == record["prompt"]
        assert len(problem.data["cases"]) == 8
        assert json.loads(json.dumps(problem.data)) == problem.data


def test_the_same_bytes_whatever_the_hash_seed(default):
    program = (
        "import hashlib, json\nfrom tests.tasks.boxed import make\n"
        "for name in ('deduction', 'abduction'):\n"
        "    print(hashlib.sha256(json.dumps(list(make(name).generate(50, 1))).encode()).hexdigest())"
    )
    assert output_of(program, "1") == output_of(program, "2")


def test_cases_that_a_program_without_output_would_pass_are_no_problem(default):
    cases = [{"type": "stdin_stdout", "input": "1", "output": output} for output in ("", " \n", "2")]
    with pytest.raises(InputError, match="no case expects any output"):
        default.problem({**ROW, "verification_info": {"test_cases": cases[:2]}})
    assert default.problem({**ROW, "verification_info": {"test_cases": cases}}).data["cases"]


@needs_linux
def test_an_example_of_its_use_behind_a_function():
    task = make("deduction")
    case = {"type": "function_call", "fn_name": "double", "input": [2], "output": 4}
    problem = task.problem({"prompt": "Double it.", "test_cases": [case]})
    assert task.verify(
        problem, f"{fenced('def double(x): return 2 * x')}\nExample:\n{fenced('print(double(2))')}"
    ).correct


@needs_linux
def test_rl_python_rows(tmp_path):
    task = make(
        "deduction",
        train_file=write_lines(tmp_path / "rows.jsonl", [ROW]),
        test_file=write_lines(tmp_path / "test.jsonl", [ROW]),
    )
    (problem,) = task.problems("test")
    assert task.problems("train") == []  # it is tested
    content = problem.messages[0]["content"]
    assert (
        content.startswith(ROW["prompt"])
        and "standard input" in content
        and "verification_info" not in problem.data
    )
    assert task.verify(problem, task.demonstration(problem)).correct
    assert task.verify(problem, "print(sum(map(int, input().split())))").correct  # without a fence
    assert not task.verify(problem, fenced("print(3)")).correct


@needs_linux
@pytest.mark.parametrize(
    "text, format_ok",
    [
        ("", False),
        ("I do not know.", False),
        (fenced(""), False),
        ("<think>" + fenced(ROW["program"]), False),
        (fenced("print(3)"), True),
        (fenced(ROW["program"]) + "\n" + fenced("print(3)"), True),  # the last one counts
        (fenced("print(3, 0, -2, sep='\\n')"), True),  # all answers at once
        (fenced("import sys; print(sys._getframe().f_back)"), True),
        (fenced("import os; os._exit(0)"), True),
        (fenced("\x00"), True),
        (fenced("\ud800"), True),
        (fenced("(" * 10_000), True),
        (fenced("print(input())\n" * 3000), True),
    ],
)
def test_texts_that_are_wrong_get_0_and_no_error(text, format_ok):
    task = make("deduction")
    verdict = task.verify(task.problem(ROW), text)
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (
        0.0,
        False,
        format_ok,
        None,
    )
    assert verdict.detail


@needs_linux
def test_partial_credit_runs_all_cases():
    partly = fenced("a, b = map(int, input().split())\nprint(a + b if a > -1 else 0)")
    strict, partial = make("deduction"), make("deduction", partial_credit=0.3)
    problem = strict.problem(ROW)
    assert strict.verify(problem, partly).reward == 0.0
    verdict = partial.verify(problem, partly)
    assert (
        verdict.reward == pytest.approx(0.3 * 2 / 3)
        and not verdict.correct
        and verdict.parts == {"all": 0.0, "share": 2 / 3}
    )
    assert partial.verify(problem, fenced(ROW["program"])).reward == 1.0
    assert partial.verify(problem, fenced("print('x')")).reward == 0.0


@needs_linux
def test_functions(tmp_path):
    call = {"type": "function_call", "fn_name": "majority"}
    cases = [{**call, "input": [[3, 2, 3]], "output": 3}, {**call, "input": [[1]], "output": [1]}]
    task = make("deduction")
    problem = task.problem(
        {"prompt": "The number that occurs most.", "verification_info": {"test_cases": cases}}
    )
    assert "function `majority`" in problem.messages[0]["content"] and task.demonstration(problem) is None
    assert task.verify(problem, fenced("def majority(nums): return max(nums, key=nums.count)")).correct
    assert not task.verify(problem, fenced("def majority(nums): return 3")).correct


@needs_linux
def test_a_sandbox_that_fails_gives_no_reward(monkeypatch):
    task = make("deduction", wall_s=4.9)  # a sandbox that has remembered nothing
    problem = task.problem(ROW)
    break_sandbox(task, monkeypatch)
    verdict = task.verify(problem, fenced(ROW["program"]))
    assert (
        math.isnan(verdict.reward) and not verdict.correct and verdict.error == "sandbox: no processes left"
    )


@needs_linux
def test_the_verify_function_crosses_processes():
    task = make("deduction")
    verify = pickle.loads(pickle.dumps(task.verify))
    assert verify == task.verify and verify(task.problem(ROW), fenced(ROW["program"])).correct


@pytest.mark.parametrize("name", ["prompt", "verification_info"])
def test_a_missing_field_is_named(name):
    with pytest.raises(InputError, match=name):
        make("deduction").problem({key: value for key, value in ROW.items() if key != name})


def test_a_problem_is_plain():
    problem = make("deduction").problem(ROW)
    assert isinstance(problem, Problem) and json.loads(json.dumps(problem.data)) == problem.data
