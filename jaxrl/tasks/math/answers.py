r"""Answers in free text: where the answer of a completion stands, and which number it is.

Exact, without `eval`, in time linear in the text. Whether two answers are alike is the business of
`alike.py`.

Where the answer stands (`final_answer`):

    1. Reasoning does not count: all up to the last `</think>` or `</thinking>`, and all from one on that
       never ends.
    2. The last of `#### 42` (to the end of its line) and `\boxed{42}` (to its balanced brace) is the answer,
       whole, up to a token such as `</s>` or `<|im_end|>`. Earlier ones do not count, nor do numbers in the
       text around it. A last box that is never closed is no answer. Boxes side by side, or with no more than
       a comma, "and" or "or" between them, are one answer: `\boxed{1} and \boxed{-2}` is `1, -2`.
    3. `####` before words without a digit is a heading and no mark, unless nothing follows and nothing else
      is marked (Monday).
    4. `The final answer is $2\sqrt{3}$.` is a mark too, though not the one that was asked for. Where nothing
       is marked, so is what a text ends with: `..., so the point is $(7, 6)$.`
    5. Else the last number is the answer. Digits that belong to a word, a power or an index (H2O, cm^2,
       x_1) are none; and one that is part of something to be worked out (7 - 5, \sqrt{5}, 5!, 5 million),
       that is denied (not 42), bounded (at least 42) or one of several (41 or 42) leaves no answer.

Which number it is (`read_number`): ASCII digits with a sign, thousands separators in their places, decimals,
1.5e3, 3/4, 1 3/4, `\frac{3}{4}`, 2^{10}, 3 \times 10^5, and %. Exponents have at most three digits, answers
at most 500 characters. Infinity and nan are no numbers; neither is what leaves something open or to be done
("42 or 43", "5 million", "3*14"). Around the number:

    before    currencies ($, USD), a name with = : or is (`x =`, `The answer is`) and no word that denies it
              (not, about, than)
    brackets  (-7)
    close by  5kg, 20cm^2, 5th: short units of a list; 90°, 20°C; $42/week: a word of three letters or more,
              or a short unit
    a space   up to six words, or m g s h l L W V J N: 42 apples, 5 m, 25 cm^2, 60 km/h, $42 a week,
              `5\text{ m}`
    unit      of a measure (cm, km/h, hours), is kept in one spelling, so that 5 cm is not 5 m; other units
              are not compared
    nowhere   words that make it another number: million, pairs, squared, tenths, point five, and, or, choose,
              five
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 500  # of an answer
TAIL_CHARS = 2_000  # of a text, in which the last number is looked for
MAX_HEADINGS = 20  # that are passed over, from the end
MAX_END_TOKENS = 20
MAX_BOXES = 30  # that are one answer
MAX_GAP = 80  # characters between two of them


@dataclass(frozen=True)
class Answer:
    """The answer's own text. is_marked: it stood behind #### or in a box. is_stated: in a sentence that says
    that it is the answer.
    """

    text: str
    is_marked: bool
    is_stated: bool = False


@dataclass(frozen=True)
class Number:
    """An exact value. Of 50 %, the value is 1/2. unit: of a measure, in one spelling (`unit_of`)."""

    value: Fraction
    is_percent: bool = False
    unit: str = ""


# ------------------------------------------------------------------------------------------------------ where

_REASONING_BEGINS = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_REASONING_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_TEXT_ENDS = re.compile(r"</s>|<\|[^<>|\s]{1,40}\|>|<(?:eos|end_of_turn|/answer)>")
_HEADING = re.compile(r"\W?|[^0-9\\=+^_{}]{3,}")  # of what stands behind ####
# an expression between dollars that is said to be the answer, up to the end of its sentence
_SAID = re.compile(
    r"(?P<final>\bfinal answer )?\b(?:is|are|equals?)(?: equal to)?:? ?"
    r"(?:\$\$?(?P<dollars>[^$\n]{1,200})\$\$?|\\\((?P<round>[^$\n]{1,200}?)\\\))"
    r"(?P<rest>\s*(?:\.(?= ?\n| [A-Z\[<]|\s*$)|\n|$))",
    re.IGNORECASE,
)
_HOPE = re.compile(  # what may stand behind the sentence, at the end of a text
    rf"(?:\s*I hope it is correct\.?)?(?:\s*(?:<\|im_start\|>(?:user)?|{_TEXT_ENDS.pattern}))*\s*",
    re.IGNORECASE,
)
_BARE_BOX = re.compile(r"\s*([^\s{}$]+)")  # \boxed 42, as some solutions have it
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,} (?:[A-Za-z$]|[0-9])")  # between the dollars of two prices
_GAP_NOISE = re.compile(r"[\s$~&]|\\[()\[\],;:! ]|\\q?quad(?![a-z])")
_GAP = re.compile(
    # what joins two boxes
    r"(?: ?[,;]? ?(?:\\(?:text|mbox|textrm) ?\{ ?)?(?:[A-Za-z()]+ ){0,4}(?:and|or) ?\}? ?| ?[,;]"
    r" ?(?:(?:and|or) )?|)"
    r"(?:[A-Za-z](?:_[A-Za-z0-9]|_\{[A-Za-z0-9]+\})? ?= ?)?"
)


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
    stated, at = _stated(text, is_marked=max(hashes, box) >= 0)
    if stated is not None and at > max(hashes, box):
        return stated
    last = _hash_line(text, hashes) if hashes > box else ""
    for _ in range(MAX_HEADINGS):
        if hashes <= box:
            break
        content = _hash_line(text, hashes)
        if not _HEADING.fullmatch(content):
            return Answer(content, is_marked=True)
        hashes = text.rfind("####", 0, text.rfind("\n", 0, hashes) + 1)
    if box >= 0:
        content = _joined_boxes(text, box)
        return Answer(content, is_marked=True) if content else None
    if last and hashes < 0 and not _goes_on(text):
        return Answer(last, is_marked=True)
    return _last_number(text)


def _stated(text: str, is_marked: bool) -> tuple[Answer | None, int]:
    """The last expression that is said to be the final answer, or, of a text without marks, that it ends
    with; and its place.
    """
    start = max(0, len(text) - TAIL_CHARS)
    for match in reversed(list(_SAID.finditer(text, start))):
        content = (match["dollars"] or match["round"]).strip()
        is_last = _HOPE.fullmatch(text, match.end()) is not None
        if (
            (match["final"] or (is_last and not is_marked))
            and "\\boxed" not in content
            and not _PROSE.search(content)
        ):
            before = text[max(0, match.start() - MAX_GAP) : match.start()]
            return (
                None if _DOUBT_BEFORE.search(before) else Answer(content, is_marked=False, is_stated=True)
            ), match.start()
    return None, -1


def _hash_line(text: str, at: int) -> str:
    """The line around `at`, from its first #### on; too long a line is cut to what is too long for an
    answer.
    """
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[start : end if end >= 0 else len(text)]
    content = line[line.index("####") :].strip("# \t\r")[: MAX_CHARS + 1]
    return _TEXT_ENDS.split(content, maxsplit=1)[0].rstrip()


def _goes_on(text: str) -> bool:
    """Whether there is more than an end of the text behind the line of the last ####."""
    end = text.find("\n", text.rfind("####"))
    return end >= 0 and re.search(r"\w", _TEXT_ENDS.split(text[end:], maxsplit=1)[0]) is not None


