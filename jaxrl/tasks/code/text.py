"""Where the program stands in a completion, and where the input; and whether two outputs are the same.

Reasoning is left out everywhere. Blocks are those of CommonMark: a fence of three or more backticks or
tildes, closed by one that stands alone on its line, is at least as long, and is indented by at most three
more spaces. Where what a fence encloses is no Python, the fence may be part of the program, or closed
carelessly: then the other ends that it could have are tried.
"""

import decimal
import html
import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from jaxrl.tasks.code.names import MAX_PARSED, is_program, longest_program, parsed, with_helpers
from jaxrl.tasks.math.answers import without_end, without_reasoning

PYTHON = frozenset(("python", "python3", "py", "py3", "pypy", "pypy3"))
MARKDOWN = frozenset(("markdown", "md"))
MAX_CHARS = 200_000  # of a completion; more is no answer
MAX_ENDS = 8  # of a block, that are tried
MAX_STARTS = 8  # of a program amid prose

# also behind a list's mark
_FENCE = re.compile(r"([ \t]*+(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]++)?)(`{3,}+|~{3,}+)[ \t]*+(.*+)")
_LANGUAGE = re.compile(r"\{?\.?([\w+#-]*)")
# a line of a program
_BEGINS = re.compile(r"(?:import|from|def|class|async|if|for|while|try|with)\b|@\w|print\(|[A-Za-z_][\w, ]*=")
_FENCED = re.compile(r"\s*+(`{3,}+|~{3,}+)[^\n`]*+\n(.*)\1\s*", re.DOTALL)
_QUOTED, _QUOTE = (
    re.compile(r"^ {0,3}> ?(?:```|~~~)", re.MULTILINE),
    re.compile(r"^ {0,3}>(?!>>) ?", re.MULTILINE),
)
_PRE = re.compile(
    r"<pre\b[^<>]{0,200}>\s{0,9}(?:<code\b[^<>]{0,200}>)?|(?:</code>\s{0,9})?(</pre>)", re.IGNORECASE
)
_SPAN = re.compile(r"\s*(`{1,3})([^`]+)\1\s*")
_OPENS, _CLOSES = re.compile(r"<input>", re.IGNORECASE), re.compile(r"</input>", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------------- program


@dataclass(frozen=True)
class Fence:
    """A line that may open a block, or close one where nothing stands behind its mark, and nothing but blanks
    (`indent`) before it.
    """

    line: int
    indent: str
    mark: str
    info: str

    def closes(self, opening: "Fence") -> bool:
        return (
            not (self.info or self.indent.strip())
            and self.mark[0] == opening.mark[0]
            and len(self.mark) >= len(opening.mark)
            and len(self.indent.expandtabs(4)) <= len(opening.indent.expandtabs(4)) + 3
        )


@dataclass(frozen=True)
class Block:
    """A program, as it stands in a text. is_fenced: not opened by the prompt."""

    program: str
    is_python: bool
    is_fenced: bool = True

    def answers(self, name: str) -> bool:
        """Whether it defines `name`, or is a body, which defines what the prompt has begun."""
        return bool(definition(name).search(self.program)) or (
            not self.is_fenced and self.program[:1] in (" ", "\t")
        )


def final_program(text: str, name: str = "") -> tuple[str, bool]:
    """The program of a completion, and whether it stood in a fenced block.

    A text that begins as a program goes on from a prompt that has opened the block: it is the answer, up to
    the fence that closes it, unless `name` is asked for, and only a later block defines it. Else the last
    block that defines `name`: behind it there may be examples of its use. Else the last block; both times one
    marked as Python, if there is one. Without a block, the part of the text that is a program, or stands in
    other marks than fences, or else all of it. What the program lacks and another block defines is put ahead
    of it.

    Tokens that end a text (`<|im_end|>`) do not belong to it. A block loses the indentation of its fence, as
    in a list, and keeps the rest, which says whether it is a function's body.
    """
    text = without_reasoning(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS:
        return "", False
    lines = without_end(text).removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    fences = list(_fences(lines))
    blocks = list(_blocks(lines, fences, name))
    if not blocks:
        text = _trimmed("\n".join(lines[: fences[0].line] if fences else lines))
        return _unfenced(text, name) or _otherwise_marked(text, name) or text, False
    candidates = [block for block in blocks if name and block.answers(name)] or blocks
    opened = [block for block in candidates if not block.is_fenced]
    chosen = (opened or sorted(candidates, key=lambda block: block.is_python))[-1]
    at = blocks.index(chosen)
    others = [
        block.program
        for block in [*reversed(blocks[:at]), *blocks[at + 1 :]]
        if block.program != chosen.program
    ]
    return with_helpers(chosen.program, others), chosen.is_fenced


def definition(name: str) -> re.Pattern[str]:
    """Finds where a source defines `name`: a function, also one of a class, or a class, or an assignment."""
    name = re.escape(name)
    return re.compile(rf"^[ \t]*+(?:async[ \t]+def|def|class)[ \t]+{name}\b|^{name}[ \t]*=", re.MULTILINE)


def _fences(lines: list[str]) -> Iterator[Fence]:
    for number, line in enumerate(lines):
        found = _FENCE.fullmatch(line) if "```" in line or "~~~" in line else None
        if found and not (found[2][0] == "`" and "`" in found[3]):  # such a line is code within a sentence
            yield Fence(number, found[1], found[2], without_end(found[3]).strip())


def _begun(lines: list[str], fences: list[Fence], name: str) -> tuple[str, int] | None:
    """The program that a text begins with, and the line behind it; None for a text that begins as prose.

    It ends at a fence that closes it or at the text's end; or, where it defines `name`, as far as it is
    Python, ahead of the first fence.
    """
    if any(fence.mark[0] == "~" and fence.info for fence in fences):
        return None  # `~~~python` is Python too
    left = MAX_PARSED
    for end in [*[fence.line for fence in fences if not fence.info][:MAX_ENDS], len(lines)]:
        program = _trimmed("\n".join(lines[:end]))
        left -= len(program)
        if left > 0 and is_program(program):
            return program, end + 1
    if not (name and fences):
        return None
    program = _trimmed(longest_program(_trimmed("\n".join(lines[: fences[0].line]))) or "")
    return (
        (program, fences[0].line)
        if is_program(program) and Block(program, True, False).answers(name)
        else None
    )


def _blocks(lines: list[str], fences: list[Fence], name: str, is_inside: bool = False) -> Iterator[Block]:
    """The blocks that are not blank, in their order."""
    left, position = MAX_PARSED, 0
    if begun := _begun(lines, fences, name):
        yield Block(begun[0], is_python=True, is_fenced=False)
        position = next((n for n, fence in enumerate(fences) if fence.line >= begun[1]), len(fences))
    while position < len(fences):
        opening = fences[position]
        language = _LANGUAGE.match(opening.info)[1].lower()
        found = None
        for program, end in _enclosed(lines, fences, position):
            found = found or (program, end)  # by CommonMark
            left -= len(program)
            if not program or language not in (*PYTHON, "") or left <= 0:
                break
            if parsed(program) is not None:
                found = program, end
                break
        program, end = found
        # cut off
        if end == len(lines) and language in (*PYTHON, "") and program[:1] not in (" ", "\t") and left > 0:
            program = _trimmed(longest_program(program) or program)
        if language in MARKDOWN and not is_inside:  # an answer within an answer
            inner = program.split("\n")
            yield from _blocks(inner, list(_fences(inner)), name, is_inside=True)
        elif program:
            yield Block(program, language in PYTHON)
        position = next((n for n in range(position + 1, len(fences)) if fences[n].line > end), len(fences))


def _enclosed(lines: list[str], fences: list[Fence], position: int) -> Iterator[tuple[str, int]]:
    """What a fence may enclose, with the line of its end: by CommonMark; up to a mark at a line's end, a
    later fence, the text's end.
    """
    opening = fences[position]
    start = opening.line + 1
    closing = (fences[n].line for n in range(position + 1, len(fences)) if fences[n].closes(opening))
    end = next(closing, len(lines))
    yield _outdented(lines[start:end], opening.indent), end
    careless = (n for n in range(start, end) if lines[n].rstrip().endswith(opening.mark))
    for number in itertools.islice(careless, MAX_ENDS):
        last = lines[number].rstrip().removesuffix(opening.mark)
        yield _outdented([*lines[start:number], last], opening.indent), number
    for later in [*itertools.islice(closing, MAX_ENDS), len(lines)]:
        yield _outdented(lines[start:later], opening.indent), later


def _unfenced(text: str, name: str) -> str:
    """The part of a text without blocks that is a program (defining `name`), or nothing.

    A body stays whole: see `code.py`.
    """
    if text[:1] in (" ", "\t"):
        return text
    lines, left = text.split("\n"), MAX_PARSED
    starts = [0, *(number for number, line in enumerate(lines) if number and _BEGINS.match(line))]
    for start in starts[: MAX_STARTS + 1]:
        left -= len(text)
        part = longest_program("\n".join(lines[start:])) if left > 0 else None
        if part and is_program(part) and (start == 0 or not name or definition(name).search(part)):
            return _trimmed(part)
    return ""


def _otherwise_marked(text: str, name: str) -> str:
    """The last program (defining `name`) in a text that marks it otherwise: in a block quote, as HTML, as a
    code span, or by indentation.
    """
    if _QUOTED.search(text):
        text = _QUOTE.sub("", text)
    elif _PRE.search(text):
        text = _PRE.sub(lambda tag: "\n```\n", html.unescape(text))
    elif span := _SPAN.fullmatch(text):
        text = f"```\n{span[2].strip()}\n```"
    elif name:  # without one, the branch of an `if` that is no Python would be a program too
        runs = itertools.groupby(
            text.split("\n"), key=lambda line: line.startswith(("    ", "\t")) or not line.strip()
        )
        text = "\n".join(
            "```\n" + textwrap.dedent("\n".join(run)) + "\n```" if is_indented else "\n".join(run)
            for is_indented, run in runs
        )
    lines = text.split("\n")
    programs = [block.program for block in _blocks(lines, list(_fences(lines)), name)]
    fit = [
        program
        for program in programs
        if is_program(program) and (not name or definition(name).search(program))
    ]
    return fit[-1] if fit else ""


def _outdented(lines: list[str], indent: str) -> str:
    """Without the indentation that its lines have in common, at most that of the fence, and without blank
    lines around it.
    """
    width = min([len(indent), *(len(line) - len(line.lstrip(" \t")) for line in lines if line.strip())])
    return _trimmed("\n".join(line[width:] for line in lines))


def _trimmed(program: str) -> str:
    """Without blank lines before and after; the first line keeps its indentation."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", program).rstrip()


# ------------------------------------------------------------------------------------------------------ input


def final_input(text: str) -> str | None:
    """What stands between the last `</INPUT>` and the `<INPUT>` before it, as a program reads it, or None.

    A line end right behind the first mark does not belong to it, unless there is nothing else, nor does a
    fence around all of it; a last line that does not end gets its end. Spaces and blank lines are input,
    wherever they are.
    """
    text = without_reasoning(text[: MAX_CHARS + 1]).replace("\r\n", "\n")
    ends = [match.start() for match in _CLOSES.finditer(text)]
    starts = [match.end() for match in _OPENS.finditer(text, 0, ends[-1])] if ends else []
    if len(text) > MAX_CHARS or not starts:
        return None
    inner = text[starts[-1] : ends[-1]]
    fenced = _FENCED.fullmatch(inner)
    return whole_lines(fenced[2] if fenced else inner if inner == "\n" else inner.removeprefix("\n"))


def whole_lines(text: str) -> str:
    """An input as a program reads it: as it is, its last line ended. An empty one stays empty."""
    return text if text.endswith("\n") or not text else text + "\n"


# ----------------------------------------------------------------------------------------------------- output

Decimal = decimal.Decimal
CLOSE = Decimal("1e-9")  # absolute or relative: two floats that are equal but for the order of their sums
SHOWN = Decimal("1e-6")  # what judges take: more than this is never forgiven for digits that are not shown
# ASCII digits; a number with zeros ahead (0011, 007) is a word of digits.
_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_WIDE = decimal.Context(prec=50, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])


def same_output(expected: str, printed: bytes) -> bool:
    """Whether a program printed what was expected, as judges see it: line by line, each word by word.

    Spaces around and between words do not count, nor do blank lines around the whole. Words are equal letter
    by letter. Numbers are equal exactly (0.5 is 0.50, 2.0 is 2), and where the expected one is a float, up to
    1e-9, absolute or relative, or up to the last digit that it shows (0.3333333333 is 0.333333), at most
    1e-6.
    """
    wanted, found = _lines(expected.encode("utf-8", "surrogatepass")), _lines(printed)
    return len(wanted) == len(found) and all(map(_same_line, wanted, found))


def same_text(expected: str, printed: bytes) -> bool:
    """Whether a program printed this text; blank lines around it and spaces at line ends do not count."""
    wanted, found = _lines(expected.encode("utf-8", "surrogatepass")), _lines(printed)
    return [line.rstrip() for line in wanted] == [line.rstrip() for line in found]


def _lines(text: bytes) -> list[bytes]:
    return text.strip().split(b"\n")


def _same_line(wanted: bytes, found: bytes) -> bool:
    one, other = wanted.split(), found.split()
    return len(one) == len(other) and all(map(_same_word, one, other))


def _same_word(wanted: bytes, found: bytes) -> bool:
    if wanted == found:
        return True
    texts = wanted.decode("latin-1"), found.decode("latin-1")  # the digits of ASCII are these alone
    if not all(map(_NUMBER.fullmatch, texts)):
        return False
    one, other = map(Decimal, texts)  # exact, however long
    if one == other or texts[0].removeprefix("-").isdigit():
        return one == other
    half = Decimal((0, (5,), one.as_tuple().exponent - 1))  # of a unit of the last digit shown
    size = max(Decimal(1), one.copy_abs())
    allowed = max(_WIDE.multiply(CLOSE, size), min(half, _WIDE.multiply(SHOWN, size)))
    return _WIDE.subtract(one, other).copy_abs() <= allowed
