"""Countdown: every problem can be solved, which an independent search shows; only the given numbers count,
exactly.
"""

import itertools
import pickle
import random
import re
from fractions import Fraction

import pytest
from pydantic import ValidationError

from jaxrl.config.tasks import CountdownSection
from jaxrl.data.chat import render_for_sampling
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.numbers.countdown import random_expression
from jaxrl.tasks.numbers.expressions import Unreadable, evaluate
from tests.tasks.fresh import output_of
from tests.tasks.numbers.test_expressions import python_value
from tests.tasks.tokenizing import tokenizer_that_gives_every_text_back

SPLITS = ("train", "val", "test")


def make(**values):
    return make_task(CountdownSection(name="countdown", **values))


def reachable(numbers):
    """All values that some of the numbers give, each used at most once: every way of joining two of them,
    over and over.
    """
    found, todo = set(), {tuple(sorted(map(Fraction, numbers)))}
    while todo:
        values = todo.pop()
        found |= set(values)
        for i, j in itertools.permutations(range(len(values)), 2):
            rest = [v for k, v in enumerate(values) if k not in (i, j)]
            a, b = values[i], values[j]
            for joined in (a + b, a - b, a * b, *([a / b] if b else [])):
                todo.add(tuple(sorted([*rest, joined])))
    return found


def test_every_problem_can_be_solved_and_not_by_a_given_number_alone():
    task = make(train=150, val=30, test=30)
    for split in SPLITS:
        for problem in task.problems(split):
            numbers, target = problem.data["numbers"], problem.data["target"]
            assert target in reachable(numbers) and target not in numbers
            assert (
                len(numbers) in (3, 4) and all(1 <= number <= 99 for number in numbers) and 10 <= target <= 99
            )


def test_difficulty_is_as_set():
    problems = make(numbers=(5, 6), largest=10, targets=(100, 999), train=100).problems("train")
    assert {len(problem.data["numbers"]) for problem in problems} == {5, 6}
    assert {number for problem in problems for number in problem.data["numbers"]} == set(range(1, 11))
    assert all(100 <= problem.data["target"] <= 999 for problem in problems)


def test_three_numbers_are_joined_in_every_way_with_the_brackets_that_matter():
    expected = set()
    for first, second in itertools.product("+-*/", repeat=2):
        for bracketed in (f"(7 {first} 5) {second} 3", f"7 {first} (5 {second} 3)"):
            plain = bracketed.replace("(", "").replace(")", "")
            expected.add(plain if python_value(plain) == python_value(bracketed) else bracketed)
    rng = random.Random(0)
    shapes = {re.sub("[0-9]", "n", random_expression([7, 5, 3], rng)) for _ in range(5000)}
    assert shapes == {re.sub("[0-9]", "n", text) for text in expected}


def test_joined_expressions_use_every_number_once():
    rng = random.Random(0)
    for _ in range(500):
        numbers = [rng.randint(1, 9) for _ in range(rng.randint(1, 6))]
        text = random_expression(numbers, rng)
        expected = python_value(text)
        if expected is None:
            with pytest.raises(Unreadable):
                evaluate(text)
            continue
        found = evaluate(text)
        assert found.value == expected and sorted(found.numbers) == sorted(numbers)


def judged(text, numbers=(3, 3, 8, 8), target=24):
    task = make()
    return task.verify(task.problem({"numbers": list(numbers), "target": target}), text)


