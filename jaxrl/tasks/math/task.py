r"""Mathematics questions with a number or an expression as their answer: GSM8K, MATH, and the like.

Where a completion's answer stands, behind the last #### or in the last \boxed{}, and which number it is, is
read in `answers.py`; what lists, intervals, equations and the like are, in `structure.py`; when two answers
are alike is decided in `alike.py`. Expressions are compared as functions of their unknowns, and with
`symbolic` by the values of their roots and functions (`algebra.py`).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxrl.errors import InputError
from jaxrl.files.jsonl import short
from jaxrl.tasks.base import SPLITS, Baseline, Record, example_texts
from jaxrl.tasks.drawing import digest
from jaxrl.tasks.fields import field, is_int, is_text
from jaxrl.tasks.math.alike import equal
from jaxrl.tasks.math.answers import MAX_CHARS, final_answer
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import MathSection

VAL_SHARE = 20  # one in so many records of the train file belongs to val

INSTRUCTIONS = {
    "hashes": "Think step by step. End with the answer on a line of its own, as `#### 42`.",
    "boxed": "Think step by step. End with the answer in a box, as `\\boxed{42}`.",
}
MARKS = {"hashes": "#### {}", "boxed": "The answer is \\boxed{{{}}}."}
ASKS_PERCENT = re.compile(r"\b(?:what|which|how many|as an?|in) (?:[a-z']+ ){0,4}per ?cent", re.IGNORECASE)
ASKS_ORDER = re.compile(
    r"\b(?:(?:in|by) (?:[a-z]+ ){0,3}order\b(?! (?:to|that)\b)|(?:correct|right) order\b|from (?:the"
    r" )?(?:[a-z]+est|least|most) to\b"
    r"|respectively\b|order(?:ed)? (?:from|by|them|these)\b|(?:arrange|rank|sort)(?:ed)?\b)",
    re.IGNORECASE,
)
PROSE = re.compile(r"(?:(?<![\\\w])[A-Za-z]{2,}\s+){2}[A-Za-z]{2,}")
CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator


class Math:
    """The task; `section` is documented in `config/tasks.py`. No generator: questions come from files.

    Raises:
      InputError: `symbolic` without its library.
    """

    failure_reward = 0.0

    def __init__(self, section: "MathSection"):
        if section.symbolic:
            from jaxrl.tasks.math.algebra import require

            require()
        self.section = section
        self.verify = MathReward(section.symbolic)
        self._problems: dict[str, list[Problem]] = {}

    def problems(self, split: str) -> list[Problem]:
        """The split's questions, in the order of their file, each once. No test question is in another split.

        Raises:
          InputError: a file that cannot be read, a record that is not as it should be (file and line are
            named), no source, or a split that does not exist.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        most = getattr(self.section, split)
        if split not in self._problems:
            self._problems[split] = self._split(split) if most != 0 else []
        return self._problems[split][:most]

    def problem(self, record: Record) -> Problem:
        question = field(record, "problem" if "problem" in record else "question", "the question", is_text)
        content = f"{question}\n\n{INSTRUCTIONS[self.section.answer_format]}"
        return Problem(
            f"math-{digest(question)}",
            (Message(role="user", content=content),),
            {**record, "gold": gold_of(record)},
        )

    def demonstration(self, problem: Problem) -> str:
        """The record's solution without a calculator's notes, its answer in the format asked for."""
        gold, answer_format = problem.data["gold"], self.section.answer_format
        solution = CALCULATOR.sub("", str(problem.data.get("solution", problem.data.get("answer"))))
        if answer_format == "boxed" and "\\boxed" in solution:
            return solution.strip()
        reasoning = solution.rpartition("####")[0] if "####" in solution else solution
        mark = MARKS[answer_format].format(gold)
        return mark if reasoning.strip() == gold else f"{reasoning.strip()}\n{mark}"

    def texts(self) -> list[str]:
        return example_texts(self)

    def phrases(self) -> list[str]:
        return [INSTRUCTIONS[self.section.answer_format], "####", "\\boxed{"]

    def baselines(self) -> dict[str, Baseline]:
        """last_number: that of the question. any_number: one of those that the question holds, drawn."""
        return {
            "last_number": lambda problem, rng: f"#### {_numbers(problem)[-1]}",
            "any_number": lambda problem, rng: f"#### {rng.choice(_numbers(problem))}",
        }

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        raise InputError(
            "the task math has no generator, since its questions come from files; try arithmetic or countdown"
        )

    # ------------------------------------------------------------------------------------------------ reading

    def _split(self, split: str) -> list[Problem]:
        if split == "test":
            return self._read("test")
        tested = {problem.uid for problem in self._read("test")} if self._has_test else set()
        return [p for p in self._read("train") if p.uid not in tested and _is_val(p) == (split == "val")]

    @property
    def _has_test(self) -> bool:
        return bool(self.section.test_file or self.section.hub) and self.section.test != 0

    def _read(self, source: str) -> list[Problem]:
        from jaxrl.data.tables import read_file, read_hub

        file = getattr(self.section, f"{source}_file")
        if file is None and self.section.hub is None:
            raise InputError(
                f"the task math has no questions of its own; set task.{source}_file or task.hub, or "
                f"task.{source} to 0"
            )
        rows = (
            read_file(file)
            if file is not None
            else read_hub(self.section.hub, self.section.hub_config, source)
        )
        problems: dict[str, Problem] = {}
        for place, record in rows:
            try:
                problem = self.problem(record)
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
            problems.setdefault(problem.uid, problem)
        return list(problems.values())