def _joined_boxes(text: str, last: int) -> str:
    """The content of the box that begins at `last`, and of those before it that belong to the same answer."""
    joined, start = _boxed(text, last)[0], last
    seen = {joined}
    for _ in range(MAX_BOXES):
        before = text.rfind("\\boxed", 0, start)
        content, end = _boxed(text, before) if before >= 0 else ("", 0)
        gap = text[end : min(start, end + MAX_GAP + 1)]
        if not content or not joined or end > start or not _is_gap(gap):
            break
        if content not in seen:
            joined = (
                content + (r" \text{ or } " if re.search(r"(?<![a-z])or(?![a-z])", gap) else ", ") + joined
            )
        seen.add(content)
        start = before
    return joined


def _is_gap(text: str) -> bool:
    gap = _SPACES.sub(" ", _GAP_NOISE.sub(" ", text))
    if len(text) > MAX_GAP or (not _GAP.fullmatch(gap) and gap != " "):
        return False
    return not denies(gap) and ("\n" not in text or bool(gap.strip()))


def _boxed(text: str, at: int) -> tuple[str, int]:
    """The content of the box that begins at `at`, empty if it never closes, and where it ends."""
    at += len("\\boxed")
    text = text[at : at + MAX_CHARS + 10]
    if not text.lstrip().startswith("{"):
        bare_box = _BARE_BOX.match(text)
        return (bare_box.group(1), at + bare_box.end()) if bare_box else ("", at)
    depth, escaped = 0, False
    for i, character in enumerate(text):
        if character in "{}" and not escaped:
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[text.index("{") + 1 : i].strip(), at + i + 1
        escaped = character == "\\" and not escaped
    return "", at


