r"""What an answer is made of, as a small tree, so that it can be compared part by part (`alike.py`) and
nothing of it is dropped:

    list      1, 2 and 3; x = 1 or x = 2; 1 \pm \sqrt{2} is two; `cases` are the list of their lines
    set       \{1, 2\}, also \emptyset
    brackets  (1, 2) [0, 1) \langle 1, 2 \rangle: points and intervals, with the brackets that they have
    union     of intervals
    matrix    pmatrix, bmatrix and an array in brackets are one kind; determinants are another; a sum,
              product, multiple, power or transpose of matrices is `arithmetic`, its cells as they are to be
              worked out
    ratio     7:32, and times of day
    based     204_5
    relation  = \ne < \le \approx, with two sides or more
    leaf      a number (`read_number`), an expression (`expression.py`), or words
"""

import re
from dataclasses import dataclass
from functools import cached_property

from jaxrl.tasks.math import expression as grammar
from jaxrl.tasks.math.answers import Number, denies, is_more_than_a_unit, read_number, tidy, unit_of
from jaxrl.tasks.math.expression import Unreadable

MAX_PARTS = 100
MAX_DEPTH = 12
MAX_CELL = 2_000  # characters of what is to be worked out in a cell of a matrix


@dataclass(frozen=True)
class Leaf:
    text: str

    @cached_property
    def number(self) -> Number | None:
        return read_number(self.text.replace('"', " "))

    @cached_property
    def expression(self) -> grammar.Node:
        """Raises Unreadable."""
        if _WORD.fullmatch(self.text):
            raise Unreadable("a word")
        found = _UNITS.search(self.text)
        if found and (is_more_than_a_unit(found.group()) or denies(found.group())):
            raise Unreadable("words that say more than a unit")
        return grammar.read(_UNITS.sub("", self.text))

    @property
    def unit(self) -> str:
        """The unit of measure in words behind an expression."""
        found = _UNITS.search(self.text)
        return unit_of(found.group().replace('"', " ")) if found else ""

    @property
    def is_number(self) -> bool:
        """Whether nothing is left to be worked out. Raises Unreadable."""
        return self.number is not None or grammar.is_number(self.expression)


@dataclass(frozen=True)
class Group:
    """kind: one of those above, but relation and leaf; or row, of a matrix. brackets: both. joiner: the last
    word or sign between the parts of a list; a or p of a time of day.
    """

    kind: str
    parts: tuple["Node", ...]
    brackets: str = ""
    joiner: str = ""


@dataclass(frozen=True)
class Relation:
    """signs: one between every two sides."""

    sides: tuple["Node", ...]
    signs: str


Node = Leaf | Group | Relation

# ---------------------------------------------------------------------------------------------------- reading

