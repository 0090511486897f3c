r"""Answers in free text: where the answer of a completion stands, which number it is, and whether two answers are equal. Exact,
without `eval`, in time linear in the text. What only algebra can tell is the business of `symbolic.py`.

Where the answer stands (`final_answer`):

    1. Reasoning does not count: all up to the last `</think>` or `</thinking>`, and all from one on that never ends.
    2. The last of `#### 42` (to the end of its line) and `\boxed{42}` (to its balanced brace) is the answer, whole, up to a
       token such as `</s>` or `<|im_end|>`. Earlier ones do not count, nor do numbers in the text around it. A last box that
       is never closed is no answer.
    3. `####` before words without a digit is a heading and no mark, unless nothing follows and nothing else is marked (Monday).
    4. Where nothing is marked, the last number is the answer. Digits that belong to a word, a power or an index (H2O, cm^2,
       x_1) are none; and one that is part of something to be worked out (7 - 5, \sqrt{5}, 5!, 5 million) leaves no answer.

Which number it is (`read_number`): ASCII digits with a sign, thousands separators in their places, decimals, 1.5e3, 3/4, 1 3/4,
`\frac{3}{4}`, 2^{10}, 3 \times 10^5, and %. Exponents have at most three digits, answers at most 500 characters. Infinity and
nan are no numbers; neither is what leaves something open or to be done ("42 or 43", "5 million", "3*14"). Around the number:

    before    currencies ($, USD), a name with = : or is (`x =`, `The answer is`) and no word that denies it (not, about, than)
    brackets  (-7)
    close by  5kg, 20cm^2, 5th: short units of a list; 90°, 20°C; $42/week: a word of three letters or more, or a short unit
    a space   up to six words, or m g s h l L W V J N: 42 apples, 5 m, 25 cm^2, 60 km/h, $42 a week, `5\text{ m}`
    nowhere   words that make it another number: million, pairs, squared, tenths, point five, and, or, choose, five
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 500  # of an answer
TAIL_CHARS = 2_000  # of a text, in which the last number is looked for
MAX_HEADINGS = 20  # that are passed over, from the end
MAX_END_TOKENS = 20


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
_TEXT_ENDS = re.compile(r"</s>|<\|[^<>|\s]{1,40}\|>|<(?:eos|end_of_turn|/answer)>")
_HEADING = re.compile(r"\W?|[^0-9\\=+^_{}]{3,}")  # of what stands behind ####
_BARE_BOX = re.compile(r"\s*([^\s{}$]+)")  # \boxed 42, as some solutions have it


def without_reasoning(text: str) -> str:
    """What follows the last end of reasoning, up to reasoning that does not end."""
    ends = [0, *(match.end() for match in _REASONING_ENDS.finditer(text))]
    return _REASONING_BEGINS.split(text[ends[-1] :], maxsplit=1)[0]


def without_end(text: str) -> str:
    """Without the tokens, such as `</s>`, that a text may end with."""
    for _ in range(MAX_END_TOKENS):
        body = text.rstrip()
        if not _TEXT_ENDS.fullmatch(body, max(0, body.rfind("<"))):
            break
        text = body[: body.rfind("<")]
    return text


def final_answer(text: str) -> Answer | None:
    """The answer of a completion by the rules above, or None where there is none."""
    text = without_reasoning(text)
    hashes, box = text.rfind("####"), text.rfind("\\boxed")
    last = _hash_line(text, hashes) if hashes > box else ""
    for _ in range(MAX_HEADINGS):
        if hashes <= box:
            break
        content = _hash_line(text, hashes)
        if not _HEADING.fullmatch(content):
            return Answer(content, is_marked=True)
        hashes = text.rfind("####", 0, text.rfind("\n", 0, hashes) + 1)
    if box >= 0:
        content = _boxed(text, box + len("\\boxed"))
        return Answer(content, is_marked=True) if content else None
    if last and hashes < 0 and not _goes_on(text):
        return Answer(last, is_marked=True)
    return _last_number(text)


def _hash_line(text: str, at: int) -> str:
    """The line around `at`, from its first #### on; too long a line is cut to what is too long for an answer."""
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[start : end if end >= 0 else len(text)]
    content = line[line.index("####") :].strip("# \t\r")[: MAX_CHARS + 1]
    return _TEXT_ENDS.split(content, maxsplit=1)[0].rstrip()


def _goes_on(text: str) -> bool:
    """Whether there is more than an end of the text behind the line of the last ####."""
    end = text.find("\n", text.rfind("####"))
    return end >= 0 and re.search(r"\w", _TEXT_ENDS.split(text[end:], maxsplit=1)[0]) is not None


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
    plain, found = _plain(tail), None
    for found in _IN_TEXT.finditer(plain):
        pass
    # A number at the very start of the tail may be the end of a longer one.
    if found is None or not (found.start() or len(tail) == len(text)):
        return None
    is_part = _OPEN_BEFORE.search(plain[max(0, found.start() - 20) : found.start()]) or not _CLOSED_AFTER.match(plain, found.end())
    return None if is_part else Answer(found.group().strip(), is_marked=False)