def _last_number(text: str) -> Answer | None:
    tail = text[-TAIL_CHARS:]
    plain = _plain(tail)
    found = max(_IN_TEXT.finditer(plain), key=re.Match.start, default=None)
    # A number at the very start of the tail may be the end of a longer one.
    if found is None or not (found.start() or len(tail) == len(text)):
        return None
    before = plain[max(0, found.start() - MAX_GAP) : found.start()]
    after = plain[found.end() : found.end() + MAX_GAP]
    with_comma = _COMMA_BEFORE.search(before)
    if _OPEN_BEFORE.search(before[-50:]) or not _CLOSED_AFTER.match(plain, found.end()):
        return None  # a part of something
    if _DOUBT_BEFORE.search(before) or _DOUBT_AFTER.match(after):
        return None
    return Answer((with_comma.group() if with_comma else "") + found.group().strip(), is_marked=False)


# ------------------------------------------------------------------------------------------------------ which

_NUMBER = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_UNSIGNED = rf"""(?:
    (?P<base>[0-9]{{1,6}})\^(?P<power>-?[0-9]{{1,3}})
  | (?:(?P<whole>[0-9]+)\ )?(?P<above>{_NUMBER})\ ?/\ ?(?P<below>{_NUMBER})
  | (?P<spaced>[0-9]{{1,3}}(?:\ [0-9]{{3}})+(?:\.[0-9]+)?)(?![0-9]|[\ ,.][0-9])
  | (?P<number>{_NUMBER})(?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})|\ ?[*x]\ ?10\^(?P<ten>-?[0-9]{{1,3}}))?
)(?!\d|[eE^][-+{{]?[0-9])(?P<percent>\ ?%|\ per\ ?cent\b)?"""
_PLAIN = re.compile(rf"(?P<sign>[-+]?)(?P<number>{_NUMBER})")

