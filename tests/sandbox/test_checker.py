"""Tests that hold the answers, on hostile and honest programs: verdicts are those of a plain run, and forging
gains nothing.
"""

import sys

import pytest

from jaxrl.sandbox.checker import BrokenTests, run_tests
from jaxrl.sandbox.sandbox import Level, Limits, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")

ADD = "def add(a, b): return a + b"
TESTS = [
    "assert add(1, 2) == 3",
    "assert add(-1, 1) == 0",
    "assert add([1], [2]) == [1, 2]",
    "assert add('a', 'b') == 'ab'",
]
SECRET = "expected-4711-" + "x" * 8


YES = (
    "class Yes(KIND):\n    def __eq__(self, other): return True\n    def __bool__(self): return True\ndef"
    " add(a, b): return "
)
FLOOD = """
import os
def add(a, b):
    for fd in range(3, 64):
        try: os.write(fd, b'\\x00\\x00\\x00\\x20' + b'passed' * 8)
        except OSError: pass
    return 0
"""
MEDDLE = """
import gc
for thing in gc.get_objects():
    if isinstance(thing, dict) and 'answer_calls' in thing:
        thing.update(answer_calls=None, call=lambda *_: 3, describe=lambda *_: 3)
def add(a, b): return 0
"""
VALUES = """
values = [None, True, 0, -3, 10**400, 1.5, float('inf'), 2j, '\u00e9\\n', b'x']
values += [(1, (2,)), {1: [2]}, {3}, frozenset('a'), ('call', 1)]
for value in values:
    got = same(value)
    assert got == value and type(got) is type(value)
assert same(float('nan')) != same(1)
"""
EXPECTED = """
try:
    add(1, 2)
    assert False
except ZeroDivisionError as error:
    assert str(error) == 'division by zero'
"""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(wall_s=30.0, cpu_s=1.0), Level.PROCESS) as sandbox:
        yield sandbox


def check(sandbox, program, tests=TESTS, setup="", names=("add",)):
    return run_tests(sandbox, program, setup, list(names), tests)


def test_an_honest_program_passes(sandbox):
    checked = check(sandbox, ADD)
    assert checked.passed and checked.failure == "" and checked.calls == 4


@pytest.mark.parametrize(
    "program, failure",
    [
        ("def add(a, b): return a - b", "test 1: AssertionError"),
        ("def add(a, b): return a + b if isinstance(a, int) else None", "test 3: AssertionError"),
        ("def add(a): return a", "TypeError"),
        ("def add(a, b): return c", "NameError"),
        ("def plus(a, b): return a + b", "NameError"),
        ("def add(a, b) return a + b", "SyntaxError"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "exit code 0"),
        ("def add(a, b):\n    import os\n    os._exit(0)", "exit code 0"),
        ("def add(a, b):\n    raise SystemExit(0)", "SystemExit"),
        ("def add(a, b):\n    while True: pass", "limit"),
        ("def add(a, b): return 'x' * (1 << 30)", ""),
        ("def add(a, b):\n    print('x' * (1 << 22)); return a + b", "output limit"),
        ("def add(a, b): return lambda: 3", "unserialisable"),
        # too deep somewhere on the way
        *((f"def add(a, b):\n    for _ in range({n}): a = [a]\n    return a", "") for n in range(90, 103)),
        ("", "NameError"),
        (YES.replace("(KIND)", "") + "Yes()", "unserialisable"),
        (YES.replace("KIND", "int") + "Yes(7)", "AssertionError"),  # arrives as 7
        (YES.replace("KIND", "str") + "Yes('7')", "AssertionError"),
        (YES.replace("KIND", "list") + "Yes()", "AssertionError"),
        ("def add(a, b): raise AssertionError('passed')", "AssertionError"),
        ("def add(a, b): raise StopIteration", "StopIteration"),
        ("def add(a, b): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import builtins\nbuiltins.AssertionError = ValueError\ndef add(a, b): return 0", "AssertionError"),
        ("import sys\nsys.modules['__main__'].add = None\nadd = 3", "TypeError"),
        (
            "def check(*_): return ('passed',)\nstart = go_on = check\ndef add(a, b): return ('passed',)",
            "AssertionError",
        ),
        (FLOOD, ""),
        (MEDDLE, ""),
    ],
)
def test_a_wrong_program_fails(sandbox, program, failure):
    checked = check(sandbox, program)
    assert not checked.passed and checked.failure and failure in checked.failure, checked
    assert check(sandbox, ADD).passed  # and harms no later one


