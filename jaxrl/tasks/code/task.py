"""Functions with tests: HumanEval, MBPP, and records with cases (`records.py`).

The problems come from files or the hub.

A completion is a whole program with the function in it, fenced or not, or the bare body that continues the
record's prompt.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.errors import InputError
from jaxrl.sandbox.checker import BrokenTests, run_tests
from jaxrl.tasks.base import Baseline, Record, example_texts
from jaxrl.tasks.code.cases import run_cases
from jaxrl.tasks.code.files import FileProblems, Unfit
from jaxrl.tasks.code.names import behind_future, longest_program, returns, with_prelude
from jaxrl.tasks.code.records import Form, foreign, read_form
from jaxrl.tasks.code.sandbox import SandboxVerify, limits_of, no_verdict
from jaxrl.tasks.code.text import definition, final_program
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import CodeSection

ORDER = "Give the whole function, and whatever it needs, in one ```python block."


class Code:
    """The task; `section` is documented in `config/tasks.py`.

    There is no generator: problems come from files.

    A record of a file whose own reference does not pass here is left out: its tests need what does not cross
    the sandbox's border (arguments changed in place, generators, functions and dates), or its reference is
    wrong.
    """

    failure_reward = 0.0

    def __init__(self, section: "CodeSection"):
        self.section = section
        self.verify = self._own_verify = CodeVerify(*limits_of(section), section.total_s)
        self._source = FileProblems(section, self._fit_problem, self._check)

    def problems(self, split: str) -> list[Problem]:
        return self._source.problems(split)

    def problem(self, record: Record) -> Problem:
        uid, asked, form = read_form(record)
        if missing := foreign(form, self.section.packages):
            wanted = ", ".join([*self.section.packages, *missing])
            raise Unfit(
                f"its tests import {missing[0]}, which programs in the sandbox do not see; set "
                f"task.packages=[{wanted}]"
            )
        return Problem(uid, (Message(role="user", content=f"{asked}\n\n{ORDER}"),), form)

    def demonstration(self, problem: Problem) -> str | None:
        solution = problem.data["solution"]
        return f"```python\n{solution.strip()}\n```" if solution else None

    def texts(self) -> list[str]:
        return example_texts(self)

    def phrases(self) -> list[str]:
        return []

    def baselines(self) -> dict[str, Baseline]:
        """identity: returns its first argument. constant: returns one of 0, 1, True, False, '' and [],
        drawn.
        """
        return {
            "identity": lambda problem, rng: _returning(problem, "args[0] if args else None"),
            "constant": lambda problem, rng: _returning(
                problem, rng.choice(("0", "1", "True", "False", "''", "[]"))
            ),
        }

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        raise InputError(
            "the task code has no generator, since its problems come from files; try deduction or abduction"
        )

    def _fit_problem(self, record: Record) -> Problem:
        problem = self.problem(record)
        if problem.data["unfit"]:
            raise Unfit(problem.data["unfit"])
        return problem

    def _check(self, problem: Problem) -> Problem:
        if self.section.check_programs and problem.data["solution"]:
            verdict = self._own_verify.judge(problem.data, self.demonstration(problem))
            if not verdict.correct:
                raise Unfit(f"its own reference fails: {verdict.error or verdict.detail}")
        return problem


@dataclass(frozen=True)
class CodeVerify(SandboxVerify):
    """1 for a function that passes all tests, else 0. A record whose tests cannot judge anyone gives an
    error, not a reward.
    """

    total_s: float

    def judge(self, data: dict[str, Any], text: str) -> Verdict:
        if data["unfit"]:
            return no_verdict(f"tests: {data['unfit']}")
        program, format_ok = program_of(data, text)
        if not program:
            return Verdict(0.0, False, False, {"passed": 0.0}, "no program")
        if data["cases"]:
            done = run_cases(self.sandbox, program, data["cases"], self.total_s)
            passed, detail = done.all, done.failure or f"all {done.total} cases passed"
        else:
            try:
                checked = run_tests(
                    self.sandbox, with_prelude(program), data["setup"], data["names"], data["tests"]
                )
            except BrokenTests as error:
                return no_verdict(f"tests: {error}")
            passed, detail = (
                checked.passed,
                checked.failure or f"all tests passed, with {checked.calls} calls",
            )
        return Verdict(float(passed), passed, format_ok, {"passed": float(passed)}, detail)


def program_of(form: Form, text: str) -> tuple[str, bool]:
    """The program that a completion stands for, and whether it is a fenced block, a definition of the
    function, or a body.

    Where the record has a prompt: code whose first line is indented, or that nowhere defines the function, is
    its body and goes on from the prompt. A whole function gets what stands before it in the prompt: imports
    and helpers.
    """
    code, is_fenced = final_program(text, form["name"])
    if not code.strip():
        return "", False
    prompt, defines = form["prompt"], definition(form["name"])
    is_indented = code[:1] in (" ", "\t")
    if prompt and (is_indented or not defines.search(code)):
        return _continued(prompt, code), is_indented or is_fenced
    before = defines.search(prompt)
    ahead = prompt[: before.start()] if before else prompt
    return behind_future(ahead, code), is_fenced or bool(defines.search(code))


def _continued(prompt: str, code: str) -> str:
    """The prompt and a body, up to where the body goes on with something that is cut off, or no Python.

    A body keeps its indentation if that continues the prompt. Else it has lost that of its first line, or all
    of it has another.
    """
    bodies = [code] if code[:1] in (" ", "\t") else []
    if not returns(code):
        bodies.append("    " + code.lstrip(" \t"))
    bodies.append(textwrap.indent(textwrap.dedent(code), "    "))
    least = prompt.count("\n")
    programs = (longest_program(prompt + body, least) for body in bodies)
    return next(filter(None, programs), prompt + bodies[0])


def _returning(problem: Problem, value: str) -> str:
    return f"```python\ndef {problem.data['name']}(*args):\n    return {value}\n```"
