r"""Whether two answers are alike: their trees (`structure.py`) are compared part by part.

list      the same parts, each as often. In which order matters if the question asks for one (`in_order`).
          If it does not say, any order of a gold list in ascending order will do; of one that is not (10,
          4, -2), its own and the ascending one, as its order may be meant. Parts with names are compared
          by name; where one side has none, in their order.
relation  x = 3 is the value 3, where the left is a name (x, f(2), AB, Area) and all other sides are the
          same value: 41 = 42 is none, |x| = 3 is a condition. Two names must agree. Other equations: each
          other's multiples, with the same unknowns. Without unknowns: side by side. 0 < x \le 1 is (0,
          1], |x - 2| < 3 is (-1, 5); other inequalities are positive multiples. Behind \approx stands
          what the value is when it is rounded: \frac13 \approx 0.333 is 1/3.
leaf      numbers by value, with no other unit of measure; words as written; else expressions as
          functions.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from jaxrl.tasks.math import algebra
from jaxrl.tasks.math.answers import (
    MAX_CHARS,
    Number,
    bare,
    denies,
    is_decimal_comma,
    is_product,
    other_units,
    read_decimal_comma,
    read_number,
)
from jaxrl.tasks.math.expression import GREEK, Unreadable, unknowns
from jaxrl.tasks.math.structure import Group, Leaf, Node, Relation, read

# with the digits of a double or more, a decimal stands for what rounds to it, where values are compared
# (`symbolic`)
DECIMALS = 15


def equal(
    gold: str, answer: str, *, symbolic: bool = False, in_percent: bool = False, in_order: bool = False
) -> bool:
    """Whether the answer is the gold one: the rules are those of this module.

    50 % is 1/2. The plain number 50 is 50 % only where the gold answer has the %, and 50 % is the plain gold
    number 50 only where the question asks for a percentage (`in_percent`). No rounding: 0.333 is not 1/3 (but
    with `symbolic`, see DECIMALS). What is left to be worked out (6*7 for 42) counts only where it is worked
    out (`symbolic`). 2,74 is the gold number 2.74, and no list, as 5,0 stays one for 5: only what is no whole
    number is read so. Answers of more than MAX_CHARS characters are equal to nothing.
    """
    if len(gold) > MAX_CHARS or len(answer) > MAX_CHARS:
        return False
    gold, answer = " ".join(gold.split()), " ".join(answer.split())
    a, b = read_number(gold), read_number(answer)
    if a is not None and b is None and a.value.denominator > 1:
        b = read_decimal_comma(answer)
    elif a is None and b is not None and is_decimal_comma(gold):
        a = read_decimal_comma(gold)
    if a is not None and b is not None and not ("=" in gold and "=" in answer):  # two names must agree
        if same_number(a, b, in_percent):
            return True
        if not symbolic or other_units(a.unit, b.unit):
            return False
    if bare(gold) == bare(answer):
        return True
    return Comparison(symbolic, in_percent, in_order).same(read(gold), read(answer))


@dataclass(frozen=True)
class Comparison:
    """How two trees are compared. symbolic: roots and functions have values. in_percent, in_order: what the
    question asks for.
    """

    symbolic: bool = False
    in_percent: bool = False
    in_order: bool = False
    worked: bool = False  # whether 6*7 may stand for 42 (in a chain that ends with 42)

    def same(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are alike."""
        gold, answer = self.meant(gold, gold), self.meant(answer, gold)
        (name, values), (other, given) = _named(gold), _named(answer)
        if (
            isinstance(gold, Relation)
            and isinstance(answer, Relation)
            and not (name and other and _names_agree(name, other))
        ):
            return self.same_relation(gold, answer)
        if (_is_list(gold) or _is_list(answer)) and (name or other):
            gold, answer = _spread(gold), _spread(answer)
            (name, values), (other, given) = _named(gold), _named(answer)
        if name or other:
            if len(given) > 1:
                return self.chain(values[-1], given)
            return self.same(values[-1], given[0])
        if isinstance(answer, Relation) and not _as_range(answer):
            return set(answer.signs) == {"="} and self.chain(gold, answer.sides)
        gold, answer = _as_range(gold) or gold, _as_range(answer) or answer
        if isinstance(gold, Leaf) and isinstance(answer, Leaf):
            return self.same_leaf(gold, answer)
        if _is_list(gold) or _is_list(answer):
            return self.same_list(gold, answer)
        if not isinstance(gold, Group) or not isinstance(answer, Group):
            return False
        alike = (gold.kind, gold.brackets, len(gold.parts)) == (
            answer.kind,
            answer.brackets,
            len(answer.parts),
        )
        if (
            not alike
            or (gold.joiner and answer.joiner and gold.joiner != answer.joiner)
            or (gold.joiner and not answer.joiner)
        ):
            return False
        if gold.kind == "union":
            return self.matched(gold.parts, answer.parts)
        return all(map(self.same, gold.parts, answer.parts))

    def meant(self, node: Node, gold: Node) -> Node:
        """Of one value in two forms, 15\\frac{39}{40} or \\frac{639}{40}, the first; of one with its rounded
        value, the one that the gold answer is of; of matrices that are left to be worked out, the one that
        they are.
        """
        if isinstance(node, Group) and node.kind == "arithmetic" and (self.symbolic or self.worked):
            return replace(node, kind="matrix")
        if isinstance(node, Relation) and node.signs[-1] == "≈" and set(node.signs[:-1]) <= {"="}:
            return self.without_rounding(node, gold)
        if isinstance(node, Group) and node.kind == "list" and node.joiner == "or":
            first, *others = node.parts
            if all(self.same(first, other) for other in others):
                return first
        return node

    def without_rounding(self, node: Relation, gold: Node) -> Node:
        """Of \\frac13 \\approx 0.333 the \\frac13; the 0.333, if that is the gold answer; of x \\approx 3.14,
        a gold one or for 3.14, x = 3.14.
        """
        *exact, last = node.sides
        decimal = last.text.strip() if isinstance(last, Leaf) else ""
        is_of_gold = node is gold or (
            isinstance(gold, Leaf) and _DECIMAL.fullmatch(gold.text.strip()) and "." in gold.text
        )
        values = exact[bool(_name(exact[0])) :]
        if not values:
            return Relation(node.sides, "=") if is_of_gold else node
        if not _DECIMAL.fullmatch(decimal) or not self.are_rounded(values, decimal):
            return node
        if node is not gold and is_of_gold:
            return last
        return Relation(tuple(exact), node.signs[:-1]) if len(exact) > 1 else exact[0]

    def are_rounded(self, values: Iterable[Node], decimal: str) -> bool:
        """Whether all are this decimal when they are cut or rounded to its digits."""
        try:
            for value in values:
                if (
                    not isinstance(value, Leaf)
                    or not (self.symbolic or value.is_number)
                    or unknowns(value.expression)
                ):
                    return False
                if not algebra.rounds_to(value.expression, decimal, self.symbolic, cut=True):
                    return False
        except Unreadable:
            return False
        return True

    def chain(self, gold: Node, sides: Sequence[Node]) -> bool:
        """Whether all sides are the gold value: of 6*7 = 42, both."""
        working = Comparison(self.symbolic, self.in_percent, self.in_order, worked=True)
        return self.same(gold, sides[-1]) and all(working.same(gold, side) for side in sides[:-1])

    # -------------------------------------------------------------------------------------------------- lists

    def same_list(self, gold: Node, answer: Node) -> bool:
        golds, answers = _parts(gold), _parts(answer)
        if len(golds) != len(answers):
            return False
        named, given = _by_name(golds), _by_name(answers)
        if isinstance(named, dict) and isinstance(given, dict):
            return all(
                any(_names_agree(name, other) and self.same(named[name], given[other]) for other in given)
                for name in named
            )
        if isinstance(named, dict) or isinstance(given, dict):
            unnamed = answers if isinstance(named, dict) else golds
            return not any(_named(part)[0] for part in unnamed) and all(
                map(self.same, _values(named), _values(given))
            )
        if self.in_order:
            return all(map(self.same_part, named, given))
        if not self.matched(named, given):
            return False
        is_set = isinstance(gold, Group) and gold.kind == "set"
        return is_set or _ascends(named) or _ascends(given) or all(map(self.same_part, named, given))

    def same_part(self, gold: Node, answer: Node) -> bool:
        """As `same`, but that a set is no other part: \\{2\\} is 2 only where it stands alone."""
        is_set = [isinstance(node, Group) and node.kind == "set" for node in (gold, answer)]
        return is_set[0] == is_set[1] and self.same(gold, answer)

    def matched(self, golds: Iterable[Node], answers: Iterable[Node]) -> bool:
        """Each with one of the others, and none left."""
        left = list(answers)
        for gold in golds:
            found = next((i for i, answer in enumerate(left) if self.same_part(gold, answer)), None)
            if found is None:
                return False
            del left[found]
        return not left

    # ---------------------------------------------------------------------------------------------- relations

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
        sides = gold.sides + answer.sides
        are_leaves = all(isinstance(side, Leaf) for side in sides)
        if len(sides) > 4 or gold.signs not in "=≠<≤" or not are_leaves:
            return False
        try:
            sides = [tuple(side.expression for side in relation.sides) for relation in (gold, answer)]
            if not unknowns(sides[0]) or unknowns(sides[0]) != unknowns(sides[1]):
                return False
            return algebra.same_relation(*sides, symbolic=self.symbolic, is_equation=is_equation)
        except Unreadable:
            return False

    # ------------------------------------------------------------------------------------------------- leaves

    def same_leaf(self, gold: Leaf, answer: Leaf) -> bool:
        a, b = gold.number, answer.number
        if a is not None and b is not None:
            return same_number(a, b, self.in_percent) or (
                self.symbolic and (_rounds_to(gold, answer) or _rounds_to(answer, gold))
            )
        if other_units(gold.unit, answer.unit):
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


