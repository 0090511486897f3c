"""Inputs of the bundled small programs: a value drawn for each way of reading, and its lines of input."""

import random
from collections.abc import Callable
from typing import Any

Drawn = tuple[Any, list[str]]

WORDS = (
    "ant bee crow deer eel fox goat hare ibex jay kiwi lynx mole newt otter pig quail raven seal toad urchin"
    " vole wolf yak".split()
)
RANGES = ((0, 9), (-9, 20), (1, 60), (-50, 50))  # of the integers in one input


def _ints(rng: random.Random, least: int = 1) -> list[int]:
    low, high = rng.choice(RANGES)
    return [rng.randint(low, high) for _ in range(rng.randint(least, 9))]


def _ints_on_a_line(rng: random.Random) -> Drawn:
    values = _ints(rng)
    return values, [" ".join(map(str, values))]


def _counted_line(rng: random.Random) -> Drawn:
    values, extra = _ints(rng), _ints(rng)[: rng.randint(0, 2)]
    return values, [str(len(values)), " ".join(map(str, values + extra))]


def _counted_lines(rng: random.Random) -> Drawn:
    values = _ints(rng, least=0)
    return values, [str(len(values)), *map(str, values)]


def _ints_until_zero(rng: random.Random) -> Drawn:
    values = [value for value in _ints(rng) if value]
    return values, [*map(str, values), "0"]


def _one_or_many(rng: random.Random) -> Drawn:
    values = _ints(rng)
    return (
        (values[:1], ["one", str(values[0])])
        if rng.random() < 0.3
        else (values, ["many", str(len(values)), *map(str, values)])
    )


def _ints_anywhere(rng: random.Random) -> Drawn:
    values = _ints(rng)
    cut = rng.randint(1, len(values))
    return values, [" ".join(map(str, part)) for part in (values[:cut], values[cut:]) if part]


def _one_int(rng: random.Random) -> Drawn:
    value = rng.choice((rng.randint(0, 30), rng.randint(-99, 999), rng.randint(1000, 99999)))
    return value, [str(value)]


def _product_less_sum(rng: random.Random) -> Drawn:
    a, b = rng.randint(-9, 60), rng.randint(-9, 60)
    return a * b - a - b, [f"{a} {b}"]


def _operation(rng: random.Random) -> Drawn:
    name, a, b = rng.choice(("plus", "times", "flip")), rng.randint(-20, 90), rng.randint(-9, 40)
    return {"plus": a + b, "times": a * b, "flip": -a}[name], [name, str(a)] + (
        [str(b)] if name != "flip" else []
    )


def _commands(rng: random.Random) -> Drawn:
    value, lines = 0, []
    for _ in range(rng.randint(1, 7)):
        name, amount = rng.choice(("add", "times", "flip")), rng.randint(-5, 12)
        value = {"add": value + amount, "times": value * amount, "flip": -value}[name]
        lines.append("flip" if name == "flip" else f"{name} {amount}")
    return value, [str(len(lines)), *lines]


def _words(rng: random.Random) -> list[str]:
    some = rng.sample(WORDS, 4)
    return [rng.choice(some) for _ in range(rng.randint(1, 7))]


def _varied(word: str, rng: random.Random) -> str:
    return rng.choice(
        (
            word,
            word,
            word.capitalize(),
            word.upper(),
            word[0] * rng.randint(2, 4) + word,
            str(rng.randint(0, 199)),
        )
    )


def _line(rng: random.Random) -> Drawn:
    words = [_varied(word, rng) for word in _words(rng)]
    line = " " * rng.choice((0, 0, 0, 1, 2)) + " ".join(words)
    return line, [line]


def _two_lines(rng: random.Random) -> Drawn:
    (first, _), (second, _) = _line(rng), _line(rng)
    return f"{first}+{second}", [first, second]


def _words_on_a_line(rng: random.Random) -> Drawn:
    words = _words(rng)
    return words, [" ".join(words)]


def _words_until_end(rng: random.Random) -> Drawn:
    words = _words(rng)[rng.randint(0, 1) :]
    return words, [*words, "end"]


INPUTS: dict[str, Callable[[random.Random], Drawn]] = {
    "ints_on_a_line": _ints_on_a_line,
    "counted_line": _counted_line,
    "counted_lines": _counted_lines,
    "ints_until_zero": _ints_until_zero,
    "one_or_many": _one_or_many,
    "ints_anywhere": _ints_anywhere,
    "one_int": _one_int,
    "product_less_sum": _product_less_sum,
    "operation": _operation,
    "commands": _commands,
    "line": _line,
    "two_lines": _two_lines,
    "words_on_a_line": _words_on_a_line,
    "words_until_end": _words_until_end,
}