_CURRENCY = r"(?:(?:USD|EUR|GBP|CAD|AUD|CHF|INR|JPY|CNY|US|Rs\.?)\ ?)?"
_BEFORE = (
    r"(?:(?P<label>[A-Za-z][A-Za-z_'’\ ]{0,60}?)?(?:[=:]|(?<=\w)\ (?:is|are|equals)\b:?)\*{0,2}\ ?)?"
    rf"{_CURRENCY}"
)
_DENIES = re.compile(
    r"\b(?:not|no|never|than|least|most|about|approximately|around|roughly|nearly|almost|wrong|incorrect"
    r"|minus|negative|half|twice|if|unless)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)
_SHORT = (
    r"(?:mm|cm|dm|km|ml|mL|cl|dl|mg|kg|lbs?|oz|ft|in|yd|mi|mph|kph|hrs?|mins?|secs?|ms|kWh?|Hz|[GMT]B|[ap]m"
    r"|g|L|st|nd|rd|th)(?![^\W_²³])"
)
_LETTERS = r"[^\W\d_²³¼½¾]"
_POWERED = r"(?:\ ?\^-?[1-3]|[²³])?"
_WORD = (
    rf"(?:{_LETTERS}{{2,}}\.?|[mgshlLWVJN](?!\w)|an?(?=\ {_LETTERS}{{2}})){_POWERED}"
    rf"(?:(?:\ ?/\ ?|['’-]){_LETTERS}+{_POWERED}){{0,2}}"
)
_CLOSE_BY = rf"(?:\ ?°(?:\ ?[CF]\b)?|{_SHORT}{_POWERED}|\ ?/\ ?(?:{_LETTERS}{{3,}}|{_SHORT}){_POWERED})?"
_ANSWER = re.compile(
    rf"{_BEFORE}(?P<sign>[-+]?)\ ?{_CURRENCY}{_UNSIGNED}\*{{0,2}}(?P<unit>{_CLOSE_BY}(?:\ {_WORD}){{0,6}})",
    re.VERBOSE,
)
_NUMERALS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    "|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
)
_PARTS = (
    "hal(?:f|ves)|quarters?|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    "|hundredth|thousandth|millionth)s?"
)
_MULTIPLES = (
    "hundreds?|thousands?|[mbtr]+illions?|lakhs?|lacs?|crores?|dozens?|pairs?|couples?|scores?|gross"
    "|hundredweight"
)
_WORKED = (
    "squared|cubed|factorial|choose|mod(?:ulo)?|point|base|power|plus|minus|divided|multiplied|pi|sqrt|root"
    "|doubled|tripled|halved"
)
_ANOTHER = re.compile(rf"\b(?:{_PARTS}|{_MULTIPLES}|{_NUMERALS}|(?!point$)(?:{_WORKED}))\b", re.IGNORECASE)
# in an answer that is a number and a unit
_JOINED = re.compile(r"\b(?:and|or|not|to|(?:times|over)(?!$)|twice)\b", re.IGNORECASE)

