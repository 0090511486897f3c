"""Python sources as `ast` sees them: whether they are programs, where they end being one, what they lack.

Sources of models are parsed, never executed. How much is parsed is bounded, since parsing takes time.
"""

import ast
import builtins
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MAX_PARSED = 100_000  # characters, of all attempts at one source together: some 0.3 s
MAX_DIGITS = 100_000  # of an integer: reading one takes time quadratic in its digits

# What LeetCode's judge has imported ahead of a `class Solution`, in the order in which a name is looked for.
PRELUDE = tuple(
    "collections typing math heapq bisect itertools functools operator string re random copy datetime "
    "statistics json io sys time".split()
)
GIVEN = {
    "ListNode": (
        "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next"
    ),
    "TreeNode": (
        "class TreeNode:\n    def __init__(self, val=0, left=None, right=None):\n"
        "        self.val, self.left, self.right = val, left, right"
    ),
}
EVERYWHERE = frozenset((*dir(builtins), "__file__", "__builtins__", "__annotations__"))
MAX_ROUNDS = 10
# what `ast.parse` raises for what is no Python
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


@contextmanager
def long_integers() -> Iterator[None]:
    """Inside, integers may have MAX_DIGITS decimal digits; Python's own limit is 4,300."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(MAX_DIGITS)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def parse(source: str) -> ast.Module:
    """The tree. Raises one of UNREADABLE."""
    with long_integers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a model's "\d" nobody wants to hear
        return ast.parse(source)


def parsed(source: str) -> ast.Module | None:
    """The tree, also of a function's body (indented from its first line on), or None where it is no Python,
    or too long to be seen.
    """
    if len(source) > MAX_PARSED:
        return None
    try:
        return parse(f"if 1:\n{source}" if source[:1] in (" ", "\t") else source)
    except UNREADABLE:
        return None


def is_program(source: str) -> bool:
    """Whether it is Python that does something, from its first statement on. A word or `Note: this` are
    Python too, and do nothing.
    """
    tree = parsed(source)
    if tree is None:
        return False
    first = tree.body[0] if tree.body else None
    body = first.body if source[:1] in (" ", "\t") and isinstance(first, ast.If) else tree.body
    return any(map(_acts, body)) and (_acts(body[0]) or ast.get_docstring(ast.Module(body, [])) is not None)


def returns(source: str) -> bool:
    """Whether it is Python that returns outside of all functions: a body without its indentation."""
    tree = parsed(source)
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    outside = (
        [statement for statement in tree.body if not isinstance(statement, inner)] if tree is not None else []
    )
    return any(isinstance(node, ast.Return) for statement in outside for node in ast.walk(statement))


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return statement.value is not None
    return not isinstance(statement, ast.Expr) or any(
        isinstance(node, ast.Call) for node in ast.walk(statement)
    )


def longest_program(source: str, least: int = 0) -> str | None:
    """The source up to one of its lines without indentation, as far as that is Python; None if that is no
    more than `least` lines.

    For a text that goes on behind its program: with prose, or with a function that is cut off.
    """
    if source[:1] in (" ", "\t"):
        body = longest_program(f"if 1:\n{source}", least=1)
        return body and body.removeprefix("if 1:\n")
    lines, left = source.split("\n"), MAX_PARSED
    while lines:
        text = "\n".join(lines)
        left -= len(text)
        if left < 0:
            return None
        try:
            parse(text)
            return text
        except SyntaxError as error:
            end = min(error.lineno or 1, len(lines))
        except UNREADABLE:
            return None
        starts = (
            number
            for number in range(end - 1, least, -1)
            if lines[number].strip() and lines[number][0] not in " \t"
        )
        lines = lines[: next(starts, 0)]
    return None


# ------------------------------------------------------------------------------------------------------ names


def names_of(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Names that are used, and names that are bound somewhere, but for those that an `import *` binds.

    These seem to be lacking. What is then put ahead of the source does no harm: its own import comes later,
    and binds them anew.
    """
    used, bound = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.add(node.rest)
    return used - EVERYWHERE, bound