HUNT = f"""
import gc, os, sys

def texts():
    frame = sys._getframe()
    while frame is not None:
        yield repr(frame.f_locals) + repr(frame.f_globals)
        frame = frame.f_back
    for thing in gc.get_objects():
        try: yield repr(thing)
        except Exception: pass
    yield repr(os.environ) + repr(sys.argv)
    for name in ("environ", "cmdline"):
        for pid in ("self", str(os.getppid()), "1"):
            try: yield open(f"/proc/{{pid}}/{{name}}").read()
            except OSError: pass

def add(a, b):
    for text in texts():
        at = text.find("expected-" + "4711-")
        if at >= 0: return text[at : at + {len(SECRET)}]
    return "nothing"
"""


def test_what_is_expected_is_nowhere_near_the_program(sandbox):
    tests = ["assert add(1, 2) is not None", f"assert add(1, 2) == {SECRET!r}"]
    setup = f"SECRET = {SECRET!r}\ndef helper(): return SECRET"
    checked = check(sandbox, HUNT, tests, setup)
    assert not checked.passed and checked.calls == 2 and "test 2: AssertionError" in checked.failure
    hunts_itself = (
        HUNT.replace("expected-", "hu").replace("4711-", "nts_itself") + "\nkept = 'hunts_itself' + 'x' * 50"
    )
    assert check(sandbox, hunts_itself, ["assert add(1, 2) != 'nothing'"]).passed  # it finds what is there


def test_helpers_come_from_the_set_up_and_calls_may_hang_on_earlier_results(sandbox):
    setup = "def helper(n): return add(n, 1)\ndef add(a, b): raise AssertionError('the stub')"
    tests = [
        "values = [helper(n) for n in range(3)]\nassert add(values[1], values[2]) == 5",
        "assert add(b=1, a=2) == 3",
    ]
    assert check(sandbox, ADD, tests, setup).calls == 5
    forged = "def helper(n): return 0\n" + ADD  # the program's helper is not the tests'
    assert check(sandbox, forged, ["assert helper(2) == 3"], setup).passed


def test_values_arrive_as_they_left(sandbox):
    assert check(sandbox, "def same(x): return x", [VALUES], names=["same"]).passed


def test_exceptions_that_tests_expect_arrive_by_name(sandbox):
    assert check(sandbox, "def add(a, b): return 1 / 0", [EXPECTED]).passed
    assert not check(sandbox, "def add(a, b): raise ValueError", [EXPECTED]).passed
    # there is no `add` that raises it
    assert not check(sandbox, "raise ZeroDivisionError('division by zero')", [EXPECTED]).passed
    assert not check(
        sandbox, "class ZeroDivisionError(Exception): pass\ndef add(a, b): return 0", [EXPECTED]
    ).passed


@pytest.mark.parametrize("kind", ["StopIteration", "StopAsyncIteration", "GeneratorExit"])
def test_no_exception_of_the_program_ends_an_iteration_of_the_tests(sandbox, kind):
    tests = ["assert all(map(lambda n: add(n, n) == 2 * n, [1, 2, 3]))", "assert [*map(add, [], [])] == []"]
    checked = check(sandbox, f"def add(*_): raise {kind}", tests)
    assert (
        not checked.passed
        and checked.calls == 1
        and checked.failure.startswith("test 1: ")
        and kind in checked.failure
    )
    assert check(sandbox, ADD, tests).calls == 3


def test_tests_that_draw_draw_the_same_every_time(sandbox):
    tests = ["import random\nassert add(random.random(), 0) == 0"]
    failures = {check(sandbox, "def add(a, b): raise ValueError(a)", tests).failure for _ in range(3)}
    assert len(failures) == 1


def test_what_printing_says_does_not_matter(sandbox):
    assert check(sandbox, "print('starting')\ndef add(a, b):\n    print(a, b)\n    return a + b").passed


@pytest.mark.parametrize(
    "tests, setup, reason",
    [
        (["assert 1 + 1 == 2"], "", "they call nothing"),
        (["assert undefined == 2"], "", "NameError"),
        (["assert add(1 2)"], "", "SyntaxError"),
        (["assert add(1, 2) == 3"], "import nothing_of_that_name", "the set-up: ModuleNotFoundError"),
        (["assert add(int, object()) == 3"], "", "unserialisable"),
        (["import os\nos._exit(0)"], "", "exit code 0"),
    ],
)
def test_tests_that_can_judge_no_one_give_no_verdict(sandbox, tests, setup, reason):
    with pytest.raises(BrokenTests, match=reason):
        check(sandbox, ADD, tests, setup)