@pytest.mark.parametrize(
    "text",
    [
        "#### 8 / (3 - 8 / 3)",  # exact: by way of 1/3
        "#### 3 * 8",  # at most once, so not all
        "8*3",
        "Let me see.\n8 * 3 = 24",
        r"\boxed{8 \times 3}",
        r"$\boxed{\left(8 \cdot 3\right)}$",
        "<answer>(8 + 8 + 8) * 3</answer> no: <answer>8 * 3</answer>",
        "<think>8 + 8</think>#### 3 × 8",
        "#### 8 + 8\n#### 8 * 3",
        "<answer>8 + 8</answer>\n#### 8 * 3",
        "#### 8 + 8\n<ANSWER> 8 * 3 </ANSWER>",
        "#### `8 * 3`.",
        # marks of emphasis and mathematics, fences, labels
        *(
            "#### **8*3**",
            "**8*3**",
            "*8 * 3*",
            "**8*3 = 24**",
            r"\(8*3\)",
            r"#### \[8*3\]",
            "```\n8*3\n```",
            "####\n```text\n8*3\n```\n",
        ),
        *(
            "Expression: 8*3",
            "The answer: 3 * 8",
            "**Expression:** 8*3",
            "**Final answer: 8*3**",
            "#### The answer is $8*3$.",
        ),
        *("#### -8 * -3", "#### 3 * -(-8)"),
        # another times, and either side of an equation
        *(
            "#### 8 x 3",
            "#### 8x3",
            "#### (8) X (3)",
            "8*3 = 12*2 = 24",
            "24 = 8*3",
            "#### 24 = 3 * 8 = 24",
            "#### 24 = 8 x 3",
        ),
    ],
)
def test_right_answers(text):
    verdict = judged(text)
    assert (verdict.reward, verdict.correct, verdict.format_ok) == (1.0, True, True), verdict.detail
    assert verdict.parts == {"correct": 1.0, "format": 1.0, "legal": 1.0}


@pytest.mark.parametrize(
    "text, legal",
    [
        ("#### 8 + 8", True),
        ("#### 24", False),  # not a given number
        ("#### 8 + 8 + 8", False),  # once too often
        ("#### 3 * 8 + 0", False),
        ("#### 3 * 8 * 1", False),
        ("#### 38 - 14", False),
        ("#### 8 * 3\n#### 8 + 3", True),  # the last one counts
        ("#### 3 / 8", True),
        ("#### 12 * 2 = 8 * 3", False),  # the first side that has an operation counts
        ("#### 24 = 24", False),
    ],
)
def test_wrong_answers(text, legal):
    verdict = judged(text)
    assert (verdict.reward, verdict.correct, verdict.format_ok) == (0.0, False, True)
    assert verdict.parts == {"correct": 0.0, "format": 1.0, "legal": float(legal)}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "no idea",
            "####",
            "#### 8 ** 3",
            "#### 9**9**9",
            "#### 9^9^9",
            "#### 8 // 3",
            "#### 3 * 8 or 8 + 8",
        ),
        *("#### 3 * 8 = 25", "#### 24 = 3 * 8 = 25", "#### 3 * 8 = = 24", "Expression: 3 * 8 *"),
        *("#### 8 / (3 - 3)", "#### ８ * 3", "#### eval('24')", "#### __import__('os')"),
        *(
            "<answer>3 * 8",
            "<think>3 * 8",
            r"\boxed{3 * 8",
            "My guess: 3 * 8",
            "#### **3 * 8",
            "#### 8 y 3",
            "8 * 3" + " = 24" * 300,
        ),
        *("#### (((3 * 8", "#### 3 8 *", "#### 8.0 * 3"),
        *("#### " + "(" * 10**6, "#### " + "9" * 10**6, "<answer>" * 10**5, "8*" * 10**6),
    ],
)
def test_what_cannot_be_read(text):
    verdict = judged(text)
    assert (verdict.reward, verdict.correct, verdict.format_ok) == (0.0, False, False)
    assert verdict.parts == {"correct": 0.0, "format": 0.0, "legal": 0.0} and verdict.detail


def test_rounding_is_no_way_to_a_target():
    assert (
        not judged("#### 10 / 3 * 3 + 1", (10, 3, 3, 1), 12).correct
        and judged("#### 10 / 3 * 3 + 1", (10, 3, 3, 1), 11).correct
    )
    assert not judged("#### 7 / 2", (7, 2), 3).correct


def test_demonstrations_earn_all_and_baselines_little():
    task = make()
    problems, rng = task.problems("train"), random.Random(0)
    assert all(task.verify(problem, task.demonstration(problem)).reward == 1.0 for problem in problems)
    for baseline in task.baselines().values():
        verdicts = [task.verify(problem, baseline(problem, rng)) for problem in problems]
        assert sum(verdict.reward for verdict in verdicts) / len(verdicts) < 0.10
    assert task.demonstration(task.problem({"numbers": [3, 8], "target": 24})) is None
    assert judged("#### 7", numbers=[7], target=7).correct


