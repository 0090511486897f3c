r"""Answers in free text: where the answer of a completion stands, which number it is, and whether two answers are equal. Exact,
without `eval`, in time linear in the text. What only algebra can tell is the business of `symbolic.py`.

Where the answer stands (`final_answer`):

    1. Reasoning does not count: all up to the last `</think>` or `</thinking>`, and all from one on that never ends.
    2. The last of `#### 42` (to the end of its line) and `\boxed{42}` (to its balanced brace) is the answer, whole. Earlier
       ones do not count, nor do numbers in the text around it. A last box that is never closed is no answer.
    3. Where neither stands, the last number is the answer. Digits that belong to a word, a power or an index (H2O, cm^2,
       x_1) are none.

Which number it is (`read_number`): ASCII digits with a sign, thousands separators in their places, decimals, 1.5e3, 3/4, 1 3/4,
`\frac{3}{4}`, 2^{10}, 3 \times 10^5, and %; around them currencies, `x =`, and a unit in words. Exponents have at most
three digits, answers at most 500 characters. Infinity and nan are no numbers; neither is what leaves something open or to be
done ("42 or 43", "5 million", "3*14").
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 500  # of an answer
TAIL_CHARS = 2_000  # of a text, in which the last number is looked for


@dataclass(frozen=True)
class Answer:
    """The answer's own text; `is_marked` says that it stood behind #### or in a box."""

    text: str
    is_marked: bool


@dataclass(frozen=True)
class Number:
    """An exact value. Of 50 %, the value is 1/2."""

    value: Fraction
    is_percent: bool = False


# --------------------------------------------------------------------------------------------------------------- where

_REASONING_BEGINS = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_REASONING_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_BARE_BOX = re.compile(r"\s*([^\s{}$]+)")  # \boxed 42, as some solutions have it


def without_reasoning(text: str) -> str:
    """What follows the last end of reasoning, up to reasoning that does not end."""
    ends = [0, *(match.end() for match in _REASONING_ENDS.finditer(text))]
    return _REASONING_BEGINS.split(text[ends[-1] :], maxsplit=1)[0]


def final_answer(text: str) -> Answer | None:
    """The answer of a completion by the rules above, or None where there is none."""
    text = without_reasoning(text)
    hashes, box = text.rfind("####"), text.rfind("\\boxed")
    if hashes < 0 and box < 0:
        return _last_number(text)
    content = _boxed(text, box + len("\\boxed")) if box > hashes else _hash_line(text, hashes)
    return Answer(content, is_marked=True) if content else None


def _hash_line(text: str, at: int) -> str:
    """The line around `at`, from its first #### on; too long a line is cut to what is too long for an answer."""
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[start : end if end >= 0 else len(text)]
    return line[line.index("####") :].strip("# \t\r")[: MAX_CHARS + 1]


def _boxed(text: str, at: int) -> str:
    """The content of the box whose brace stands at `at`; empty if it never closes."""
    text = text[at : at + MAX_CHARS + 10]
    if not text.lstrip().startswith("{"):
        bare = _BARE_BOX.match(text)
        return bare.group(1) if bare else ""
    depth, escaped = 0, False
    for i, character in enumerate(text):
        if character in "{}" and not escaped:
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[text.index("{") + 1 : i].strip()
        escaped = character == "\\" and not escaped
    return ""


def _last_number(text: str) -> Answer | None:
    tail = text[-TAIL_CHARS:]
    found = None
    for found in _IN_TEXT.finditer(_plain(tail)):
        pass
    # A number at the very start of the tail may be the end of a longer one.
    return Answer(found.group().strip(), is_marked=False) if found and (found.start() or len(tail) == len(text)) else None


# --------------------------------------------------------------------------------------------------------------- which

_NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_UNSIGNED = rf"""(?:
    (?P<base>[0-9]{{1,6}})\^(?P<power>-?[0-9]{{1,3}})
  | (?:(?P<whole>[0-9]+)\ )?(?P<above>{_NUMBER})\ ?/\ ?(?P<below>{_NUMBER})
  | (?P<number>{_NUMBER})(?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})|\ ?[*x]\ ?10\^(?P<ten>-?[0-9]{{1,3}}))?
)(?!\d|[eE^][-+{{]?[0-9])(?P<percent>\ ?%|\ percent\b)?"""
_PLAIN = re.compile(rf"(?P<sign>[-+]?)(?P<number>{_NUMBER})")
_BEFORE = r"(?:(?:[A-Za-z][A-Za-z_\ ]{0,30})?[=:]\ ?)?"
_UNIT = r"(?P<unit>(?:\ ?°|\ [^\W\d_]{2,}(?:[/'-][^\W\d_]+)?){0,5})"
_ANSWER = re.compile(rf"{_BEFORE}(?P<sign>[-+]?)\ ?{_UNSIGNED}{_UNIT}", re.VERBOSE)
# A minus behind a number or a word is an operator; digits there, or behind a point or a ^, are no number of their own.
_IN_TEXT = re.compile(rf"(?:(?<![\w)^])[-+])?(?<![\w.^])(?<!\^-)(?<!\^\{{){_UNSIGNED}", re.VERBOSE)
_NO_UNITS = frozenset(
    "and or not to plus minus times over half halves third thirds quarter quarters hundred thousand million billion trillion "
    "dozen pi sqrt".split()
)


