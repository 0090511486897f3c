r"""Cases of a program: an input and the output, or arguments and the value. Run one by one, with early stop.

    {"type": "stdin_stdout", "input": "1 2\n", "output": "3"}
    {"type": "function_call", "fn_name": "add", "args": [1, 2], "kwargs": {}, "expected": [3]}

Any of `expected` is right.

`shapes.py` reads them from records. The trusted side compares; nothing expected is sent anywhere.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

from jaxrl.sandbox.outcomes import ending, failing, shown
from jaxrl.sandbox.process import STARVED, stalled_s
from jaxrl.sandbox.sandbox import Sandbox, SandboxBusy
from jaxrl.tasks.code.names import with_prelude
from jaxrl.tasks.code.text import same_output

CLOSE = 1e-9  # relative and absolute difference of two floats that count as equal

Case = dict[str, Any]


@dataclass(frozen=True)
class Passed:
    """How many of the cases passed, the total, and what was wrong with the first that did not."""

    passed: int
    total: int
    failure: str = ""

    @property
    def all(self) -> bool:
        return self.passed == self.total


def call_case(name: str, given: Any, expected: list[Any]) -> Case:
    """A case of type function_call. expected: the values, any of which is right."""
    args = given if isinstance(given, list) else [] if isinstance(given, dict) else [given]
    kwargs = given if isinstance(given, dict) else {}
    return {"type": "function_call", "fn_name": name, "args": args, "kwargs": kwargs, "expected": expected}


def run_cases(
    sandbox: Sandbox, program: str, cases: list[Case], total_s: float, stop_early: bool = True
) -> Passed:
    """Run a program on each case, each in a process of its own: none knows what another case has left.

    Args:
      total_s: seconds after which no further case is begun; those left have not passed.
    Raises:
      SandboxBusy: they were spent on a machine that was busy for much of them.
      SandboxError: the sandbox broke down.
    """
    began, stalled, passed, failure = time.monotonic(), stalled_s(), 0, ""
    for number, case in enumerate(cases, start=1):
        if time.monotonic() - began > total_s:
            if stalled_s() - stalled > STARVED * total_s:
                took = f"{number - 1} of {len(cases)} cases took {total_s:g} s"
                raise SandboxBusy(f"the machine is busy: {took}; have fewer workers, or raise total_s")
            wrong = f"not begun: those before it took {total_s:g} s"
        else:
            wrong = (_run if case["type"] == "stdin_stdout" else _call)(sandbox, program, case)
        passed += not wrong
        failure = failure or (wrong and f"case {number} of {len(cases)}: {wrong}")
        if wrong and stop_early:
            break
    return Passed(passed, len(cases), failure)


def same_value(expected: Any, value: Any) -> bool:
    """Whether a returned value is the expected JSON value.

    A tuple counts as a list, a key as its text, since JSON has no others; true is not 1; floats may differ by
    CLOSE.
    """
    if isinstance(expected, bool) or isinstance(value, bool):
        return expected is value
    if isinstance(expected, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(expected) == len(value) and all(map(same_value, expected, value))
    if isinstance(expected, dict) and isinstance(value, dict):
        texts = {shown(key) if not isinstance(key, str) else key: item for key, item in value.items()}
        is_alike = len(texts) == len(value) and texts.keys() == expected.keys()
        return is_alike and all(same_value(expected[key], texts[key]) for key in expected)
    if isinstance(expected, float) or isinstance(value, float):
        numbers = isinstance(expected, (int, float)) and isinstance(value, (int, float))
        return numbers and _close(expected, value)
    return type(expected) is type(value) and expected == value


def _close(a: float, b: float) -> bool:
    try:
        return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
    except OverflowError:  # an integer beyond all floats
        return False


def _run(sandbox: Sandbox, program: str, case: Case) -> str:
    """What is wrong, or nothing."""
    outcome = sandbox.run(program, case["input"].encode("utf-8", "replace"))
    if not outcome.ok:
        return f"the program {ending(outcome)}"
    if same_output(case["output"], outcome.stdout):
        return ""
    return f"printed {shown(outcome.stdout.decode('utf-8', 'replace'))!r}, {shown(case['output'])!r} expected"


def _call(sandbox: Sandbox, program: str, case: Case) -> str:
    """What is wrong, or nothing."""
    name = case["fn_name"]
    with sandbox.functions(with_prelude(program)) as functions:
        called = functions.call(name, case["args"], case["kwargs"])
    if not called.ok:
        return f"{name} {failing(called)}"
    if any(same_value(expected, called.value) for expected in case["expected"]):
        return ""
    return f"{name} returned {shown(called.value)}, {shown(case['expected'][0])} expected"