@dataclass(frozen=True)
class MathReward:
    """1 for the right answer, else 0. `parts` also says whether there was an answer, and whether it stood
    where it was asked for.
    """

    symbolic: bool = False

    def __call__(self, problem: Problem, text: str) -> Verdict:
        gold, found = problem.data["gold"], final_answer(text)
        if found is None:
            parts = {"correct": 0.0, "format": 0.0, "marked": 0.0}
            return Verdict(
                0.0, correct=False, format_ok=False, parts=parts, detail=f"no answer; right is {short(gold)}"
            )
        question = _question(problem)
        in_percent = bool(ASKS_PERCENT.search(question))
        in_order = not gold.isdecimal() and bool(ASKS_ORDER.search(question))
        is_right = equal(gold, found.text, symbolic=self.symbolic, in_percent=in_percent, in_order=in_order)
        parts = {"correct": float(is_right), "format": 1.0, "marked": float(found.is_marked)}
        return Verdict(
            parts["correct"], is_right, True, parts, f"answer {short(found.text)}, right is {short(gold)}"
        )


def gold_of(record: Record) -> str:
    """The right answer: behind the last ####, or in the last box (or joined boxes), of `answer` or else of
    `solution`; or all of `answer`, which may be a number, and may go over several lines if it is no prose.

    Raises:
      InputError: no such field, or no answer in it.
    """
    name = "answer" if "answer" in record or "solution" not in record else "solution"
    place = "a text that ends with `#### 42` or \\boxed{42}" + (
        ", or the answer alone" if name == "answer" else ""
    )
    text = str(
        field(record, name, place, lambda value: is_text(value) or (name == "answer" and _is_number(value)))
    )
    if "####" in text or "\\boxed" in text:
        found = final_answer(text)
        gold = found.text if found and (found.is_marked or found.is_stated) else ""
    else:
        gold = text.strip() if name == "answer" else ""
    if PROSE.search(gold) and len(gold.splitlines()) > 1:
        gold = ""
    gold = " ".join(gold.split())
    if not gold or len(gold) > MAX_CHARS:
        raise InputError(f"field {name!r} is {short(text)}; it should hold {place}")
    return gold


def _is_number(value: object) -> bool:
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_val(problem: Problem) -> bool:
    return int(problem.uid.rpartition("-")[2], 16) % VAL_SHARE == 0


def _numbers(problem: Problem) -> list[str]:
    return re.findall(r"[0-9][0-9,]*(?:\.[0-9]+)?", _question(problem)) or ["0"]


def _question(problem: Problem) -> str:
    return problem.data.get("problem") or problem.data.get("question", "")
