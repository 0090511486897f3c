"""The parser against Python's own on every kind of expression, and what it refuses."""

import contextlib
import random
import re
import time
from fractions import Fraction

import pytest

from jaxrl.tasks.numbers.expressions import MAX_CHARS, MAX_DEPTH, Unreadable, evaluate


def random_expression(rng, depth=0):
    """With random brackets and spaces."""
    if depth == 4 or rng.random() < 0.3:
        return str(rng.randint(0, 12))
    a, b = random_expression(rng, depth + 1), random_expression(rng, depth + 1)
    text = f"{a}{rng.choice(['', ' '])}{rng.choice(['+', '-', '*', '/', '//'])}{rng.choice(['', ' '])}{b}"
    return f"({text})" if rng.random() < 0.5 else text


class Exact(Fraction):
    """A fraction whose whole-number division is a fraction too, so that nothing becomes a float."""

    def __floordiv__(self, other):
        return Exact(Fraction.__floordiv__(self, other))


def exactly(method):
    return lambda self, other: Exact(method(self, other))


for name in ("__add__", "__sub__", "__mul__", "__truediv__"):
    setattr(Exact, name, exactly(getattr(Fraction, name)))


def python_value(text):
    """What Python makes of it, exactly; `eval` is for the tests alone."""
    try:
        return eval(re.sub(r"[0-9]+", r"Exact(\g<0>)", text))
    except ZeroDivisionError:
        return None


def test_it_agrees_with_python():
    rng, divided_by_zero = random.Random(0), 0
    for _ in range(3000):
        text = random_expression(rng)
        expected = python_value(text)
        if expected is None:
            divided_by_zero += 1
            with pytest.raises(Unreadable, match="division by zero"):
                evaluate(text)
        else:
            assert evaluate(text).value == expected, text
    assert divided_by_zero > 50


@pytest.mark.parametrize(
    "text, value, numbers",
    [
        ("7", 7, (7,)),
        ("1 + 2 * 3", 7, (1, 2, 3)),
        ("(1 + 2) * 3", 9, (1, 2, 3)),
        ("8 / 3 * 3", 8, (8, 3, 3)),
        ("1 / 3", Fraction(1, 3), (1, 3)),
        ("2 - 3 - 4", -5, (2, 3, 4)),
        ("16 / 4 / 2", 2, (16, 4, 2)),
        ("7 // 2", 3, (7, 2)),
        ("(1 - 4) // 2", -2, (1, 4, 2)),
        ("((5))", 5, (5,)),
        ("6 × 7", 42, (6, 7)),
        ("6·7 − 84÷2", 0, (6, 7, 84, 2)),
        (r"\left( 6 \times 7 \right) \div 2", 21, (6, 7, 2)),
        ("  6*7\n", 42, (6, 7)),
        ("007", 7, (7,)),
        ("-3 + 5", 2, (3, 5)),
        ("-1 + 72*(89 - 77)/1", 863, (1, 72, 89, 77, 1)),
        ("4 - -(1 + 2)", 7, (4, 1, 2)),
        ("2 * -3", -6, (2, 3)),
        ("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH, 1, (1,)),
        ("999999999999", 999999999999, (999999999999,)),
    ],
)
def test_hand_table(text, value, numbers):
    found = evaluate(text)
    assert found.value == value and found.numbers == numbers


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "ends too early"),
        ("1 +", "ends too early"),
        ("(1 + 2", "ends too early"),
        ("(1 + 2 3", "not closed"),
        ("1 2", "'2' is not expected"),
        ("1)", r"'\)' is not expected"),
        ("()", "where a number"),
        ("5 -", "ends too early"),
        ("-" * (MAX_DEPTH + 1) + "1", "more than 30 deep"),
        ("2 ** 3", r"'\*' where a number"),
        ("9**9**9", r"'\*' where a number"),
        ("9^9", "'\\^9' is no part"),
        ("2 * x", "'x' is no part"),
        ("1.5 + 2", "is no part"),
        ("1,000", "is no part"),
        ("1e9", "is no part"),
        ("３ + 4", "is no part"),
        ("__import__('os').system('true')", "is no part"),
        ("abs(3)", "is no part"),
        ("1 = 1", "is no part"),
        ("3 / (2 - 2)", "division by zero"),
        ("3 // 0", "division by zero"),
        ("1234567890123", "at most 12 digits"),
        ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "brackets more than 30 deep"),
        ("1+" * MAX_CHARS + "1", "longer than 500 characters"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(Unreadable, match=reason):
        evaluate(text)


def test_nothing_hangs():
    for text in (
        "9" * 10**6,
        "(" * 10**6,
        "999999999999*" * 38 + "9",
        "1/999999999999" * 33,
        " " * 10**6,
        "(" * 30 + "1" + ")" * 30,
    ):
        began = time.process_time()
        with contextlib.suppress(Unreadable):
            evaluate(text)
        assert time.process_time() - began < 20  # some ms
