"""Where the program stands in a completion, and where the input: reasoning left out, the last one counts."""

import re

from jaxrl.verify.answers import without_reasoning

PYTHON = frozenset(("python", "python3", "py"))
MAX_CHARS = 200_000  # of a completion; more is no answer

# A fence closes at the end of a line, so that ``` inside a string of the program does not; one cut off goes on to the end.
_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)(?:```[ \t]*(?=\n|\Z)|\Z)", re.DOTALL)
_OPENS, _CLOSES = re.compile(r"<input>", re.IGNORECASE), re.compile(r"</input>", re.IGNORECASE)


def final_program(text: str) -> tuple[str, bool]:
    """The program of a completion, and whether it stood in a fenced block.

    The last block marked as Python, else the last block, else the whole text, up to a fence that closes what the prompt has
    opened. Spaces at the beginning are kept: they say whether it is a function's body.
    """
    text = without_reasoning(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS:
        return "", False
    text = text.replace("\r\n", "\n")
    blocks = [(mark, block) for mark, block in _FENCE.findall(text) if block.strip()]
    marked = [(mark, block) for mark, block in blocks if mark.lower() in PYTHON]
    if blocks:
        return _trimmed((marked or blocks)[-1][1]), True
    return _trimmed(text.partition("```")[0]), False


def final_input(text: str) -> str | None:
    """What stands between the last `</INPUT>` and the `<INPUT>` before it, or None.

    A line end right behind the first mark and one right before the second do not belong to it; spaces do, wherever they are.
    """
    text = without_reasoning(text[: MAX_CHARS + 1]).replace("\r\n", "\n")
    ends = [match.start() for match in _CLOSES.finditer(text)]
    starts = [match.end() for match in _OPENS.finditer(text, 0, ends[-1])] if ends else []
    if len(text) > MAX_CHARS or not starts:
        return None
    return text[starts[-1] : ends[-1]].removeprefix("\n").removesuffix("\n")


def same_output(expected: str, printed: bytes) -> bool:
    """Whether a program printed what was expected; spaces at line ends, and blank lines and spaces around the whole, do not count."""
    return _lines(expected) == _lines(printed.decode("utf-8", "replace"))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").strip().split("\n")]


def _trimmed(program: str) -> str:
    """Without blank lines before and after; the first line keeps its indentation."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", program).rstrip()
