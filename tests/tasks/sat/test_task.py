"""The task as a whole: true labels, formulas that cannot be guessed, the original's instances bit for bit,
the same bytes everywhere.
"""

import hashlib
import json
import math
import pickle
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from jaxrl.config.tasks import SatSection
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.sat.answers import formula_text
from jaxrl.tasks.sat.solver import satisfies
from tests.tasks.fresh import output_of
from tests.tasks.sat.test_solver import solutions
from tests.tasks.tokenizing import tokenizer_that_gives_every_text_back

SPLITS = ("train", "val", "test")


def make(**values):
    return make_task(SatSection(name="sat", **values))


@pytest.fixture(scope="module")
def default():
    task = make()
    return task, {split: task.problems(split) for split in SPLITS}


def solved(task, problems, baseline):
    rng = random.Random(0)
    return sum(
        task.verify(problem, task.baselines()[baseline](problem, rng)).correct for problem in problems
    ) / len(problems)


def test_no_baseline_solves_more_than_15_percent_of_the_default_set(default):
    task, splits = default
    for problems in (splits["train"], splits["train"][:500] + splits["test"]):
        assert solved(task, problems, "majority") <= 0.10
        assert solved(task, problems, "random") <= 0.01
        assert solved(task, problems, "unsat") <= 0.15


@pytest.mark.parametrize("planting", ["quiet", "none"])
def test_majority_polarity_is_no_way_to_solve_other_sizes_either(planting):
    task = make(planting=planting, clause_sizes=(3, 4, 5), variables=(10, 14), train=200, unsatisfiable=0)
    assert solved(task, task.problems("train"), "majority") <= 0.15


def test_affine_planting_can_be_guessed_and_is_there_for_comparison():
    task = make(planting="affine", variables=(15, 15), clause_sizes=(10,), train=100)
    assert solved(task, task.problems("train"), "majority") > 0.95  # 1.00 of 200 in the original
    assert solved(task, task.problems("train"), "random") > 0.85  # 0.94


@pytest.mark.parametrize("planting", ["quiet", "none"])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_labels_are_those_of_enumeration(planting, k):
    task = make(planting=planting, clause_sizes=(k,), variables=(7, 9), unsatisfiable=0.5)
    for record in task.generate(12, seed=k):
        found = solutions(record["clauses"], max(abs(x) for c in record["clauses"] for x in c))
        assert record["satisfiable"] == bool(found)
        assert satisfies(record["solution"], record["clauses"]) if found else record["solution"] is None


def test_records_are_what_the_section_says(default):
    _, splits = default
    for problem in splits["train"]:
        record = problem.data
        assert set(record) == {"prompt", "clauses", "satisfiable", "solution"}
        # different variables
        assert {len({abs(literal) for literal in clause}) for clause in record["clauses"]} == {3}
        assert len(record["clauses"]) in {round(4.26 * n) for n in range(10, 21)}
        assert formula_text(record["clauses"]) in problem.messages[0]["content"] == record["prompt"]
    sizes = Counter(len(problem.data["solution"]) for problem in splits["train"] if problem.data["solution"])
    assert set(sizes) == set(range(10, 21)) and min(sizes.values()) > 40


def test_the_ratio_hangs_on_the_clause_size():
    for k, ratio in {2: 1.0, 3: 4.26, 4: 9.93, 5: 21.12, 6: 64 * math.log(2)}.items():
        (record,) = make(clause_sizes=(k,), variables=(12, 12), unsatisfiable=0).generate(1, seed=0)
        assert len(record["clauses"]) == round(12 * ratio)
    (record,) = make(ratio=2.0, variables=(12, 12), unsatisfiable=0).generate(1, seed=0)
    assert len(record["clauses"]) == 24


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_the_share_without_a_solution_is_exact(share):
    records = list(make(unsatisfiable=share, variables=(10, 12)).generate(60, seed=1))
    assert sum(not record["satisfiable"] for record in records) == round(share * 60)


def test_the_default_share_is_15_percent_and_none_for_affine(default):
    assert sum(not problem.data["satisfiable"] for problem in default[1]["train"]) == 150
    assert all(problem.data["satisfiable"] for problem in make(planting="affine", train=50).problems("train"))


def test_a_tokenizer_made_for_the_task_gives_every_text_back():
    task = make(variables=(10, 11), train=20, val=20)
    tokenizer = tokenizer_that_gives_every_text_back(task)
    assert {"True", "False"} <= set(tokenizer.get_vocab())


def test_demonstrations_are_right_and_best(default):
    task, splits = default
    for problem in splits["train"] + splits["val"] + splits["test"]:
        assert task.verify(problem, task.demonstration(problem)).reward == 1.0
    bare = task.problem({"clauses": [[1, 2], [-1]], "satisfiable": True})
    assert task.demonstration(bare) == "x1=False, x2=True"  # the solver's
    assert task.demonstration(task.problem({"clauses": [[1], [-1]], "satisfiable": True})) is None


# ---------------------------------------------------------------------------------------- the original's form


# Of the original's own generator (affinetes, `sat.py`), run on these task ids: its clauses as JSON, hashed.
ORIGINAL = {
    (15, 10, 0): "1d9cd3723177d112",
    (15, 10, 1): "c40dbd562ef047ad",
    (15, 10, 7): "875cbd8318cdee97",
    (10, 3, 3): "46c1f85c9befaa61",
}


