"""math-verify in its killable process: what it can tell, what a hostile answer costs, and that nothing is left of one."""

import time
from pathlib import Path

import pytest

from jaxrl.verify import symbolic
from jaxrl.verify.symbolic import TIMEOUT_S, same_expression

pytest.importorskip("math_verify", reason="the extra `math` is not installed")


@pytest.fixture(scope="module", autouse=True)
def process():
    same_expression("x", "x")  # started, so that the times below are those of answers
    yield
    symbolic._pool().close()
    symbolic._pool.cache_clear()


@pytest.mark.parametrize(
    "gold, answer, expected",
    [
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        ("x+1", "1+x", True),
        ("(x+1)^2", "x^2+2x+1", True),
        (r"\frac{\pi}{2}", r"\pi/2", True),
        (r"\{1,2\}", r"\{2,1\}", True),
        ("42", "6*7", True),
        (r"2\sqrt{3}", r"\sqrt{13}", False),
        ("42", "41 or 42", False),  # one answer, not a choice
        ("42", "42, 43", False),
        ("42", "nan", False),
        ("42", r"\neq 42", False),
        ("42", r"\geqslant 42", False),
        ("42", "!= 42", False),
        ("42", r"\geq 42", False),
        ("42", "> 42", False),
        (r"x \geq 2", r"x \ge 2", True),
        (r"\sqrt{2}", "1.41421356", False),  # no rounding, as for numbers
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}", True),
        ("42", "banana", False),
        ("42", "", False),
        ("42", "\\frac{0}{0}", False),
        ("42", "}\\boxed{42", False),
    ],
)
def test_what_it_tells(gold, answer, expected):
    assert same_expression(gold, answer)[0] is expected


@pytest.mark.parametrize("answer", ["9^{9^{9^9}}", "10^{100000}!", r"\prod_{k=1}^{99999999} k", "(((((((9^9)^9)^9)^9)^9)!)!)"])
def test_an_answer_that_computes_for_ever_costs_two_seconds_and_nothing_else(answer):
    began = time.monotonic()
    same, note = same_expression("42", answer)
    assert (same, note) == (False, "timeout")
    assert time.monotonic() - began < TIMEOUT_S + 1.5
    assert same_expression("x+1", "1+x") == (True, "")  # from a fresh process


@pytest.mark.parametrize("answer", ["(" * 3000, "{" * 100 + "1" + "}" * 100, "9" * 100, "2^" * 50 + "2", "x+" * 200])
def test_what_is_clearly_hostile_is_not_even_looked_at(answer):
    began = time.monotonic()
    same, note = same_expression("42", answer)
    assert not same and note and note != "timeout"
    assert time.monotonic() - began < 0.1


def test_the_library_stays_out_of_the_process_that_asks():
    import subprocess
    import sys

    program = (
        "import sys\nfrom jaxrl.verify.symbolic import same_expression\n"
        "assert same_expression('x+1', '1+x')[0]\nassert not {'math_verify', 'sympy'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert ended.returncode == 0, ended.stderr
