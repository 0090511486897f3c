r"""What an answer is made of, and whether two answers are made of the same.

An answer is read into a small tree, and trees are compared part by part, so that nothing a library might drop is dropped:

    list      1, 2 and 3; x = 1 or x = 2; 1 \pm \sqrt{2} is two; `cases` are the list of their lines
    set       \{1, 2\}, also \emptyset
    brackets  (1, 2) [0, 1) \langle 1, 2 \rangle: points and intervals, with the brackets that they have
    union     of intervals
    matrix    pmatrix, bmatrix and an array in brackets are one kind; determinants are another
    ratio     7:32, and times of day
    based     204_5
    relation  = \ne < \le \approx, with two sides or more
    leaf      a number (`read_number`), an expression (`algebra.py`), or words

Which are alike:

    list      the same parts, each as often. In which order matters if the question asks for one (`in_order`). If it does not say,
              any order of a gold list in ascending order will do; of one that is not (10, 4, -2), its own and the ascending one,
              as its order may be meant. Parts with names are compared by name; where one side has none, in their order.
    relation  x = 3 is the value 3, where the left is a name (x, f(2), AB, Area) and all other sides are the same value: 41 = 42
              is none, |x| = 3 is a condition. Two names must agree. Other equations: each other's multiples, with the same unknowns.
              Without unknowns: side by side. 0 < x \le 1 is (0, 1]; other inequalities are positive multiples.
    leaf      numbers by value, with no other unit of measure; words as written; else expressions as functions.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jaxrl.verify import algebra
from jaxrl.verify.algebra import Unreadable
from jaxrl.verify.answers import MAX_CHARS, Number, bare, denies, read_number, tidy, unit_of

MAX_PARTS = 100
MAX_DEPTH = 12
DECIMALS = 15  # with the digits of a double or more, a decimal stands for what rounds to it, where values are compared (`symbolic`)


@dataclass(frozen=True)
class Leaf:
    text: str

    @cached_property
    def number(self) -> Number | None:
        return read_number(self.text.replace('"', " "))

    @cached_property
    def expression(self) -> algebra.Node:
        """Raises Unreadable."""
        if _WORD.fullmatch(self.text):
            raise Unreadable("a word")
        return algebra.read(_UNITS.sub("", self.text))

    @property
    def is_number(self) -> bool:
        """Whether nothing is left to be worked out. Raises Unreadable."""
        return self.number is not None or algebra.is_number(self.expression)


@dataclass(frozen=True)
class Group:
    kind: str
    parts: tuple["Node", ...]
    brackets: str = ""
    joiner: str = ""


@dataclass(frozen=True)
class Relation:
    sides: tuple["Node", ...]
    signs: str


Node = Leaf | Group | Relation

# --------------------------------------------------------------------------------------------------------------- reading

_SYMBOLS = {
    "∅": r"varnothing emptyset", "≤": r"le leq leqslant", "≥": r"ge geq geqslant", "≠": r"ne neq", "<": r"lt", ">": r"gt",
    "≈": r"approx simeq cong sim", "≡": r"equiv", "∓": r"mp", "/": r"div", "∞": r"infty", "∪": r"cup", "∈": r"in",
    "→": r"to rightarrow Rightarrow longrightarrow implies iff", "⦃": r"lbrace", "⦄": r"rbrace", "⟨": r"langle", "⟩": r"rangle",
    "⌊": r"lfloor", "⌋": r"rfloor", "⌈": r"lceil", "⌉": r"rceil", "|": r"vert lvert rvert mid", "…": r"dots ldots cdots dotsc",
    ' "or" ': r"vee lor", ' "and" ': r"wedge land", "": r"limits bigl bigr big Big Bigl Bigr",
}  # fmt: skip
_SYMBOL_OF = {name: symbol for symbol, names in _SYMBOLS.items() for name in names.split()}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SPELT = [
    ("\\{", "⦃"), ("\\}", "⦄"), ("\\|", "|"), ("<=", "≤"), (">=", "≥"), ("!=", "≠"), ("==", "="), (":=", "="), ("...", "…"), ("π", "\\pi "),
    ("\\mathbb{R}", "ℝ"), ("\\R", "ℝ"), ("**", "^"), ("·", "*"), ("⋅", "*"), ("÷", "/"), ("\\operatorname", "\\mathrm"), ("\\tan^{-1}", "\\arctan "), ("≅", "≈"), ("⩽", "≤"),
    ("⩾", "≥"), ("∖", "\\"), ("²", "^2"), ("³", "^3"),
]  # fmt: skip
_FONTS = re.compile(r'"([A-Za-z])"')  # one letter in another font is that letter
_PLUS_INFINITY = re.compile(r"(?<![\w)}])\+\s*∞")
_ROOT_SIGN = re.compile(r"√\s*(\([^()]*\)|\{[^{}]*\}|[0-9]+|[A-Za-z])")
_OPENING, _ENDING = "([{⦃⟨⌊⌈", ")]}⦄⟩⌋⌉"
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([a-z]+\*?)\}")
_AND_OR = re.compile(r',?\s*(?:"\s*(and|or)\s*"|(?<![A-Za-z\\"])(and|or)(?![A-Za-z"]))\s*,?|[,;]|\s&\s')
_SIGN = re.compile(r"[=≠<>≤≥≈≡→∈]")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_BASED = re.compile(r"([0-9][0-9A-Z]*|[0-9A-F]+(?=_\{?1[1-9]))_(?:\{\s*\"?([0-9]+|[a-z]+)\"?\s*\}|([0-9]+))")
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_CLOCK = re.compile(r"([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)\s*\"?\s*([ap])\.?\s?m\.?\s*\"?", re.IGNORECASE)
_WORD = re.compile(r'"[^"]*"|[A-Za-z]{3,}|[a-z]*[eiou][a-z]+|[a-z]+[eiou][a-z]*')  # letters alone that are no product
_UNITS = re.compile(r'(?<=[0-9A-Za-z)}\]°])\s*(?:\s*"[^"]*"(?:\^\{?-?[0-9]\}?)?|\s+(?!sin|cos|tan|log|sqrt)[A-Za-z]{3,}\.?)+\s*$')
_MATRICES = {name: "matrix" for name in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array")} | {"vmatrix": "determinant", "Vmatrix": "norm"}
_COLUMNS = re.compile(r"\{[lcr|\s]*\}")


def read(text: str) -> Node:
    """The tree of an answer. Whatever cannot be taken apart is a leaf."""
    text = tidy(text, words=r' "\1" ')
    for written, symbol in _SPELT:
        text = text.replace(written, symbol)
    text = _COMMAND.sub(lambda match: _SYMBOL_OF.get(match[1], match[0]), text)
    return _read(_PLUS_INFINITY.sub("∞", _ROOT_SIGN.sub(r"\\sqrt{\1}", _FONTS.sub(r"\1", text))), 0)


def _read(text: str, depth: int) -> Node:
    text = _outer(text)
    leaf = Leaf(text)
    if depth > MAX_DEPTH or (leaf.number is not None and "=" not in text):
        return leaf
    is_number = leaf.number is not None  # with a name: its comma is none of a list
    return (not is_number and _list(text, depth)) or _relation(text, depth) or _union(text, depth) or _enclosed(text, depth) or _rest(text, depth) or leaf


def _outer(text: str) -> str:
    return text.strip().rstrip(".").strip(" *`_\n\t") if text[-1:] in ". *`_\n\t" or text[:1] in " *`_\n\t" else text


def _depths(text: str) -> list[int]:
    """Of each character, how many brackets and environments are open before it."""
    depths, depth = [], 0
    begins = {match.start(): 1 if match[1] == "begin" else -1 for match in _ENVIRONMENT.finditer(text)}
    for i, character in enumerate(text):
        depth -= character in _ENDING or begins.get(i) == -1
        depths.append(depth)
        depth += character in _OPENING or begins.get(i) == 1
    return depths


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[re.Match[str]]]:
    depths = _depths(text)
    found = [match for match in separator.finditer(text) if not depths[match.start()]]
    starts, ends = [0, *(match.end() for match in found)], [*(match.start() for match in found), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)], found


def _list(text: str, depth: int) -> Node | None:
    if re.search(r",\s", text):
        text = _THOUSANDS.sub("", text)
    pieces, found = _split(text, _AND_OR)
    joiners = [match[1] or match[2] or match.group().strip() for match in found]
    if ";" in joiners:
        pieces = _split(text, re.compile(";"))[0]
    pieces = [way for piece in pieces if piece.strip() for way in _ways(piece)]
    if len(pieces) < 2 or len(pieces) > MAX_PARTS:
        return None
    parts = [_read(piece, depth + 1) for piece in pieces]
    if ";" in joiners:
        parts = [Group("brackets", part.parts, "()") if isinstance(part, Group) and part.kind == "list" else part for part in parts]
    return Group("list", tuple(parts), joiner=joiners[-1] if joiners else "")


def _ways(piece: str) -> list[str]:
    """Both values of what holds a plus or minus."""
    if "±" not in piece and "∓" not in piece:
        return [piece]
    return [re.sub(r"(^|[=(,{])\s*\+", r"\1", piece.translate(str.maketrans("±∓", signs))) for signs in ("+-", "-+")]


def _relation(text: str, depth: int) -> Node | None:
    pieces, found = _split(text, _SIGN)
    signs = "".join(match.group() for match in found)
    if not signs or not all(piece.strip() for piece in pieces):
        return None
    return Relation(tuple(_read(piece, depth + 1) for piece in pieces), "=" if signs == "∈" else signs)


def _union(text: str, depth: int) -> Node | None:
    pieces, _ = _split(text, re.compile("∪|(?<![A-Za-z])U(?![A-Za-z])"))
    return Group("union", tuple(_read(piece, depth + 1) for piece in pieces)) if len(pieces) > 1 else None


def _enclosed(text: str, depth: int) -> Node | None:
    """What stands in one pair of brackets, which may be of two kinds."""
    if text == "∅" or text.replace(" ", "") in ("⦃⦄", "{}"):
        return Group("set", ())
    if len(text) < 3 or text[0] not in "([{⦃⟨" or text[-1] not in ")]}⦄⟩" or 0 in _depths(text)[1:-1]:
        return None
    inner = _list(text[1:-1], depth + 1) or _read(text[1:-1], depth + 1)  # (2,100) is a pair
    parts = inner.parts if isinstance(inner, Group) and inner.kind == "list" else (inner,)
    brackets = text[0] + text[-1]
    if brackets == "⦃⦄" or (brackets == "{}" and len(parts) > 1):
        return Group("set", parts)
    if brackets == "⟨⟩":
        brackets = "()"
    if len(parts) == 1 and (brackets in ("()", "{}") or isinstance(inner, Group) and inner.kind == "matrix"):
        return inner
    return Group("brackets", parts, brackets)


def _rest(text: str, depth: int) -> Node | None:
    opened = _ENVIRONMENT.match(text)
    if opened and text.endswith(f"\\end{{{opened[2]}}}") and 0 not in _depths(text)[1 : text.rfind("\\end")]:
        return _environment(opened[2], text[opened.end() : text.rfind("\\end")], depth)
    based = _BASED.fullmatch(text.replace(" ", ""))
    if based:
        base = based[2] or based[3]
        base = str(_NUMERALS.index(base)) if base in _NUMERALS else base
        return Group("based", (Leaf(based[1].lstrip("0") or "0"), Leaf(base)))
    clock = _CLOCK.fullmatch(text)
    pieces, _ = _split(clock[1] if clock else text, re.compile(":"))
    if len(pieces) > 1:
        return Group("ratio", tuple(_read(piece, depth + 1) for piece in pieces), joiner=clock[2].lower() if clock else "")
    return None


def _environment(name: str, body: str, depth: int) -> Node | None:
    rows = [row for row in _split(body, re.compile(r"\\\\(?:\[[^\]]*\])?|\n"))[0] if row.strip()]
    if name in _MATRICES:
        if name == "array":
            rows[:1] = [_COLUMNS.sub("", rows[0], count=1)] if rows else []
        cells = [_split(row, re.compile("&"))[0] for row in rows]
        return Group(_MATRICES[name], tuple(Group("row", tuple(_read(cell, depth + 1) for cell in row)) for row in cells))
    if name in ("cases", "aligned", "align", "align*", "gathered"):
        return Group("list", tuple(_read(row.replace("&", " ").strip(" ,"), depth + 1) for row in rows)) if len(rows) > 1 else None
    return None


# -------------------------------------------------------------------------------------------------------------- comparing

_LETTER = rf"(?:(?![ei](?![_(']))[A-Za-z]|\\(?!pi)(?:{'|'.join(sorted(algebra._GREEK))}))"
_SUB = r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*"
_POINTS = rf"(?:m?\\(?:angle|triangle|overline|vec|overrightarrow|widehat|measuredangle)\{{?)?[A-Z]+{_SUB}\}}?"
_ONE_NAME = (
    rf"(?:\|{_POINTS}\||{_POINTS}|\\vec\{{?[a-z]\}}?|\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{{?2\}}?)?\(?(?:\\angle)?(?:[A-Z]+|\\(?!pi)[a-z]+)\)?"
    rf"|{_LETTER}{_SUB}(?:\^\{{?-1\}}?)?(?:\([^()=<>]{{0,20}}\))?)"
)
_NAME = re.compile(rf"{_ONE_NAME}(?:[:/]{_ONE_NAME})*|\\frac\{{{_ONE_NAME}\}}\{{{_ONE_NAME}\}}")
_LABEL = re.compile(r"[A-Za-z\"][A-Za-z'’\" ]*[a-z]{2}[A-Za-z'’\" ]*")
_FLIPPED = str.maketrans("<>≤≥", "><≥≤")


@dataclass(frozen=True)
class Comparison:
    """How two trees are compared. symbolic: roots and functions have values. in_percent, in_order: what the question asks for."""

    symbolic: bool = False
    in_percent: bool = False
    in_order: bool = False
    worked: bool = field(default=False)  # whether 6*7 may stand for 42 (in a chain that ends with 42)

    def same(self, gold: Node, answer: Node) -> bool:
        name, values = _named(gold)
        other, given = _named(answer)
        if isinstance(gold, Relation) and isinstance(answer, Relation) and not (name and other and _names_agree(name, other)):
            return self.same_relation(gold, answer)
        if (_is_list(gold) or _is_list(answer)) and (name or other):
            gold, answer = _spread(gold), _spread(answer)
            (name, values), (other, given) = _named(gold), _named(answer)
        if name or other:
            if len(given) > 1:
                return self._chain(values[-1], given)
            return self.same(values[-1], given[0])
        if isinstance(answer, Relation) and not _as_range(answer):
            return set(answer.signs) <= {"=", "≈"} and self._chain(gold, answer.sides)
        gold, answer = _as_range(gold) or gold, _as_range(answer) or answer
        if isinstance(gold, Leaf) and isinstance(answer, Leaf):
            return self.same_leaf(gold, answer)
        if _is_list(gold) or _is_list(answer):
            return self.same_list(gold, answer)
        if not isinstance(gold, Group) or not isinstance(answer, Group):
            return False
        alike = (gold.kind, gold.brackets, len(gold.parts)) == (answer.kind, answer.brackets, len(answer.parts))
        if not alike or (gold.joiner and answer.joiner and gold.joiner != answer.joiner) or (gold.joiner and not answer.joiner):
            return False
        if gold.kind == "union":
            return self._matched(gold.parts, answer.parts)
        return all(map(self.same, gold.parts, answer.parts))

    def _chain(self, gold: Node, sides: Sequence[Node]) -> bool:
        """Whether all sides are the gold value: of 6*7 = 42, both."""
        working = Comparison(self.symbolic, self.in_percent, self.in_order, worked=True)
        return self.same(gold, sides[-1]) and all(working.same(gold, side) for side in sides[:-1])

    # ------------------------------------------------------------------------------------------------------------- lists

    def same_list(self, gold: Node, answer: Node) -> bool:
        golds, answers = _parts(gold), _parts(answer)
        if len(golds) != len(answers):
            return False
        named, given = _by_name(golds), _by_name(answers)
        if isinstance(named, dict) and isinstance(given, dict):
            return all(any(_names_agree(name, other) and self.same(named[name], given[other]) for other in given) for name in named)
        if isinstance(named, dict) or isinstance(given, dict):
            return all(map(self.same, _values(named), _values(given)))
        if self.in_order:
            return all(map(self.same, named, given))
        if not self._matched(named, given):
            return False
        is_set = isinstance(gold, Group) and gold.kind == "set"
        return is_set or _ascends(named) or _ascends(given) or all(map(self.same, named, given))

    def _matched(self, golds: Iterable[Node], answers: Iterable[Node]) -> bool:
        """Each with one of the others, and none left."""
        left = list(answers)
        for gold in golds:
            found = next((i for i, answer in enumerate(left) if self.same(gold, answer)), None)
            if found is None:
                return False
            del left[found]
        return not left

    # --------------------------------------------------------------------------------------------------------- relations

    def same_relation(self, gold: Node, answer: Node) -> bool:
        assert isinstance(gold, Relation) and isinstance(answer, Relation)
        ranges = _as_range(gold), _as_range(answer)
        if any(ranges):
            names = [_named(node)[0] or _range_name(node) for node in (gold, answer)]
            values = [span or _named(node)[1][-1] for span, node in zip(ranges, (gold, answer), strict=True)]
            if all(names) and _names_agree(*names):
                return self.same(*values)
        gold, answer = _ascending(gold), _ascending(answer)
        if gold.signs != answer.signs:
            return False
        if all(map(self.same, gold.sides, answer.sides)):
            return True
        is_equation = gold.signs in ("=", "≠")
        if is_equation and all(map(self.same, gold.sides, answer.sides[::-1])):
            return True
        if len(gold.sides) > 2 or gold.signs not in "=≠<≤" or not all(isinstance(side, Leaf) for side in gold.sides + answer.sides):
            return False
        try:
            sides = [tuple(side.expression for side in relation.sides) for relation in (gold, answer)]
            if not algebra.unknowns(sides[0]) or algebra.unknowns(sides[0]) != algebra.unknowns(sides[1]):
                return False
            return algebra.same_relation(*sides, symbolic=self.symbolic, is_equation=is_equation)
        except Unreadable:
            return False

    # ------------------------------------------------------------------------------------------------------------ leaves

    def same_leaf(self, gold: Leaf, answer: Leaf) -> bool:
        a, b = gold.number, answer.number
        if a is not None and b is not None:
            return same_number(a, b, self.in_percent) or (self.symbolic and (_rounds_to(gold, answer) or _rounds_to(answer, gold)))
        if not _units_agree(gold, answer):
            return False
        if bare(gold.text) == bare(answer.text):
            return True
        try:
            left, right = gold.expression, answer.expression
            if gold.is_number != answer.is_number and not self.symbolic and not self.worked:
                return False
            if algebra.same(left, right, self.symbolic):
                return True
            return self.symbolic and (_rounds_to(gold, answer) or _rounds_to(answer, gold))
        except Unreadable:
            return False


def _rounds_to(leaf: Leaf, other: Leaf) -> bool:
    """Whether a decimal of many digits is what the other rounds to."""
    digits = re.fullmatch(r"-?([0-9]+)\.([0-9]+)", leaf.text.strip())
    if digits is None or len((digits[1] + digits[2]).lstrip("0")) < DECIMALS:
        return False
    try:
        node = other.expression
        return not algebra.unknowns(node) and algebra.rounds_to(node, leaf.text.strip(), len(digits[2]))
    except Unreadable:
        return False


def same_number(gold: Number, answer: Number, in_percent: bool) -> bool:
    """By value; of a percentage, see `answers.equal`. Other units of measure make other numbers."""
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.is_percent and not answer.is_percent:
        return answer.value in (gold.value, gold.value * 100)
    if answer.is_percent and not gold.is_percent and in_percent:
        return answer.value * 100 == gold.value
    return gold.value == answer.value


def _units_agree(*leaves: Leaf) -> bool:
    units = {unit_of(found.group().replace('"', " ")) for leaf in leaves if (found := _UNITS.search(leaf.text))} - {""}
    return len(units) < 2


def _named(node: Node) -> tuple[str, tuple[Node, ...]]:
    """The name that a node gives to a value, and the sides behind it; ("", (node,)) if it gives none."""
    if isinstance(node, Relation) and set(node.signs) <= {"=", "≈"} and node.signs[0] == "=":
        for sides in (node.sides, node.sides[::-1]):
            name = _name(sides[0])
            if name:
                return name, sides[1:]
    return "", (node,)


def _name(node: Node) -> str:
    if isinstance(node, Group) and node.kind in ("brackets", "ratio"):
        names = [_name(part) for part in node.parts]
        return ",".join(names) if all(names) else ""
    if not isinstance(node, Leaf) or len(node.text) > 60:
        return ""
    text = node.text.strip(" *")
    if _LABEL.fullmatch(text) and not denies(text):
        return "label"
    text = text.replace(" ", "").replace('"', "")
    return text.replace("{", "").replace("}", "") if _NAME.fullmatch(text) else ""


def _spread(node: Node) -> Node:
    """Of (x, y) = (1, 2), the list x = 1, y = 2."""
    if isinstance(node, Relation) and node.signs == "=":
        names, values = node.sides
        if isinstance(names, Group) and isinstance(values, Group) and len(names.parts) == len(values.parts) and _name(names):
            return Group("list", tuple(Relation(pair, "=") for pair in zip(names.parts, values.parts, strict=True)))
    return node


def _names_agree(name: str, other: str) -> bool:
    """The same name; a label in words agrees with any, and y with a function's."""
    return name == other or "label" in (name, other) or ({name, other} & {"y"} != set() and "(" in name + other)