@pytest.mark.parametrize("n, k, task_id", ORIGINAL)
def test_affine_planting_gives_the_instances_of_the_original(n, k, task_id):
    *_, record = make(planting="affine", variables=(n, n), clause_sizes=(k,)).generate(task_id + 1, seed=0)
    assert (
        record["task_id"] == task_id
        and record["satisfiable"]
        and satisfies(record["solution"], record["clauses"])
    )
    assert hashlib.sha256(json.dumps(record["clauses"]).encode()).hexdigest()[:16] == ORIGINAL[n, k, task_id]


def test_affine_seeds_do_not_overlap():
    task = make(planting="affine")
    ids = [record["task_id"] for seed in (0, 1, 2**32 - 1) for record in task.generate(5, seed)]
    assert ids == [*range(5), *range(2**32, 2**32 + 5), *range((2**32 - 1) * 2**32, (2**32 - 1) * 2**32 + 5)]


# ----------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("planting", ["quiet", "none", "affine"])
def test_splits_never_share_a_formula_whatever_seeds_and_sizes(planting):
    tasks = [
        make(planting=planting, variables=(5, 6), seed=seed, train=60, val=10, test=10) for seed in (0, 1)
    ]
    seen = {split: {p.uid for task in tasks for p in task.problems(split)} for split in SPLITS}
    assert (
        not seen["train"] & seen["val"]
        and not seen["train"] & seen["test"]
        and not seen["val"] & seen["test"]
    )
    for task in tasks:
        uids = [p.uid for split in SPLITS for p in task.problems(split)]
        assert len(set(uids)) == len(uids) == 80
    assert (
        make(planting=planting, variables=(5, 6), train=20).problems("train")
        == tasks[0].problems("train")[:20]
    )


def test_the_same_formula_in_another_order_is_the_same_problem():
    task = make()
    one, other = ({"clauses": c, "satisfiable": True} for c in ([[1, 2], [-1, 3]], [[3, -1], [2, 1]]))
    assert (
        task.problem(one).uid
        == task.problem(other).uid
        != task.problem({"clauses": [[1, 2], [1, 3]], "satisfiable": True}).uid
    )


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "record, message",
    [
        ({}, "field 'clauses' is missing; it should hold a list of clauses"),
        ({"clauses": [[1]]}, "field 'satisfiable' is missing; it should hold true or false"),
        ({"clauses": [[1, 0]], "satisfiable": True}, r"field 'clauses' is \[\[1, 0\]\]"),
        ({"clauses": [[1], []], "satisfiable": True}, "field 'clauses'"),
        ({"clauses": [], "satisfiable": True}, "field 'clauses'"),
        ({"clauses": [[True]], "satisfiable": True}, "field 'clauses'"),
        ({"clauses": [["1"]], "satisfiable": True}, "field 'clauses'"),
        ({"clauses": "x1", "satisfiable": True}, "field 'clauses'"),
        (
            {"clauses": [[1]], "satisfiable": "yes"},
            "field 'satisfiable' is 'yes'; it should hold true or false",
        ),
        ({"clauses": [[1]], "satisfiable": True, "prompt": 3}, "field 'prompt' is 3; it should hold a text"),
    ],
)
def test_broken_records_are_named(record, message):
    with pytest.raises(InputError, match=message):
        make().problem(record)


def test_what_there_is_no_formula_for_is_said():
    with pytest.raises(
        InputError, match="20,000 draws gave no new one that fits; ask for fewer, or change task.variables"
    ):
        list(make(ratio=0.1, unsatisfiable=1.0).generate(1, seed=0))
    with pytest.raises(InputError, match="task.val asks for 100 different problems of sat"):
        make(variables=(2, 2), clause_sizes=(2,), ratio=0.5, unsatisfiable=0).problems("val")
    with pytest.raises(InputError, match="unknown split 'dev'"):
        make().problems("dev")


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"variables": (4, 9), "clause_sizes": (3, 5)},
            "a clause of 5 different variables does not fit a formula of 4",
        ),
        ({"planting": "affine", "unsatisfiable": 0.5}, "planting: affine always has a solution"),
        ({"variables": (9, 4)}, r"\[9, 4\] must be the smallest and the largest number"),
    ],
)
def test_impossible_sections_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        SatSection(name="sat", **values)


# -------------------------------------------------------------------------------------------------- processes


def test_what_verifier_processes_receive_is_small():
    assert len(pickle.dumps(make().verify)) < 100


# Of these configurations; a change of it changes every generated data set, and must be meant.
DIGEST = "e93b059e98e07258f55c6721d40510bbbb4911d98a9b5c0b426acbcd29a08792"
PROGRAM = """
import hashlib, json, sys
from jaxrl.tasks.sat.task import Sat
assert not {"jax", "flax", "pydantic", "numpy"} & set(sys.modules), "the task must start fast"
from jaxrl.config.tasks import SatSection
values = []
for planting in ("quiet", "none", "affine"):
    sizes = dict(clause_sizes=(3, 4), variables=(8, 12), train=30, val=5, test=5)
    task = Sat(SatSection(name="sat", planting=planting, **sizes))
    problems = [problem for split in ("train", "val", "test") for problem in task.problems(split)]
    values += [[p.uid, p.messages, p.data, task.demonstration(p)] for p in problems]
    values += list(task.generate(20, 5))
assert not {"jax", "flax"} & set(sys.modules)
print(hashlib.sha256(json.dumps(values).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_config_gives_the_same_bytes_everywhere(hash_seed):
    assert output_of(PROGRAM, hash_seed) == DIGEST
