"""Deduction: a problem in words, and a complete program that solves it is asked for. Every case must pass.

The problems are small programs made here (`programs.py`), or records with a problem in words and cases, in
the shapes of the usual data sets (`shapes.py`). Which part of a completion is the program:
`text.py`.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.tasks.base import Baseline, Record
from jaxrl.tasks.code.cases import run_cases
from jaxrl.tasks.code.files import FileProblems, Unfit
from jaxrl.tasks.code.names import long_integers
from jaxrl.tasks.code.sandbox import SandboxVerify, limits_of
from jaxrl.tasks.code.shapes import read_cases, read_statement
from jaxrl.tasks.code.text import final_program
from jaxrl.tasks.drawing import Claim, Drawn, digest
from jaxrl.tasks.programs.programs import draw_program
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import DeductionSection

STDIN = (
    "Write a complete Python 3 program that reads from standard input and prints the answer, and nothing "
    "else, to standard output. Give the program in one ```python block."
)
FUNCTION = (
    "Write the Python 3 function `{name}`, and whatever it needs. Give all of it in one ```python block."
)
ECHO = "print(input())"


class Deduction:
    """The task; `section` is documented in `config/tasks.py`.

    Records made here: `prompt`, `program`, and `verification_info` as JSON in a text. A record from outside
    needs `prompt` (or `question`, ...) and its cases; a `program` is its demonstration.
    """

    failure_reward = 0.0

    def __init__(self, section: "DeductionSection"):
        self.section = section
        self.verify = DeductionVerify(*limits_of(section), section.total_s, section.partial_credit)
        self._drawn = Drawn(
            "deduction", "task.seed", section.seed, section.sizes, lambda seed: _draw, self.problem
        )
        self._source = FileProblems(section, self.problem) if section.has_files else self._drawn

    def problems(self, split: str) -> list[Problem]:
        return self._source.problems(split)

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        return self._drawn.generate(count, seed)

    def problem(self, record: Record) -> Problem:
        ahead, statement = read_statement(record)
        cases = read_cases(record)
        if not any(case["type"] == "function_call" or case["output"].strip() for case in cases):
            raise Unfit(
                "no case expects any output, so a program that does nothing would pass; give cases that do"
            )
        names = {case["fn_name"] for case in cases if case["type"] == "function_call"}
        order = FUNCTION.format(name=sorted(names)[0]) if names else STDIN
        content = statement if statement.endswith(order) else f"{statement.rstrip()}\n\n{order}"
        data = {"prompt": content, "cases": cases, "program": record.get("program")}
        with long_integers():
            uid = f"deduction-{digest([*ahead, statement, cases])}"
        return Problem(uid, (*ahead, Message(role="user", content=content)), data)

    def demonstration(self, problem: Problem) -> str | None:
        program = problem.data["program"]
        return f"```python\n{program.rstrip()}\n```" if program else None

    def texts(self) -> list[str]:
        problems = self.problems("train")
        return [
            text for p in problems for text in (p.data["prompt"], self.demonstration(p)) if text is not None
        ]

    def phrases(self) -> list[str]:
        return []

    def baselines(self) -> dict[str, Baseline]:
        """echo: prints its first line. example: prints the example's output. Neither can be right twice."""
        return {"echo": lambda problem, rng: f"```python\n{ECHO}\n```", "example": _print_example}


@dataclass(frozen=True)
class DeductionVerify(SandboxVerify):
    """1 for a program that passes all cases, else 0; `parts` has the share passed before the first failure.

    With partial credit w > 0 all cases are run, and the reward is w * share + (1 - w) * all of them.
    """

    total_s: float
    partial_credit: float = 0.0

    def judge(self, data: dict[str, Any], text: str) -> Verdict:
        program, is_fenced = final_program(text, data["cases"][0].get("fn_name", ""))
        if not program.strip():
            return Verdict(0.0, False, False, {"all": 0.0, "share": 0.0}, "no program")
        done = run_cases(
            self.sandbox, program, data["cases"], self.total_s, stop_early=not self.partial_credit
        )
        share = done.passed / done.total
        reward = self.partial_credit * share + (1 - self.partial_credit) * done.all
        detail = done.failure or f"all {done.total} cases passed"
        return Verdict(reward, done.all, is_fenced, {"all": float(done.all), "share": share}, detail)


def _draw(rng: random.Random, index: int, claim: Claim) -> Record | None:
    program = draw_program(rng, claim)
    if program is None:
        return None
    cases = [
        {"type": "stdin_stdout", "input": f"{case.input}\n", "output": f"{case.output}\n"}
        for case in program.cases
    ]
    return {
        "prompt": f"{program.statement}\n\n{STDIN}",
        "program": program.source,
        "verification_info": json.dumps({"test_cases": cases}),
    }


def _print_example(problem: Problem, rng: random.Random) -> str:
    case = problem.data["cases"][0]
    shown = case["output"] if case["type"] == "stdin_stdout" else case["expected"][0]
    return f"```python\nprint({shown!r})\n```"