_SYMBOLS = {
    "∅": r"varnothing emptyset",
    "≤": r"le leq leqslant",
    "≥": r"ge geq geqslant",
    "≠": r"ne neq",
    "<": r"lt",
    ">": r"gt",
    "≈": r"approx simeq cong sim",
    "≡": r"equiv",
    "∓": r"mp",
    "/": r"div",
    "∞": r"infty",
    "∪": r"cup",
    "∈": r"in",
    "→": r"to rightarrow Rightarrow longrightarrow implies iff",
    "⦃": r"lbrace",
    "⦄": r"rbrace",
    "⟨": r"langle",
    "⟩": r"rangle",
    "⌊": r"lfloor",
    "⌋": r"rfloor",
    "⌈": r"lceil",
    "⌉": r"rceil",
    "|": r"vert lvert rvert mid",
    "…": r"dots ldots cdots dotsc",
    ":": r"colon ratio",
    ' "or" ': r"vee lor",
    ' "and" ': r"wedge land",
    "": r"limits bigl bigr big Big Bigl Bigr",
}
_SYMBOL_OF = {name: symbol for symbol, names in _SYMBOLS.items() for name in names.split()}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SPELT = [
    ("\\{", "⦃"),
    ("\\}", "⦄"),
    ("\\|", "|"),
    ("<=", "≤"),
    (">=", "≥"),
    ("!=", "≠"),
    ("==", "="),
    (":=", "="),
    ("...", "…"),
    ("π", "\\pi "),
    ("\\mathbb{R}", "ℝ"),
    ("\\R", "ℝ"),
    ("**", "^"),
    ("·", "*"),
    ("⋅", "*"),
    ("÷", "/"),
    ("≅", "≈"),
    ("⩽", "≤"),
    ("⩾", "≥"),
    ("²", "^2"),
    ("³", "^3"),
    ("{:}", ":"),
    ("{=}", "="),
]
_FONTS = re.compile(r'"([A-Za-z])"')  # one letter in another font is that letter
_PLUS_INFINITY = re.compile(r"(?<![\w)}])\+\s*∞")
_ROOT_SIGN = re.compile(r"√\s*(\([^()]*\)|\{[^{}]*\}|[0-9]+|[A-Za-z])")
_OPENING, _ENDING = "([{⦃⟨⌊⌈", ")]}⦄⟩⌋⌉"
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([a-z]+\*?)\}")
_AND_OR = re.compile(r',?\s*(?:"\s*(and|or)\s*"|(?<![A-Za-z\\"])(and|or)(?![A-Za-z"]))\s*,?|[,;]|\s&\s')
_SIGN = re.compile(r"[=≠<>≤≥≈≡→∈]")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_BASED = re.compile(r"([0-9][0-9A-Z]*|[0-9A-F]+(?=_\{?1[1-9]))_(?:\{\s*\"?([0-9]+|[a-z]+)\"?\s*\}|([0-9]+))")
_BASE_BRACKETS = re.compile(r"^\(([0-9A-F]+)\)(?=_)|(?<=_\{)\(([0-9]+)\)(?=\}$)")  # (204)_{(5)}
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_CLOCK = re.compile(r"([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)\s*\"?\s*([ap])\.?\s?m\.?\s*\"?", re.IGNORECASE)
# letters alone that are no product
_WORD = re.compile(r'"[^"]*"|[A-Za-z]{3,}|[a-z]*[eiou][a-z]+|[a-z]+[eiou][a-z]*')
_UNITS = re.compile(
    r"(?<=[0-9A-Za-z)}\]°])\s*"
    r'(?:\s*"[^"]*"(?:\^\{?-?[0-9]\}?)?|\s+(?!sin|cos|tan|log|sqrt)[A-Za-z]{3,}\.?)+\s*$'
)
_MATRICES = dict.fromkeys(("pmatrix", "bmatrix", "matrix", "smallmatrix", "array"), "matrix") | {
    "vmatrix": "determinant",
    "Vmatrix": "norm",
}
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
    node = None if is_number else _list(text, depth)
    for kind in (_relation, _union, _enclosed, _other, _matrices):
        node = node or kind(text, depth)
    return node or leaf


def _outer(text: str) -> str:
    return text.strip().rstrip(".").strip(" *`_\n\t")


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


def _list(text: str, depth: int, enclosed: bool = False) -> Node | None:
    """The parts of a list; none may be missing, but that a comma may end one without brackets."""
    if re.search(r",\s", text):
        text = _THOUSANDS.sub("", text)
    pieces, found = _split(text, _AND_OR)
    joiners = [match[1] or match[2] or match.group().strip() for match in found]
    if ";" in joiners:
        pieces = _split(text, re.compile(";"))[0]
    if not enclosed and not pieces[-1].strip():
        pieces.pop()
    if not all(piece.strip() for piece in pieces):
        return None
    pieces = [way for piece in pieces for way in _ways(piece)]
    if len(pieces) < 2 or len(pieces) > MAX_PARTS:
        return None
    parts = [_read(piece, depth + 1) for piece in pieces]
    if ";" in joiners:
        is_list = [isinstance(part, Group) and part.kind == "list" for part in parts]
        parts = [
            Group("brackets", part.parts, "()") if is_it else part
            for part, is_it in zip(parts, is_list, strict=True)
        ]
    return Group("list", tuple(parts), joiner=joiners[-1] if joiners else "")


