"""Small programs with a statement and cases, put together from steps: what abduction and deduction ask.

A program reads a value, takes it through one to four steps of matching kinds, and prints it. The steps' words
make the statement, their Python the program, and their meanings (`meanings.py`, written apart) the
expected outputs. A program is kept only if its cases have different outputs, and if no step can be left out
without changing one of them.
"""

import random
from dataclasses import dataclass
from typing import Any

from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.programs.inputs import INPUTS
from jaxrl.tasks.programs.meanings import MEANINGS
from jaxrl.tasks.programs.steps import STEPS, Step

NUM_CASES = 8
MIN_OUTPUTS = 4  # different ones among them
MAX_OUTPUT = 400  # characters
LENGTHS = (1, 2, 2, 2, 3, 3, 4)
VARIABLES = {
    "ints": ("nums", "values", "xs", "data", "numbers", "items"),
    "int": ("total", "result", "value", "x", "number", "answer"),
    "text": ("s", "text", "line", "sentence", "phrase", "string"),
    "words": ("words", "tokens", "parts", "names", "ws", "terms"),
}
TAKING = {kind: tuple(step for step in STEPS if step.takes == kind) for kind in ("input", *VARIABLES)}
# What someone might answer who has not read the program.
GUESSES = {
    "ints": ([], [0], [1], [2], [5], [10], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 1, 2]),
    "int": (0, 1, 2, 3, 5, 7, 10, 42, 100, -1),
    "text": ("", "a", "abc", "hello", "hello world", "Hello World", "test", "1", "aab"),
    "words": ([], ["a"], ["abc"], ["hello"], ["hello", "world"], ["a", "b", "c"]),
}


@dataclass(frozen=True)
class Case:
    """The value drawn, the input that stands for it, and the output, both without a line end at the end."""

    value: Any
    input: str
    output: str


@dataclass(frozen=True)
class Program:
    """steps: each with its k. source: the Python. statement: what it does, in English."""

    steps: tuple[tuple[Step, int], ...]
    source: str
    statement: str
    cases: tuple[Case, ...]


def draw_program(rng: random.Random, claim: Claim) -> Program | None:
    """A program with NUM_CASES cases, or None where the draw came to nothing; its steps are claimed."""
    steps = _draw_steps(rng)
    if not claim([[step.name, k] for step, k in steps]):
        return None
    drawn = [INPUTS[steps[0][0].name](rng) for _ in range(NUM_CASES)]
    cases = tuple(Case(value, "\n".join(lines), output_of(steps, value)) for value, lines in drawn)
    if not _tells_steps_apart(steps, cases):
        return None
    return Program(steps, write_source(steps, rng), _statement(steps, cases[0]), cases)


def output_of(steps: tuple[tuple[Step, int], ...], value: Any) -> str:
    """What a program of these steps prints for the value that its first step reads."""
    for step, k in steps[1:]:
        value = MEANINGS[step.name](value, k)
    return value


def hard_to_guess(program: Program) -> list[Case]:
    """The cases whose output is neither that of a value tried blindly nor the input itself."""
    kind = program.steps[0][0].gives
    guessed = {output_of(program.steps, value) for value in GUESSES[kind]}
    return [
        case
        for case in program.cases
        if case.output not in guessed and case.output.split() != case.input.split()
    ]


def write_source(steps: tuple[tuple[Step, int], ...], rng: random.Random) -> str:
    """The Python of the steps, with forms and names of variables drawn; half the time inside a function."""
    names = {kind: rng.sample(choices, len(choices)) for kind, choices in VARIABLES.items()}
    pieces, variable = [], ""
    for step, k in steps:
        taken, variable = variable, names[step.gives].pop() if step.gives in names else ""
        form = rng.choice(step.forms)
        pieces.append(form.replace("{x}", taken).replace("{y}", variable).replace("{k}", str(k)))
    lines = "".join(pieces).splitlines()
    imports = sorted({line for line in lines if line.startswith("import ")})
    body = [line for line in lines if line and line not in imports]
    if rng.random() < 0.5:
        body = ["def main():", *(f"    {line}" for line in body), "", "", "main()"]
        imports += ["", ""] if imports else []
    else:
        imports += [""] if imports else []
    return "\n".join(imports + body) + "\n"


def _draw_steps(rng: random.Random) -> tuple[tuple[Step, int], ...]:
    """A reader, one to four steps, no step twice, and a writer."""
    steps = [rng.choice(TAKING["input"])]
    for _ in range(rng.choice(LENGTHS)):
        steps.append(
            rng.choice(
                [step for step in TAKING[steps[-1].gives] if step.gives != "output" and step not in steps]
            )
        )
    steps.append(rng.choice([step for step in TAKING[steps[-1].gives] if step.gives == "output"]))
    return tuple((step, rng.choice(step.ks)) for step in steps)


def _tells_steps_apart(steps: tuple[tuple[Step, int], ...], cases: tuple[Case, ...]) -> bool:
    """Whether outputs differ enough, are short enough, and show every step that could be left out."""
    outputs = [case.output for case in cases]
    if (
        len(set(outputs)) < MIN_OUTPUTS
        or max(map(len, outputs)) > MAX_OUTPUT
        or not all(output.strip() for output in outputs)
    ):
        return False
    removable = [i for i, (step, _) in enumerate(steps) if step.takes == step.gives]
    return all(
        [output_of(steps[:i] + steps[i + 1 :], case.value) for case in cases] != outputs for i in removable
    )


def _statement(steps: tuple[tuple[Step, int], ...], example: Case) -> str:
    (reader, _), *middle, (writer, _) = steps
    todo = [
        f"{number}. {step.says.replace('{k}', str(k))}" for number, (step, k) in enumerate(middle, start=1)
    ]
    shown = f"Example input:\n```\n{example.input}\n```\nExample output:\n```\n{example.output}\n```"
    return "\n".join([reader.says, "Then do this, in this order:", *todo, writer.says, "", shown])
