"""Cases: read strictly, compared here, run one by one until the first that fails."""

import json
import time

import pytest

from jaxrl.errors import InputError
from jaxrl.tasks.code_cases import call_case, run_cases, same_value
from jaxrl.tasks.code_shapes import read_cases
from jaxrl.verify.sandbox import Level, Limits, Sandbox
from tests.tasks.boxed import needs_linux

STDIN = {"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}
CALL = {"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(wall_s=30.0, cpu_s=1.0), Level.PROCESS) as sandbox:
        yield sandbox


def info(*cases):
    return {"verification_info": {"test_cases": list(cases)}}


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "record",
    [
        {"verification_info": "", "test_cases": [STDIN, CALL]},
        info(STDIN, CALL),
        {"verification_info": json.dumps({"test_cases": [STDIN, CALL]})},
        {"verification_info": repr({"test_cases": [STDIN, CALL]})},  # as a Python literal
        {"test_cases": [STDIN, CALL]},
        {"test_cases": json.dumps([STDIN, CALL]), "verification_info": None},
        {"verification_info": {"test_cases": [STDIN, CALL]}, "test_cases": "nonsense"},  # the first of the two counts
    ],
)
def test_the_schemas_spellings_are_one(record):
    first, second = read_cases(record)
    assert first == {"type": "stdin_stdout", "input": "1 2\n", "output": "3"}
    assert second == call_case("add", [1, 2], [3])


@pytest.mark.parametrize(
    "given, text",
    [("a\nb\n", "a\nb"), (["a", "b"], "a\nb"), ([["1 2"], 3, [4.5, None]], "1 2\n3\n4.5\nnull"), (3, "3"), (True, "true"), ([], "")],
)
def test_inputs_and_outputs_that_are_no_text(given, text):
    (case,) = read_cases(info({"type": "stdin_stdout", "input": given, "output": given}))
    assert case["input"] == (text and text + "\n") and case["output"] == text


@pytest.mark.parametrize(
    "given, args, kwargs",
    [([1, [2]], [1, [2]], {}), ({"a": 1}, [], {"a": 1}), (5, [5], {}), ("ab", ["ab"], {}), ([], [], {}), (None, [None], {}), (0, [0], {})],
)
def test_arguments_by_place_by_name_and_alone(given, args, kwargs):
    (case,) = read_cases(info({**CALL, "input": given}))
    assert (case["args"], case["kwargs"]) == (args, kwargs)


@pytest.mark.parametrize(
    "record, words",
    [
        ({}, "'verification_info' and 'test_cases' are both missing"),
        (info(), "at least one case"),
        ({"verification_info": "not JSON"}, "JSON or a Python literal"),
        ({"verification_info": "{1, 2}"}, "JSON or a Python literal"),
        ({"verification_info": "[" * 5000}, "JSON or a Python literal"),
        ({"verification_info": 3}, "at least one case"),
        (info(3), "case 1 is 3"),
        (info(STDIN, {**STDIN, "type": "magic"}), "case 2 has the type 'magic'; the types are: stdin_stdout, function_call"),
        (info({"type": "stdin_stdout", "output": ""}), "case 1 has no 'input'"),
        (info({"type": "stdin_stdout", "input": ""}), "case 1 has no 'output'"),
        (info({**CALL, "fn_name": None}), "'fn_name' is None"),
        (info({**CALL, "fn_name": "a; import os"}), "'fn_name' is 'a; import os'"),
        (info({key: value for key, value in CALL.items() if key != "fn_name"}), "'fn_name' is missing"),
    ],
)
def test_what_is_no_case_is_an_error_and_never_a_pass(record, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        read_cases(record)


# ------------------------------------------------------------------------------------------------------------- comparing


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


# --------------------------------------------------------------------------------------------------------------- running


def run(sandbox, program, *cases, total_s=60.0, stop_early=True):
    return run_cases(sandbox, program, read_cases(info(*cases)), total_s, stop_early)


def io_case(given, output):
    return {"type": "stdin_stdout", "input": given, "output": output}


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
        ("print(", STDIN, False),
        ("", STDIN, False),
        ("print(len(input()))", io_case("   ", "3"), True),  # spaces arrive
        ("print(repr(input()))", io_case("it's", '"it\'s"'), True),
        ("def add(a, b): return a + b", CALL, True),
        ("def add(a, b): print('honest'); return a + b", CALL, True),
        ("add = lambda *args: sum(args)", CALL, True),
        ("class Solution:\n    def add(self, a, b): return a + b", CALL, True),
        ("class Solution: pass", CALL, False),
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
        ("class Yes(int):\n    def __eq__(self, other): return True\ndef add(a, b): return Yes(9)", CALL, False),
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
    guard = "def add(a, b): return a + b\nif __name__ == '__main__':\n    print(add(int(input()), int(input())))"
    assert run(sandbox, guard, CALL).all and run(sandbox, guard, io_case("1\n2", "3")).all
    own = "import sys, dataclasses\n@dataclasses.dataclass\nclass A: x: 'int'\ndef add(a, b): return A(sys.modules[__name__].A(3).x).x"
    assert run(sandbox, own, CALL).all


@needs_linux
def test_limits_are_named_and_cases_left_over_have_not_passed(sandbox):
    slow = run(sandbox, "while True: pass", STDIN)
    assert slow.failure == "case 1 of 1: the program ran into the cpu limit"
    began = time.monotonic()
    done = run(sandbox, "import time; time.sleep(0.3); print(input())", *[io_case(f"{n}", f"{n}") for n in range(50)], total_s=0.5)
    assert time.monotonic() - began < 5 and 0 < done.passed < 50 and not done.all and "not begun" in done.failure
