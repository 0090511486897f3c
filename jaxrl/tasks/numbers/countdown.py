"""Reach a target from given numbers with + - * / and brackets, each number used at most once.

The answer is an expression: what stands behind #### or in a box (by the rules of `tasks/math/answers.py`) or
between the last `<answer>` and `</answer>`, whichever comes last; where none of them stands, the last line
that is no fence. It may be emphasised, in dollars or backquotes, and behind `Expression:`; `x` between two
numbers is a times. Of a chain, `24 = 8 * 3` or `8 * 3 = 12 * 2 = 24`, all sides must be equal, and the first
that has an operation counts. It is read by `expressions.py` and worked out exactly: 8 / 3 * 3 is 8. A minus
before a number is read (-3 + 8); whole-number division `//` is not among the operations.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxrl.tasks.base import SPLITS, Baseline, Record, example_texts
from jaxrl.tasks.drawing import Claim, Drawn, digest
from jaxrl.tasks.fields import field, is_int, is_text
from jaxrl.tasks.math.answers import final_answer, without_reasoning
from jaxrl.tasks.numbers.expressions import Expression, Unreadable, evaluate
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import CountdownSection

OPERATIONS = frozenset("+-*/")
MAX_NUMBERS = 20  # of a record from outside
MAX_ANSWER = 1_000  # characters; an expression has fewer

MIDDLE = " out of the numbers "
CLOSING = (
    " with +, -, *, / and brackets. Use each number at most once, and no other numbers. End with the "
    "expression on a line of its own, as `#### (1 + 2) * 3`."
)
MAX_SIDES = 20  # of a chain

_LABEL = re.compile(
    r"(?:(?:so|the|my|final) ){0,3}(?:answer|expression|solution|result|equation)(?: is)? ?:?[*]*",
    re.IGNORECASE,
)
_TIMES = re.compile(r"(?<=[0-9)]) ?[xX] ?(?=[0-9(])")
_DELIMITER = re.compile(r"\\[()\[\]]")
_TAGGED = re.compile(r"<answer>([^<]*)</answer>", re.IGNORECASE)


class Countdown:
    """The task; `section` is documented in `config/tasks.py`.

    Records: `prompt`, `numbers`, `target`, `solution` (an expression). One from outside needs `numbers`, or
    `nums`, and `target`.
    """

    failure_reward = 0.0

    def __init__(self, section: "CountdownSection"):
        self.section = section
        self.verify = judge
        sizes = {split: getattr(section, split) for split in SPLITS}
        settings = "task.numbers, task.largest or task.targets"
        self._drawn = Drawn("countdown", settings, section.seed, sizes, lambda seed: self._draw, self.problem)

    def problems(self, split: str) -> list[Problem]:
        return self._drawn.problems(split)

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        return self._drawn.generate(count, seed)

    def problem(self, record: Record) -> Problem:
        name = "nums" if "nums" in record and "numbers" not in record else "numbers"
        numbers = field(record, name, f"a list of at most {MAX_NUMBERS} positive whole numbers", _are_numbers)
        target = field(record, "target", "a whole number", is_int)
        prompt = (
            field(record, "prompt", "a text", is_text) if "prompt" in record else prompt_text(numbers, target)
        )
        uid = f"countdown-{digest([sorted(numbers), target])}"
        return Problem(uid, (Message(role="user", content=prompt),), {**record, "numbers": numbers})

    def demonstration(self, problem: Problem) -> str | None:
        """The expression that the problem was made from; None for a record without one."""
        solution = problem.data.get("solution")
        return f"#### {solution}" if is_text(solution) else None

    def texts(self) -> list[str]:
        return example_texts(self)

    def phrases(self) -> list[str]:
        return [MIDDLE, CLOSING, "####"]

    def baselines(self) -> dict[str, Baseline]:
        """random: all numbers in any order, joined at random. sum: all of them added."""
        return {
            "random": lambda problem, rng: f"#### {random_expression(problem.data['numbers'], rng)}",
            "sum": lambda problem, rng: f"#### {' + '.join(map(str, problem.data['numbers']))}",
        }

    def _draw(self, rng: random.Random, index: int, claim: Claim) -> Record | None:
        """Numbers joined at random to a target in range, so that there is a solution; it need not be the only
        one.
        """
        numbers = [rng.randint(1, self.section.largest) for _ in range(rng.randint(*self.section.numbers))]
        low, high = self.section.targets
        solution = random_expression(numbers, rng)
        try:
            target = evaluate(solution).value
        except Unreadable:  # a division by zero
            return None
        if target.denominator != 1 or not low <= target <= high or target in numbers:
            return None
        if not claim([sorted(numbers), int(target)]):
            return None
        return {
            "prompt": prompt_text(numbers, int(target)),
            "numbers": numbers,
            "target": int(target),
            "solution": solution,
        }


def judge(problem: Problem, text: str) -> Verdict:
    """1 for an expression that is the target and uses only what is given, else 0; `parts` also says whether
    it uses only that.
    """
    numbers, target = problem.data["numbers"], problem.data["target"]
    try:
        found = read_expression(text)
    except Unreadable as error:
        return _verdict(False, False, False, f"no expression: {error}")
    surplus = Counter(found.numbers) - Counter(numbers)
    if surplus:
        return _verdict(
            False,
            True,
            False,
            f"uses {', '.join(map(str, sorted(surplus)))} more often than given: {numbers}",
        )
    return _verdict(
        found.value == target, True, True, f"the expression is {found.value}; the target is {target}"
    )


def read_expression(text: str) -> Expression:
    """The expression of a completion.

    Raises:
      Unreadable: there is none.
    """
    text = without_reasoning(text)
    tags = list(_TAGGED.finditer(text))
    if tags and max(text.rfind("####"), text.rfind("\\boxed")) < tags[-1].start():
        answer = tags[-1][1]
    else:
        marked = final_answer(text)
        answer = marked.text if marked and marked.is_marked else _last_line(text)
    sides = _bare(answer).split("=", MAX_SIDES)
    found = [evaluate(side, OPERATIONS) for side in sides]
    if len({expression.value for expression in found}) > 1:
        raise Unreadable("the sides of the equation are not equal")
    return next((expression for expression in found if len(expression.numbers) > 1), found[0])


def _last_line(text: str) -> str:
    lines = [
        line for line in text.strip().splitlines() if not line.lstrip().startswith("```") and line.strip()
    ]
    return lines[-1] if lines else ""


def _bare(answer: str) -> str:
    """Without marks of emphasis in pairs, delimiters and a label.

    Raises:
      Unreadable: too long.
    """
    if len(answer) > MAX_ANSWER:
        raise Unreadable(f"longer than {MAX_ANSWER:,} characters")
    answer = _unpaired(_DELIMITER.sub("", answer))
    label = _LABEL.match(answer.lstrip("*"))
    answer = _unpaired(answer.lstrip("*")[label.end() :]) if label else answer
    return _TIMES.sub("*", answer)


def _unpaired(answer: str) -> str:
    answer = answer.strip("`$. ")
    for mark in ("**", "*"):
        if answer.startswith(mark) and answer.endswith(mark):
            answer = answer[len(mark) : -len(mark)].strip("`$. ")
    return answer


def prompt_text(numbers: list[int], target: int) -> str:
    return f"Make {target}{MIDDLE}{', '.join(map(str, numbers))}{CLOSING}"


def random_expression(numbers: list[int], rng: random.Random) -> str:
    """All the numbers in one expression: any two are joined by any operation until one is left. Brackets
    stand where they matter.
    """
    parts = [(str(number), "") for number in numbers]
    while len(parts) > 1:
        (a, inside_a), (b, inside_b) = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        operator = rng.choice("+-*/")
        if operator in "*/" and inside_a in ("+", "-"):
            a = f"({a})"
        if (operator != "+" and inside_b in ("+", "-")) or (operator == "/" and inside_b):
            b = f"({b})"
        parts.append((f"{a} {operator} {b}", operator))
    return parts[0][0]


def _are_numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_NUMBERS
        and all(is_int(number) and number > 0 for number in value)
    )


def _verdict(correct: bool, format_ok: bool, legal: bool, detail: str) -> Verdict:
    parts = {"correct": float(correct), "format": float(format_ok), "legal": float(legal)}
    return Verdict(float(correct), correct, format_ok, parts, detail)
