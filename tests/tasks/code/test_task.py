"""Functions with tests: HumanEval as it is, right and broken; MBPP's and the cases' forms; bodies, fences and
forgeries.
"""

import json
import math
import pickle
import random

import pytest

from jaxrl.errors import InputError
from jaxrl.sandbox.sandbox import Level, Limits, Sandbox
from jaxrl.tasks.code.task import program_of
from tests.tasks.boxed import (
    HUMAN_EVAL,
    break_sandbox,
    fenced,
    human_eval,
    make,
    needs_human_eval,
    needs_linux,
    write_lines,
)
from tests.tasks.mutants import KINDS, mutants

SHIFT = {
    "task_id": "Own/1",
    "prompt": (
        "from math import floor\n\n\ndef up(n):\n    return n + 1\n\n\n"
        'def down(n: float) -> int:\n    """Undo `up`, on the whole number below n."""\n'
    ),
    "entry_point": "down",
    "canonical_solution": "    return floor(n) - 1\n",
    "test": (
        "def check(candidate):\n    for n in range(5):\n        assert candidate(up(n)) == n\n    assert"
        " candidate(2.5) == 1\n"
    ),
}
ADD = {
    "task_id": 7,
    "text": "Write a function to add two numbers.",
    "code": "import math\r\ndef add(a, b):\r\n  return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(math.pi, 1) == math.pi + 1"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
TWO_SUM = {
    "id": "pair_sum",
    "title": "Pair Sum",
    "description": "Return the indices of the two numbers that add up to the target.",
    "function_signature": "def pair_sum(nums: List[int], target: int) -> List[int]:",
    "test_cases": [
        {"input": [[2, 7, 11, 15], 9], "expected_output": [0, 1]},
        {"input": [[3, 2, 4], 6], "expected_output": [1, 2]},
    ],
}
PAIR_SUM = (
    "def pair_sum(nums, target):\n    return [(i, j) for j in range(len(nums)) for i in range(j) if nums[i] +"
    " nums[j] == target][0]"
)


@pytest.fixture(scope="module")
def task():
    return make("code", wall_s=30.0, cpu_s=2.0)


def judge(task, record, text):
    return task.verify(task.problem(record), text)


# -------------------------------------------------------------------------------------------------- HumanEval


@needs_linux
@needs_human_eval
def test_all_canonical_solutions_pass_as_bodies():
    task = make("code", test_file=str(HUMAN_EVAL))
    problems, records = task.problems("test"), human_eval()
    assert len(problems) == 164 and [problem.uid for problem in problems] == [
        record["task_id"] for record in records
    ]
    verdicts = {
        problem.uid: task.verify(problem, record["canonical_solution"])
        for problem, record in zip(problems, records)
    }
    assert {
        uid: verdict for uid, verdict in verdicts.items() if not (verdict.correct and verdict.reward == 1.0)
    } == {}


@needs_linux
@needs_human_eval
def test_all_canonical_solutions_pass_as_whole_functions(task):
    wrong = {}
    for record in human_eval():
        problem = task.problem(record)
        verdict = task.verify(problem, f"<think>hm</think>Here:\n{task.demonstration(problem)}\nDone.")
        if not (verdict.correct and verdict.format_ok):
            wrong[problem.uid] = verdict
    assert wrong == {}


@needs_linux
@needs_human_eval
def test_164_broken_solutions_fail(task):
    """One for each problem, the kinds in turn, truly broken: a plain run of program and tests in one process
    says so.

    Mutants that this run finds right, on the way there, must be right here too.
    """
    failed, verdicts = [], []
    with Sandbox(Limits(wall_s=30.0, cpu_s=2.0), Level.PROCESS) as plain:
        for number, record in enumerate(human_eval()):
            problem = task.problem(record)
            source, name = record["prompt"] + record["canonical_solution"], record["entry_point"]
            kinds = KINDS[number % 3 :] + KINDS[: number % 3]
            for mutant in (mutant for kind in kinds for mutant in mutants(source, name, kind)):
                is_right = plain.run(
                    f"{record['prompt']}\n    pass\n{mutant}\n{record['test']}\ncheck({name})"
                ).ok
                verdict = task.verify(problem, fenced(mutant))
                verdicts.append((record["task_id"], is_right, verdict))
                if not is_right:
                    failed.append(record["task_id"])
                    break
    assert len(failed) == 164
    assert [
        v for v in verdicts if v[1] != v[2].correct or v[2].error is not None or v[2].reward != float(v[1])
    ] == []
    assert len(verdicts) > len(failed)  # some mutants are right


@pytest.mark.parametrize(
    "text, program",
    [
        ("    return 1\n", SHIFT["prompt"] + "    return 1"),
        ("\n    x = 1\n    return x", SHIFT["prompt"] + "    x = 1\n    return x"),
        ("return 1", SHIFT["prompt"] + "    return 1"),  # the first line's indentation is lost
        ("```python\n    return 1\n```", SHIFT["prompt"] + "    return 1"),
        (
            "```python\ndef down(n):\n    return 1\n```",
            SHIFT["prompt"].partition("def down")[0] + "\ndef down(n):\n    return 1",
        ),
        (
            "def down(n):\n    return 1",
            SHIFT["prompt"].partition("def down")[0] + "\ndef down(n):\n    return 1",
        ),
        ("down = lambda n: 1", SHIFT["prompt"].partition("def down")[0] + "\ndown = lambda n: 1"),
        ("    return 1\n\ndef down(n): return 2", SHIFT["prompt"] + "    return 1\n\ndef down(n): return 2"),
        ("    return 1\n\n\ndef other(n):\n    return (n -", SHIFT["prompt"] + "    return 1\n\n"),  # cut off
        ("    return 1\n\nclass Other:\n    def f(self", SHIFT["prompt"] + "    return 1\n"),
        ("    return 1\n\nif __name__ == '__main__':\n    print(down(", SHIFT["prompt"] + "    return 1\n"),
        ("    return 1\n\nThis function is right.", SHIFT["prompt"] + "    return 1\n"),
        ("    return 1\nand so on\n'''", SHIFT["prompt"] + "    return 1"),
        ("return 1\n\nThat is all.", SHIFT["prompt"] + "    return 1"),
        ("x = n\n    return x", SHIFT["prompt"] + "    x = n\n    return x"),
        # all of it is lost
        (
            "x = n\nif x:\n    x = 1\nreturn x",
            SHIFT["prompt"] + "    x = n\n    if x:\n        x = 1\n    return x",
        ),
        ("```python\nx = n\nreturn x\n```", SHIFT["prompt"] + "    x = n\n    return x"),
        (
            "    return two()\n\ndef two():\n    return 2\n\ndef three(",
            SHIFT["prompt"] + "    return two()\n\ndef two():\n    return 2\n",
        ),
        (
            "    x = '''\nleft\n'''\n    return x\n\ndef f(",
            SHIFT["prompt"] + "    x = '''\nleft\n'''\n    return x\n",
        ),
        ("    return 1 +\n\ndef f(", SHIFT["prompt"] + "    return 1 +\n\ndef f("),  # the body itself is none
        ("    return 1\n```\nSo:\n```python\nprint(down(1))\n```", SHIFT["prompt"] + "    return 1"),
        ("", ""),
        ("<think>x", ""),
    ],
)
def test_what_a_completion_stands_for(task, text, program):
    assert program_of(task.problem(SHIFT).data, text)[0] == program


@needs_linux
@pytest.mark.parametrize(
    "text, reward, format_ok",
    [
        ("    return floor(n) - 1", 1.0, True),
        (fenced("    return floor(n) - 1"), 1.0, True),
        (fenced("def down(n):\n    return floor(n) - 1"), 1.0, True),  # the prompt's import is there
        (fenced("def down(n):\n    return up(floor(n)) - 2"), 1.0, True),  # its helpers too
        # which has to be first
        (fenced("from __future__ import annotations\ndef down(n: int):\n    return floor(n) - 1"), 1.0, True),
        (
            fenced(
                '"""One down."""\nfrom __future__ import (\n    annotations,\n)\ndef down(n: int):\n   '
                " return floor(n) - 1"
            ),
            1.0,
            True,
        ),
        (
            fenced(
                'TEXT = """\nfrom __future__ import annotations\n"""\ndef down(n):\n    return floor(n) -'
                " len(TEXT.split()) + 3"
            ),
            1.0,
            True,
        ),
        # Python refuses it
        (
            fenced("x = 1\nfrom __future__ import annotations\ndef down(n):\n    return floor(n) - 1"),
            0.0,
            True,
        ),
        (
            fenced("from math import floor\nclass down:\n    def __new__(cls, n): return floor(n) - 1"),
            1.0,
            True,
        ),
        # its own helper is not the tests'
        (fenced("def up(n): return 0\ndef down(n): return -1 if n < 2 else 1"), 0.0, True),
        (
            fenced(
                "def down(n: float) -> Optional[int]:\n    return floor(n) - 1\nassert down(1) =="
                " 1\nprint(down('x'))"
            ),
            1.0,
            True,
        ),
        (
            fenced("def minus(n):\n    return n - 1")
            + "\nand\n"
            + fenced("def down(n):\n    return minus(floor(n))"),
            1.0,
            True,
        ),
        ("    return floor(n) - 1\n\nDone", 1.0, True),  # a word is Python, and fails where it is run
        ("    return n - 1", 0.0, True),
        # in a list
        ("1. So:\n\n   ```python\n   def down(n):\n       return floor(n) - 1\n   ```", 1.0, True),
        (
            fenced("def down(n):\n    return floor(n) - 1") + "\nExample usage:\n" + fenced("print(down(2))"),
            1.0,
            True,
        ),
        (
            fenced("def down(n):\n    return floor(n) - 1")
            + "\nBetter:\n"
            + fenced("def down(n):\n    return n"),
            0.0,
            True,
        ),
        ("    pass", 0.0, True),
        (fenced("def other(n): return 1"), 0.0, True),
        ("I cannot.", 0.0, False),
        ("", 0.0, False),
        ("    import os; os._exit(0)", 0.0, True),
        ("    raise SystemExit(0)", 0.0, True),
        ("    print('passed'); exit()", 0.0, True),
        (
            fenced("class Yes:\n    def __eq__(self, other): return True\ndef down(n): return Yes()"),
            0.0,
            True,
        ),
        (
            fenced("class Yes(int):\n    def __eq__(self, other): return True\ndef down(n): return Yes(0)"),
            0.0,
            True,
        ),
        (fenced("import sys\ndef down(n): return sys._getframe(1).f_locals.get('n', 0)"), 0.0, True),
        (
            fenced(
                "import builtins\nbuiltins.check = lambda candidate: None\ndef check(candidate): pass\ndef"
                " down(n): return 0"
            ),
            0.0,
            True,
        ),
        (
            fenced("import sys\nsys.modules['__main__'].__dict__['check'] = print\ndef down(n): return 0"),
            0.0,
            True,
        ),
        (fenced("def down(n):\n    while True: pass"), 0.0, True),
    ],
)
def test_completions_of_a_prompt(task, text, reward, format_ok):
    verdict = judge(task, SHIFT, text)
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (
        reward,
        bool(reward),
        format_ok,
        None,
    ), verdict
    assert verdict.detail


NEEDY = {
    **SHIFT,
    "test": "import numpy as np\n" + SHIFT["test"].replace("== 1", "== 1 and np.allclose(candidate(3), 2)"),
}


@needs_linux
def test_packages_that_tests_import_are_named_or_allowed(task, tmp_path):
    with pytest.raises(
        InputError,
        match=(
            r"its tests import numpy, which programs in the sandbox do not see; set task.packages=\[numpy\]$"
        ),
    ):
        task.problem(NEEDY)
    with pytest.raises(InputError, match=r"set task.packages=\[json, numpy\]"):
        make("code", packages=["json"]).problem(NEEDY)
    with pytest.raises(
        InputError, match="none of the 1 records can be asked; the first: .*line 1: its tests import numpy"
    ):
        make("code", test_file=write_lines(tmp_path / "plus.jsonl", [NEEDY])).problems("test")
    optional = {
        **SHIFT,
        "test": (
            "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n"
            + SHIFT["test"]
            + "    assert numpy is None\n"
        ),
    }
    assert judge(task, optional, "    return floor(n) - 1").correct
    allowed = make("code", wall_s=30.0, cpu_s=5.0, packages=["numpy"])
    assert judge(allowed, NEEDY, "    import numpy as np\n    return int(np.floor(n)) - 1").correct
    assert not judge(allowed, NEEDY, "    return n - 1").correct


# ----------------------------------------------------------------------------------------- MBPP and the cases


@needs_linux
@pytest.mark.parametrize(
    "changes, program, correct",
    [
        ({}, ADD["code"], True),
        ({}, "def add(a, b): return a - b", False),
        ({}, "def add(a, b): return {(1, 2): 3}.get((a, b), 0)", False),  # the shown test alone
        ({}, "def plus(a, b): return a + b", False),
        (
            {"text": None, "prompt": "Add.", "test_imports": ["import math"], "code": None},
            "def add(a, b): return a + b",
            True,
        ),
        (
            {"test_setup_code": "ONE = 1", "test_list": ["assert add(ONE, ONE) == 2"]},
            "def add(a, b): return a + b",
            True,
        ),
        # not the built-in
        (
            {"code": "def sum(a, b): return a", "test_list": ["assert sum(1, 2) == 1"]},
            "def sum(a, b): return a",
            True,
        ),
        ({"test_list": ["assert [*map(add, [1], [2])] == [3]"]}, "def add(a, b): return a + b", True),
        (
            {"test_list": ["assert all(map(lambda n: add(n, n) == 2 * n, [1, 2]))"]},
            "def add(*_): raise StopIteration",
            False,
        ),
        (
            {"code": "def add(a): return {a}", "test_list": ["assert add(1) == set([1])"]},
            "def add(a): return {a}",
            True,
        ),
    ],
)
def test_asserts(task, changes, program, correct):
    record = {name: value for name, value in {**ADD, **changes}.items() if value is not None}
    verdict = judge(task, record, fenced(program))
    assert verdict.correct is correct and verdict.reward == float(correct) and verdict.error is None, verdict


def test_one_assert_is_shown_and_the_others_are_not(task):
    content = task.problem(ADD).messages[0]["content"]
    assert ADD["text"] in content and ADD["test_list"][0] in content and ADD["test_list"][1] not in content


@needs_linux
@pytest.mark.parametrize(
    "program, correct",
    [
        (PAIR_SUM, True),
        (PAIR_SUM + "\nprint(pair_sum([1, 2], 3))", True),  # an honest print
        ("def pair_sum(nums, target): return [0, 1]", False),
        ("def pair_sum(nums, target): return [[0, 1]] if target == 9 else [[1, 2]]", False),
        (
            (
                "class Solution:\n    def pair_sum(self, nums, target):\n        return [0, 1] if target == 9"
                " else [1, 2]"
            ),
            True,
        ),
        ("import os, json\nprint(json.dumps({'passed': 2, 'total': 2})); os._exit(0)", False),
        ("import sys\ndef pair_sum(nums, target): return sys._getframe(1).f_locals.get('expected')", False),
    ],
)
def test_cases(task, program, correct):
    verdict = judge(task, TWO_SUM, fenced(program))
    assert verdict.correct is correct and verdict.error is None, verdict


def test_a_signature_or_a_name(task):
    problem = task.problem(TWO_SUM)
    assert problem.uid == "pair_sum" and TWO_SUM["function_signature"] in problem.messages[0]["content"]
    named = {
        **{key: value for key, value in TWO_SUM.items() if key != "function_signature"},
        "fn_name": "pair_sum",
    }
    assert task.problem(named).data["cases"] == problem.data["cases"]


# --------------------------------------------------------------------------------------------------- the rest


@needs_linux
def test_tests_that_can_judge_no_one_give_an_error_and_no_reward(task, tmp_path):
    own_class = {
        **ADD,
        "code": "class Pair: pass\ndef add(a): return 1",
        "test_list": ["assert add(Pair()) == 1"],
    }
    nothing = {**SHIFT, "test": "def check(candidate): pass"}
    no_call = {**ADD, "test_list": ["assert 1 == 1"]}
    unknown = {**ADD, "test_list": ["assert [*map(add, [1], [2])] == [3]"], "code": None}
    for record in (own_class, nothing, no_call, unknown):
        verdict = judge(task, record, fenced("def add(a): return 1\ndef down(n): return 1"))
        assert math.isnan(verdict.reward) and not verdict.correct and verdict.error.startswith("tests: ")
    file = write_lines(tmp_path / "some.jsonl", [ADD, own_class, no_call, unknown])
    assert [p.uid for p in make("code", test_file=file).problems("test")] == ["mbpp-7"]


CANNOT_CROSS = {
    "in place": ("def add(a): a.append(1)", "a = []\nadd(a)\nassert a == [1]"),
    "generator": ("def add(a):\n    yield a", "assert list(add(1)) == [1]"),
    "date": ("import datetime\ndef add(a): return datetime.date(a, 1, 1)", "assert add(2000).year == 2000"),
    "callback": ("def add(a): return a(1)", "assert add(lambda n: n) == 1"),
    "wrong": ("def add(a): return a", "assert add(1) == 2"),
}


@needs_linux
@pytest.mark.parametrize("code, test", CANNOT_CROSS.values(), ids=CANNOT_CROSS)
def test_records_whose_own_reference_fails_are_left_out(tmp_path, caplog, code, test):
    record = {**ADD, "task_id": 8, "code": code, "test_list": [test]}
    file = write_lines(tmp_path / "some.jsonl", [record, ADD])
    assert [p.uid for p in make("code", test_file=file).problems("test")] == ["mbpp-7"]
    assert "1 records cannot be asked" in caplog.text and "its own reference fails" in caplog.text
    assert len(make("code", test_file=file, check_programs=False).problems("test")) == 2


@needs_linux
def test_a_sandbox_that_fails_gives_no_reward(monkeypatch):
    task = make("code", wall_s=4.7)
    break_sandbox(task, monkeypatch)
    for record in (SHIFT, ADD, TWO_SUM):
        verdict = judge(task, record, fenced(PAIR_SUM))
        assert (
            math.isnan(verdict.reward)
            and not verdict.correct
            and verdict.error == "sandbox: no processes left"
        )


@needs_linux
def test_baselines_know_nothing(task):
    rng = random.Random(0)
    for record in (SHIFT, ADD, TWO_SUM):
        for baseline in task.baselines().values():
            verdict = judge(task, record, baseline(task.problem(record), rng))
            assert (verdict.reward, verdict.format_ok, verdict.error) == (0.0, True, None)


@needs_linux
def test_demonstrations_pass_and_problems_are_plain(task):
    for record in (SHIFT, ADD):
        problem = task.problem(record)
        assert task.verify(problem, task.demonstration(problem)).correct
        assert json.loads(json.dumps(problem.data)) == problem.data
    assert task.demonstration(task.problem(TWO_SUM)) is None
    verify = pickle.loads(pickle.dumps(task.verify))
    assert verify(task.problem(TWO_SUM), fenced(PAIR_SUM)).correct


def test_there_is_no_generator_and_no_problem_without_a_file(task):
    with pytest.raises(InputError, match="no generator"):
        task.generate(1, 0)
    with pytest.raises(InputError, match="set task.train_file"):
        task.problems("train")


@pytest.mark.parametrize(
    "record, words",
    [
        ({}, "the fields are none; a record needs"),
        ({"prompt": "x", "completion": "y"}, "the fields are completion, prompt"),
        ({**SHIFT, "prompt": "def down(n"}, "'prompt' is"),
        ({**SHIFT, "prompt": "def up(n):\n"}, "the body of 'down' begins"),
        ({**SHIFT, "entry_point": "a b"}, "'entry_point' is 'a b'"),
        ({**SHIFT, "test": "assert down(1) == 0"}, "'test' is"),
        ({**SHIFT, "test": 3}, "'test' is 3"),
        ({**ADD, "test_list": []}, r"'test_list' is \[\]"),
        ({**ADD, "test_list": ["assert add(1 2)"]}, "is no Python"),
        ({"test_list": ["assert add(1, 2) == 3"]}, "'prompt' is missing"),
        ({**TWO_SUM, "function_signature": "pair_sum"}, "'function_signature' is 'pair_sum'"),
        ({**TWO_SUM, "test_cases": []}, r"'test_cases' is \[\]"),
        ({**TWO_SUM, "test_cases": [{"input": [1]}]}, "case 1 is"),
        ({**TWO_SUM, "description": ""}, "'description' is ''"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(task, record, words):
    with pytest.raises(InputError, match=words):
        task.problem(record)