def _is_list(node: Node) -> bool:
    return isinstance(node, Group) and node.kind in ("list", "set")


def _parts(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Group) and _is_list(node) else (node,)


def _by_name(parts: Sequence[Node]) -> dict[str, Node] | list[Node]:
    """The values by their names, if they have several names; else the values, without the one name that they have."""
    names = [_named(part) for part in parts]
    if len(parts) > 1 and all(name for name, _ in names) and len({name for name, _ in names}) == len(parts):
        return {name: values[-1] for name, values in names} if all(len(values) == 1 for _, values in names) else list(parts)
    if names and names[0][0] and all(name in (names[0][0], "") for name, _ in names):
        return [values[-1] if len(values) == 1 else part for (_, values), part in zip(names, parts, strict=True)]
    return list(parts)


def _values(parts: dict[str, Node] | list[Node]) -> list[Node]:
    return list(parts.values()) if isinstance(parts, dict) else parts


def _ascends(parts: list[Node]) -> bool:
    """Whether numbers, or words, stand in ascending order; of other parts there is none that could be meant."""
    if not all(isinstance(part, Leaf) for part in parts):
        return True
    numbers = [part.number.value for part in parts if part.number is not None]
    if len(numbers) == len(parts):
        return numbers == sorted(numbers)
    words = [part.text.strip(' "') for part in parts]
    return not all(re.fullmatch("[A-Za-z]+", word) for word in words) or words == sorted(words)


