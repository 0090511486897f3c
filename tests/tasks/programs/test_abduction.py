"""Abduction as a whole: the program is the judge; demonstrations are right, those who have not read the
program are not.
"""

import json
import math
import pickle
import random

import pytest

from jaxrl.errors import InputError
from jaxrl.tasks.code.files import Unfit
from tests.tasks.boxed import break_sandbox, make, needs_linux, write_lines

CONDITIONAL = (
    "mode = input()\nif mode == 'two':\n    print(int(input()) + int(input()))\nelse:\n   "
    " print(int(input()))\n"
)
SPACES = "line = input()\nprint(len(line), line.count(' '))\n"
WHILE = "total = 0\nwhile (line := input()) != 'end':\n    total += int(line)\nprint(total)\n"


def judge(program, output, text, **values):
    task = make("abduction", **{"cpu_s": 1.0, "wall_s": 30.0, **values})
    return task.verify(task.problem({"program": program, "output": output}), text)


@pytest.fixture(scope="module")
def default():
    return make("abduction", train=60, val=20, test=200)


@needs_linux
def test_demonstrations_are_right(default):
    for problem in default.problems("train"):
        verdict = default.verify(problem, default.demonstration(problem))
        assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (
            1.0,
            True,
            True,
            None,
        ), verdict


@needs_linux
def test_who_has_not_read_the_program_is_right_less_than_once_in_ten(default):
    rng = random.Random(0)
    problems = default.problems("test")
    others = {"other": lambda problem, rng: default.demonstration(rng.choice(problems))}
    for name, baseline in {**default.baselines(), **others}.items():
        verdicts = [default.verify(problem, baseline(problem, rng)) for problem in problems]
        assert all(verdict.error is None and verdict.format_ok for verdict in verdicts)
        assert sum(verdict.correct for verdict in verdicts) / len(verdicts) < 0.1, name


@needs_linux
@pytest.mark.parametrize(
    "program, output, text, reward",
    [
        (CONDITIONAL, "5", "<INPUT>\ntwo\n2\n3\n</INPUT>", 1.0),
        # fewer lines than there are input() in the source
        (CONDITIONAL, "5", "<INPUT>\none\n5\n</INPUT>", 1.0),
        (CONDITIONAL, "5", "<INPUT>\ntwo\n5\n</INPUT>", 0.0),  # EOFError
        (CONDITIONAL, "5", "<INPUT>\none\n5\n6\n7\n</INPUT>", 1.0),  # what is not read does not matter
        (CONDITIONAL, "5", "<INPUT>\none\nfive\n</INPUT>", 0.0),
        (SPACES, "5 2", "<INPUT>\n  abc\n</INPUT>", 1.0),  # leading spaces arrive
        (SPACES, "5 2", "<INPUT>  abc</INPUT>", 1.0),
        (SPACES, "5 2", "<INPUT>\nabc  \n</INPUT>", 1.0),  # and those at the end
        (SPACES, "5 2", "<INPUT>\nabcde\n</INPUT>", 0.0),
        (SPACES, "0 0", "<INPUT>\n</INPUT>", 1.0),
        (SPACES, "0 0", "<INPUT></INPUT>", 0.0),  # no line at all
        ("import sys\nprint(len(sys.stdin.read()))", "0", "<INPUT></INPUT>", 1.0),
        ("print(len(input()), len(input()))", "3 0", "<INPUT>\nabc\n\n</INPUT>", 1.0),  # an empty last line
        # exactly what is asked for, to the letter
        ("print(1 / int(input()))", "0.3333", "<INPUT>3</INPUT>", 0.0),
        (WHILE, "6", "<INPUT>\n1\n2\n3\nend\n</INPUT>", 1.0),
        (WHILE, "6", "<INPUT>\n6\nend\n</INPUT>", 1.0),  # any input that gives the output
        (WHILE, "6", "<INPUT>\r\n6\r\nend\r\n</INPUT>", 1.0),
        (WHILE, "6", "<INPUT>\n6\n</INPUT>", 0.0),
        (WHILE, "6", "<INPUT>1\nend</INPUT> no, <INPUT>6\nend</INPUT>", 1.0),  # the last one
        (WHILE, "6", "<INPUT>6\nend</INPUT> no, <INPUT>1\nend</INPUT>", 0.0),
        (WHILE, "6", "<think><INPUT>6\nend</INPUT></think> <INPUT>1\nend</INPUT>", 0.0),
        # stderr does not count
        ("import sys\nprint(1)\nprint('careful', file=sys.stderr)", "1", "<INPUT></INPUT>", 1.0),
        ("print(1)\nraise ValueError", "1", "<INPUT></INPUT>", 0.0),
        ("n = int(input())\nwhile n: pass\nprint(1)", "1", "<INPUT>5</INPUT>", 0.0),
        ("n = int(input())\nprint('x' * n)", "x", "<INPUT>99999999</INPUT>", 0.0),
        ("n = int(input())\nprint(n)", "7", "<INPUT>\uff17</INPUT>", 1.0),  # a full-width 7: int() takes it
    ],
)
def test_hand_table(program, output, text, reward):
    verdict = judge(program, output, text)
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (
        reward,
        bool(reward),
        True,
        None,
    ), verdict
    assert verdict.detail


