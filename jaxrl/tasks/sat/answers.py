"""Formulas and answers of the task `sat` as text, and the verdict on an answer.

No generator, no solver: a verifier needs neither.

An answer is a run of assignments, `x1=True, x2=False, ...`, or the word UNSAT. Case and spaces do not matter;
`:`, `==`, `->`, `is` and a table's `|` do for `=`, 1 and 0, T and F, `\\text{True}` for True and False, `x_1`
and x₁ for x1. Rules:

    - Reasoning up to `</think>` does not count. Of what follows, the last answer counts, as a whole: a run of
      assignments ends where any word but "and", or the number of a list's line, comes between two of them.
      Earlier runs are not looked at, unless the last one only repeats values of the one before: "Check:
      clause 2 has x3=True" is no new answer.
    - UNSAT behind "not" or "otherwise", or before "otherwise", is no answer.
    - Variables may be left out: an assignment is right if each clause has a literal that it makes true.
      (Whatever the others are, the formula is then true.) Variables that the formula does not have change
      nothing.
    - An answer that gives one variable two values cannot be read.
"""

import re
from collections.abc import Iterable, Sequence

from jaxrl.tasks.math.answers import without_reasoning
from jaxrl.tasks.sat.solver import Clause
from jaxrl.types import Problem, Verdict

UNSAT = "UNSAT"
TWO_VALUES = "one variable with two values"

OPENING = "Here is a formula in the variables x1 to "
CLOSING = (
    "\n\nFind values of the variables that make it true, or find out that there are none. "
    "End with the answer alone on the last line: the values, as `x1=True, x2=False, ...`, or `UNSAT`."
)

_TOKEN = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
          x_?\{?(?P<variable>[0-9]{1,6})\}?["'`*$]*(?:\\\))?\s*
          (?:==?|:=?|->|→|\||\\(?:to|rightarrow)|is\b)["'`*$]*\s*
          (?:\\(?:text|textbf|texttt|mathrm|mathbf)\s*\{\s*)?["'`*$]*(?P<value>true|false|[tf10])
        | (?P<unsat>unsat(?:isfiable)?)
    )(?![A-Za-z0-9_])""",
    re.IGNORECASE | re.VERBOSE,
)
_GAP = re.compile(r"[\W_]*(?:and[\W_]*|[0-9]{1,6}[.)][\W_]*)?", re.IGNORECASE)
_DENIED_BEFORE = re.compile(r"(?:not|n['’]t|otherwise)(?: be)?[\s`*\"']*$", re.IGNORECASE)
_DENIED_AFTER = re.compile(r"[\s`*,\"']*otherwise\b", re.IGNORECASE)
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def formula_text(clauses: Sequence[Clause]) -> str:
    def literal_text(literal: int) -> str:
        return f"x{literal}" if literal > 0 else f"¬x{-literal}"

    return " ∧ ".join(f"({' ∨ '.join(map(literal_text, clause))})" for clause in clauses)


def prompt_text(clauses: Sequence[Clause]) -> str:
    last = max(abs(literal) for clause in clauses for literal in clause)
    return f"{OPENING}x{last}:\n\n{formula_text(clauses)}{CLOSING}"


def assignment_text(literals: Iterable[int]) -> str:
    return ", ".join(f"x{abs(literal)}={literal > 0}" for literal in literals)


def read_answer(text: str) -> dict[int, bool] | str | None:
    """The values of an answer, UNSAT, or TWO_VALUES where it contradicts itself; None where there is no
    answer.
    """
    text = without_reasoning(text).translate(_SUBSCRIPTS)
    answer: dict[int, set[bool]] | None = None  # None for UNSAT too
    run: dict[int, set[bool]] = {}
    is_unsat, end = False, 0
    for token in _TOKEN.finditer(text):
        if token["unsat"]:
            if not _is_denied(text, token):
                answer, run, is_unsat, end = None, {}, True, token.end()
            continue
        if not _GAP.fullmatch(text, end, token.start()):
            answer, run = _later(answer, run), {}
        run.setdefault(int(token["variable"]), set()).add(token["value"].lower() in ("true", "t", "1"))
        is_unsat, end = False, token.end()
    answer = _later(answer, run)
    if is_unsat or not answer:
        return UNSAT if is_unsat else None
    if any(len(values) == 2 for values in answer.values()):
        return TWO_VALUES
    return {variable: True in values for variable, values in answer.items()}


def _later(answer: dict[int, set[bool]] | None, run: dict[int, set[bool]]) -> dict[int, set[bool]]:
    """The run, or the answer before it if the run only repeats values of it."""
    return (
        answer if answer and all(answer.get(variable) == values for variable, values in run.items()) else run
    )


def _is_denied(text: str, token: re.Match[str]) -> bool:
    return bool(
        _DENIED_BEFORE.search(text[max(0, token.start() - 20) : token.start()])
        or _DENIED_AFTER.match(text, token.end())
    )


def judge(problem: Problem, text: str) -> Verdict:
    """1 for a right answer, else 0; `parts` also holds the share of clauses that the assignment makes true.

    An assignment is judged by the formula alone; UNSAT is right where the record's `satisfiable` is false.
    """
    clauses, answer = problem.data["clauses"], read_answer(text)
    if answer is None or answer == TWO_VALUES:
        return _verdict(False, False, 0.0, answer or "no answer")
    if answer == UNSAT:
        is_right = not problem.data["satisfiable"]
        return _verdict(is_right, True, 0.0, f"{UNSAT}, which is {'right' if is_right else 'wrong'}")
    num_true = sum(any(answer.get(abs(literal)) == (literal > 0) for literal in clause) for clause in clauses)
    detail = f"{num_true} of {len(clauses)} clauses are true; {len(answer)} variables have values"
    return _verdict(num_true == len(clauses), True, num_true / len(clauses), detail)


def _verdict(correct: bool, format_ok: bool, clauses: float, detail: str) -> Verdict:
    parts = {"correct": float(correct), "format": float(format_ok), "clauses": clauses}
    return Verdict(float(correct), correct, format_ok, parts, detail)
