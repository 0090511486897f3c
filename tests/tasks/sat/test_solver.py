"""The solver against the definition: every formula tried by hand or by enumeration, and the laws of what it
learns.
"""

import itertools
import random

import pytest

from jaxrl.tasks.sat.solver import Undecided, satisfies, solve


def solutions(clauses, n):
    """All assignments that make every clause true, found by trying them all."""
    every = (
        tuple(v if bit else -v for v, bit in enumerate(bits, start=1))
        for bits in itertools.product((False, True), repeat=n)
    )
    return [literals for literals in every if all(set(clause) & set(literals) for clause in clauses)]


def random_formula(rng, n, k, m):
    return [[v if rng.random() < 0.5 else -v for v in rng.sample(range(1, n + 1), k)] for _ in range(m)]


def pigeons(holes):
    """One pigeon more than holes: each sits somewhere, no two together. Without a solution, and without a
    short proof.
    """
    sits = {(p, h): 1 + p * holes + h for p in range(holes + 1) for h in range(holes)}
    somewhere = [[sits[p, h] for h in range(holes)] for p in range(holes + 1)]
    return somewhere + [
        [-sits[p, h], -sits[q, h]]
        for h in range(holes)
        for p, q in itertools.combinations(range(holes + 1), 2)
    ]


def test_it_agrees_with_enumeration_on_formulas_of_all_shapes():
    rng, found = random.Random(0), {True: 0, False: 0}
    for _ in range(1500):
        n = rng.randint(1, 8)
        # Repeated literals, x and not x in one clause, clauses of one literal: whatever comes.
        clauses = [
            [rng.choice((-1, 1)) * rng.randint(1, n) for _ in range(rng.randint(1, 4))]
            for _ in range(rng.randint(0, 30))
        ]
        solution, expected = solve(clauses), solutions(clauses, n)
        found[bool(expected)] += 1
        assert (solution is not None) == bool(expected), clauses
        if solution is not None:
            assert satisfies(solution, clauses)
            assert [abs(literal) for literal in solution] == list(
                range(1, max((abs(x) for c in clauses for x in c), default=0) + 1)
            )
    assert min(found.values()) > 300


@pytest.mark.parametrize("n, k, ratio", [(14, 3, 4.26), (12, 4, 9.93), (10, 5, 21.12)])
def test_it_agrees_with_enumeration_at_the_threshold(n, k, ratio):
    rng, classes = random.Random(n), set()
    for _ in range(12):
        clauses = random_formula(rng, n, k, round(ratio * n))
        solution, expected = solve(clauses), solutions(clauses, n)
        classes.add(bool(expected))
        assert solution is None if not expected else tuple(solution) in expected
    assert classes == {True, False}


@pytest.mark.parametrize(
    "clauses, expected",
    [
        ([], []),
        ([[1]], [1]),
        ([[-1]], [-1]),
        ([[1], [-1]], None),
        ([[]], None),
        ([[1, -1]], [-1]),
        ([[1, 1]], [1]),
        ([[1, 2], [-1, 2], [1, -2]], [1, 2]),
        ([[1, 2], [-1, 2], [1, -2], [-1, -2]], None),
        ([[1], [-1, 2], [-2, 3], [-3, 4]], [1, 2, 3, 4]),
        ([[1], [-1, 2], [-2, 3], [-3, -1]], None),
    ],
)
def test_hand_table(clauses, expected):
    assert solve(clauses) == expected


@pytest.mark.parametrize("holes", [2, 3, 4, 5])
def test_pigeons_do_not_fit(holes):
    assert solve(pigeons(holes)) is None
    assert solve(pigeons(holes)[1:]) is not None  # one pigeon may stay away


def test_planted_formulas_of_a_hundred_variables_are_solved():
    rng = random.Random(3)
    hidden = [v if rng.random() < 0.5 else -v for v in range(1, 101)]
    clauses = [c for c in random_formula(rng, 100, 3, 480) if set(c) & set(hidden)]
    assert satisfies(solve(clauses), clauses)


def test_the_limit_of_conflicts_is_kept_and_repeats():
    with pytest.raises(Undecided, match="20 conflicts"):
        solve(pigeons(6), max_conflicts=20)
    assert solve([[1, 2], [-1, 2]], max_conflicts=20) is not None


def test_the_formula_is_left_as_it_was():
    clauses = random_formula(random.Random(1), 10, 3, 42)
    before = [list(clause) for clause in clauses]
    assert solve(clauses) == solve(clauses) and clauses == before


def test_satisfies_means_a_literal_of_every_clause():
    assert satisfies([1], [[1, 2], [1, -3]]) and not satisfies([2], [[1, 2], [1, -3]])
    assert satisfies([], []) and not satisfies([1, 2], [[]])