@needs_linux
@pytest.mark.parametrize(
    "text", ["", "5", "<INPUT>5", "5</INPUT>", "<think><INPUT>5</INPUT></think>", "</INPUT><INPUT>"]
)
def test_no_input_is_no_format(text):
    verdict = judge("print(input())", "5", text)
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (0.0, False, False, None)


@needs_linux
def test_limits_are_named():
    assert (
        judge("while True: pass", "5", "<INPUT></INPUT>", wall_s=30.0).detail
        == "the program ran into the cpu limit"
    )
    assert (
        judge("import time; time.sleep(9)", "5", "<INPUT></INPUT>", wall_s=0.5).detail
        == "the program ran into the wall limit"
    )
    assert (
        judge("print('x' * 5000)", "5", "<INPUT></INPUT>", output_kb=1).detail
        == "the program ran into the output limit"
    )


@needs_linux
def test_files_ask_for_what_their_programs_print_here(tmp_path):
    rows = [
        {"program": "print(int(input()) + 1)", "inputs": "4", "output": "a stale output"},
        {"program": "print(int(input()) + 1)", "inputs": "no number", "output": "5"},
        {"program": "pass", "inputs": "4", "output": "5"},
        {"program": "print(  input())", "inputs": None, "output": "5"},
    ]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    first, second = make("abduction", test_file=file).problems("test")
    assert (first.data["output"], second.data["output"]) == ("5", "5")
    assert first.uid == make("abduction").problem(rows[0]).uid
    assert len(make("abduction", test_file=file, check_programs=False).problems("test")) == 4


def test_records_come_back_as_problems(default):
    for record in default.generate(20, seed=3):
        assert set(record) == {"prompt", "program", "inputs", "output"}
        problem = default.problem(record)
        assert problem.messages[0]["content"] == record["prompt"]
        assert (
            problem.data["inputs"] not in record["prompt"].partition("It printed:")[2]
            or len(problem.data["inputs"]) < 5
        )
        assert json.loads(json.dumps(problem.data)) == problem.data


def test_the_splits_share_nothing(default):
    uids = [problem.uid for split in ("train", "val", "test") for problem in default.problems(split)]
    assert len(uids) == len(set(uids)) == 280


EVALUATING = [
    "n = eval(input())\nprint(n)",
    "exec(input())",
    "f = eval\nprint(f(input()))",
    "print(*map(eval, [input()]))",
]


@pytest.mark.parametrize(
    "program", [*EVALUATING, "print(__import__(input()))", "exec(compile(input(), '', 'exec'))", "print 5"]
)
def test_programs_that_evaluate_their_input_judge_nothing(tmp_path, program):
    honest = {
        "program": "import ast, re\nprint(re.compile('5').pattern, ast.literal_eval(input()))",
        "output": "5 5",
    }
    file = write_lines(tmp_path / "rows.jsonl", [{"program": program, "output": "5"}, honest])
    assert [problem.data["program"] for problem in make("abduction", test_file=file).problems("test")] == [
        honest["program"]
    ]
    with pytest.raises(Unfit, match="uses|no Python"):
        make("abduction").problem({"program": program, "output": "5"})


@needs_linux
def test_a_sandbox_that_fails_gives_no_reward(monkeypatch):
    task = make("abduction", wall_s=4.8)  # a sandbox that has remembered nothing
    break_sandbox(task, monkeypatch)
    verdict = task.verify(task.problem({"program": "print(input())", "output": "5"}), "<INPUT>5</INPUT>")
    assert (
        math.isnan(verdict.reward) and not verdict.correct and verdict.error == "sandbox: no processes left"
    )


@needs_linux
def test_the_verify_function_crosses_processes():
    task = make("abduction")
    verify = pickle.loads(pickle.dumps(task.verify))
    assert verify(task.problem({"program": "print(input())", "output": "5"}), "<INPUT>5</INPUT>").correct


@pytest.mark.parametrize(
    "record, words",
    [
        ({"output": "5"}, "'program' is missing"),
        ({"program": "print(5)"}, "'output' is missing"),
        ({"program": 5, "output": "5"}, "'program' is 5"),
        ({"program": "print(5)", "output": 5}, "'output' is 5"),
        ({"program": "print(5)", "output": "5", "inputs": 5}, "'inputs' is 5"),
        ({"program": "pass", "output": " "}, "'output' is blank"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(record, words):
    with pytest.raises(InputError, match=words):
        make("abduction").problem(record)