# --------------------------------------------------------------------------------------------------------------- which

_NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_UNSIGNED = rf"""(?:
    (?P<base>[0-9]{{1,6}})\^(?P<power>-?[0-9]{{1,3}})
  | (?:(?P<whole>[0-9]+)\ )?(?P<above>{_NUMBER})\ ?/\ ?(?P<below>{_NUMBER})
  | (?P<spaced>[0-9]{{1,3}}(?:\ [0-9]{{3}})+(?:\.[0-9]+)?)(?![0-9]|[\ ,.][0-9])
  | (?P<number>{_NUMBER})(?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})|\ ?[*x]\ ?10\^(?P<ten>-?[0-9]{{1,3}}))?
)(?!\d|[eE^][-+{{]?[0-9])(?P<percent>\ ?%|\ per\ ?cent\b)?"""
_PLAIN = re.compile(rf"(?P<sign>[-+]?)(?P<number>{_NUMBER})")

_CURRENCY = r"(?:(?:USD|EUR|GBP|CAD|AUD|CHF|INR|JPY|CNY|US|Rs\.?)\ ?)?"
_BEFORE = rf"(?:(?P<label>[A-Za-z][A-Za-z_'’\ ]{{0,60}}?)?(?:[=:]|(?<=\w)\ (?:is|are|equals)\b:?)\*{{0,2}}\ ?)?{_CURRENCY}"
_DENIES = re.compile(
    r"\b(?:not|no|never|than|least|most|about|approximately|around|roughly|nearly|almost|wrong|incorrect|minus|negative|half|twice)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)
_SHORT = (
    "(?:mm|cm|dm|km|ml|mL|cl|dl|mg|kg|lbs?|oz|ft|in|yd|mi|mph|kph|hrs?|mins?|secs?|ms|kWh?|Hz|[GMT]B|[ap]m|g|L|st|nd|rd|th)(?![^\\W_²³])"
)
_LETTERS = r"[^\W\d_²³¼½¾]"
_POWERED = r"(?:\ ?\^-?[1-3]|[²³])?"
_WORD = rf"(?:{_LETTERS}{{2,}}\.?|[mgshlLWVJN](?!\w)|an?(?=\ {_LETTERS}{{2}})){_POWERED}(?:(?:\ ?/\ ?|['’-]){_LETTERS}+{_POWERED}){{0,2}}"
_CLOSE_BY = rf"(?:\ ?°(?:\ ?[CF]\b)?|{_SHORT}{_POWERED}|\ ?/\ ?(?:{_LETTERS}{{3,}}|{_SHORT}){_POWERED})?"
_ANSWER = re.compile(rf"{_BEFORE}(?P<sign>[-+]?)\ ?{_CURRENCY}{_UNSIGNED}\*{{0,2}}(?P<unit>{_CLOSE_BY}(?:\ {_WORD}){{0,6}})", re.VERBOSE)
_NUMERALS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    "(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
)
_PARTS = "hal(?:f|ves)|quarters?|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|hundredth|thousandth|millionth)s?"
_MULTIPLES = "hundreds?|thousands?|[mbtr]+illions?|lakhs?|lacs?|crores?|dozens?|pairs?|couples?|scores?|gross|hundredweight"
_WORKED = "squared|cubed|factorial|choose|mod(?:ulo)?|point|base|power|plus|minus|divided|multiplied|pi|sqrt|root|doubled|tripled|halved"
_ANOTHER = re.compile(rf"\b(?:{_PARTS}|{_MULTIPLES}|{_NUMERALS}|(?!point$)(?:{_WORKED}))\b", re.IGNORECASE)
_JOINED = re.compile(r"\b(?:and|or|not|to|(?:times|over)(?!$)|twice)\b", re.IGNORECASE)  # in an answer that is a number and a unit

# A minus behind a number or a word is an operator, but behind = or "is" it is a sign even before a space; digits behind a
# point or a ^ are no number of their own.
_SIGN = r"(?:(?<![\w)^])[-+]|(?:(?<==)|(?<==\ )|(?<=\bis\ ))[-+]\ )"
_IN_TEXT = re.compile(rf"{_SIGN}?(?<![\w.^])(?<!\^-)(?<!\^\{{){_UNSIGNED}", re.VERBOSE)
_OPEN_BEFORE = re.compile(
    r"(?:[±√]|\\(?:sqrt(?:\[[0-9]+\])?|ln|log|frac|binom)\ ?\{?|\}\ ?\{|(?:[0-9)}%]|(?<![A-Za-z'])[A-Za-z])\ ?[-+*/^]|[0-9]/)\ ?$"
)
_CLOSED_AFTER = re.compile(
    rf"(?:{_SHORT})?(?=$|[\s.,;:?)\]}}'\"`*_|<>=°$-]|/{_LETTERS}{{3}})"
    rf"(?!\*[\w(\\]|\ [*+^/!²³]\ ?[\w(\\]|\ and\ a\ |\ [¼½¾]|\ \\(?:pi|sqrt|frac)|\ {_ANOTHER.pattern})",
    re.IGNORECASE,
)