# A minus behind a number or a word is an operator, but behind = or "is" it is a sign even before a space;
# digits behind a point or a ^ are no number of their own.
_SIGN = r"(?:(?<![\w)^])[-+]|(?:(?<==)|(?<==\ )|(?<=\bis\ ))[-+]\ )"
_IN_TEXT = re.compile(rf"{_SIGN}?(?<![\w.^])(?<!\^-)(?<!\^\{{){_UNSIGNED}", re.VERBOSE)
_OPEN_BEFORE = re.compile(
    r"(?:[(\[][^()\[\]A-Za-z]{0,40},\ ?-?$"  # a pair
    # a bound
    r"|(?:\ [<>]=?|(?<![\w<])[A-Za-z][<>]=?|[≤≥≠≈]|"
    r"\\(?:[lg]eq?(?:slant)?|neq?|[lg]t|approx|sim))\ ?\$?$"
    # an operation
    r"|(?:[±√]|\\(?:sqrt(?:\[[0-9]+\])?|ln|log|frac|binom)\ ?\{?|[0-9]:|\}\ ?\{"
    r"|(?:[0-9)}%]|(?<![A-Za-z'])[A-Za-z])\ ?[-+*/^]|[0-9]/)\ ?$)"
)
_CLOSED_AFTER = re.compile(
    rf"(?:{_SHORT}{_POWERED}|m[²³])?(?=$|[\s.,;:?)\]}}'\"`*_|<>=°$-]|/{_LETTERS}{{3}})"
    rf"(?!\*[\w(\\]|\ [*+^/!²³]\ ?[\w(\\]|\ and\ a\ |\ [¼½¾]|\ \\(?:pi|sqrt|frac)|\ {_ANOTHER.pattern})",
    re.IGNORECASE,
)
_COMMA_BEFORE = re.compile(r"(?<![\w.,])-?[0-9]+,$")  # 2,74
_NOT = r"(?:(?:not|never|neither|nor|cannot|wrong|incorrect|false|impossible)\b|\w+n['’]t\b)"
_SMALL_GAP = r"[^0-9.!?;\n]{0,12}"
# what the text has about the number that follows, up to it: denied, bounded, one of several
_DOUBT_BEFORE = re.compile(
    rf"(?:\b{_NOT}(?!\ only\b)[^0-9.!?;:,\n]*"
    r"|\b(?:hardly|unlikely|except|excluded?|rejected|(?:any|every)thing\ but"
    r"|(?<!no\ )(?<!without\ )(?<!without\ a\ )doubt)\b"
    r"[^0-9.!?;:,\n]*"
    r"|\b(?:wrong|incorrect|false):\ ?"
    rf"|\b(?:less|more|fewer|greater|smaller|larger|other|rather|higher|lower)\ than\ {_SMALL_GAP}"
    r"|(?:^|\b(?:is|are|was|be)\ |['’]s\ )(?:[a-z]+\ )?"
    rf"(?:over|under|above|below|beyond|up\ to)\ {_SMALL_GAP}"
    rf"|\bat\ (?:least|most)\ {_SMALL_GAP}|\bbetween\ [^.!?;\n]{{1,40}}\ and\ [^0-9.!?;\n]{{0,3}}"
    rf"|[0-9](?:\ {_LETTERS}+){{0,3}},?\ (?:and/or|or|nor)\ [^0-9.!?;\n]{{0,20}}|[0-9],?\ and\ [$€£]?"
    r"|\bare:?\ -?[0-9][^A-Za-z.!?\n]{0,30},\ )$",
    re.IGNORECASE,
)
_DOUBT_AFTER = re.compile(  # and behind it, in the same breath or the next one
    rf"(?:\ {_LETTERS}+)?\ (?:is|was|are|were|would\ be|can|could|seems)\ ?(?:[a-z]+\ )?(?:{_NOT}|too\b)"
    r"|\ (?:is|was|are|were|would|can|could|does|did)n['’]t\b|\$?\?"
    r"|\ or\b|[?.!,]*\s+(?:no|nope|wrong)(?:\s*(?:[.,!;]|$)|\s+wait\b)",
    re.IGNORECASE,
)


def denies(text: str) -> bool:
    """Whether what stands before a number denies it, or says that it is not exact."""
    return _DENIES.search(text) is not None


def is_product(label: str) -> bool:
    """Whether what stands before an = is several factors, as in xy = 12, and not the name of a value."""
    letters = label.strip()
    in_a_row = letters[1:] and letters in "abcdefghijklmnopqrstuvwxyz"
    return bool(
        in_a_row or (re.fullmatch("[a-z]{2}|[b-df-hj-np-tv-z]{3}", letters) and letters not in _SHORT_WORDS)
    )


def is_more_than_a_unit(text: str) -> bool:
    """Whether words behind a number make it another one (million), or add one to it."""
    return _ANOTHER.search(text) is not None or _JOINED.search(text) is not None


def read_number(text: str) -> Number | None:
    """The number that an answer is; None if it is none, more than one, or something to be worked out."""
    text = text.strip()
    if len(text) > MAX_CHARS or text.endswith(".."):  # 3.14... goes on
        return None
    match = _PLAIN.fullmatch(text)
    if match:
        return Number(_decimal(match["number"]) * (-1 if match["sign"] == "-" else 1))
    currency = "dollar" if "\\$" in text else ""
    text = _plain(text).strip(_EMPHASIS).rstrip(".,;").strip(_EMPHASIS)
    # (2,100) is a pair
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1 and "," not in text:
        text = text[1:-1].strip()
    match = _ANSWER.fullmatch(text)
    if (
        match is None
        or denies(match["label"] or "")
        or is_product(match["label"] or "")
        or is_more_than_a_unit(match["unit"])
    ):
        return None
    value = _value(match)
    if value is None:
        return None
    value = -value if match["sign"] == "-" else value
    if match["percent"]:
        return Number(value / 100, is_percent=True)
    return Number(value, unit=(unit_of(match["unit"]) if match["unit"] else "") or currency)


