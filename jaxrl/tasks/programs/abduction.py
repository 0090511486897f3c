"""Abduction: a program and what it printed, and an input that makes it print that is asked for.

Any such input is right.

The programs are small ones made here (`programs.py`), or records of the `rl-python` schema: `program`,
`inputs`, `output`. The program itself is the judge: it is run in the sandbox on the input between the last
<INPUT> and </INPUT>.
"""

import ast
import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.sandbox.outcomes import ending, shown
from jaxrl.tasks.base import Baseline, Record, example_texts
from jaxrl.tasks.code.files import FileProblems, Unfit
from jaxrl.tasks.code.names import UNREADABLE, parse
from jaxrl.tasks.code.sandbox import SandboxVerify, limits_of
from jaxrl.tasks.code.text import final_input, same_text, whole_lines
from jaxrl.tasks.drawing import Claim, Drawn, digest
from jaxrl.tasks.fields import field
from jaxrl.tasks.programs.programs import draw_program, hard_to_guess
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import AbductionSection

ORDER = (
    "Find an input, given to the program on standard input, for which it prints exactly this. Give the input "
    "between <INPUT> and </INPUT>, line by line as the program reads it."
)

EVALUATES = frozenset(("eval", "exec", "compile", "__import__"))


class Abduction:
    """The task; `section` is documented in `config/tasks.py`.

    Records made here: `prompt`, `program`, `inputs`, `output`. A record from outside needs `program` and
    `output`; `inputs` is its demonstration.
    """

    failure_reward = 0.0

    def __init__(self, section: "AbductionSection"):
        self.section = section
        self.verify = self._own_verify = AbductionVerify(*limits_of(section))
        self._drawn = Drawn(
            "abduction", "task.seed", section.seed, section.sizes, lambda seed: _draw, self.problem
        )
        self._source = FileProblems(section, self.problem, self._check) if section.has_files else self._drawn

    def problems(self, split: str) -> list[Problem]:
        """The split's problems. The programs of a file are run on their own inputs first: what they print is
        what is asked for.

        Raises:
          InputError: see `FileProblems` and `Drawn`; a sandbox below task.min_level.
          SandboxError: the sandbox broke down.
        """
        return self._source.problems(split)

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        return self._drawn.generate(count, seed)

    def problem(self, record: Record) -> Problem:
        program, output, inputs = (record.get(name) for name in ("program", "output", "inputs"))
        if program is None or output is None:
            missing = "program" if program is None else "output"
            raise Unfit(
                f"field {missing!r} is missing; it should hold "
                f"{'the program' if program is None else 'what it prints'}, a text"
            )
        for name in ("program", "output"):
            field(record, name, "a text", lambda value: isinstance(value, str))
        if not program.strip() or not output.strip():
            raise Unfit(
                f"field {'output' if program.strip() else 'program'!r} is blank, so nothing can be asked"
            )
        _check_judge(program)
        if inputs is not None:
            field(record, "inputs", "the input as a text, or null", lambda value: isinstance(value, str))
        return _problem(program, inputs, output)

    def demonstration(self, problem: Problem) -> str | None:
        inputs = problem.data["inputs"]
        return None if inputs is None else _answer(inputs)

    def texts(self) -> list[str]:
        return example_texts(self)

    def phrases(self) -> list[str]:
        return []

    def baselines(self) -> dict[str, Baseline]:
        """output: the output itself as the input. numbers: a few small numbers, as many programs read
        them.
        """
        return {"output": lambda problem, rng: _answer(problem.data["output"]), "numbers": _numbers}

    def _check(self, problem: Problem) -> Problem:
        """With the output that the program has now, on this machine; what it gives for its own inputs is what
        can be asked for.
        """
        program, inputs = problem.data["program"], problem.data["inputs"]
        if inputs is None or not self.section.check_programs:
            return problem
        outcome = self._own_verify.sandbox.run(program, stdin_of(inputs))
        if not outcome.ok:
            raise Unfit(f"the program {ending(outcome)} on its own inputs")
        output = outcome.stdout.decode("utf-8", "replace").strip("\n")
        if not output.strip():
            raise Unfit("the program prints nothing on its own inputs")
        return dataclasses.replace(_problem(program, inputs, output), uid=problem.uid)


@dataclass(frozen=True)
class AbductionVerify(SandboxVerify):
    """1 for an input on which the program ends well and prints the output, else 0."""

    def judge(self, data: dict[str, Any], text: str) -> Verdict:
        inputs = final_input(text)
        if inputs is None:
            return Verdict(0.0, False, False, {"right": 0.0}, "no <INPUT>...</INPUT>")
        outcome = self.sandbox.run(data["program"], stdin_of(inputs))
        is_right = outcome.ok and same_text(data["output"], outcome.stdout)
        printed = shown(outcome.stdout.decode("utf-8", "replace"))
        detail = f"the program printed {printed!r}" if outcome.ok else f"the program {ending(outcome)}"
        return Verdict(float(is_right), is_right, True, {"right": float(is_right)}, detail)


def stdin_of(inputs: str) -> bytes:
    return whole_lines(inputs).encode("utf-8", "replace")


def _problem(program: str, inputs: str | None, output: str) -> Problem:
    output = output.strip("\n")
    content = (
        f"This Python program was run:\n\n```python\n{program.rstrip()}\n```\n\nIt "
        f"printed:\n\n```\n{output}\n```\n\n{ORDER}"
    )
    uid = f"abduction-{digest([program, output if inputs is None else inputs])}"
    data = {"program": program, "inputs": inputs, "output": output}
    return Problem(uid, (Message(role="user", content=content),), data)


def _check_judge(program: str) -> None:
    """Raises Unfit where a program cannot judge: no Python, or it may evaluate its input, which could then
    print the output itself.
    """
    try:
        names = {node.id for node in ast.walk(parse(program)) if isinstance(node, ast.Name)}
    except UNREADABLE as error:
        raise Unfit(f"the program is no Python: {type(error).__name__}: {error}") from None
    if found := sorted(names & EVALUATES):
        raise Unfit(f"the program uses {found[0]!r}, so that an input could be a program of its own")


def _answer(inputs: str) -> str:
    return f"<INPUT>\n{whole_lines(inputs)}</INPUT>" if inputs else "<INPUT></INPUT>"


def _draw(rng: random.Random, index: int, claim: Claim) -> Record | None:
    program = draw_program(rng, claim)
    cases = hard_to_guess(program) if program is not None else []
    if not cases:
        return None
    problem = _problem(program.source, cases[0].input, cases[0].output)
    return {"prompt": problem.messages[0]["content"], **problem.data}


def _numbers(problem: Problem, rng: random.Random) -> str:
    values = [rng.randint(1, 9) for _ in range(rng.randint(1, 5))]
    return _answer(
        rng.choice((str(values[0]), " ".join(map(str, values)), "\n".join(map(str, [len(values), *values]))))
    )
