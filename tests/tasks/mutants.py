"""Broken versions of right functions, made on the syntax tree: the body removed, a constant changed, a bound
off by one.
"""

import ast
import copy
from collections.abc import Iterator

SWAPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
KINDS = ("body", "constant", "bound")


def mutants(source: str, name: str, kind: str) -> Iterator[str]:
    """All mutants of one kind of the function `name`, as whole sources."""
    for number in range(1 if kind == "body" else 1000):
        tree = ast.parse(source)
        function = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name][-1]
        if not {"body": _without_body, "constant": _change_constant, "bound": _move_bound}[kind](
            function, number
        ):
            return
        yield ast.unparse(ast.fix_missing_locations(tree))


def _code(function: ast.FunctionDef) -> list[ast.AST]:
    """All nodes but the docstring's."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return [node for statement in body for node in ast.walk(statement)]


def _without_body(function: ast.FunctionDef, number: int) -> bool:
    function.body = [ast.Pass()]
    return True


def _change_constant(function: ast.FunctionDef, number: int) -> bool:
    found = [
        node
        for node in _code(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str))
    ]
    if number < len(found):
        value = found[number].value
        found[number].value = (
            not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 1
        )
    return number < len(found)


def _move_bound(function: ast.FunctionDef, number: int) -> bool:
    """A comparison that takes in its border or not, or one more round of a range, or one added to what is
    returned.
    """
    nodes = _code(function)
    compares = [node for node in nodes if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED]
    ranges = [
        node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range"
    ]
    returns = [node for node in nodes if isinstance(node, ast.Return) and node.value is not None]
    found = compares + ranges + returns
    if number < len(found):
        node = found[number]
        if isinstance(node, ast.Compare):
            node.ops[0] = SWAPPED[type(node.ops[0])]()
        elif isinstance(node, ast.Call):
            last = min(len(node.args), 2) - 1
            node.args[last] = _plus_one(node.args[last])
        else:
            node.value = _plus_one(node.value)
    return number < len(found)


def _plus_one(value: ast.expr) -> ast.expr:
    return ast.BinOp(copy.deepcopy(value), ast.Add(), ast.Constant(1))