def read_number(text: str) -> Number | None:
    """The number that an answer is, or None if it is none, is more than one, or leaves something to be worked out."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        return None
    match = _PLAIN.fullmatch(text)
    if match:
        return Number(_decimal(match["number"]) * (-1 if match["sign"] == "-" else 1))
    match = _ANSWER.fullmatch(_plain(text).strip(" \t\n*_`").rstrip(".,;"))
    if match is None or not _NO_UNITS.isdisjoint(re.split(r"[ /'-]", match["unit"].lower())):
        return None
    value = _value(match)
    if value is None:
        return None
    value = -value if match["sign"] == "-" else value
    return Number(value / 100, is_percent=True) if match["percent"] else Number(value)


def equal(gold: str, answer: str) -> bool | None:
    """Whether two answers are the same: by value where both are numbers, else True if they are written alike; None if neither tells.

    50 % equals 1/2, and also 50: a question that asks for a percentage has the plain number as its answer. No rounding:
    0.333 is not 1/3.
    """
    a, b = read_number(gold), read_number(answer)
    if a is not None and b is not None:
        if a.is_percent != b.is_percent:
            percent, other = (a, b) if a.is_percent else (b, a)
            return other.value in (percent.value, percent.value * 100)
        return a.value == b.value
    is_short = len(gold) <= MAX_CHARS and len(answer) <= MAX_CHARS
    return True if is_short and _bare(gold) == _bare(answer) else None


def _decimal(text: str) -> Fraction:
    whole, _, rest = text.replace(",", "").partition(".")
    return Fraction(int(whole + rest), 10 ** len(rest)) if rest else Fraction(int(whole))


def _value(match: re.Match[str]) -> Fraction | None:
    if match["base"]:
        base, power = int(match["base"]), int(match["power"])
        return Fraction(base) ** power if base or power > 0 else None
    if match["below"]:
        above, below = _decimal(match["above"]), _decimal(match["below"])
        return int(match["whole"] or 0) + above / below if below else None
    return _decimal(match["number"]) * Fraction(10) ** int(match["exponent"] or match["ten"] or 0)


# ------------------------------------------------------------------------------------------------------- LaTeX to plain

_REPLACED = [
    ("−", "-"), ("×", "*"), ("\\times", "*"), ("\\cdot", "*"), ("\\%", "%"), ("^\\circ", "°"), ("^{\\circ}", "°"),
    ("{,}", ","), ("\\ ", " "), ("~", " "), ("\t", " "),
]  # fmt: skip
_NOISE = re.compile(r"\\[,!;:]|\\(?:left|right)(?![a-z])|\\?[$€£¥]")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox) ?\{([^{}]*)\}")
_FRAC = re.compile(r"\\[dtc]?frac ?(?:\{ ?(-?[0-9.,]+) ?\}|([0-9])) ?(?:\{ ?([0-9.,]+) ?\}|([0-9]))")
_POWER = re.compile(r"\^ ?\{ ?(-?[0-9]+) ?\}")
_SPACES = re.compile(r" {2,}")


def _plain(text: str) -> str:
    """The text with LaTeX's ways of writing numbers made plain; what is no number is left as it is."""
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _WORDS.sub(r" \1 ", _NOISE.sub("", text))
    text = _FRAC.sub(_fraction, _POWER.sub(r"^\1", text))
    return _SPACES.sub(" ", text)


def _fraction(match: re.Match[str]) -> str:
    """a/b, a space before it if digits precede: 1\frac{3}{4} is 1 3/4."""
    is_mixed = match.string[match.start() - 1 : match.start()].isdigit()
    return f"{' ' if is_mixed else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def _bare(text: str) -> str:
    """For answers that are no numbers: without spaces, marks of emphasis and a final point."""
    return re.sub(r"\s", "", _plain(text)).strip("*_`").rstrip(".")
