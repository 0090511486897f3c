"""Cases: compared here, run one by one until the first that fails."""

import itertools

import pytest

from jaxrl.sandbox.sandbox import Level, Limits, Sandbox, SandboxBusy
from jaxrl.tasks.code import cases as code_cases
from jaxrl.tasks.code.cases import run_cases, same_value
from jaxrl.tasks.code.shapes import read_cases
from tests.tasks.boxed import needs_linux

STDIN = {"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}
CALL = {"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3}


def io_case(given, output):
    return {"type": "stdin_stdout", "input": given, "output": output}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(wall_s=30.0, cpu_s=1.0), Level.PROCESS) as sandbox:
        yield sandbox


def info(*cases):
    return {"verification_info": {"test_cases": list(cases)}}


# -------------------------------------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    "expected, value, same",
    [
        (3, 3, True),
        (3, 3.0, True),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.3001, False),
        (1e300, 10**400, False),
        (2**53, float(2**53), True),
        (2**53 + 1, 2**53, False),  # integers are exact
        (float("nan"), float("nan"), False),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (False, 0, False),
        (0, "", False),
        (0, None, False),
        ("", [], False),
        (None, None, True),
        ([1, 2], (1, 2), True),
        ([[1], []], ([1], ()), True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ([1, 2], {1, 2}, False),
        ("ab", ["a", "b"], False),
        ("ab", "ab", True),
        ("ab", b"ab", False),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"1": 2}, {1: 2}, True),  # JSON has no other keys
        ({"1": 2}, {1: 2, "1": 3}, False),
        ({"a": 1}, {}, False),
        ({"1": 1}, {10**5000: 1}, False),  # more digits than Python writes
        pytest.param(3, 10**5000, False, id="digits"),
        pytest.param(3.0, 10**5000, False, id="digits beyond floats"),
        ({}, [], False),
    ],
)
def test_values_are_compared_as_json_has_them(expected, value, same):
    assert same_value(expected, value) is same


# ---------------------------------------------------------------------------------------------------- running


def run(sandbox, program, *cases, total_s=60.0, stop_early=True):
    return run_cases(sandbox, program, read_cases(info(*cases)), total_s, stop_early)


@needs_linux
@pytest.mark.parametrize(
    "program, case, passes",
    [
        ("a, b = map(int, input().split()); print(a + b)", STDIN, True),
        ("print(3)", STDIN, True),
        ("print('3 ', end='')", STDIN, True),
        ("import sys; print('warning', file=sys.stderr); print(3)", STDIN, True),  # stderr does not count
        ("print(3); raise ValueError", STDIN, False),  # the end does
        ("print(3); import sys; sys.exit(1)", STDIN, False),
        ("print(3); import os; os._exit(0)", STDIN, False),  # what was not flushed is not printed
        ("import os; os._exit(0)", STDIN, False),
        ("print('{\"passed\": true}')", STDIN, False),
        ("print(3, 4, sep='\\n')", STDIN, False),
        # an empty last line is a line
        ("a = input(); b = input(); print(len(a), len(b))", io_case("abc\n\n", "3 0"), True),
        ("print(*[len(input()) for _ in range(int(input()))])", io_case("2\n\n\n", "0 0"), True),
        ("import sys; print(len(sys.stdin.read()))", io_case("", "0"), True),
        ("input()", io_case("", "0"), False),
        ("import sys; print(repr(sys.stdin.read()))", io_case("\n", r"'\n'"), True),
        # but for a line end that is missing
        ("import sys; print(repr(sys.stdin.read()))", io_case("a\n\n b", r"'a\n\n b\n'"), True),
        ("print(1 / 2, 1 / 3, 0.1 + 0.2)", io_case("", "0.50 0.333333 0.3\n"), True),
        # no limit on digits
        ("print('9' * 5000 == str(10**5000 - 1), 10**5000 - 1)", io_case("", "True " + "9" * 5000), True),
        ("print(3); exit()", STDIN, True),
        ("print(3); quit(1)", STDIN, False),
        ("print(", STDIN, False),
        ("", STDIN, False),
        ("print(len(input()))", io_case("   ", "3"), True),  # spaces arrive
        ("print(repr(input()))", io_case("it's", '"it\'s"'), True),
        ("def add(a, b): return a + b", CALL, True),
        ("def add(a, b): print('honest'); return a + b", CALL, True),
        ("add = lambda *args: sum(args)", CALL, True),
        ("class Solution:\n    def add(self, a, b): return a + b", CALL, True),
        ("class Solution: pass", CALL, False),
        (
            (
                "class Solution:\n    def add(self, a: List[int], b: Optional[int]) -> int: return"
                " sum(deque([a, b]))"
            ),
            CALL,
            True,
        ),
        (
            (
                "class Solution:\n    def add(self, a, b): return math.gcd(a, b) + heapq.heappop([2]) +"
                " ListNode().val"
            ),
            CALL,
            True,
        ),
        ("class Solution:\n    def add(self, a, b): return no_such_name", CALL, False),
        # a signature as it was given
        ("def add(a: List[int], b: Dict[int, Set]) -> Optional[int]: return a + b", CALL, True),
        # but in plain Python nothing else is imported
        ("def add(a, b): return deque([a + b])[0]", CALL, False),
        ("def add(a, b): return a + b\nassert add(1, 1) == 3", CALL, True),  # its own test is wrong
        ("def add(a, b): return a + b\nprint(add(1, 1))\nexit()", CALL, True),
        ("def add(a, b): return [a + b]", CALL, False),
        ("def add(a, b): return [3]", {**CALL, "output": [3]}, True),
        ("def add(a, b): return 3", {**CALL, "output": [3]}, True),
        ("def add(a, b): return a", {**CALL, "output": [1, 2]}, False),
        ("def add(a, b): return a, b", {**CALL, "output": [1, 2]}, True),
        ("def add(a): return a", {**CALL, "input": 0, "output": 0}, True),
        ("def add(a): return a", {**CALL, "input": [""], "output": ""}, True),
        ("def add(a): return a", {**CALL, "input": [[]], "output": []}, True),
        ("def add(a): return None", {**CALL, "input": 0, "output": 0}, False),
        ("def add(a): pass", {**CALL, "input": [[]], "output": []}, False),
        ("def add(a, b): return a - b", {**CALL, "input": {"b": 1, "a": 4}}, True),
        ("class Yes:\n    def __eq__(self, other): return True\ndef add(a, b): return Yes()", CALL, False),
        (
            "class Yes(int):\n    def __eq__(self, other): return True\ndef add(a, b): return Yes(9)",
            CALL,
            False,
        ),
        ("def add(a, b): import os; os._exit(0)", CALL, False),
        ("print(3)", CALL, False),
        ("def add(a, b): return 10**5000", CALL, False),
    ],
)
def test_programs_on_a_case(sandbox, program, case, passes):
    done = run(sandbox, program, case)
    assert done.all is passes and done.passed == passes and bool(done.failure) is not passes, done