def read_number(text: str) -> Number | None:
    """The number that an answer is, or None if it is none, is more than one, or leaves something to be worked out."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        return None
    match = _PLAIN.fullmatch(text)
    if match:
        return Number(_decimal(match["number"]) * (-1 if match["sign"] == "-" else 1))
    text = _plain(text).strip(_EMPHASIS).rstrip(".,;").strip(_EMPHASIS)
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1].strip()
    match = _ANSWER.fullmatch(text)
    if match is None or _DENIES.search(match["label"] or "") or _ANOTHER.search(match["unit"]) or _JOINED.search(match["unit"]):
        return None
    value = _value(match)
    if value is None:
        return None
    value = -value if match["sign"] == "-" else value
    return Number(value / 100, is_percent=True) if match["percent"] else Number(value)


def equal(gold: str, answer: str, in_percent: bool = False) -> bool | None:
    """Whether the answer is the gold one: by value where both are numbers, else True if written alike (`_bare`); None if neither tells.

    50 % is 1/2. The plain number 50 is 50 % only where the gold answer has the %, and 50 % is the plain gold number 50 only
    where the question asks for a percentage (`in_percent`). No rounding: 0.333 is not 1/3.
    """
    a, b = read_number(gold), read_number(answer)
    if a is not None and b is not None:
        if a.is_percent and not b.is_percent:
            return b.value in (a.value, a.value * 100)
        if b.is_percent and not a.is_percent and in_percent:
            return b.value * 100 == a.value
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
    if match["spaced"]:
        return _decimal(match["spaced"].replace(" ", ""))
    return _decimal(match["number"]) * Fraction(10) ** int(match["exponent"] or match["ten"] or 0)


# ------------------------------------------------------------------------------------------------------- LaTeX to plain

_EMPHASIS = " \t\n*_`"
_REPLACED = [
    ("−", "-"), ("–", "-"), ("\\pm", "±"), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac"),
    ("×", "*"), ("\\times", "*"), ("\\cdot", "*"), ("\\%", "%"), ("^\\circ", "°"), ("^{\\circ}", "°"),
    ("{,}", ","),
]  # fmt: skip
_BLANK = re.compile(r"(?<!\\)\\ |\\q?quad(?![a-z])|[~\t\u00a0\u202f\u2009]")
_NOISE = re.compile(r"(?<!\\)\\[,!;:()\[\]]|\\(?:left|right|displaystyle)(?![a-z])|\\?[$€£¥]")
_WORDS = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:bf|it|rm|sf|tt)|mbox) ?\{([^{}]*)\}")
_FRAC = re.compile(r"\\frac ?(?:\{ ?(-?[0-9.,]+) ?\}|([0-9])) ?(?:\{ ?([0-9.,]+) ?\}|([0-9]))(?![0-9])")
_POWER = re.compile(r"\^ ?\{ ?(-?[0-9]+) ?\}(?![0-9])")
_SPACES = re.compile(r" {2,}")
_ONE_SIGN = re.compile(r"\{(\w)\}(?!\w)")
_CHOICE = re.compile(r"\(([A-Za-z])\)")
_ANY_CASE = frozenset("yes no true false none even odd undefined infinity never always".split())  # AB is not ab, but Yes is yes


def _plain(text: str) -> str:
    """The text with LaTeX's ways of writing numbers made plain; what is no number is left as it is."""
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _WORDS.sub(r" \1 ", _NOISE.sub("", _BLANK.sub(" ", text)))
    text = _FRAC.sub(_fraction, _POWER.sub(r"^\1", text))
    return _SPACES.sub(" ", text)


def _fraction(match: re.Match[str]) -> str:
    """a/b, a space before it if digits precede: 1\frac{3}{4} is 1 3/4."""
    is_mixed = match.string[match.start() - 1 : match.start()].isdigit()
    return f"{' ' if is_mixed else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def _bare(text: str) -> str:
    """For answers that are no numbers: without marks of emphasis, a final point, braces around one sign, brackets around one
    letter, and spaces, but for those between digits; a word such as `None` in small letters."""
    text = re.sub(r"\s+", " ", _plain(text)).strip(" *_`").rstrip(".")
    text = _ONE_SIGN.sub(r"\1", re.sub("(?<![0-9]) | (?![0-9])", "", text))
    choice = _CHOICE.fullmatch(text)
    return choice[1] if choice else text.lower() if text.lower() in _ANY_CASE else text