def _ways(piece: str) -> list[str]:
    """Both values of what holds a plus or minus."""
    if "±" not in piece and "∓" not in piece:
        return [piece]
    return [
        re.sub(r"(^|[=(,{])\s*\+", r"\1", piece.translate(str.maketrans("±∓", signs)))
        for signs in ("+-", "-+")
    ]


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
    if (
        len(text) < 3
        or text[0] not in "([{⦃⟨"
        or text[-1] not in ")]}⦄⟩"
        or 0 in _depths(text)[1:-1]
        or text[-2] in ",;"
    ):
        return None
    inner = _list(text[1:-1], depth + 1, enclosed=True) or _read(text[1:-1], depth + 1)  # (2,100) is a pair
    parts = inner.parts if isinstance(inner, Group) and inner.kind == "list" else (inner,)
    brackets = text[0] + text[-1]
    if brackets == "⦃⦄" or (brackets == "{}" and len(parts) > 1):
        return Group("set", parts)
    if brackets == "⟨⟩":
        brackets = "()"
    if len(parts) == 1 and (
        brackets in ("()", "{}") or (isinstance(inner, Group) and inner.kind == "matrix")
    ):
        return inner
    return Group("brackets", parts, brackets)


def _other(text: str, depth: int) -> Node | None:
    opened = _ENVIRONMENT.match(text)
    if opened and text.endswith(f"\\end{{{opened[2]}}}") and 0 not in _depths(text)[1 : text.rfind("\\end")]:
        return _environment(opened[2], text[opened.end() : text.rfind("\\end")], depth)
    based = _BASED.fullmatch(_BASE_BRACKETS.sub(r"\1\2", text.replace(" ", "")))
    if based:
        base = based[2] or based[3]
        base = str(_NUMERALS.index(base)) if base in _NUMERALS else base
        return Group("based", (Leaf(based[1].lstrip("0") or "0"), Leaf(base)))
    clock = _CLOCK.fullmatch(text)
    pieces, _ = _split(clock[1] if clock else text, re.compile(":"))
    if len(pieces) > 1:
        kind = "time" if re.search(r":\s*0[0-9]", text) else "ratio"  # 9:05 is not 9:5
        return Group(
            kind, tuple(_read(piece, depth + 1) for piece in pieces), joiner=clock[2].lower() if clock else ""
        )
    return None


def _environment(name: str, body: str, depth: int) -> Node | None:
    if name in _MATRICES:
        cells = _cells(name, body)
        return Group(
            _MATRICES[name],
            tuple(Group("row", tuple(_read(cell, depth + 1) for cell in row)) for row in cells),
        )
    rows = _lines(body)
    if name in ("cases", "aligned", "align", "align*", "gathered"):
        parts = tuple(_read(row.replace("&", " ").strip(" ,"), depth + 1) for row in rows)
        return Group("list", parts) if len(parts) > 1 else None
    return None


def _lines(body: str) -> list[str]:
    return [row for row in _split(body, re.compile(r"\\\\(?:\[[^\]]*\])?|\n"))[0] if row.strip()]


def _cells(name: str, body: str) -> list[list[str]]:
    rows = _lines(body)
    if name == "array":
        rows[:1] = [_COLUMNS.sub("", rows[0], count=1)] if rows else []
    return [_split(row, re.compile("&"))[0] for row in rows]


# ------------------------------------------------------------------------------------- arithmetic of matrices

Cells = list[list[str]]  # of a matrix, each as a text
_PLUS = re.compile(r"(?<=[^\s*^+-])\s*([+-])")
_POWER = re.compile(r"\s*\^\s*(?:\{\s*([0-9]{1,2}|T|\\top)\s*\}|([0-9]|T|\\top))")