@needs_linux
def test_the_first_failure_ends_it_unless_all_are_to_be_run(sandbox):
    cases = [io_case(str(n), str(n)) for n in range(6)]
    program = "n = int(input())\nprint(n if n != 2 else 'wrong')"
    assert run(sandbox, program, *cases) == run(sandbox, program, *cases)
    stopped, full = run(sandbox, program, *cases), run(sandbox, program, *cases, stop_early=False)
    assert (stopped.passed, stopped.total, stopped.all) == (2, 6, False)
    assert (full.passed, full.total, full.all) == (5, 6, False)
    assert stopped.failure == full.failure == "case 3 of 6: printed 'wrong\\n', '2' expected"
    assert run(sandbox, "print(input())", *cases).all


@needs_linux
def test_each_case_has_a_process_of_its_own(sandbox):
    program = "import builtins\nprint(getattr(builtins, 'count', 0))\nbuiltins.count = 1"
    assert run(sandbox, program, *[io_case(str(n), "0") for n in range(3)]).all
    calls = [{**CALL, "input": [n, 0], "output": n} for n in (1, 2, 3)]
    counts = "seen = []\ndef add(a, b):\n    seen.append(a)\n    return "
    assert run(sandbox, counts + "seen[0]", *calls).all
    assert run(sandbox, counts + "len(seen)", *calls).passed == 1  # which call it is says nothing


@needs_linux
def test_a_function_is_called_as_of_a_module_that_was_imported(sandbox):
    guard = (
        "def add(a, b): return a + b\nif __name__ == '__main__':\n    print(add(int(input()), int(input())))"
    )
    assert run(sandbox, guard, CALL).all and run(sandbox, guard, io_case("1\n2", "3")).all
    own = (
        "import sys, dataclasses\n@dataclasses.dataclass\nclass A: x: 'int'\ndef add(a, b): return"
        " A(sys.modules[__name__].A(3).x).x"
    )
    assert run(sandbox, own, CALL).all


@needs_linux
def test_limits_are_named_and_cases_left_over_have_not_passed(sandbox, monkeypatch):
    slow = run(sandbox, "while True: pass", STDIN)
    assert slow.failure == "case 1 of 1: the program ran into the cpu limit"
    slow = "import time; time.sleep(1); print(input())", *[io_case(f"{n}", f"{n}") for n in range(50)]
    monkeypatch.setattr(code_cases, "stalled_s", lambda: 7.0)  # nothing has waited meanwhile
    done = run(sandbox, *slow, total_s=3)
    assert 0 < done.passed < 50 and not done.all and "not begun" in done.failure
    monkeypatch.setattr(code_cases, "stalled_s", lambda: next(seconds))
    seconds = itertools.count()
    with pytest.raises(SandboxBusy, match="the machine is busy: [0-9]+ of 50 cases took 0.5 s"):
        run(sandbox, *slow, total_s=0.5)
