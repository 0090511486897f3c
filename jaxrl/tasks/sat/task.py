"""Random k-SAT near the threshold, where formulas are hardest: find an assignment, or say that there is none.

The defaults leave little to guessing. At the ratio of the threshold a random assignment satisfies about 1
formula in 1,000 or fewer; clauses are planted quietly, so that the signs of a variable's literals say little
of its value; and formulas without a solution are few enough that always saying so pays no more than other
guesses (`baselines`).
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS, Baseline, Record
from jaxrl.tasks.drawing import Claim, Draw, Drawn, digest
from jaxrl.tasks.fields import field, is_int, is_text
from jaxrl.tasks.sat.answers import CLOSING, OPENING, UNSAT, assignment_text, judge, prompt_text
from jaxrl.tasks.sat.solver import Undecided, satisfies, solve
from jaxrl.types import Message, Problem

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import SatSection

# clauses per variable where half of large random formulas have a solution
THRESHOLD = {2: 1.0, 3: 4.26, 4: 9.93, 5: 21.12}
AFFINE_RATIO = 4.26  # for every clause size
AFFINE_STRIDE = 1 << 32  # between the first task ids of two seeds
UNSATISFIABLE = 0.15
MAX_CONFLICTS = 50_000

Clauses = list[list[int]]


class Sat:
    """The task; `section` is documented in `config/tasks.py`.

    Records: `clauses` (lists of signed integers, -3 for not x3), `satisfiable`, `prompt`, `solution` (one
    literal for each variable, or null); `task_id` where planting is affine. A record from outside needs the
    first two.
    """

    failure_reward = 0.0

    def __init__(self, section: "SatSection"):
        self.section = section
        self.verify = judge
        sizes = {split: getattr(section, split) for split in SPLITS}
        settings = "task.variables, task.clause_sizes, task.ratio or task.unsatisfiable"
        self._drawn = Drawn("sat", settings, section.seed, sizes, self._make_draw, self.problem)
        default = 0.0 if section.planting == "affine" else UNSATISFIABLE
        self._unsatisfiable = default if section.unsatisfiable is None else section.unsatisfiable

    def problems(self, split: str) -> list[Problem]:
        return self._drawn.problems(split)

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        return self._drawn.generate(count, seed)

    def problem(self, record: Record) -> Problem:
        clauses = field(
            record, "clauses", "a list of clauses, each a list of signed integers other than 0", _is_formula
        )
        field(record, "satisfiable", "true or false", lambda value: isinstance(value, bool))
        prompt = field(record, "prompt", "a text", is_text) if "prompt" in record else prompt_text(clauses)
        return Problem(f"sat-{digest(_content(clauses))}", (Message(role="user", content=prompt),), record)

    def demonstration(self, problem: Problem) -> str | None:
        """An answer without reasoning; None where an outside record claims a solution and there is none."""
        if not problem.data["satisfiable"]:
            return UNSAT
        literals = problem.data.get("solution") or _decide(problem.data["clauses"])
        return assignment_text(literals) if literals else None

    def texts(self) -> list[str]:
        names = range(1, self.section.variables[1] + 1)
        texts = [assignment_text(names), assignment_text(-name for name in names), UNSAT]
        return texts + [problem.messages[0]["content"] for problem in self.problems("train")]

    def phrases(self) -> list[str]:
        return [OPENING, CLOSING, UNSAT]

    def baselines(self) -> dict[str, Baseline]:
        """random: any assignment. majority: for each variable the sign that its literals have most often.
        unsat: always UNSAT.
        """
        return {"random": _random_answer, "majority": _majority_answer, "unsat": lambda problem, rng: UNSAT}

    # ------------------------------------------------------------------------------------------------ drawing

    def _make_draw(self, seed: int) -> Draw:
        if self.section.planting == "affine":
            task_ids = itertools.count(seed * AFFINE_STRIDE)
            return lambda rng, index, claim: self._draw_affine(rng, claim, next(task_ids))
        return self._draw

    def _draw(self, rng: random.Random, index: int, claim: Claim) -> Record | None:
        """One formula of the class whose turn it is: after any number of problems, the share without a
        solution is as it should be.
        """
        share = self._unsatisfiable
        is_satisfiable = math.floor((index + 1) * share) == math.floor(index * share)
        n, k = self._draw_size(rng)
        hidden = (
            {v: rng.random() < 0.5 for v in range(1, n + 1)}
            if is_satisfiable and self.section.planting == "quiet"
            else None
        )
        ratio = self.section.ratio or THRESHOLD.get(k, 2**k * math.log(2))
        clauses = [_draw_clause(rng, n, k, hidden) for _ in range(max(1, round(ratio * n)))]
        if not claim(_content(clauses)):
            return None
        solution = [v if value else -v for v, value in hidden.items()] if hidden else _decide(clauses)
        if (solution is not None) != is_satisfiable:
            return None
        return _record(clauses, solution)

    def _draw_affine(self, rng: random.Random, claim: Claim, task_id: int) -> Record | None:
        """The instance that the original makes of a task id, for the same n and k: its calls of random
        numbers, in their order.
        """
        n, k = self._draw_size(rng)
        rng = random.Random(task_id)
        hidden = {v: rng.choice([True, False]) for v in range(1, n + 1)}
        clauses = []
        for _ in range(int((self.section.ratio or AFFINE_RATIO) * n)):
            chosen = rng.sample(list(hidden), k)
            kept = rng.choice(chosen)  # its literal is true, the others are so by chance
            signs = [hidden[v] if v == kept else rng.choice([True, False]) for v in chosen]
            clauses.append([v if sign else -v for v, sign in zip(chosen, signs)])
        solution = [v if value else -v for v, value in hidden.items()]
        return {**_record(clauses, solution), "task_id": task_id} if claim(_content(clauses)) else None

    def _draw_size(self, rng: random.Random) -> tuple[int, int]:
        return rng.randint(*self.section.variables), rng.choice(self.section.clause_sizes)


def _draw_clause(rng: random.Random, n: int, k: int, hidden: dict[int, bool] | None) -> list[int]:
    """Different variables, any signs; with a hidden assignment, uniformly among the clauses that it
    satisfies.

    Planting one true literal and leaving the others to chance would show the hidden value in the majority of
    signs; a clause that is drawn anew when it is false shows far less.
    """
    while True:
        clause = [v if rng.random() < 0.5 else -v for v in rng.sample(range(1, n + 1), k)]
        if hidden is None or any(hidden[abs(literal)] == (literal > 0) for literal in clause):
            return clause


def _record(clauses: Clauses, solution: list[int] | None) -> Record:
    return {
        "prompt": prompt_text(clauses),
        "clauses": clauses,
        "satisfiable": solution is not None,
        "solution": solution,
    }


def _decide(clauses: Clauses) -> list[int] | None:
    """The solver's solution, or None if there is none.

    Raises:
      InputError: too hard for a solver of this size.
    """
    try:
        solution = solve(clauses, MAX_CONFLICTS)
    except Undecided:
        sizes = (
            f"{max(abs(literal) for clause in clauses for literal in clause)} variables and {len(clauses)} "
            "clauses"
        )
        raise InputError(
            f"a formula of {sizes} is not decided after {MAX_CONFLICTS:,} conflicts; lower task.variables or "
            "task.clause_sizes, or set task.planting to quiet and task.unsatisfiable to 0, which need no "
            "solver"
        ) from None
    assert solution is None or satisfies(solution, clauses)
    return solution


def _content(clauses: Clauses) -> Clauses:
    """The same for two formulas that differ only in the order of clauses and literals."""
    return sorted(sorted(clause) for clause in clauses)


def _is_formula(value: Any) -> bool:
    def is_clause(clause: Any) -> bool:
        return (
            isinstance(clause, list)
            and bool(clause)
            and all(is_int(literal) and literal != 0 for literal in clause)
        )

    return isinstance(value, list) and bool(value) and all(map(is_clause, value))


def _random_answer(problem: Problem, rng: random.Random) -> str:
    return assignment_text(rng.choice((v, -v)) for v in range(1, _num_variables(problem) + 1))


def _majority_answer(problem: Problem, rng: random.Random) -> str:
    counts = Counter(literal for clause in problem.data["clauses"] for literal in clause)
    return assignment_text(
        max((v, -v), key=lambda x: (counts[x], rng.random())) for v in range(1, _num_variables(problem) + 1)
    )


def _num_variables(problem: Problem) -> int:
    return max(abs(literal) for clause in problem.data["clauses"] for literal in clause)
