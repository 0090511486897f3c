r"""Whether two expressions are the same: both (`expression.py`) are worked out at the same drawn points.

Two rational functions that agree at a drawn point are equal but for chance of the order of their degree /
2^40 (Schwartz 1980, Zippel 1979); they must agree at several. There are two ways of working out:

    exact      fractions. Roots, powers that are no whole numbers, functions, \pi, e and i are unknowns: what
               is equal so is equal whatever they mean, but \sqrt{12} is not 2\sqrt{3}.
    symbolic   roots and functions have their values too, once to 60 digits and once to 200 (mpmath, the extra
               `math`). Two numbers are the same if their difference shrinks with the precision. So nothing is
               rounded: 1/2^99 is not 1/2^98.

Sizes are bounded (MAX_BITS, MAX_MAGNITUDE), so that 9^{9^{9^9}} costs microseconds, and no process has to be
killed.
"""

import hashlib
import importlib.util
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from jaxrl.errors import InputError
from jaxrl.tasks.math.expression import Node, Unreadable, is_unknown, negative, unknowns

POINTS = 5
DIGITS = (60, 200)
MAX_BITS = 30_000  # of an exact value
MAX_MAGNITUDE = 10**9  # binary, of any value
MAX_ANGLE = 4_000  # binary magnitude of what goes into a sine
MAX_FACTORIAL = 2_100  # that is worked out exactly


def require() -> None:
    """Raises InputError where mpmath is not installed."""
    if importlib.util.find_spec("mpmath") is None:
        raise InputError(
            "task.symbolic needs the mpmath library; install it with: pip install 'jaxrl[math]', or set it "
            "to false"
        )


# ------------------------------------------------------------------------------------------------ working out


@dataclass(frozen=True)
class _Point:
    """Where expressions are worked out. `mp` is mpmath at a precision, or None for exact values alone."""

    trial: int
    mp: Any
    names: tuple[tuple[str, Any], ...] = ()  # of the variables that a sum binds

    def value(self, node: Node) -> Any:
        """Raises Unreadable where it has no value or one that is too large."""
        kind = node[0]
        if kind == "num":
            return self.checked(node[1])
        if kind == "var":
            return self.variable(node[1])
        if kind == "sum":
            return self.series(node)
        if kind == "call":
            return self.checked(self.function(node[1], [self.value(part) for part in node[2:]]))
        left, right = self.value(node[1]), self.value(node[2])
        if kind == "^":
            return self.checked(self.power(left, right))
        left, right = self.alike(left, right)
        if kind == "/" and right == 0:
            raise Unreadable("a division by zero")
        return self.checked(left + right if kind == "+" else left * right if kind == "*" else left / right)

    def variable(self, name: str) -> Any:
        bound = dict(self.names).get(name)
        if bound is not None:
            return bound
        if self.mp is not None and name in ("e", "i", "\\pi"):
            return {"e": +self.mp.e, "i": self.mp.mpc(0, 1), "\\pi": +self.mp.pi}[name]
        return self.drawn("name", name)

    def drawn(self, *what: Any) -> Fraction:
        """A value of an unknown: the same for the same unknown, of either sign but at the first point."""
        digest = hashlib.blake2b(repr((self.trial, *what)).encode(), digest_size=16).digest()
        rng = random.Random(digest)
        value = Fraction(rng.randrange(2**38, 2**40), 2**36 + 31) * rng.choice(
            (Fraction(1, 7), Fraction(1, 3), 1)
        )
        return -value if self.trial and rng.random() < 0.5 else value

    def unknown(self, name: str, values: list[Any]) -> Fraction:
        """An unknown function: drawn by its arguments, which are told apart to some 45 digits."""
        return self.drawn(name, *map(self.key, values))

    def key(self, value: Any) -> Any:
        if isinstance(value, Fraction) and self.mp is None:
            return value.numerator, value.denominator
        value = self.mp.mpc(self.number(value))
        if max(self.magnitude(value.real), self.magnitude(value.imag)) > 40:
            raise Unreadable("too large an argument of an unknown function")
        return int(self.mp.nint(value.real * 2**150)), int(self.mp.nint(value.imag * 2**150))

    def number(self, value: Any) -> Any:
        return self.mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value

    def alike(self, left: Any, right: Any) -> tuple[Any, Any]:
        if isinstance(left, Fraction) != isinstance(right, Fraction):
            return self.number(left), self.number(right)
        return left, right

    def magnitude(self, value: Any) -> int:
        """About log2 of a number of mpmath."""
        return max(-1, int(self.mp.mag(value))) if value else -1

    def checked(self, value: Any) -> Any:
        if isinstance(value, Fraction):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS:
                return value
            if self.mp is None:
                raise Unreadable("too large a number")
            return self.number(value)
        if not self.mp.isfinite(value) or abs(int(self.mp.mag(value)) if value else 0) > MAX_MAGNITUDE:
            raise Unreadable("too large a number")
        return value

    def power(self, base: Any, exponent: Any) -> Any:
        if base == 0:
            if isinstance(exponent, Fraction) and exponent > 0:
                return base
            raise Unreadable("a power of zero")
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            exponent = exponent.numerator
            if not isinstance(base, Fraction):
                size = abs(int(self.mp.mag(base))) + 1
                if abs(exponent) * size > MAX_MAGNITUDE:
                    raise Unreadable("too large a number")
                return base**exponent
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= MAX_BITS or abs(base) == 1:
                return base ** (exponent if abs(base) != 1 else exponent % 2)
            if self.mp is None or bits * abs(exponent) > MAX_MAGNITUDE:
                raise Unreadable("too large a number")
            return self.number(base) ** exponent
        if self.mp is None:
            return self.unknown("^", [base, exponent])
        if (
            isinstance(base, Fraction)
            and isinstance(exponent, Fraction)
            and base < 0
            and exponent.denominator % 2
        ):
            root = self.mp.root(self.number(-base), exponent.denominator)
            return (-root) ** exponent.numerator  # the real one, as (-8)^{1/3} is meant
        base, exponent = self.number(base), self.number(exponent)
        if self.magnitude(exponent) + self.magnitude(self.mp.log(base)) > math.log2(MAX_MAGNITUDE):
            raise Unreadable("too large a number")
        return self.mp.power(base, exponent)

    def series(self, node: Node) -> Any:
        _, name, variable, low, high, body = node
        inside = [
            _Point(self.trial, self.mp, (*self.names, (variable, self.drawn("bound", i)))).value(body)
            for i in range(2)
        ]
        return self.unknown(name, [self.value(low), self.value(high), *inside])

    def function(self, name: str, values: list[Any]) -> Any:
        if is_unknown(name):
            return self.unknown(name, values)
        exact = _exactly(name, values)
        if exact is not None:
            return exact
        if name == "root":
            order = values[1]
            if not isinstance(order, Fraction) or order.denominator != 1 or not 1 < order <= 1000:
                raise Unreadable("an odd order of a root")
            return self.power(values[0], 1 / order)
        if self.mp is None:
            return self.unknown(name, values)
        if name in ("max", "min"):
            if any(not isinstance(value, Fraction) for value in values):
                raise Unreadable(f"{name} of what is no fraction")
            return max(values) if name == "max" else min(values)
        return self.numerically(name, [self.number(value) for value in values])

    def numerically(self, name: str, values: list[Any]) -> Any:
        mp = self.mp
        if name == "degree":
            return mp.pi / 180
        if (len(values) == 2 and name != "binom") or name not in _NUMERIC:
            raise Unreadable(f"{name} of these values")
        most = 60 if name in ("!", "binom") else 30 if name in ("exp", "sinh", "cosh", "tanh") else MAX_ANGLE
        if any(self.magnitude(value) > most for value in values):
            raise Unreadable(f"{name} of a number too large")
        try:
            return _NUMERIC[name](mp, *values)
        except (ValueError, ZeroDivisionError, OverflowError, NotImplementedError, mp.NoConvergence):
            raise Unreadable(f"{name} has no value there") from None