def test_a_tokenizer_made_for_the_task_gives_every_text_back():
    task = make(train=200)
    tokenizer = tokenizer_that_gives_every_text_back(task)
    assert len(tokenizer) < 400 and len(render_for_sampling(tokenizer, task.problems("val")[0].messages)) < 40


def test_records_of_other_makers_are_read_and_order_does_not_matter():
    task = make()
    assert (
        task.problem({"nums": [3, 8], "target": 24}).uid
        == task.problem({"numbers": [8, 3], "target": 24, "split": "x"}).uid
    )
    assert (
        task.problem({"nums": [3, 8], "target": 24}).uid != task.problem({"nums": [3, 8], "target": 11}).uid
    )
    prompt = task.problem({"nums": [3, 8], "target": 24}).messages[0]["content"]
    assert "Make 24 out of the numbers 3, 8" in prompt


def test_splits_never_share_a_problem_whatever_the_settings():
    tasks = [
        make(seed=seed, numbers=(2, 3), largest=9, targets=(10, 30), train=200, val=30, test=30)
        for seed in (0, 1)
    ]
    seen = {split: {p.uid for task in tasks for p in task.problems(split)} for split in SPLITS}
    assert (
        not seen["train"] & seen["val"]
        and not seen["train"] & seen["test"]
        and not seen["val"] & seen["test"]
    )
    assert all(len({p.uid for split in SPLITS for p in task.problems(split)}) == 260 for task in tasks)


def test_targets_out_of_reach_are_said():
    with pytest.raises(
        InputError,
        match="no new one that fits; ask for fewer, or change task.numbers, task.largest or task.targets",
    ):
        make(numbers=(2, 2), largest=3, targets=(500, 600)).problems("test")


@pytest.mark.parametrize(
    "record, message",
    [
        (
            {"target": 24},
            "field 'numbers' is missing; it should hold a list of at most 20 positive whole numbers",
        ),
        ({"numbers": [], "target": 24}, "field 'numbers'"),
        ({"numbers": [3, 0], "target": 24}, "field 'numbers'"),
        ({"numbers": [3, 8.0], "target": 24}, "field 'numbers'"),
        ({"nums": "3 8", "target": 24}, "field 'nums' is '3 8'"),
        ({"numbers": [3, 8]}, "field 'target' is missing"),
        ({"numbers": [3, 8], "target": "24"}, "field 'target' is '24'; it should hold a whole number"),
    ],
)
def test_broken_records_are_named(record, message):
    with pytest.raises(InputError, match=message):
        make().problem(record)


@pytest.mark.parametrize(
    "values", [{"numbers": (1, 3)}, {"numbers": (3, 7)}, {"largest": 1}, {"targets": (99, 10)}]
)
def test_impossible_sections_are_refused(values):
    with pytest.raises(ValidationError):
        CountdownSection(name="countdown", **values)


def test_what_verifier_processes_receive_is_small():
    assert len(pickle.dumps(make().verify)) < 100


# Of this configuration; a change of it changes every generated data set, and must be meant.
DIGEST = "4afdcb65beee00bd318a5c228f389b23ddcde2eab894aa53f21371a3917a09b0"
PROGRAM = """
import hashlib, json, sys
from jaxrl.tasks.numbers.countdown import Countdown
assert not {"jax", "flax", "pydantic", "numpy"} & set(sys.modules), "the task must start fast"
from jaxrl.config.tasks import CountdownSection
task = Countdown(CountdownSection(name="countdown", train=100, val=20, test=20))
problems = [problem for split in ("train", "val", "test") for problem in task.problems(split)]
values = [[p.uid, p.messages, p.data, task.demonstration(p)] for p in problems] + list(task.generate(50, 5))
print(hashlib.sha256(json.dumps(values).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_config_gives_the_same_bytes_everywhere(hash_seed):
    assert output_of(PROGRAM, hash_seed) == DIGEST
