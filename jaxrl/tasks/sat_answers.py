"""Formulas and answers of the task `sat` as text, and the verdict on an answer. No generator, no solver: a verifier needs neither.

An answer is a run of assignments, `x1=True, x2=False, ...`, or the word UNSAT. Case and spaces do not matter; `:` and `==` do
for `=`, 1 and 0 for True and False, `x_1` for x1. Rules:

    - Reasoning up to `</think>` does not count. Of what follows, the last answer counts, as a whole: a run of assignments
      ends where any word but "and" comes between two of them, and earlier runs are not looked at.
    - Variables may be left out: an assignment is right if each clause has a literal that it makes true. (Whatever the others
      are, the formula is then true.) Variables that the formula does not have change nothing.
    - An answer that gives one variable two values cannot be read.
"""

import re
from collections.abc import Iterable, Sequence

from jaxrl.tasks.sat_solver import Clause
from jaxrl.types import Problem, Verdict
from jaxrl.verify.answers import without_reasoning

UNSAT = "UNSAT"

OPENING = "Here is a formula in the variables x1 to "
CLOSING = (
    "\n\nFind values of the variables that make it true, or find out that there are none. "
    "End with the answer alone on the last line: the values, as `x1=True, x2=False, ...`, or `UNSAT`."
)

_TOKEN = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
          x_?\{?(?P<variable>[0-9]{1,6})\}?["'`*]*\s*(?:==?|:=?)\s*(?P<value>true|false|1|0)
        | (?P<unsat>unsat(?:isfiable)?)
    )(?![A-Za-z0-9_])""",
    re.IGNORECASE | re.VERBOSE,
)
_GAP = re.compile(r"[\W_]*(?:and[\W_]*)?", re.IGNORECASE)


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
    """The values of an answer, or UNSAT; None where there is no answer, or one that contradicts itself."""
    text = without_reasoning(text)
    values: dict[int, bool] = {}
    is_unsat, is_broken, end = False, False, 0
    for token in _TOKEN.finditer(text):
        if is_unsat or token["unsat"] or not _GAP.fullmatch(text, end, token.start()):
            values, is_broken = {}, False
        is_unsat, end = bool(token["unsat"]), token.end()
        if not is_unsat:
            variable, value = int(token["variable"]), token["value"].lower() in ("true", "1")
            is_broken |= values.setdefault(variable, value) != value
    return UNSAT if is_unsat else None if is_broken or not values else values


def judge(problem: Problem, text: str) -> Verdict:
    """1 for a right answer, else 0; `parts` also holds the share of clauses that the assignment makes true.

    An assignment is judged by the formula alone; UNSAT is right where the record's `satisfiable` is false.
    """
    clauses, answer = problem.data["clauses"], read_answer(text)
    if answer is None:
        return _verdict(False, False, 0.0, "no answer, or one variable with two values")
    if answer == UNSAT:
        is_right = not problem.data["satisfiable"]
        return _verdict(is_right, True, 0.0, f"{UNSAT}, which is {'right' if is_right else 'wrong'}")
    num_true = sum(any(answer.get(abs(literal)) == (literal > 0) for literal in clause) for clause in clauses)
    detail = f"{num_true} of {len(clauses)} clauses are true; {len(answer)} variables have values"
    return _verdict(num_true == len(clauses), True, num_true / len(clauses), detail)


def _verdict(correct: bool, format_ok: bool, clauses: float, detail: str) -> Verdict:
    parts = {"correct": float(correct), "format": float(format_ok), "clauses": clauses}
    return Verdict(float(correct), correct, format_ok, parts, detail)