def _exactly(name: str, values: list[Any]) -> Fraction | None:
    """Functions of whole numbers."""
    if not values or any(not isinstance(value, Fraction) for value in values):
        return None
    if name == "|":
        return abs(values[0])
    if name in "⌊⌈":
        return Fraction(math.floor(values[0]) if name == "⌊" else math.ceil(values[0]))
    if any(value.denominator != 1 for value in values):
        return None
    whole = [value.numerator for value in values]
    if name in ("gcd", "lcm"):
        return Fraction(getattr(math, name)(*whole))
    if name == "!" and 0 <= whole[0] <= MAX_FACTORIAL:
        return Fraction(math.factorial(whole[0]))
    if name == "binom" and 0 <= whole[1] <= whole[0] <= MAX_FACTORIAL:
        return Fraction(math.comb(*whole))
    return None


_NUMERIC: dict[str, Callable[..., Any]] = {
    **{
        name: lambda mp, x, name=name: getattr(mp, name)(x)
        for name in "sin cos tan cot sec csc sinh cosh tanh exp arg".split()
    },
    **{
        "arc" + name: lambda mp, x, name=name: getattr(mp, "a" + name)(x)
        for name in "sin cos tan cot sec csc sinh cosh tanh".split()
    },
    "ln": lambda mp, x: mp.log(x),
    "lg": lambda mp, x: mp.log(x) / mp.log(10),
    # to a base that is not said: neither that of ln nor ten
    "log": lambda mp, x: mp.log(x) * mp.mpf(271) / 113,
    "!": lambda mp, x: mp.gamma(x + 1),
    "binom": lambda mp, n, k: mp.binomial(n, k),
    "|": lambda mp, x: abs(x),
    "⌊": lambda mp, x: mp.floor(x),
    "⌈": lambda mp, x: mp.ceil(x),
    "Re": lambda mp, x: mp.re(x),
    "Im": lambda mp, x: mp.im(x),
}


@cache
def _precisions() -> tuple[Any, ...]:
    import mpmath

    contexts = tuple(mpmath.mp.clone() for _ in DIGITS)
    for context, digits in zip(contexts, DIGITS, strict=True):
        context.dps = digits
    return contexts


