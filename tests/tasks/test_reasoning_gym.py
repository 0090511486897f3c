"""reasoning-gym: its sets through our hands, scores with a floor, what is refused, levels and weights."""

import json
import pickle
import sys
from collections import Counter

import pytest

from jaxrl.config.file import make_task_section
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.reasoning_gym import REFUSED, VOID, answer_of, judge
from tests.tasks.fresh import output_of

FEW = "dataset={chain_sum: 1, leg_counting: 1, propositional_logic: 1, rush_hour: 1}"


@pytest.fixture(autouse=True)
def _package():
    pytest.importorskip("reasoning_gym", reason="the extra `reasoning_gym` is not installed")


def make(*overrides):
    sizes = ("train=20", "val=4", "test=4")
    return make_task(make_task_section("reasoning_gym", [*sizes, *overrides]))


def test_the_own_answers_are_right_and_void_ones_pay_nothing():
    task = make(FEW)
    names = set()
    for problem in task.problems("train"):
        names.add(problem.data["dataset"])
        demonstration = task.demonstration(problem)
        if demonstration is not None:
            verdict = task.verify(problem, f"<think>hm</think>So: {demonstration}")
            assert (verdict.reward, verdict.correct, verdict.format_ok) == (1, True, True)
        for text in ("", "42", *(f"<answer>{void}</answer>" for void in VOID)):
            verdict = task.verify(problem, text)
            assert (verdict.reward, verdict.correct) == (0, False)
    assert names == {"chain_sum", "leg_counting", "propositional_logic", "rush_hour"}


def test_every_set_that_is_not_refused_scores_its_own_answer_after_json():
    """The quick ones among them."""
    names = (
        "basic_arithmetic bf caesar_cipher family_relationships fraction_simplification gcd letter_counting "
        "maze number_sorting syllogism time_intervals"
    )
    for name in names.split():
        task = make(f"dataset={name}", "train=3", "val=0", "test=0")
        for problem in task.problems("train"):
            again = task.problem(json.loads(json.dumps(problem.data)))
            assert again == problem
            assert judge(again, task.demonstration(again)).reward == 1


def test_the_floor_is_taken_off_and_the_rest_stretched(monkeypatch):
    task = make("dataset=chain_sum")
    problem = task.problems("train")[0]
    scores = {"good": 1.0, "half": 0.5, "low": 0.1}
    monkeypatch.setattr("jaxrl.tasks.reasoning_gym._scorer", lambda name: lambda a, e: scores.get(a, 0.2))
    rewards = [judge(problem, f"<answer>{word}</answer>").reward for word in ("good", "half", "low", "void")]
    assert rewards == pytest.approx([1, 0.3 / 0.8, 0, 0])
    monkeypatch.setattr("jaxrl.tasks.reasoning_gym._scorer", lambda name: lambda answer, entry: 1.0)
    assert judge(problem, "<answer>x</answer>").reward == 0  # it pays for everything, so for nothing


def test_a_scorer_that_raises_is_an_answer_that_cannot_be_read():
    task = make("dataset=prime_factorization")
    verdict = task.verify(task.problems("train")[0], "<answer>two by three</answer>")
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.error) == (0, False, False, None)


@pytest.mark.parametrize(
    "text, answer",
    [
        ("<answer> 3 </answer>", "3"),
        ("<answer>1</answer> no: <answer>2</answer>.", "2"),
        ("<answer>1</answer> or <answer>2", None),
        ("<think><answer>1</answer></think>", None),
        ("3", None),
        ("<answer>" * 50_000, None),
        ("<answer>" + "x" * 30_000 + "</answer>", None),
    ],
)
def test_what_the_answer_is(text, answer):
    assert answer_of(text) == answer


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_safely_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"the set {name!r} of reasoning-gym is refused"):
        make(f"dataset={name}")
    with pytest.raises(InputError, match="refused"):
        make("dataset=chain_sum").problem(
            {"dataset": name, "question": "q", "answer": "__import__('os')", "metadata": {}}
        )


def test_no_set_that_is_let_in_executes_texts():
    """Its scorer's source calls nothing that runs code; the same look finds what the refused ones call."""
    import inspect
    import re

    import reasoning_gym

    runs = re.compile(
        r"(?<![\w.])(?:eval|exec|compile)\((?!entry\[)|(?:sp|sympy)\.(?:parse_expr|sympify)\(|parse_expr\(answer"
    )
    found = {
        name
        for name, (make_set, _) in reasoning_gym.factory.DATASETS.items()
        if runs.search(inspect.getsource(make_set.score_answer))
    }
    executing = {name for name, reason in REFUSED.items() if "executes" in reason}
    assert found <= executing and len(found) >= 8


def test_weights_parameters_and_levels():
    task = make("dataset={chain_sum: 3, leg_counting: 1}", "train=80")
    counts = Counter(problem.data["dataset"] for problem in task.problems("train"))
    assert 45 <= counts["chain_sum"] <= 72
    two = make("dataset=chain_sum", "options={chain_sum: {min_terms: 2, max_terms: 2}}")
    assert all(
        p.data["question"].count("+") + p.data["question"].count("-") <= 2 for p in two.problems("train")
    )
    lengths = [
        sum(
            len(problem.data["question"])
            for problem in make("dataset=chain_sum", f"level={level}").problems("train")
        )
        for level in (0, 3, 6, 99)
    ]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_splits_share_nothing_and_a_seed_changes_all():
    task, other = make(FEW), make(FEW, "seed=1", "train=60")
    questions = {
        split: {p.data["question"] for one in (task, other) for p in one.problems(split)}
        for split in ("train", "val", "test")
    }
    assert not questions["train"] & questions["val"]
    assert not questions["test"] & (questions["train"] | questions["val"])
    assert [p.uid for p in task.problems("val")] != [p.uid for p in other.problems("val")]


def test_all_is_the_same_everywhere_and_crosses_processes():
    program = """
from tests.tasks.test_reasoning_gym import make, FEW
print([problem.data for problem in make(FEW).problems("train")])
"""
    assert output_of(program, "1") == output_of(program, "2")
    assert pickle.loads(pickle.dumps(make(FEW).verify)) is judge


@pytest.mark.parametrize(
    "overrides, word",
    [
        (["dataset=chain_summ"], "no set 'chain_summ'; it has: "),
        (["dataset=chain_sum", "options={chain_sum: {terms: 2}}"], "does not take .*its parameters are: "),
        (["dataset=chain_sum", "options={chain_sum: {min_terms: -2}}"], "does not take"),
        (["dataset=chain_sum", "options={min_terms: 2}"], "'min_terms', which is not in task.dataset"),
        (["dataset=acre", "level=1"], "has no levels"),
    ],
)
def test_what_a_set_does_not_have_is_named(overrides, word):
    with pytest.raises(InputError, match=word):
        make(*overrides)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"jaxrl\[reasoning_gym\]"):
        make("dataset=chain_sum")