_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def _rounds_to(leaf: Leaf, other: Leaf) -> bool:
    """Whether a decimal of many digits is what the other rounds to."""
    digits = re.fullmatch(r"-?([0-9]+)\.([0-9]+)", leaf.text.strip())
    if digits is None or len((digits[1] + digits[2]).lstrip("0")) < DECIMALS:
        return False
    try:
        node = other.expression
        return not unknowns(node) and algebra.rounds_to(node, leaf.text.strip())
    except Unreadable:
        return False


def same_number(gold: Number, answer: Number, in_percent: bool) -> bool:
    """By value; of a percentage, see `answers.equal`. Other units of measure make other numbers."""
    if other_units(gold.unit, answer.unit):
        return False
    if gold.is_percent and not answer.is_percent:
        return answer.value in (gold.value, gold.value * 100)
    if answer.is_percent and not gold.is_percent and in_percent:
        return answer.value * 100 == gold.value
    return gold.value == answer.value


# ------------------------------------------------------------------------------------------------------ names

_LETTER = rf"(?:(?![ei](?![_(']))[A-Za-z]|\\(?!pi)(?:{'|'.join(sorted(GREEK))}))"
_SUB = r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*"
_POINTS = (
    rf"(?:m?\\(?:angle|triangle|overline|vec|overrightarrow|widehat|measuredangle)\{{?)?[A-Z]+{_SUB}\}}?"
)
_ONE_NAME = (
    rf"(?:\|{_POINTS}\||{_POINTS}|\\vec\{{?[a-z]\}}?"
    r"|\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?2\}?)?\(?(?:\\angle)?(?:[A-Z]+|\\(?!pi)[a-z]+)\)?"
    rf"|{_LETTER}{_SUB}(?:\^\{{?-1\}}?)?(?:\([^()=<>]{{0,20}}\))?)"
)
_NAME = re.compile(rf"{_ONE_NAME}(?:[:/]{_ONE_NAME})*|\\frac\{{{_ONE_NAME}\}}\{{{_ONE_NAME}\}}")
_LABEL = re.compile(r"[A-Za-z\"][A-Za-z'’\" ]*[a-z]{2}[A-Za-z'’\" ]*")
_FLIPPED = str.maketrans("<>≤≥", "><≥≤")