# ---------------------------------------------------------------------------------------------------------------- ranges

_EVERYTHING = Group("brackets", (Leaf("-∞"), Leaf("∞")), "()")


def _ascending(relation: Relation) -> Relation:
    """With < instead of >."""
    if relation.signs[0] in ">≥":
        return Relation(relation.sides[::-1], relation.signs[::-1].translate(_FLIPPED))
    return relation


def _range_name(relation: Relation) -> str:
    sides = _ascending(relation).sides
    return next((name for name in map(_name, sides) if name), "")


def _as_range(node: Node) -> Group | None:
    """The interval, or the union of intervals, that an inequality with one name says."""
    if isinstance(node, Group) and node.kind == "list" and node.joiner == "or":
        parts = [_as_range(part) for part in node.parts if isinstance(part, Relation)]
        names = {_range_name(part) for part in node.parts if isinstance(part, Relation) and _as_range(part)}
        return Group("union", tuple(parts)) if len(parts) == len(node.parts) and all(parts) and len(names) == 1 else None
    if node == Leaf("ℝ"):
        return _EVERYTHING
    if not isinstance(node, Relation):
        return None
    node = _ascending(node)
    names = [bool(_name(side)) for side in node.sides]
    if sum(names) != 1 or len(names) > 3 or not set(node.signs) <= set("<≤≠"):
        return None
    if node.signs == "≠":
        value = node.sides[names.index(False)]
        return Group("union", (Group("brackets", (Leaf("-∞"), value), "()"), Group("brackets", (value, Leaf("∞")), "()")))
    if "≠" in node.signs or (len(names) == 3 and not names[1]):
        return None
    at = names.index(True)
    low, high = (node.sides[0], node.signs[0]) if at else (Leaf("-∞"), "<"), (node.sides[-1], node.signs[-1])
    if at == len(names) - 1:
        high = (Leaf("∞"), "<")
    return Group("brackets", (low[0], high[0]), ("[" if low[1] == "≤" else "(") + ("]" if high[1] == "≤" else ")"))


# ------------------------------------------------------------------------------------------------------------------ answers


def equal(gold: str, answer: str, *, symbolic: bool = False, in_percent: bool = False, in_order: bool = False) -> bool:
    """Whether the answer is the gold one: the rules are those of this module.

    50 % is 1/2. The plain number 50 is 50 % only where the gold answer has the %, and 50 % is the plain gold number 50 only
    where the question asks for a percentage (`in_percent`). No rounding: 0.333 is not 1/3 (but with `symbolic`, see DECIMALS). Longer answers than MAX_CHARS are
    equal to nothing. What is left to be worked out (6*7 for 42) counts only where it is worked out (`symbolic`).
    """
    if len(gold) > MAX_CHARS or len(answer) > MAX_CHARS:
        return False
    a, b = read_number(gold), read_number(answer)
    if a is not None and b is not None and not ("=" in gold and "=" in answer):  # two names must agree
        if same_number(a, b, in_percent) or not symbolic:
            return same_number(a, b, in_percent)
    if bare(gold) == bare(answer):
        return True
    return Comparison(symbolic, in_percent, in_order).same(read(gold), read(answer))