_SHORT_WORDS = frozenset("it he we so hi lo".split())
_COMMA = re.compile(r"(?<![\w.,])(?![1-9][0-9]{0,2},[0-9]{3}(?![0-9]))([0-9]+),([0-9]+)(?![\w.,])")
_ONLY_DECIMAL = re.compile(r"\s*-?(?:0,[0-9]{3,}|[0-9]+,0[0-9]+)\s*")


def read_decimal_comma(text: str) -> Number | None:
    """The number with the one comma of a text as its point, where it is no thousands separator and nothing
    stands in brackets.
    """
    found = _COMMA.search(text)
    if found is None or text.count(",") > 1 or ";" in text or re.search(r"[(\[]|\\[{]|\b(?:and|or)\b", text):
        return None
    return read_number(text[: found.start()] + found.expand(r"\1.\2") + text[found.end() :])


def is_decimal_comma(text: str) -> bool:
    """Whether a text by itself is a number with a comma as its point: 0,125 and 3,05; 3,5 may be a list."""
    return _ONLY_DECIMAL.fullmatch(text) is not None


_MEASURES = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram",
    "oz": "ounce",
    "lb": "pound",
    "ml": "milliliter millilitre",
    "cl": "centiliter",
    "dl": "deciliter",
    "l": "liter litre",
    "ms": "millisecond",
    "s": "sec second",
    "min": "minute",
    "h": "hr hour",
    "day": "",
    "week": "",
    "month": "",
    "year": "",
    "cent": "",
    "dollar": "",
    "euro": "",
    "degree": "°",
    "radian": "rad",
    "am": "",
    "pm": "",
    "mph": "",
    "kph": "",
    "gallon": "",
    "unit": "",
    "pint": "",
    "quart": "",
    "cup": "",
}
_SCALES = frozenset("c celsius f fahrenheit".split())
_MEASURE_OF = {spelling: unit for unit, names in _MEASURES.items() for spelling in (unit, *names.split())}
_UNIT_PART = re.compile(
    r"(?P<over>/|\bper\b)|(?P<square>\bsq(?:uare|\.)?(?![a-z]))|(?P<cubic>\bcubic\b)"
    rf"|(?P<word>°|{_LETTERS}+)\ ?(?P<power>\^-?[1-3]|[²³])?"
)


def unit_of(text: str) -> str:
    """The unit of measure that a text begins with, in one spelling (cm^2, km/h); empty if there is none."""
    unit, power = "", ""
    for part in _UNIT_PART.finditer(_POWER.sub(r"^\1", text)):
        if part["over"]:
            if not unit:
                break
            unit += "/"
        elif part["square"] or part["cubic"]:
            power = "^2" if part["square"] else "^3"
        elif part["word"]:
            word = part["word"] if part["word"] in _MEASURE_OF else part["word"].lower()
            if unit == "degree" and word in _SCALES:
                return f"degree {word[0]}"
            known = _MEASURE_OF.get(word) or _MEASURE_OF.get(word.removesuffix("s"))
            if known is None or (unit and not unit.endswith("/")):
                break
            written = {"²": "^2", "³": "^3", "^1": ""}.get(part["power"] or "", part["power"] or "")
            unit, power = unit + known + (written or power), ""
    return unit.removesuffix("/")


def other_units(unit: str, other: str) -> bool:
    """Whether both are units of measure, and not the same. A degree is one of any scale, "units" are any, and
    "units^2" any^2.
    """
    first, second = sorted((unit, other), key=len)
    if not first or first == second or (first == "degree" and second in ("degree c", "degree f")):
        return False
    if "unit" in (first, second):
        return False
    powers = [name.partition("^")[2] for name in (first, second)]
    return not (powers[0] == powers[1] and any(name.startswith("unit^") for name in (first, second)))


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


