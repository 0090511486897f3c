"""Expressions of whole numbers to work out, with the usual precedence: as many terms and digits as wished,
for curricula.

The answer is read as that of `math` is: behind ####, in a box, else the last number
(`tasks/math/answers.py`).
"""

import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxrl.tasks.base import SPLITS, Baseline, Record, example_texts
from jaxrl.tasks.drawing import Claim, Drawn, digest
from jaxrl.tasks.fields import field, is_int, is_text
from jaxrl.tasks.math.answers import final_answer, read_number
from jaxrl.tasks.numbers.expressions import Unreadable, evaluate
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import ArithmeticSection

RULE = " (// divides and rounds down)"
CLOSING = "\n\nEnd with the result on a line of its own, as `#### 42`."
_FLAT = re.compile(r"[0-9]+(?: (?:\+|-|\*|//) [0-9]+)*")


class Arithmetic:
    """The task; `section` is documented in `config/tasks.py`.

    Records: `prompt`, `expression`, `answer` (a whole number).
    """

    failure_reward = 0.0

    def __init__(self, section: "ArithmeticSection"):
        self.section = section
        self.verify = judge
        sizes = {split: getattr(section, split) for split in SPLITS}
        settings = "task.terms, task.digits or task.operators"
        self._drawn = Drawn(
            "arithmetic", settings, section.seed, sizes, lambda seed: self._draw, self.problem
        )

    def problems(self, split: str) -> list[Problem]:
        return self._drawn.problems(split)

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        return self._drawn.generate(count, seed)

    def problem(self, record: Record) -> Problem:
        expression = field(record, "expression", "an expression of whole numbers", _has_value)
        value = evaluate(expression).value
        field(
            record,
            "answer",
            f"the value of {expression}, which is {value}",
            lambda answer: is_int(answer) and answer == value,
        )
        prompt = field(record, "prompt", "a text", is_text) if "prompt" in record else prompt_text(expression)
        return Problem(f"arithmetic-{digest(expression)}", (Message(role="user", content=prompt),), record)

    def demonstration(self, problem: Problem) -> str:
        """The expression, worked out one operation after another; of one from outside with brackets or a `/`,
        the result alone.
        """
        expression, result = problem.data["expression"], f"#### {problem.data['answer']}"
        if not _FLAT.fullmatch(expression):
            return result
        first, *rest = steps_of(expression)
        return "\n".join([first, *(f"= {step}" for step in rest), result])

    def texts(self) -> list[str]:
        return example_texts(self)

    def phrases(self) -> list[str]:
        return ["Work out", RULE, CLOSING, "####"]

    def baselines(self) -> dict[str, Baseline]:
        """random: a whole number between 0 and the product of the operands. last_operand: the last number of
        the expression.
        """
        return {
            "random": _random_answer,
            "last_operand": lambda problem, rng: f"#### {_operands(problem)[-1]}",
        }

    def _draw(self, rng: random.Random, index: int, claim: Claim) -> Record | None:
        words = [_draw_operand(rng, self.section.digits)]
        for _ in range(rng.randint(*self.section.terms) - 1):
            operator = rng.choice(self.section.operators)
            operand = _draw_operand(rng, self.section.digits)
            words += [operator, "1" if operator == "//" and operand == "0" else operand]
        expression = " ".join(words)
        if not claim(expression):
            return None
        return {
            "prompt": prompt_text(expression),
            "expression": expression,
            "answer": int(evaluate(expression).value),
        }


def judge(problem: Problem, text: str) -> Verdict:
    """1 for the right number, else 0."""
    answer = final_answer(text)
    number = read_number(answer.text) if answer else None
    is_right = number is not None and number.value == problem.data["answer"]
    found = f"answer {answer.text[:40]!r}" if answer else "no answer"
    parts = {"correct": float(is_right), "format": float(number is not None)}
    return Verdict(
        float(is_right), is_right, number is not None, parts, f"{found}; right is {problem.data['answer']}"
    )


def prompt_text(expression: str) -> str:
    return f"Work out{RULE if '//' in expression else ''}:\n\n{expression}{CLOSING}"


def steps_of(expression: str) -> list[str]:
    """An expression without brackets, then what is left of it after each operation, down to the result."""
    words = expression.split()
    steps = [expression]
    while len(words) > 1:
        at = next((i for i, word in enumerate(words) if word in ("*", "//")), 1)
        left, operator, right = int(words[at - 1]), words[at], int(words[at + 1])
        value = (
            {"+": left + right, "-": left - right, "*": left * right}[operator]
            if operator != "//"
            else left // right
        )
        words[at - 1 : at + 2] = [str(value)]
        steps.append(" ".join(words))
    return steps


def _draw_operand(rng: random.Random, digits: tuple[int, int]) -> str:
    """As many operands of one length as of another; no leading zeros."""
    length = rng.randint(*digits)
    return str(rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length))


def _has_value(value: object) -> bool:
    try:
        return isinstance(value, str) and evaluate(value).value.denominator == 1
    except Unreadable:
        return False


def _operands(problem: Problem) -> tuple[int, ...]:
    return evaluate(problem.data["expression"]).numbers


def _random_answer(problem: Problem, rng: random.Random) -> str:
    most = 1
    for operand in _operands(problem):
        most *= max(1, operand)
    return f"#### {rng.randint(0, most)}"
