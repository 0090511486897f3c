"""Expressions read by one grammar and compared at drawn points: values against Python's own, what is refused,
what costs nothing.
"""

import math
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from jaxrl.tasks.math import algebra
from jaxrl.tasks.math.algebra import same, same_relation
from jaxrl.tasks.math.expression import Unreadable, read, unknowns

needs_mpmath = pytest.mark.skipif(
    not algebra.importlib.util.find_spec("mpmath"), reason="the extra `math` is not installed"
)


def random_polynomial(rng, depth=0):
    """A text that Python and the grammar read alike, but for ^."""
    if depth == 4 or rng.random() < 0.25:
        return rng.choice(["x", "y", "z", str(rng.randint(0, 9))])
    a, b = random_polynomial(rng, depth + 1), random_polynomial(rng, depth + 1)
    return rng.choice([f"({a}+{b})", f"({a}-{b})", f"{a}*{b}", f"({a})^{rng.randint(0, 3)}", f"(-{a})"])


def expanded(text, values):
    return eval(text.replace("^", "**"), {}, values)


def test_polynomials_are_the_same_where_python_says_so():
    rng, agreed = random.Random(0), 0
    for _ in range(120):
        text, other = random_polynomial(rng), random_polynomial(rng)
        for left, right in (
            (text, other),
            (text, f"({other})*0+{text}"),
            (f"({text})*({other})", f"({other})*({text})"),
        ):
            points = [{name: Fraction(rng.randint(-50, 50), 7) for name in "xyz"} for _ in range(4)]
            expected = all(expanded(left, point) == expanded(right, point) for point in points)
            agreed += expected
            try:
                assert same(read(left), read(right), symbolic=False) is expected, (left, right)
            except Unreadable as error:
                assert "power of zero" in str(error) or "no value" in str(error)
    assert agreed > 120


@needs_mpmath
@pytest.mark.parametrize(
    "text, value",
    [
        *(
            (r"\sqrt{2}", math.sqrt(2)),
            (r"\sqrt[3]{-8}", -2),
            ("(-8)^{1/3}", -2),
            (r"\sin\frac{\pi}{6}", 0.5),
        ),
        (r"\cos 60°", 0.5),
        *(
            (r"\sin 1", math.sin(1)),
            (r"\arctan 1", math.pi / 4),
            (r"\sin^{-1} 1", math.pi / 2),
            (r"\sin^2 1", math.sin(1) ** 2),
        ),
        *(
            (r"\ln 2", math.log(2)),
            (r"\log_2 8", 3),
            (r"\log_{10} 1000", 3),
            ("e^2", math.exp(2)),
            (r"\exp(2)", math.exp(2)),
        ),
        ("5!", 120),
        *(
            (r"\binom{5}{2}", 10),
            (r"{5 \choose 2}", 10),
            ("|-3|", 3),
            ("⌊2.7⌋", 2),
            ("⌈2.1⌉", 3),
            (r"\gcd(12, 18)", 6),
        ),
        (r"\max(2, 3)", 3),
        *((r"2\frac{1}{3}", 7 / 3), (r"\frac12", 0.5), (r"\frac1{72}", 1 / 72), (r"0.\overline{3}", 1 / 3)),
        *((r"0.1\overline{6}", 1 / 6), ("50%", 0.5)),
        *(
            ("2^3^2", 512),
            ("-2^2", -4),
            ("2^{-1}", 0.5),
            ("1/2/2", 0.25),
            ("6/2*3", 9),
            ("2 - -3", 5),
            ("e^{i\\pi}", -1),
        ),
        *(("i^2", -1), ("sqrt(4)", 2)),
        *(
            (r"\sqrt10", math.sqrt(10)),
            (r"2\pi", 2 * math.pi),
            ("3(4+5)", 27),
            ("(1+2)(3+4)", 21),
            (r"\tan 2\pi", 0),
        ),
        (r"\frac{1}{2}\sqrt{3}", math.sqrt(3) / 2),
    ],
)
def test_values(text, value):
    point = algebra._Point(0, algebra._precisions()[0])
    assert complex(point.number(point.value(read(text)))) == pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "+",
            "2+",
            "(2",
            "2)",
            "()",
            "2 3",
            "x2",
            r"\frac{1}",
            r"\frac{1}{2",
            r"\foo",
            "word",
            "2 and 3",
            '2 "cm"',
        ),
        *("204_5", "5 ½", "x = 3"),
        *(
            "x < 3",
            "1, 2",
            "...",
            "…",
            "4２",
            r"\int x dx",
            "#",
            "2**",
            "a//b",
            "a*/b",
            "|x",
            r"\sin",
            r"\sin(x)^2",
            r"\sqrt",
        ),
        *("x_", "x^", "∞", "f(", "f()"),
        *("(" * 100 + "1" + ")" * 100, "x^" * 90 + "x", "1+" * 200 + "1", "5!!!!!", "'", "\\", '"'),
    ],
)
def test_what_is_no_expression(text):
    with pytest.raises(Unreadable):
        read(text)