# --------------------------------------------------------------------------------------------- LaTeX to plain

_EMPHASIS = " \t\n*_`"
_REPLACED = [
    ("−", "-"),
    ("–", "-"),
    ("\\pm", "±"),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("×", "*"),
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("\\%", "%"),
    ("^\\circ", "°"),
    ("^{\\circ}", "°"),
    ("^ \\circ", "°"),
    ("\\degree", "°"),
]
_DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|left|right|text|pi|cdot|times|infty|cup|[gl]eq?|in|pm|theta)(?![a-z]))"
)
# 11,\! 111 and 11{,}111: thousands, and no list
_GROUPS = re.compile(r"(?<=[0-9])(?:\{, ?\}|, ?\\!) ?(?=[0-9]{3}(?![0-9]))")
_BLANK = re.compile(r"(?<!\\)\\ |\\q?quad|[~\t\r\n\u00a0\u202f\u2009]")
_NOISE = re.compile(
    r"(?<!\\)\\[,!;:()\[\]]|\\(?:left|right)\.|\\(?:left|right|(?:display|text)style)(?![a-z])|\\?[$€£¥]"
)
_WORDS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:bf|it|rm|sf|tt)|mbox|operatorname|boldsymbol)"
    r" ?\{([^{}]*)\}"
)
_FRAC = re.compile(r"\\frac ?(?:\{ ?(-?[0-9.,]+) ?\}|([0-9])) ?(?:\{ ?([0-9.,]+) ?\}|([0-9]))(?![0-9])")
_POWER = re.compile(r"\^ ?\{ ?(-?[0-9]+) ?\}(?![0-9])")
_SPACES = re.compile(r" {2,}")
_ONE_SIGN = re.compile(r"\{(\w)\}(?!\w)")
_CHOICE = re.compile(r"\(([A-Za-z])\)")
_CAPITALISED = re.compile(r"[A-Za-z][a-z]{2,}")
# AB is not ab, but Yes is yes
_ANY_CASE = frozenset("yes no true false none even odd undefined infinity never always".split())


_OVER = re.compile(r"\{([^{}\\]+)\\over(?![a-z])([^{}\\]+)\}")


def tidy(text: str, words: str = r" \1 ") -> str:
    """The text with the signs of LaTeX that say how it looks taken away, and one sign for what has several.
    words: what to make of \\text{...} and the like.
    """
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _OVER.sub(r"\\frac{\1}{\2}", text)
    return _WORDS.sub(words, _NOISE.sub("", _BLANK.sub(" ", _GROUPS.sub("", _DOUBLED.sub(r"\\", text)))))


def _plain(text: str) -> str:
    """A tidy text with LaTeX's ways of writing numbers made plain; what is no number is left as it is."""
    return _SPACES.sub(" ", _FRAC.sub(_fraction, _POWER.sub(r"^\1", tidy(text))))


def _fraction(match: re.Match[str]) -> str:
    """a/b, a space before it if digits precede: 1\frac{3}{4} is 1 3/4."""
    is_mixed = match.string[match.start() - 1 : match.start()].isdigit()
    return f"{' ' if is_mixed else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def bare(text: str) -> str:
    """For answers that are no numbers: without marks of emphasis, a final point, braces around one sign,
    brackets around one letter, and spaces, but for those between digits; a word such as `None` in small
    letters.
    """
    text = re.sub(r"\s+", " ", _plain(text.replace('"', " "))).strip(" *_`")
    text = text.removesuffix(".") if not text.endswith("..") else text
    text = _ONE_SIGN.sub(r"\1", re.sub("(?<![0-9]) | (?![0-9])", "", text))
    choice = _CHOICE.fullmatch(text)
    text = choice[1] if choice else text
    return text.lower() if text.lower() in _ANY_CASE or _CAPITALISED.fullmatch(text) else text
