"""Arithmetic expressions as text: read with a parser of their own, worked out exactly.

Nothing is handed to Python to evaluate.

    sum      =  product  (("+" | "-")  product)*
    product  =  value  (("*" | "/" | "//")  value)*
    value    =  a whole number  |  "(" sum ")"  |  "-" value

There is no power. `×`, `·`, `÷`, `−` and LaTeX's `\\times`, `\\cdot`, `\\div` are read too.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 500
MAX_DEPTH = 30
MAX_DIGITS = 12

_TOKEN = re.compile(r"\s*([0-9]+|//|[-+*/()])")
_WRITTEN_OTHERWISE = {
    "×": "*",
    "·": "*",
    "⋅": "*",
    "÷": "/",
    "−": "-",
    "\\times": "*",
    "\\cdot": "*",
    "\\div": "/",
    "\\left": "",
    "\\right": "",
}


class Unreadable(ValueError):
    """The text is no expression, or has no value; the message says why."""


@dataclass(frozen=True)
class Expression:
    """value: exact. numbers: the operands, from left to right."""

    value: Fraction
    numbers: tuple[int, ...]


OPERATORS = frozenset(("+", "-", "*", "/", "//"))


def evaluate(text: str, operators: frozenset[str] = OPERATORS) -> Expression:
    """Read and work out an expression in which these operators may occur.

    Raises:
      Unreadable: too long, not of the grammar above, another operator, or a division by zero.
    """
    if len(text) > MAX_CHARS:
        raise Unreadable(f"longer than {MAX_CHARS} characters")
    for other, usual in _WRITTEN_OTHERWISE.items():
        text = text.replace(other, usual)
    tokens = _tokens(text)
    for token in tokens:
        if token in OPERATORS - operators:
            raise Unreadable(f"{token!r} is not among the operations")
    reader = _Reader(tokens)
    value = reader.sum(0)
    if reader.next is not None:
        raise Unreadable(f"{reader.next!r} is not expected")
    return Expression(value, tuple(reader.numbers))


def _tokens(text: str) -> list[str]:
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"{text[at:].strip()[:10]!r} is no part of an expression")
        tokens.append(match[1])
        at = match.end()
    return tokens


class _Reader:
    """The place in a list of tokens, and the numbers met so far. The methods are the lines of the grammar."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at, self.numbers = tokens, 0, []

    @property
    def next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> str:
        if self.next is None:
            raise Unreadable("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self, depth: int) -> Fraction:
        total = self.product(depth)
        while self.next in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            total += sign * self.product(depth)
        return total

    def product(self, depth: int) -> Fraction:
        total = self.value(depth)
        while self.next in ("*", "/", "//"):
            operator, other = self.take(), self.value(depth)
            if operator != "*" and other == 0:
                raise Unreadable("a division by zero")
            total = (
                total * other
                if operator == "*"
                else total / other
                if operator == "/"
                else Fraction(total // other)
            )
        return total

    def value(self, depth: int) -> Fraction:
        token = self.take()
        if token == "-":
            if depth == MAX_DEPTH:
                raise Unreadable(f"more than {MAX_DEPTH} deep")
            return -self.value(depth + 1)
        if token == "(":
            if depth == MAX_DEPTH:
                raise Unreadable(f"brackets more than {MAX_DEPTH} deep")
            total = self.sum(depth + 1)
            if self.take() != ")":
                raise Unreadable("a bracket is not closed")
            return total
        if not token.isdigit() or len(token) > MAX_DIGITS:
            raise Unreadable(
                f"{token[: MAX_DIGITS + 1]!r} where a number of at most {MAX_DIGITS} digits should be"
            )
        self.numbers.append(int(token))
        return Fraction(self.numbers[-1])