def _matrices(text: str, depth: int) -> Node | None:
    """A sum, product, multiple, power or transpose of matrices, its cells as they are to be worked out."""
    value = _sum_of_matrices(text, depth) if "\\begin" in text else None
    if value is None or isinstance(value, str):
        return None
    return Group("arithmetic", tuple(Group("row", tuple(map(Leaf, row))) for row in value))


def _sum_of_matrices(text: str, depth: int) -> Cells | str | None:
    text = text.strip()
    if depth > MAX_DEPTH or "\\begin" not in text:
        return text if text and depth <= MAX_DEPTH else None
    if text[0] in "([" and text[-1] in ")]" and 0 not in _depths(text)[1:-1]:
        return _sum_of_matrices(text[1:-1], depth + 1)
    pieces, signs = _split(text, _PLUS)
    total: Cells | str | None = None
    for i, piece in enumerate(pieces):
        term = _product_of_matrices(piece, depth)
        if i and signs[i - 1][1] == "-":
            term = _times("-1", term)
        total = _plus(total, term) if i else term
    return total


def _product_of_matrices(text: str, depth: int) -> Cells | str | None:
    total: Cells | str | None = "1"
    depths = [*_depths(text), 0]
    start = at = 0
    while at <= len(text):
        opened = _ENVIRONMENT.match(text, at) if at < len(text) else None
        end = (
            next((i for i in range(at + 1, len(text) + 1) if not depths[i]), len(text))
            if at < len(text)
            else at
        )
        if opened:
            closed = text.find("}", end) + 1
            value = (
                _cells(opened[2], text[opened.end() : end])
                if _MATRICES.get(opened[2]) == "matrix" and closed
                else None
            )
        elif at < len(text) and text[at] in "([" and "\\begin" in text[at:end]:
            closed, value = end + 1, _sum_of_matrices(text[at + 1 : end], depth + 1)
        elif at < len(text):
            at = max(end, at + 1)
            continue
        else:
            closed, value = at + 1, "1"
        if value is None:
            return None
        scalar = text[start:at].strip(" *")
        total = _times(total, {"": "1", "-": "-1", "+": "1"}.get(scalar, scalar))
        power = _POWER.match(text, closed) if at < len(text) else None
        total = _times(total, _power(value, power[1] or power[2]) if power else value)
        start = at = power.end() if power else closed
    return total


def _power(value: Cells | str | None, power: str) -> Cells | str | None:
    if value is None or isinstance(value, str):
        return None
    if not power.isdigit():
        return (
            [list(column) for column in zip(*value, strict=True)]
            if len({len(row) for row in value}) == 1
            else None
        )
    total: Cells | str | None = value if int(power) else None
    for _ in range(int(power) - 1):
        total = _times(total, value)
    return total


def _times(left: Cells | str | None, right: Cells | str | None) -> Cells | str | None:
    if left is None or right is None:
        return None
    if isinstance(left, str) and isinstance(right, str):
        return f"({left})*({right})" if left != "1" else right
    if isinstance(left, str) or isinstance(right, str):
        scalar, cells = (left, right) if isinstance(left, str) else (right, left)
        return [[f"({scalar})*({cell})" for cell in row] for row in cells] if scalar != "1" else cells
    if any(len(row) != len(right) for row in left) or len({len(row) for row in right}) != 1:
        return None
    columns = list(zip(*right, strict=True))
    product = [
        ["+".join(f"({a})*({b})" for a, b in zip(row, column, strict=True)) for column in columns]
        for row in left
    ]
    return product if max(len(cell) for row in product for cell in row) <= MAX_CELL else None


def _plus(left: Cells | str | None, right: Cells | str | None) -> Cells | str | None:
    if (
        left is None
        or right is None
        or isinstance(left, str)
        or isinstance(right, str)
        or list(map(len, left)) != list(map(len, right))
    ):
        return None
    return [[f"({a})+({b})" for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]