def _named(node: Node) -> tuple[str, tuple[Node, ...]]:
    """The name that a node gives to a value, and the sides behind it; ("", (node,)) if it gives none."""
    if isinstance(node, Relation) and set(node.signs) == {"="}:
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
    if is_product(text):
        return ""
    if _LABEL.fullmatch(text) and not denies(text):
        return "label"
    text = text.replace(" ", "").replace('"', "")
    return text.replace("{", "").replace("}", "") if _NAME.fullmatch(text) else ""


def _spread(node: Node) -> Node:
    """Of (x, y) = (1, 2), the list x = 1, y = 2."""
    if isinstance(node, Relation) and node.signs == "=":
        names, values = node.sides
        if (
            isinstance(names, Group)
            and isinstance(values, Group)
            and len(names.parts) == len(values.parts)
            and _name(names)
        ):
            return Group(
                "list", tuple(Relation(pair, "=") for pair in zip(names.parts, values.parts, strict=True))
            )
    return node


def _names_agree(name: str, other: str) -> bool:
    """The same name; a label in words agrees with any, and y with a function's."""
    return (
        name == other or "label" in (name, other) or ({name, other} & {"y"} != set() and "(" in name + other)
    )


def _is_list(node: Node) -> bool:
    return isinstance(node, Group) and node.kind in ("list", "set")


def _parts(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Group) and _is_list(node) else (node,)


def _by_name(parts: Sequence[Node]) -> dict[str, Node] | list[Node]:
    """The values by their names, if they have several names; else the values, without the one name that they
    have.
    """
    names = [_named(part) for part in parts]
    if len(parts) > 1 and all(name for name, _ in names) and len({name for name, _ in names}) == len(parts):
        return (
            {name: values[-1] for name, values in names}
            if all(len(values) == 1 for _, values in names)
            else list(parts)
        )
    if names and names[0][0] and all(name in (names[0][0], "") for name, _ in names):
        return [
            values[-1] if len(values) == 1 else part for (_, values), part in zip(names, parts, strict=True)
        ]
    return list(parts)