def lacking(source: str) -> set[str]:
    """The names that a program uses and nowhere binds."""
    tree = None if source[:1] in (" ", "\t") else parsed(source)
    used, bound = names_of(tree) if tree is not None else (set(), set())
    return used - bound


def with_helpers(source: str, others: list[str]) -> str:
    """The source, ahead of it what it lacks and the others define: functions, classes, imports, constants.

    others: the nearest first.
    """
    missing = lacking(source)
    provided: set[str] = set(names_of(parse(source))[1]) if missing else set()
    helpers: list[str] = []
    for other in others if missing else ():
        tree, lines = parsed(other), other.split("\n")
        found: dict[int, ast.stmt] = {}  # by place
        for _ in range(MAX_ROUNDS):  # a helper has helpers, ahead of it or behind it
            before = len(found)
            for place, statement in enumerate(tree.body if tree is not None else ()):
                if place not in found and (names := _defined(statement) & missing):
                    used, bound = names_of(statement)
                    found[place] = statement
                    provided |= names
                    missing = (missing | used - bound) - provided
            if len(found) == before:
                break
        if found:  # they may use what its `import *` binds
            found |= {
                place: statement for place, statement in enumerate(tree.body) if _defined(statement) == {"*"}
            }
        helpers = [_source(found[place], lines) for place in sorted(found)] + helpers
    return behind_future("\n".join(helpers), source)


def _source(statement: ast.stmt, lines: list[str]) -> str:
    first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", []))])
    return "\n".join(lines[first - 1 : statement.end_lineno])


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if (
        isinstance(statement, (ast.Import, ast.ImportFrom))
        and getattr(statement, "module", None) != "__future__"
    ):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
        return {
            node.id
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
    return set()


def with_prelude(source: str) -> str:
    """The source of a function that is to be called, ahead of it the imports that its judge has made.

    A `class Solution` is written for LeetCode, where PRELUDE is imported and ListNode and TreeNode are given.
    A plain function gets what its annotations take from `typing`: it repeats the signature that it was asked
    for.
    """
    missing = lacking(source)
    if not missing:
        return source
    tree = parse(source)
    if any(isinstance(node, ast.ClassDef) and node.name == "Solution" for node in tree.body):
        modules = PRELUDE
    else:
        modules, missing = ("typing",), missing & _annotating(tree)
    return behind_future(
        "\n".join(filter(None, (_import(name, modules) for name in sorted(missing)))), source
    )


def _annotating(tree: ast.Module) -> set[str]:
    annotations = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    return {
        node.id
        for annotation in annotations
        if annotation
        for node in ast.walk(annotation)
        if isinstance(node, ast.Name)
    }


def _import(name: str, modules: tuple[str, ...]) -> str:
    """How a name is bound by these modules, or nothing. A name that is one of them is the module."""
    if name in modules:
        return f"import {name}"
    for module in modules:
        if not name.startswith("_") and hasattr(importlib.import_module(module), name):
            return f"from {module} import {name}"
    return GIVEN.get(name, "") if modules is PRELUDE else ""


def behind_future(header: str, source: str) -> str:
    """The header ahead of a source, but behind imports from `__future__`, which Python wants to be first."""
    if not header:
        return source
    future, rest = future_imports(source)
    return f"{future}{header}\n{rest}"


def future_imports(source: str) -> tuple[str, str]:
    """What of a source ends with its imports from `__future__`, and the rest."""
    if "__future__" not in source:
        return "", source
    try:
        body = parse(source).body
    except UNREADABLE:  # it will fail where it is run, and there say why
        return "", source
    future = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    first = body[1:] if ast.get_docstring(ast.Module(body, [])) is not None else body
    if not future or first[: len(future)] != future:  # those that come later are an error, and stay one
        return "", source
    lines = source.split("\n")
    return "\n".join([*lines[: future[-1].end_lineno], ""]), "\n".join(lines[future[-1].end_lineno :])


def imported(source: str) -> set[str]:
    """The packages that a source imports, also in functions, but for those it can do without (`try`)."""
    found: set[str] = set()
    todo: list[ast.AST] = [parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif not isinstance(node, ast.Try):
            todo += ast.iter_child_nodes(node)
    return found
