r"""Whether two expressions are the same: both are read by one grammar and worked out at the same drawn points.

Two rational functions that agree at a drawn point are equal but for chance of the order of their degree / 2^40 (Schwartz 1980,
Zippel 1979); they must agree at several. There are two ways of working out:

    exact      fractions. Roots, powers that are no whole numbers, functions, \pi, e and i are unknowns: what is equal so is
               equal whatever they mean, but \sqrt{12} is not 2\sqrt{3}.
    symbolic   roots and functions have their values too, once to 60 digits and once to 200 (mpmath, the extra `math`). Two
               numbers are the same if their difference shrinks with the precision. So nothing is rounded: 1/2^99 is not 1/2^98.

What the grammar does not know makes the text unreadable, and nothing is left out of it in silence: no unit, degree sign, base,
or second equation. AB is one name, not a product; 2\frac{1}{3} is a mixed number; f(x), f_n and sums are unknown functions
of what stands in them. Sizes are bounded (MAX_BITS, MAX_MAGNITUDE), so that 9^{9^{9^9}} costs microseconds.
"""

import hashlib
import importlib.util
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from jaxrl.errors import InputError

POINTS = 5
DIGITS = (60, 200)
MAX_BITS = 30_000  # of an exact value
MAX_MAGNITUDE = 10**9  # binary, of any value
MAX_ANGLE = 4_000  # binary magnitude of what goes into a sine
MAX_FACTORIAL = 2_100  # that is worked out exactly
MAX_TOKENS = 250
MAX_DEPTH = 40  # of brackets, powers and arguments in each other
MAX_SIGNS = 3  # in a row, such as those of factorials

Node = tuple  # (kind, ...): num value | var name | + a b | * a b | / a b | ^ a b | call name args | sum name var low high body


class Unreadable(ValueError):
    """The text is no expression of this grammar, or has no value; the message says why."""


def require() -> None:
    """Raises InputError where mpmath is not installed."""
    if importlib.util.find_spec("mpmath") is None:
        raise InputError("task.symbolic needs the mpmath library; install it with: pip install 'jaxrl[math]', or set it to false")


# -------------------------------------------------------------------------------------------------------------- reading

_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp max min gcd lcm sqrt Re Im arg".split()
)
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau phi varphi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell pi".split()
)
_WITH_ARGUMENTS = frozenset("frac binom choose overline sum prod circ angle triangle".split())
_KNOWN = sorted(_FUNCTIONS | _GREEK | _WITH_ARGUMENTS, key=len, reverse=True)
_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\\[A-Za-z]+|[A-Za-z]+'*)|(\"[^\"]*\")|(\S))")
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|", "⌊": "⌋", "⌈": "⌉"}
_LONGEST_RUN = 3  # of letters that are a product; a longer one is a word


def read(text: str) -> Node:
    """The expression that a text is.

    Raises:
      Unreadable: it is none.
    """
    reader = _Reader(_tokens(text))
    node = reader.sum()
    if reader.next:
        raise Unreadable(f"{reader.next!r} is not expected")
    return node


def unknowns(node: Any) -> frozenset[str]:
    """The names in an expression, those of unknown functions too."""
    if not isinstance(node, tuple):
        return frozenset()
    if node and node[0] == "var":
        return frozenset((node[1],)) - {"\\pi", "e", "i"}
    own = frozenset((node[1],)) if node and node[0] == "call" and _is_unknown(node[1]) else frozenset()
    return own.union(*map(unknowns, node))


def is_number(node: Node) -> bool:
    """Whether it is one number as it is written, with or without a sign or a fraction line."""
    return node[0] == "num" or (node[0] == "/" and node[1][0] == node[2][0] == "num")


def _is_unknown(function: str) -> bool:
    return function.startswith("of ") or function.startswith("at ")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    text = text.strip()
    for number, word, quoted, other in _TOKEN.findall(text):
        if quoted:
            raise Unreadable(f"the words {quoted} in an expression")
        tokens += [number] if number else _words(word) if word else [other]
    if len(tokens) > MAX_TOKENS:
        raise Unreadable(f"more than {MAX_TOKENS} names, numbers and signs")
    return tokens