# -------------------------------------------------------------------------------------------------- comparing


def same(gold: Node, answer: Node, symbolic: bool) -> bool:
    """Whether both are the same function of the same unknowns, as far as the drawn points tell.

    Raises:
      Unreadable: one has no value anywhere.
    """
    pairs = [values for _, values in _worked_out([gold, answer], symbolic)]
    return all(_agree(*pair) for pair in pairs)


def same_relation(
    gold: tuple[Node, Node], answer: tuple[Node, Node], symbolic: bool, is_equation: bool
) -> bool:
    """Whether two equations, or two inequalities in the same direction, are each other's multiples: by a
    constant that is not 0, or that is positive.

    Raises:
      Unreadable: a side has no value anywhere.
    """
    differences = [("+", left, negative(right)) for left, right in (gold, answer)]
    first: list[Any] = []
    for point, (golds, answers) in _worked_out(differences, symbolic):
        if not first:
            if not all((*golds, *answers)):
                return False
            first = [golds, answers]
            ratio = point.alike(golds[-1], answers[-1])
            ratio = ratio[0] / ratio[1]
            if not is_equation and not (isinstance(ratio, Fraction) or point.mp.im(ratio) == 0):
                return False
            if not is_equation and not (ratio if isinstance(ratio, Fraction) else point.mp.re(ratio)) > 0:
                return False
            continue
        if not _agree(_times(golds, first[1]), _times(answers, first[0])):
            return False
    return True


def _times(left: list[Any], right: list[Any]) -> list[Any]:
    products = []
    for i, pair in enumerate(zip(left, right, strict=True)):
        a, b = _Point(0, _precisions()[i] if len(left) > 1 else None).alike(*pair)
        products.append(a * b)
    return products


def _worked_out(nodes: list[Node], symbolic: bool) -> Iterator[tuple[_Point, list[list[Any]]]]:
    """At each point, of each expression its value to each precision. Points at which the first has a real
    value are preferred, since others are seldom meant.
    """
    closed = not any(map(unknowns, nodes))
    found, reason = [], "no value"
    for trial in range(1 if closed and symbolic else POINTS):
        points = [_Point(trial, mp) for mp in (_precisions() if symbolic else (None,))]
        try:
            found.append((points[-1], [[point.value(node) for point in points] for node in nodes]))
        except Unreadable as error:
            reason = str(error)
    if len(found) < (1 if closed else 2):
        raise Unreadable(reason)
    real = [
        (point, values)
        for point, values in found
        if isinstance(values[0][-1], Fraction) or not point.mp.im(values[0][-1])
    ]
    yield from (real if len(real) >= 2 else found)


def _agree(gold: list[Any], answer: list[Any]) -> bool:
    """Of the values of two expressions to each precision: whether they are the same number.

    Where the numbers differ, their difference is what it is to any precision; where they do not, it is the
    rounding alone.
    """
    if isinstance(gold[-1], Fraction) and isinstance(answer[-1], Fraction):
        return gold[-1] == answer[-1]
    points = [_Point(0, mp) for mp in _precisions()]
    low, high = ([point.number(side[i]) for side in (gold, answer)] for i, point in enumerate(points))
    mp = points[-1].mp
    coarse, fine = (mp.mpf(abs(a - b)) for a, b in (low, high))
    size = max(abs(value) for value in high)
    return fine <= mp.mpf(10) ** -100 * max(coarse, size * mp.mpf(10) ** -DIGITS[0])


def rounds_to(node: Node, decimal: str, symbolic: bool = True, *, cut: bool = False) -> bool:
    """Whether an expression without unknowns, rounded (or `cut`) to so many digits, is this decimal."""
    point = _Point(0, _precisions()[-1] if symbolic else None)
    value, target = point.value(node), Fraction(decimal)
    value, target = point.alike(value, target)
    is_real = isinstance(value, Fraction) or point.mp.im(value) == 0
    error = abs(value - target) * 10 ** len(decimal.partition(".")[2]) if is_real else 2
    return error * 2 <= 1 or (cut and error < 1 and abs(target) <= abs(value))


def line(node: Node) -> tuple[str, Fraction, Fraction] | None:
    """Of an expression k x + c, with fractions alone, x and k and c."""
    names = unknowns(node)
    if len(names) != 1 or not _is_rational(node):
        return None
    (name,) = names
    try:
        low, middle, high, far = (_Point(0, None, ((name, Fraction(x)),)).value(node) for x in (-1, 0, 2, 5))
    except Unreadable:
        return None
    slope = middle - low
    is_line = slope and high == middle + 2 * slope and far == middle + 5 * slope
    return (name, slope, middle) if is_line else None


def _is_rational(node: Node) -> bool:
    """Whether there is nothing but numbers, names and the four operations."""
    if node[0] == "var":
        return node[1] not in ("e", "i", "\\pi")
    return node[0] == "num" or (node[0] in "+*/" and all(map(_is_rational, node[1:])))