def _values(parts: dict[str, Node] | list[Node]) -> list[Node]:
    return list(parts.values()) if isinstance(parts, dict) else parts


def _ascends(parts: list[Node]) -> bool:
    """Whether numbers, or words, stand in ascending order; of other parts there is none that could be
    meant.
    """
    if not all(isinstance(part, Leaf) for part in parts):
        return True
    numbers = [part.number.value for part in parts if part.number is not None]
    if len(numbers) == len(parts):
        return numbers == sorted(numbers)
    words = [part.text.strip(' "') for part in parts]
    return not all(re.fullmatch("[A-Za-z]+", word) for word in words) or words == sorted(words)


# ----------------------------------------------------------------------------------------------------- ranges

_LEAST, _MOST = Leaf("-∞"), Leaf("∞")
_EVERYTHING = Group("brackets", (_LEAST, _MOST), "()")


def _ascending(relation: Relation) -> Relation:
    """With < instead of >."""
    if relation.signs[0] in ">≥":
        return Relation(relation.sides[::-1], relation.signs[::-1].translate(_FLIPPED))
    return relation


def _range_name(relation: Relation) -> str:
    sides = _ascending(relation).sides
    return next((name for name in map(_name, sides) if name), "") or next(
        (line[0] for line in map(_between_bars, sides) if line), ""
    )


def _as_range(node: Node) -> Group | None:
    """The interval, or the union of intervals, that an inequality with one name says."""
    if isinstance(node, Group) and node.kind == "list" and node.joiner == "or":
        parts = [_as_range(part) for part in node.parts if isinstance(part, Relation)]
        names = {_range_name(part) for part in node.parts if isinstance(part, Relation) and _as_range(part)}
        return (
            Group("union", tuple(parts))
            if len(parts) == len(node.parts) and all(parts) and len(names) == 1
            else None
        )
    if node == Leaf("ℝ"):
        return _EVERYTHING
    if not isinstance(node, Relation):
        return None
    node = _ascending(node)
    lines = [_between_bars(side) for side in node.sides]
    names = [bool(line or _name(side)) for line, side in zip(lines, node.sides, strict=True)]
    if sum(names) != 1 or len(names) > 3 or not set(node.signs) <= set("<≤≠"):
        return None
    at = names.index(True)
    if node.signs == "≠":
        value = node.sides[not at]
        return None if lines[at] else _union(_interval(_LEAST, value, "<<"), _interval(value, _MOST, "<<"))
    if "≠" in node.signs or (len(names) == 3 and not names[1]):
        return None
    low, high = node.sides[0] if at else None, node.sides[-1] if at < len(names) - 1 else None
    below, above = node.signs[0] if at else "<", node.signs[-1] if high else "<"
    if lines[at]:
        return _absolute(lines[at], low, high, below, above)
    return _interval(low or _LEAST, high or _MOST, below + above)


def _interval(low: Node, high: Node, signs: str) -> Group:
    return Group(
        "brackets", (low, high), ("[" if signs[0] == "≤" else "(") + ("]" if signs[1] == "≤" else ")")
    )


def _union(*parts: Group) -> Group:
    return Group("union", parts)


_BARS = re.compile(r"\|([^|]+)\|")


def _between_bars(node: Node) -> tuple[str, Fraction, Fraction] | None:
    """Of |2x - 3| the name and the factor and the rest: x, 2, -3."""
    bars = _BARS.fullmatch(node.text.strip()) if isinstance(node, Leaf) else None
    try:
        line = algebra.line(Leaf(bars[1]).expression) if bars else None
    except Unreadable:
        return None
    return line if line and line[0].islower() else None


def _absolute(
    line: tuple[str, Fraction, Fraction], low: Node | None, high: Node | None, below: str, above: str
) -> Group | None:
    """The interval that |k x + c| < high says of x, or the two of low < |k x + c|."""
    _, slope, rest = line
    ends = [_around(end, slope, rest) for end in (low, high) if end is not None]
    if not all(ends):
        return None
    if low is None:
        return _interval(*ends[0], above + above)
    inner, outer = ends[0], ends[1] if high else (_LEAST, _MOST)
    left = _interval(outer[0], inner[0], above + below)
    right = _interval(inner[1], outer[1], below + above)
    return _union(left, right)


def _around(end: Node, slope: Fraction, rest: Fraction) -> tuple[Leaf, Leaf] | None:
    """Where |k x + c| is the end: left and right."""
    if not isinstance(end, Leaf):
        return None
    if end.number is not None:
        if end.number.value <= 0 or end.number.unit or end.number.is_percent:
            return None
        lower, upper = sorted(((-end.number.value - rest) / slope, (end.number.value - rest) / slope))
        return Leaf(str(lower)), Leaf(str(upper))
    return (Leaf(f"-({end.text})"), end) if abs(slope) == 1 and not rest and not _name(end) else None
