"""The bundled small programs: what they print is what their steps mean; every step is seen, counts, and is
said.
"""

import ast
import io
import random
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import pytest

from jaxrl.tasks.programs.inputs import INPUTS
from jaxrl.tasks.programs.meanings import MEANINGS
from jaxrl.tasks.programs.programs import (
    MIN_OUTPUTS,
    NUM_CASES,
    VARIABLES,
    draw_program,
    hard_to_guess,
    output_of,
    write_source,
)
from jaxrl.tasks.programs.steps import STEPS


@pytest.fixture(scope="module")
def programs():
    seen = set()

    def claim(content):
        is_new = str(content) not in seen
        seen.add(str(content))
        return is_new

    drawn = (draw_program(random.Random(i), claim) for i in range(3000))
    return [program for program in drawn if program is not None]


def printed(source, text, monkeypatch):
    """What a program prints: those made here are trusted, and run in this process."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(source, "main.py", "exec"), {"__name__": "__main__"})
    return out.getvalue().removesuffix("\n")


def test_programs_print_what_their_steps_mean(programs, monkeypatch):
    assert len(programs) > 1500
    for program in programs[:1000]:
        for case in program.cases:
            assert printed(program.source, f"{case.input}\n", monkeypatch) == case.output, program


def test_every_way_to_write_every_step_means_the_same(programs, monkeypatch):
    for step in STEPS:
        some = [program for program in programs if step.name in [other.name for other, _ in program.steps]][
            :5
        ]
        assert some, f"{step.name} is never drawn"
        for program in some:
            for form in step.forms:
                steps = tuple(
                    (replace(other, forms=(form,)) if other == step else other, k)
                    for other, k in program.steps
                )
                source = write_source(steps, random.Random(0))
                assert all(
                    printed(source, f"{case.input}\n", monkeypatch) == case.output for case in program.cases
                ), source


def test_tables_and_meanings_have_the_same_steps():
    names = [step.name for step in STEPS]
    assert len(names) == len(set(names)) and set(names) == set(INPUTS) | set(MEANINGS)
    assert {step.name for step in STEPS if step.takes == "input"} == set(INPUTS)


def test_a_step_cannot_overwrite_a_programs_variables():
    pool = {name for names in VARIABLES.values() for name in names}
    for step in STEPS:
        for form in step.forms:
            tree = ast.parse(form.replace("{x}", "TAKEN").replace("{y}", "GIVEN").replace("{k}", "3"))
            assert not {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & pool, step.name


def test_outputs_differ_and_no_step_is_idle(programs):
    for program in programs:
        outputs = [case.output for case in program.cases]
        assert (
            len(outputs) == NUM_CASES
            and len(set(outputs)) >= MIN_OUTPUTS
            and all(output.strip() for output in outputs)
        )
        for i, (step, _) in enumerate(program.steps):
            if step.takes == step.gives:
                without = program.steps[:i] + program.steps[i + 1 :]
                assert [output_of(without, case.value) for case in program.cases] != outputs
        assert {case.output for case in hard_to_guess(program)} <= set(outputs)


def test_statements_say_every_step_and_show_the_first_case(programs):
    for program in programs[:300]:
        assert all(step.says.replace("{k}", str(k)) in program.statement for step, k in program.steps)
        assert (
            f"```\n{program.cases[0].input}\n```" in program.statement
            and f"```\n{program.cases[0].output}\n```" in program.statement
        )


def test_there_is_variety(programs):
    assert len({program.source for program in programs}) == len(programs)
    assert {step.name for program in programs for step, _ in program.steps} == {step.name for step in STEPS}
    assert {len(program.steps) for program in programs} == {3, 4, 5, 6}
    nodes = {type(node) for program in programs[:500] for node in ast.walk(ast.parse(program.source))}
    assert {
        ast.For,
        ast.While,
        ast.If,
        ast.FunctionDef,
        ast.Import,
        ast.ListComp,
        ast.Dict,
        ast.Lambda,
    } <= nodes
    # input() under an if
    conditional = [p for p in programs if p.steps[0][0].name in ("one_or_many", "operation")]
    assert len(conditional) > 50
    assert any(case.input.startswith(" ") for program in programs for case in program.cases)