@needs_mpmath
@pytest.mark.parametrize(
    "text",
    [
        "1/0",
        "0^0",
        "0^{-1}",
        r"\ln 0",
        "9^{9^{9^9}}",
        "((9!)!)!",
        "10^{100000}!",
        "2^{10^{12}}",
        r"\sin(10^{10^5})",
        r"\sqrt[0]{2}",
    ],
)
def test_what_has_no_value(text):
    with pytest.raises(Unreadable):
        same(read(text), read(text), symbolic=True)


@needs_mpmath
def test_nothing_is_rounded():
    """Numbers that differ by one part in 10^k are told apart for every k, and equal ones are equal whatever
    their size.
    """
    for k in range(1, 150, 7):
        assert not same(read(r"\sqrt{2}"), read(rf"\sqrt{{2}}+\frac{{1}}{{10^{{{k}}}}}"), symbolic=True)
        assert not same(read(rf"10^{{{k}}}\sqrt{{2}}"), read(rf"10^{{{k}}}\sqrt{{2}}+1"), symbolic=True)
        assert not same(read(rf"e^{{-{k}}}"), read(rf"e^{{-{k + 1}}}"), symbolic=True)
        assert not same(read("0"), read(rf"e^{{-{10 * k}}}"), symbolic=True)
        assert same(
            read(rf"\sqrt{{8}}\cdot 10^{{-{k}}}".replace(r"\cdot", "*")),
            read(rf"\frac{{2\sqrt{{2}}}}{{10^{{{k}}}}}"),
            symbolic=True,
        )
        assert same(read(rf"(10^{{{k % 40}}}+\pi)-10^{{{k % 40}}}"), read(r"\pi"), symbolic=True)


@pytest.mark.parametrize("symbolic", [False, pytest.param(True, marks=needs_mpmath)])
def test_relations_are_multiples(symbolic):
    def told(gold, answer, is_equation=True):
        pair = [tuple(read(side) for side in text.split("=")) for text in (gold, answer)]
        return same_relation(*pair, symbolic=symbolic, is_equation=is_equation)

    assert (
        told("x^2 + y^2 = 4", "8 = 2x^2 + 2y^2")
        and told("y = x/2", "2y - x = 0")
        and told("x = y", "-x = -y")
    )
    assert (
        not told("x^2 + y^2 = 4", "x^2 - y^2 = 4")
        and not told("x = 2", "x^2 = 4")
        and not told("x = 2", "x = x")
        and not told("x = 2", "x = 3")
    )
    assert told("x = 2", "3x = 6", is_equation=False) and not told("x = 2", "-x = -2", is_equation=False)


def test_unknowns_are_names_and_unknown_functions():
    assert unknowns(read(r"2\pi x + e^{i y} + f(z) + AB")) == {"x", "y", "z", "AB", "f", "of f"}
    assert not unknowns(read(r"2\pi + e^{i} + \sqrt{3}"))


def test_the_library_is_loaded_only_where_it_is_asked_for():
    program = (
        "import sys\nfrom jaxrl.tasks.math.alike import equal\nassert equal('x+1', '1+x') and 'mpmath' not in"
        " sys.modules\nassert not {'sympy', 'math_verify', 'numpy'} & set(sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert ended.returncode == 0, ended.stderr
