"""How long functions may be. (What a line may hold, and how it is written, is for ruff to say.)"""

import ast
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "jaxrl"
# of train/: a stage from its first line to its last, to be read from top to bottom
STORIES = {"sft", "rsft", "rl", "evaluation"}


def test_functions_are_short():
    too_long = []
    for path in sorted(LIBRARY.rglob("*.py")):
        name = str(path.relative_to(LIBRARY).with_suffix(""))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                limit = 80 if name.startswith("train/") and node.name in STORIES else 60
                if lines > limit:
                    too_long.append(
                        f"{name}.py, line {node.lineno}: {node.name} has {lines} of {limit} lines"
                    )
    assert too_long == []
