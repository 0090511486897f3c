"""What each step of the bundled small programs means, as a function of value and k, or the text printed.

Written apart from the Python in `steps.py`, and as unlike it as may be: expected outputs come from here, and
the tests run the programs against them.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import accumulate, groupby, pairwise
from math import gcd
from typing import Any


def _runs(values: Iterable[Any]) -> list[tuple[Any, int]]:
    """Neighbours that are equal, as (value, how many)."""
    return [(value, len(list(group))) for value, group in groupby(values)]


def _shift(letter: str, k: int) -> str:
    return chr((ord(letter) - 97 + k) % 26 + 97) if "a" <= letter <= "z" else letter


def _collatz(n: int) -> int:
    steps = 0
    while n > 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps


def _longest_climb(values: list[int]) -> int:
    best = run = min(1, len(values))
    for left, right in pairwise(values):
        run = run + 1 if right > left else 1
        best = max(best, run)
    return best


def _rotate(values: list[int], k: int) -> list[int]:
    first = k % max(1, len(values))
    return values[first:] + values[:first]


def _by_key(values: list[Any], key: Callable[[Any], int]) -> list[Any]:
    return [value for _, _, value in sorted((key(value), i, value) for i, value in enumerate(values))]


def _modes(values: list[int]) -> list[int]:
    counts = Counter(values)
    return [value for value, count in counts.items() if count == max(counts.values())]


MEANINGS: dict[str, Callable[[Any, int], Any]] = {
    "add": lambda xs, k: [x + k for x in xs],
    "multiply": lambda xs, k: [x * k for x in xs],
    "square": lambda xs, k: [x**2 for x in xs],
    "divisible": lambda xs, k: [x for x in xs if not x % k],
    "at_least": lambda xs, k: [x for x in xs if not x < k],
    "remainder": lambda xs, k: [x - k * (x // k) for x in xs],
    "ascending": lambda xs, k: sorted(xs),
    "descending": lambda xs, k: sorted(xs)[::-1],
    "by_absolute_value": lambda xs, k: _by_key(xs, abs),
    "reverse": lambda xs, k: list(reversed(xs)),
    "first_occurrences": lambda xs, k: [x for i, x in enumerate(xs) if x not in xs[:i]],
    "running_sums": lambda xs, k: list(accumulate(xs)),
    "differences": lambda xs, k: [b - a for a, b in pairwise(xs)],
    "every_kth": lambda xs, k: [x for i, x in enumerate(xs) if i % k == 0],
    "rotate": lambda xs, k: _rotate(xs, k),
    "no_negatives": lambda xs, k: [x if x > 0 else 0 for x in xs],
    "halve_even": lambda xs, k: [x if x % 2 else x >> 1 for x in xs],
    "record_highs": lambda xs, k: [x for i, x in enumerate(xs) if all(x > other for other in xs[:i])],
    "swap_pairs": lambda xs, k: [x for i in range(0, len(xs), 2) for x in reversed(xs[i : i + 2])],
    "sum": lambda xs, k: reduce(lambda a, b: a + b, xs, 0),
    "spread": lambda xs, k: max((a - b for a in xs for b in xs), default=0),
    "alternating_sum": lambda xs, k: sum(x * (-1) ** i for i, x in enumerate(xs)),
    "product": lambda xs, k: reduce(lambda a, b: a * b, xs, 1) % 10007,
    "gcd": lambda xs, k: gcd(*xs),
    "inversions": lambda xs, k: sum(x > other for i, x in enumerate(xs) for other in xs[i:]),
    "longest_climb": lambda xs, k: _longest_climb(xs),
    "most_frequent": lambda xs, k: min(_modes(xs), default=0),
    "second_largest": lambda xs, k: max([x for x in xs if x < max(xs)], default=0),
    "low_or_high": lambda xs, k: [("high", "low")[x < k] for x in xs],
    "scale_minus_one": lambda x, k: x * k - 1,
    "halve_or_triple": lambda x, k: 3 * x + 1 if x % 2 else x // 2,
    "digit_sum": lambda x, k: sum(map(int, str(abs(x)))),
    "collatz": lambda x, k: _collatz(abs(x)),
    "ones": lambda x, k: abs(x).bit_count(),
    "square_remainder": lambda x, k: x * x % k,
    "reverse_digits": (
        lambda x, k: (1 if x >= 0 else -1) * sum(10**i * int(c) for i, c in enumerate(str(abs(x))))
    ),
    "binary": lambda x, k: f"{abs(x):b}",
    "digits": lambda x, k: [ord(c) - 48 for c in str(abs(x))],
    "reverse_text": lambda s, k: "".join(reversed(s)),
    "capitals": lambda s, k: "".join(c.upper() for c in s),
    "swap_case": lambda s, k: "".join(c.lower() if c == c.upper() else c.upper() for c in s),
    "shift": lambda s, k: "".join(_shift(c, k) for c in s),
    "drop_vowels": lambda s, k: s.translate(dict.fromkeys(map(ord, "aeiou"))),
    "squeeze": lambda s, k: "".join(c for c, _ in _runs(s)),
    "run_lengths": lambda s, k: "".join(f"{c}{n}" for c, n in _runs(s)),
    "underscores": lambda s, k: "_".join(s.split(" ")),
    "repeat_each": lambda s, k: "".join(c for c in s for _ in range(k)),
    "odd_places": lambda s, k: "".join(c for i, c in enumerate(s) if i % 2 == 0),
    "sort_characters": lambda s, k: "".join(c * s.count(c) for c in map(chr, range(128))),
    "mirror": lambda s, k: s + "".join(s[-i - 1] for i in range(len(s))),
    "length": lambda s, k: sum(1 for _ in s),
    "vowels": lambda s, k: sum(s.count(c) for c in "aeiouAEIOU"),
    "letter_values": lambda s, k: sum(n * s.count(chr(96 + n)) for n in range(1, 27)),
    "character_counts": lambda s, k: [s.count(c) for i, c in enumerate(s) if c not in s[:i]],
    "split": lambda s, k: [word for word in s.split(" ") if word],
    "sort_words": lambda ws, k: sorted(ws),
    "sort_by_length": lambda ws, k: _by_key(ws, len),
    "reverse_words": lambda ws, k: ws[::-1],
    "reverse_each": lambda ws, k: ["".join(reversed(w)) for w in ws],
    "long_words": lambda ws, k: [w for w in ws if not len(w) < k],
    "first_words": lambda ws, k: [w for i, w in enumerate(ws) if w not in ws[:i]],
    "word_counts": lambda ws, k: [f"{w}:{n}" for w, n in _runs(sorted(ws))],
    "word_lengths": lambda ws, k: [sum(1 for _ in w) for w in ws],
    "initials": lambda ws, k: "".join(w[:1] for w in ws),
    "longest_word": lambda ws, k: next((w for w in ws if len(w) == max(map(len, ws))), "-"),
    "hyphens": lambda ws, k: "".join(f"-{w}" for w in ws)[1:],
    "print_int": lambda x, k: str(x),
    "print_answer": lambda x, k: f"answer: {x}",
    "print_one_line": lambda xs, k: " ".join(map(str, xs)) or "none",
    "print_counted": lambda xs, k: "\n".join(map(str, [len(xs), *xs])),
    "print_text": lambda s, k: s,
    "print_brackets": lambda s, k: f"[{s}]",
    "print_commas": lambda ws, k: ", ".join(ws) if ws else "none",
    "print_numbered": lambda ws, k: "".join(f"{i + 1}. {w}\n" for i, w in enumerate(ws)) + "end",
}
