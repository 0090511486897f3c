r"""The grammar of expressions in LaTeX or plain text, and the tree that it makes of them.

What it does not know makes the text unreadable, and nothing is left out in silence: no unit, degree sign,
base or second equation. AB is one name, not a product; 2\frac{1}{3} is a mixed number; 2^10 is 1024, as it is
meant, and \frac12 is 1/2. f(x), f_n and sums are unknown functions of what stands in them.

    sum       =  product  (("+" | "-")  product)*
    product   =  sign*  factor  ((("*" | "/")  sign?)?  factor)*        side by side: times
    factor    =  atom  mark*  ("^"  sign*  factor  mark*)?              mark: ! ° %
    atom      =  number  |  name  |  brackets, | |, \lfloor \lceil around a sum
              |  \frac \sqrt \binom \sum \sin \log_b ...
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

MAX_TOKENS = 250
MAX_DEPTH = 40  # of brackets, powers and arguments in each other
MAX_SIGNS = 3  # in a row, such as those of factorials

# (kind, ...): num value | var name | + a b | * a b | / a b | ^ a b | call name args
#   | sum name variable low high body
Node = tuple


class Unreadable(ValueError):
    """The text is no expression of this grammar, or has no value; the message says why."""


_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh"
    " ln log lg exp max min gcd lcm sqrt Re Im arg".split()
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma"
    " tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell pi".split()
)
_WITH_ARGUMENTS = frozenset("frac binom choose overline sum prod circ angle triangle".split())
_KNOWN = sorted(_FUNCTIONS | GREEK | _WITH_ARGUMENTS, key=len, reverse=True)
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
    own = frozenset((node[1],)) if node and node[0] == "call" and is_unknown(node[1]) else frozenset()
    return own.union(*map(unknowns, node))


def is_number(node: Node) -> bool:
    """Whether it is one number as it is written, with or without a sign or a fraction line."""
    return node[0] == "num" or (node[0] == "/" and node[1][0] == node[2][0] == "num")


def is_unknown(function: str) -> bool:
    return function.startswith(("of ", "at "))


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
        if letters.startswith(name) and (
            command or ((name in _FUNCTIONS or name == "pi") and len(rest) <= 1)
        ):
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
    """The place in a list of tokens.

    The methods are the rules of the grammar, from the loosest to the tightest.
    """

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
            node = ("+", node, negative(self.product()) if self.take() == "-" else self.product())
        return node

    def product(self) -> Node:
        if self.is_negative():
            return negative(self.product())
        node = self.factor()
        while True:
            if self.next in ("*", "/"):
                operator = self.take()
                if self.next in ("*", "/"):
                    raise Unreadable("two operators in a row")
                right = negative(self.factor()) if self.next == "-" and self.take() else self.factor()
                node = (operator, node, right)
            elif self.starts_a_factor():
                node = ("*", node, self.factor())
            else:
                return node

    def starts_a_factor(self) -> bool:
        """Whether a factor follows without a sign: a number may, but only behind a power (2^6 3^5)."""
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
        return negative(self.factor()) if self.is_negative() else self.factor()

    def postfixed(self, node: Node) -> Node:
        for _ in range(MAX_SIGNS):
            if self.next not in ("!", "°", "%"):
                break
            sign = self.take()
            factor: Node = ("call", "degree") if sign == "°" else ("num", Fraction(1, 100))
            node = ("call", "!", node) if sign == "!" else ("*", node, factor)
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
        if name in GREEK:
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
            return negative(self.factor())
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


def negative(node: Node) -> Node:
    return ("num", -node[1]) if node[0] == "num" else ("*", ("num", Fraction(-1)), node)
