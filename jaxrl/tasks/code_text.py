"""Where the program stands in a completion, and where the input: reasoning left out, the last one counts."""

import re

from jaxrl.verify.answers import without_end, without_reasoning

PYTHON = frozenset(("python", "python3", "py"))
MAX_CHARS = 200_000  # of a completion; more is no answer

# Indentation, mark, block. A fence closes at the end of a line, so that ``` inside a string of the program does not; one cut off
# goes on to the end. Possessive, since what matches here matches in one way only, and a line may be long.
_FENCE = re.compile(r"(?m:^([ \t]*+))?```[ \t]*+([\w+#.-]*+)[^\n`]*+\n(.*?)(?:```[ \t]*+(?=\n|\Z)|\Z)", re.DOTALL)
_FENCED = re.compile(r"\s*+```[^\n`]*+\n(.*)```\s*", re.DOTALL)
_OPENS, _CLOSES = re.compile(r"<input>", re.IGNORECASE), re.compile(r"</input>", re.IGNORECASE)


def final_program(text: str, name: str = "") -> tuple[str, bool]:
    """The program of a completion, and whether it stood in a fenced block.

    The last block that defines `name`, where one is asked for: behind it there may be examples of its use. Else the last block;
    both times one marked as Python, if there is one. Else the whole text, up to a fence that closes what the prompt has opened.
    Tokens that end a text (`<|im_end|>`) do not belong to it.
    A block loses the indentation of its fence, as in a list, and keeps the rest, which says whether it is a function's body.
    """
    text = without_reasoning(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS:
        return "", False
    text = without_end(text).replace("\r\n", "\n")
    found = sorted(_FENCE.findall(text), key=lambda fence: fence[1].lower() in PYTHON)
    blocks = [_outdented(block, len(indent)) for indent, _, block in found if block.strip()]
    if not blocks:
        return _trimmed(text.partition("```")[0]), False
    defining = [block for block in blocks if name and definition(name).search(block)]
    return _trimmed((defining or blocks)[-1]), True


def definition(name: str) -> re.Pattern[str]:
    """Finds where a source defines `name`: a function, also one of a class, or a class, or an assignment."""
    name = re.escape(name)
    return re.compile(rf"^[ \t]*+(?:async[ \t]+def|def|class)[ \t]+{name}\b|^{name}[ \t]*=", re.MULTILINE)


def final_input(text: str) -> str | None:
    """What stands between the last `</INPUT>` and the `<INPUT>` before it, or None.

    A line end right behind the first mark and one right before the second do not belong to it, nor does a fence around all of
    it; spaces do, wherever they are.
    """
    text = without_reasoning(text[: MAX_CHARS + 1]).replace("\r\n", "\n")
    ends = [match.start() for match in _CLOSES.finditer(text)]
    starts = [match.end() for match in _OPENS.finditer(text, 0, ends[-1])] if ends else []
    if len(text) > MAX_CHARS or not starts:
        return None
    inner = text[starts[-1] : ends[-1]]
    fenced = _FENCED.fullmatch(inner)
    return fenced[1].removesuffix("\n") if fenced else inner.removeprefix("\n").removesuffix("\n")


def same_output(expected: str, printed: bytes) -> bool:
    """Whether a program printed what was expected; spaces at line ends, and blank lines and spaces around the whole, do not count."""
    return _lines(expected) == _lines(printed.decode("utf-8", "replace"))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").strip().split("\n")]


def _outdented(block: str, width: int) -> str:
    """Without the indentation that its lines have in common, at most `width` of it."""
    lines = block.split("\n")
    width = min([width, *(len(line) - len(line.lstrip(" \t")) for line in lines if line.strip())])
    return "\n".join(line[width:] for line in lines)


def _trimmed(program: str) -> str:
    """Without blank lines before and after; the first line keeps its indentation."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", program).rstrip()
