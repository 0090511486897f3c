r"""Whether two answers are alike: their trees (`structure.py`) are compared part by part.

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
from dataclasses import dataclass

from jaxrl.verify import algebra
from jaxrl.verify.answers import MAX_CHARS, Number, bare, denies, read_number
from jaxrl.verify.expression import GREEK, Unreadable, unknowns
from jaxrl.verify.structure import Group, Leaf, Node, Relation, read

DECIMALS = 15  # with the digits of a double or more, a decimal stands for what rounds to it, where values are compared (`symbolic`)


def equal(gold: str, answer: str, *, symbolic: bool = False, in_percent: bool = False, in_order: bool = False) -> bool:
    """Whether the answer is the gold one: the rules are those of this module.

    50 % is 1/2. The plain number 50 is 50 % only where the gold answer has the %, and 50 % is the plain gold number 50 only
    where the question asks for a percentage (`in_percent`). No rounding: 0.333 is not 1/3 (but with `symbolic`, see DECIMALS).
    What is left to be worked out (6*7 for 42) counts only where it is worked out (`symbolic`). Answers of more than MAX_CHARS
    characters are equal to nothing.
    """
    if len(gold) > MAX_CHARS or len(answer) > MAX_CHARS:
        return False
    a, b = read_number(gold), read_number(answer)
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
    """How two trees are compared. symbolic: roots and functions have values. in_percent, in_order: what the question asks for."""

    symbolic: bool = False
    in_percent: bool = False
    in_order: bool = False
    worked: bool = False  # whether 6*7 may stand for 42 (in a chain that ends with 42)

    def same(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are alike."""
        gold, answer = self.only_way(gold), self.only_way(answer)
        (name, values), (other, given) = _named(gold), _named(answer)
        if isinstance(gold, Relation) and isinstance(answer, Relation) and not (name and other and _names_agree(name, other)):
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
        alike = (gold.kind, gold.brackets, len(gold.parts)) == (answer.kind, answer.brackets, len(answer.parts))
        if not alike or (gold.joiner and answer.joiner and gold.joiner != answer.joiner) or (gold.joiner and not answer.joiner):
            return False
        if gold.kind == "union":
            return self.matched(gold.parts, answer.parts)
        return all(map(self.same, gold.parts, answer.parts))

    def only_way(self, node: Node) -> Node:
        """Of one value in two forms, 15\\frac{39}{40} or \\frac{639}{40}, the first."""
        if isinstance(node, Group) and node.kind == "list" and node.joiner == "or":
            first, *others = node.parts
            if all(self.same(first, other) for other in others):
                return first
        return node

    def chain(self, gold: Node, sides: Sequence[Node]) -> bool:
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
        if not self.matched(named, given):
            return False
        is_set = isinstance(gold, Group) and gold.kind == "set"
        return is_set or _ascends(named) or _ascends(given) or all(map(self.same, named, given))

    def matched(self, golds: Iterable[Node], answers: Iterable[Node]) -> bool:
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
        sides = gold.sides + answer.sides
        if len(sides) > 4 or gold.signs not in "=≠<≤" or not all(isinstance(side, Leaf) for side in sides):
            return False
        try:
            sides = [tuple(side.expression for side in relation.sides) for relation in (gold, answer)]
            if not unknowns(sides[0]) or unknowns(sides[0]) != unknowns(sides[1]):
                return False
            return algebra.same_relation(*sides, symbolic=self.symbolic, is_equation=is_equation)
        except Unreadable:
            return False

    # ------------------------------------------------------------------------------------------------------------ leaves

    def same_leaf(self, gold: Leaf, answer: Leaf) -> bool:
        a, b = gold.number, answer.number
        if a is not None and b is not None:
            return same_number(a, b, self.in_percent) or (self.symbolic and (_rounds_to(gold, answer) or _rounds_to(answer, gold)))
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


def _rounds_to(leaf: Leaf, other: Leaf) -> bool:
    """Whether a decimal of many digits is what the other rounds to."""
    digits = re.fullmatch(r"-?([0-9]+)\.([0-9]+)", leaf.text.strip())
    if digits is None or len((digits[1] + digits[2]).lstrip("0")) < DECIMALS:
        return False
    try:
        node = other.expression
        return not unknowns(node) and algebra.rounds_to(node, leaf.text.strip(), len(digits[2]))
    except Unreadable:
        return False


def other_units(unit: str, other: str) -> bool:
    """Whether both are units of measure, and not the same."""
    return bool(unit and other) and unit != other


def same_number(gold: Number, answer: Number, in_percent: bool) -> bool:
    """By value; of a percentage, see `answers.equal`. Other units of measure make other numbers."""
    if other_units(gold.unit, answer.unit):
        return False
    if gold.is_percent and not answer.is_percent:
        return answer.value in (gold.value, gold.value * 100)
    if answer.is_percent and not gold.is_percent and in_percent:
        return answer.value * 100 == gold.value
    return gold.value == answer.value


# ------------------------------------------------------------------------------------------------------------------ names

_LETTER = rf"(?:(?![ei](?![_(']))[A-Za-z]|\\(?!pi)(?:{'|'.join(sorted(GREEK))}))"
_SUB = r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*"
_POINTS = rf"(?:m?\\(?:angle|triangle|overline|vec|overrightarrow|widehat|measuredangle)\{{?)?[A-Z]+{_SUB}\}}?"
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
