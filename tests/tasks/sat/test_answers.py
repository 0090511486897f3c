"""What counts as an answer to a formula, and what it is worth: the table of the rules in `sat/answers.py`."""

import pytest

from jaxrl.tasks.sat.answers import TWO_VALUES, assignment_text, formula_text, judge, read_answer
from jaxrl.types import Problem

CLAUSES = [[1, 2], [-1, 3], [-2, -3]]  # true for x1 and x3 without x2, and for x2 alone
REFUTED = [[1], [-1]]


def verdict(text, clauses=CLAUSES, satisfiable=True):
    return judge(Problem("p", (), {"clauses": clauses, "satisfiable": satisfiable}), text)


@pytest.mark.parametrize(
    "text",
    [
        "x1=True, x2=False, x3=True",
        "x1=true,x2=false,x3=true",
        "X1 = TRUE , X2 = FALSE , X3 = TRUE",
        "x1=1, x2=0, x3=1",
        "x1=True x2=False x3=True",
        "x1=True\nx2=False\nx3=True",
        "- x1: True\n- x2: False\n- x3: True",
        "**x1=True, x2=False, x3=True**",
        "`x1=True, x2=False, x3=True`.",
        "x_1=True, x_{2}=False and x3==True",
        '{"x1": true, "x2": false, "x3": true}',
        "x3=True, x1=True, x2=False",  # in any order
        "x1=True, x1=True, x2=False, x3=True",  # said twice, the same
        "First x1=False, x2=False, x3=False fails at once. So: x1=True, x2=False, x3=True",
        "It looks UNSAT, but x1=True, x2=False, x3=True",
        "<think>UNSAT? x1=False</think>x1=True, x2=False, x3=True",
        "x9=False</think> x1=True, x2=False, x3=True",
        "The answer is x1=True, x2=False, x3=True. This makes all of them true.",
        "x1=True, x3=True, x2=False, x7=True",  # of a variable that there is none of
        # numbered lists and tables
        "1. x1=True\n2. x2=False\n3. x3=True",
        "1) x1: T\n\n2) x2: F\n\n3) **x3**: T",
        "| Variable | Value |\n|---|---|\n| x1 | True |\n| x2 | False |\n| x3 | True |",
        # other ways of writing
        r"$x_1=\text{True}$, $x_2=\text{False}$, $x_{3} = \mathrm{T}$",
        r"$x_1$ = True, \(x_2\) = False, $x_3 \to 1$",
        "x₁=True, x₂=False, x₃=True",
        "x1=T, x2=F, x3=t",
        "x1 is True, x2 is False, and x3 is True.",
        "x1 -> True, x2 → False, x3 := True",
        # what comes after the answer
        "x1=True, x2=False, x3=True. So it is not UNSAT.",
        "x1=True, x2=False, x3=True. It isn't unsatisfiable, and cannot be UNSAT.",
        "x1=True, x2=False, x3=True (UNSAT otherwise)",
        "x1=True, x2=False, x3=True; otherwise UNSAT",
        "x1=True, x2=False, x3=True\nCheck: clause 2 has x3=True",
        "x1=True, x2=False, x3=True\nCheck: x2=False, and here x1 is true, so all hold.",
    ],
)
def test_right_assignments(text):
    found = verdict(text)
    assert (found.reward, found.correct, found.format_ok) == (1.0, True, True), found.detail
    assert found.parts == {"correct": 1.0, "format": 1.0, "clauses": 1.0}


@pytest.mark.parametrize(
    "text, share",
    [
        ("x1=False, x2=False, x3=True", 2 / 3),
        ("x1=True, x2=True, x3=True", 2 / 3),
        ("x1=True", 1 / 3),  # what is left out makes nothing true
        ("x1=True, x2=False, x3=True. Or rather x1=False, x2=False", 2 / 3),  # the last run, as a whole
        ("x1=True, x2=False, x3=True\nCheck: x2=True", 1 / 3),
        ("x1=True, x2=False, x3=True\nCheck: x2=False, x4=True", 1 / 3),  # more than what was said
        ("x1=True, x2=False, x3=True; no, UNSAT, since x3=True", 1 / 3),
        ("x1=True, x2=True. No, it is not UNSAT.", 1 / 3),
        ("1. x1=True\n2. x2=True", 1 / 3),
        ("x1=True, x2=False, x3=True. Not so: UNSAT", 0.0),
        ("x1=True, x3=True, then x2=False", 1 / 3),  # not one run: a word comes between
        ("x9=True", 0.0),
        ("UNSAT", 0.0),
        ("unsatisfiable", 0.0),
        ("x1=True, x2=False, x3=True, no: UNSAT", 0.0),
    ],
)
def test_wrong_answers_are_read_and_get_nothing(text, share):
    found = verdict(text)
    assert (found.reward, found.correct, found.format_ok) == (0.0, False, True)
    assert found.parts == {"correct": 0.0, "format": 1.0, "clauses": pytest.approx(share)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "x1=maybe",
        "x1=10, x2=0a",
        "ax1=True",
        "x１=True",
        "x1=Truely",
        "x1 x2 x3",
        "True, False, True",
        "INSATIABLE",
        "<think>x1=True, x2=False, x3=True",  # reasoning that never ends
        "x1=True, x2=False, x3=True</think>",  # reasoning alone
        "xxx1=True" * 10_000,
    ],
)
def test_what_cannot_be_read(text):
    found = verdict(text)
    assert (found.reward, found.correct, found.format_ok) == (0.0, False, False)
    assert read_answer(text) is None


def test_no_answer_and_two_values_are_told_apart():
    text = "x1=True, x2=False, x3=True, x2=True"
    assert read_answer(text) == TWO_VALUES
    found = verdict(text)
    assert (found.reward, found.format_ok, found.detail) == (0.0, False, "one variable with two values")
    assert verdict("no idea").detail == "no answer"


def test_partial_assignments_count_where_they_are_enough():
    assert verdict("x1=True, x3=True", [[1, 2], [3, -4]]).correct  # whatever x2 and x4 are
    assert verdict("x1=False, x2=True", [[1, 2], [-1, 3]]).correct
    assert not verdict("x2=True", [[1, 2], [-1, 3]]).correct  # right for some x1 and x3, not for all


def test_a_formula_without_a_solution_wants_unsat():
    for text in ("UNSAT", "unsat", "`UNSAT`.", "The formula is UNSATISFIABLE.", "x1=True? No. UNSAT"):
        assert verdict(text, REFUTED, satisfiable=False).correct
    for text in ("x1=True", "x1=False", "SAT", "", "UNSAT, or x1=True"):
        assert not verdict(text, REFUTED, satisfiable=False).correct


def test_an_assignment_is_judged_by_the_formula_whatever_the_label_says():
    assert verdict("x1=True, x2=False, x3=True", satisfiable=False).correct
    assert not verdict("x1=True", REFUTED, satisfiable=True).correct


def test_text_of_formulas_and_assignments():
    assert formula_text([[1, -2], [3]]) == "(x1 ∨ ¬x2) ∧ (x3)"
    assert assignment_text([1, -2]) == "x1=True, x2=False"
    assert read_answer(assignment_text([1, -2, 3])) == {1: True, 2: False, 3: True}


def test_long_texts_are_read_in_linear_time():
    long = "x1=True, " * 100_000
    assert read_answer(long) == {1: True}
    assert read_answer("x" * 1_000_000 + "= " * 100_000) is None
    assert read_answer("x1" + " " * 1_000_000 + "," * 1_000_000 + " UNSAT") == "UNSAT"
