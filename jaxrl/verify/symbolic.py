r"""Whether two answers are the same expression, asked of the math-verify library (the extra `math`) in a process that can be killed.

SymPy can be made to compute for ever, or to fill the memory, by a few characters (9^{9^{9^9}}), and holds the interpreter
while it does. So the library lives in a process of its own, one for each that asks, with a deadline: an answer that takes
longer is killed with it and counts as different, and the next one finds a fresh process.
"""

import importlib.util
import re
from collections.abc import Callable
from functools import cache

from jaxrl.errors import InputError
from jaxrl.types import Problem, Verdict
from jaxrl.verify.pool import VerifierPool

TIMEOUT_S = 2.0
MAX_CHARS = 300
MAX_DEPTH = 12  # of brackets
MAX_POWERS = 10
MAX_DIGITS = 40  # in a row
DIGITS = 12  # behind the point, to which numbers must agree; the library's own 6 would let 1.414214 pass for \sqrt{2}

_RELATION = re.compile(r"[<>≠≤≥≈≡≃≅≪≫]|!=|\\(?:neq?|not|[gl](?:eq?q?|eqslant|t|l|g)|approx|sim(?:eq)?|equiv|cong)(?![a-z])")
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")


def require() -> None:
    """Raises InputError where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise InputError("task.symbolic needs the math-verify library; install it with: pip install 'jaxrl[math]', or set it to false")


def same_expression(gold: str, answer: str) -> tuple[bool, str]:
    """Whether the answer is worth the gold one, and a word on it where it was not compared.

    Raises:
      InputError: the library's process does not start.
    """
    reason = _too_much(answer)
    if not reason and _RELATION.search(answer) and not _RELATION.search(gold):
        reason = "a relation where a value was asked for"  # of which the library would take the right side
    if reason:
        return False, reason
    verdict = _pool().gather([_pool().submit(Problem("", (), {"gold": gold}), answer)])[0]
    return verdict.correct, verdict.error or ""


def _too_much(text: str) -> str:
    """Why an answer is not even looked at, or nothing. The deadline would stop these too, but each would cost it."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if text.count("^") > MAX_POWERS or _LONG_NUMBER.search(text):
        return f"more than {MAX_POWERS} powers, or {MAX_DIGITS} digits in a row"
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return f"brackets more than {MAX_DEPTH} deep" if deepest > MAX_DEPTH else ""


@cache
def _pool() -> VerifierPool:
    """The process of this process; it dies with it."""
    return VerifierPool(_Compare(), workers=1, timeout_s=TIMEOUT_S, failure_reward=0.0)


class _Compare:
    """What is sent to the process: it becomes `_comparison()` there, so that the library is loaded there and only there."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        raise NotImplementedError("it is made for another process")

    def __reduce__(self) -> tuple:
        return _comparison, ()


def _comparison() -> Callable[[Problem, str], Verdict]:
    from math_verify import parse, verify

    def compare(problem: Problem, text: str) -> Verdict:
        gold, answer = (parse(f"\\boxed{{{side}}}") for side in (problem.data["gold"], text))
        same = bool(gold) and bool(answer) and verify(gold, answer, float_rounding=DIGITS)  # gold first: the order matters to the library
        return Verdict(float(same), correct=same, format_ok=True)

    return compare