def _words(word: str) -> list[str]:
    """The names in a run of letters: \\pir is \\pi r, xy is x y, AB is a name of its own."""
    command, letters = word.startswith("\\"), word.lstrip("\\")
    for name in _KNOWN if command or len(letters) > 1 else ():
        rest = letters.removeprefix(name)
        if letters.startswith(name) and (command or (name in _FUNCTIONS or name == "pi") and len(rest) <= 1):
            return ["\\" + name, *(_words(rest) if rest else [])]
    if command:
        raise Unreadable(f"{word} is not known")
    primes = letters[len(letters.rstrip("'")) :]
    letters = letters.rstrip("'")
    if len(letters) > 1 and letters.isupper():
        return [letters + primes]
    if len(letters) > _LONGEST_RUN:
        raise Unreadable(f"{word!r} is a word")
    return [*letters[:-1], letters[-1] + primes]


class _Reader:
    """The place in a list of tokens. The methods are the rules of the grammar, from the loosest to the tightest."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.bars, self.behind_power = 0, False  # |s that are open; whether the last factor was a power

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.next
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{token or 'the end'!r} where {wanted or 'more'!r} should be")
        self.at += 1
        return token

    def deeper(self, rule: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"more than {MAX_DEPTH} deep")
        node = rule()
        self.depth -= 1
        return node

    def is_negative(self) -> bool:
        """Takes the signs before a product or a power."""
        signs = 0
        while self.next in ("+", "-"):
            signs += self.take() == "-"
        return signs % 2 == 1

    def sum(self) -> Node:
        node = self.product()
        while self.next in ("+", "-"):
            node = ("+", node, _negative(self.product()) if self.take() == "-" else self.product())
        return node

    def product(self) -> Node:
        if self.is_negative():
            return _negative(self.product())
        node = self.factor()
        while True:
            if self.next in ("*", "/"):
                operator = self.take()
                if self.next in ("*", "/"):
                    raise Unreadable("two operators in a row")
                right = _negative(self.factor()) if self.next == "-" and self.take() else self.factor()
                node = (operator, node, right)
            elif self.starts_a_factor():
                node = ("*", node, self.factor())
            else:
                return node

    def starts_a_factor(self) -> bool:
        """Whether a factor follows without a sign between: a number may, but only behind a power (2^6 3^5)."""
        token = self.next
        if not token:
            return False
        if _is_number(token):
            return self.behind_power
        if token == "|":
            return not self.bars
        return token[0].isalpha() or token in "([{⌊⌈" or (token[0] == "\\" and token != "\\choose")

    def factor(self) -> Node:
        node = self.postfixed(self.deeper(self.atom))
        self.behind_power = False
        if self.next == "^":
            self.take()
            node = self.postfixed(("^", node, self.deeper(self.exponent)))
            self.behind_power = True
        return node

    def exponent(self) -> Node:
        return _negative(self.factor()) if self.is_negative() else self.factor()

    def postfixed(self, node: Node) -> Node:
        for _ in range(MAX_SIGNS):
            if self.next not in ("!", "°", "%"):
                break
            sign = self.take()
            node = ("call", "!", node) if sign == "!" else ("*", node, ("call", "degree") if sign == "°" else ("num", Fraction(1, 100)))
        return node

    def atom(self) -> Node:
        token = self.take()
        if _is_number(token):
            return self.number(token)
        if token in _CLOSING:
            return self.bracketed(token)
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isalpha() and token[0].isascii():
            return self.name(token)
        raise Unreadable(f"{token!r} where a value should be")

    def number(self, token: str) -> Node:
        value = Fraction(token)
        if self.next == "." and self.tokens[self.at + 1 : self.at + 2] == ["\\overline"]:
            self.take()
            token += "."
        if self.next == "\\overline" and "." in token:
            self.take()
            period = "".join(self.raw())
            if not period.isdigit():
                raise Unreadable("a period that is no digits")
            after = len(token.partition(".")[2])
            return ("num", value + Fraction(int(period), (10 ** len(period) - 1) * 10**after))
        if self.next == "\\frac" and "." not in token:
            at, tokens = self.at, list(self.tokens)
            node = self.command(self.take()[1:])
            if node[1][0] == node[2][0] == "num" and node[2][1]:
                return ("num", value + node[1][1] / node[2][1])
            self.at, self.tokens = at, tokens
        if self.next == "_":
            raise Unreadable("a number with a base")
        return ("num", value)

    def bracketed(self, opening: str) -> Node:
        self.bars, bars = (self.bars + 1 if opening == "|" else 0), self.bars
        node = self.sum()
        if opening == "{" and self.next == "\\choose":
            self.take()
            node = ("call", "binom", node, self.sum())
        self.take(_CLOSING[opening])
        self.bars = bars
        return ("call", opening, node) if opening in "|⌊⌈" else node

    def name(self, token: str) -> Node:
        node: Node = ("var", token)
        if self.next == "_":
            self.take()
            node = ("call", "at " + token, self.argument())
        if token.rstrip("'") in ("f", "g") and self.next == "(":
            node = ("call", "of " + token, node, *self.arguments())
        return node

    def arguments(self) -> list[Node]:
        self.take("(")
        self.bars, bars = 0, self.bars
        nodes = [self.sum()]
        while self.next == ",":
            self.take()
            nodes.append(self.sum())
        self.take(")")
        self.bars = bars
        return nodes

    def argument(self) -> Node:
        """What a command takes: a group, or one digit or name."""
        token = self.next
        if token == "{":
            return self.bracketed(self.take())
        if token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            if "." in token:
                raise Unreadable("a decimal where a digit should be")
            return ("num", Fraction(int(token[0])))
        if token in ("(", "|", "[", "-", "+"):
            raise Unreadable(f"{token!r} where a group should be")
        return self.deeper(self.atom)

    def raw(self) -> list[str]:
        """The tokens of a group without groups in it."""
        self.take("{")
        start = self.at
        while self.next and self.next not in "{}":
            self.at += 1
        self.take("}")
        return self.tokens[start : self.at - 1]

    def command(self, name: str) -> Node:
        if name == "frac":
            above = self.argument()
            return ("/", above, self.argument())
        if name == "binom":
            above = self.argument()
            return ("call", "binom", above, self.argument())
        if name == "sqrt":
            return self.root()
        if name in ("sum", "prod"):
            return self.series(name)
        if name in _GREEK:
            node: Node = ("var", "\\" + name)
            if self.next == "_":
                self.take()
                node = ("call", "at \\" + name, self.argument())
            return node
        if name in _FUNCTIONS:
            return self.function(name)
        raise Unreadable(f"\\{name} where a value should be")

    def root(self) -> Node:
        order: Node = ("num", Fraction(2))
        if self.next == "[":
            order = self.bracketed(self.take())
        if self.next == "(":
            body = self.bracketed(self.take())
        elif self.next[:1].isdigit():
            body = ("num", Fraction(self.take()))
        else:
            body = self.argument()
        return ("call", "root", body, order)

    def function(self, name: str) -> Node:
        base = power = None
        while self.next in ("_", "^"):
            if self.take() == "_" and name == "log":
                base = self.argument()
            elif self.tokens[self.at - 1] == "^":
                power = self.exponent() if self.next == "-" else self.argument()
            else:
                raise Unreadable(f"a base of {name}")
        if name in ("max", "min", "gcd", "lcm"):
            return ("call", name, *self.arguments())
        body = self.bracketed(self.take()) if self.next == "(" else self.operand()
        if self.next == "^":
            raise Unreadable("a power behind the argument of a function, which may mean either")
        if power == ("num", Fraction(-1)):
            name, power = "arc" + name, None
        node = ("call", name, body) if base is None else ("/", ("call", "ln", body), ("call", "ln", base))
        return ("^", node, power) if power else node

    def operand(self) -> Node:
        """What stands behind a function without brackets: factors side by side, up to the next function."""
        if self.next == "-":
            self.take()
            return _negative(self.factor())
        node = self.factor()
        while self.starts_a_factor() and self.next.lstrip("\\") not in _FUNCTIONS and self.next != "(":
            node = ("*", node, self.factor())
        if self.next == "/":
            raise Unreadable("a function of a quotient without brackets")
        return node

    def series(self, name: str) -> Node:
        self.take("_")
        self.take("{")
        variable = self.take()
        self.take("=")
        low = self.sum()
        self.take("}")
        self.take("^")
        high = self.argument()
        return ("sum", name, variable, low, high, self.product())


def _is_number(token: str) -> bool:
    return token[:1].isdecimal() or (token[:1] == "." and len(token) > 1)


def _negative(node: Node) -> Node:
    return ("num", -node[1]) if node[0] == "num" else ("*", ("num", Fraction(-1)), node)


# ------------------------------------------------------------------------------------------------------------ working out


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
        value = Fraction(rng.randrange(2**38, 2**40), 2**36 + 31) * rng.choice((Fraction(1, 7), Fraction(1, 3), 1))
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
        if isinstance(base, Fraction) and isinstance(exponent, Fraction) and base < 0 and exponent.denominator % 2:
            root = self.mp.root(self.number(-base), exponent.denominator)
            return (-root) ** exponent.numerator  # the real one, as (-8)^{1/3} is meant
        base, exponent = self.number(base), self.number(exponent)
        if self.magnitude(exponent) + self.magnitude(self.mp.log(base)) > math.log2(MAX_MAGNITUDE):
            raise Unreadable("too large a number")
        return self.mp.power(base, exponent)

    def series(self, node: Node) -> Any:
        _, name, variable, low, high, body = node
        inside = [_Point(self.trial, self.mp, (*self.names, (variable, self.drawn("bound", i)))).value(body) for i in range(2)]
        return self.unknown(name, [self.value(low), self.value(high), *inside])

    def function(self, name: str, values: list[Any]) -> Any:
        if _is_unknown(name):
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
        if len(values) == 2 and name != "binom" or name not in _NUMERIC:
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
    **{name: (lambda mp, x, name=name: getattr(mp, name)(x)) for name in "sin cos tan cot sec csc sinh cosh tanh exp arg".split()},
    **{"arc" + name: (lambda mp, x, name=name: getattr(mp, "a" + name)(x)) for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    "ln": lambda mp, x: mp.log(x),
    "lg": lambda mp, x: mp.log(x) / mp.log(10),
    "log": lambda mp, x: mp.log(x) * mp.mpf(271) / 113,  # to a base that is not said: neither that of ln nor ten
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


# -------------------------------------------------------------------------------------------------------------- comparing


def same(gold: Node, answer: Node, symbolic: bool) -> bool:
    """Whether both are the same function of the same unknowns, as far as the drawn points tell.

    Raises:
      Unreadable: one has no value anywhere.
    """
    pairs = [values for _, values in _worked_out([gold, answer], symbolic)]
    return all(_agree(*pair) for pair in pairs)


def same_relation(gold: tuple[Node, Node], answer: tuple[Node, Node], symbolic: bool, is_equation: bool) -> bool:
    """Whether two equations, or two inequalities in the same direction, are each other's multiples: by a constant that is not
    0, or that is positive.

    Raises:
      Unreadable: a side has no value anywhere.
    """
    differences = [("+", left, _negative(right)) for left, right in (gold, answer)]
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
    """At each point, of each expression its value to each precision. Points at which the first has a real value are
    preferred, since others are seldom meant."""
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
    real = [(point, values) for point, values in found if isinstance(values[0][-1], Fraction) or not point.mp.im(values[0][-1])]
    yield from (real if len(real) >= 2 else found)


def _agree(gold: list[Any], answer: list[Any]) -> bool:
    """Of the values of two expressions to each precision: whether they are the same number.

    Where the numbers differ, their difference is what it is to any precision; where they do not, it is the rounding alone.
    """
    if isinstance(gold[-1], Fraction) and isinstance(answer[-1], Fraction):
        return gold[-1] == answer[-1]
    points = [_Point(0, mp) for mp in _precisions()]
    low, high = ([point.number(side[i]) for side in (gold, answer)] for i, point in enumerate(points))
    mp = points[-1].mp
    coarse, fine = (mp.mpf(abs(a - b)) for a, b in (low, high))
    size = max(abs(value) for value in high)
    return fine <= mp.mpf(10) ** -100 * max(coarse, size * mp.mpf(10) ** -DIGITS[0])


def rounds_to(node: Node, decimal: str, digits: int) -> bool:
    """Whether an expression without unknowns is a real number that is this decimal when rounded to so many digits."""
    point = _Point(0, _precisions()[-1])
    value = point.number(point.value(node))
    return point.mp.im(value) == 0 and abs(value - point.number(Fraction(decimal))) * 2 <= point.mp.mpf(10) ** -digits
