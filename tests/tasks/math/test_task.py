"""Mathematics from files: every answer of the real GSM8K against itself and its neighbour, the fields of
MATH, splits, errors.
"""

import itertools
import json
import pickle
import random
from pathlib import Path

import pytest

from jaxrl.config.tasks import MathSection
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.math.answers import read_number
from jaxrl.tasks.math.task import gold_of
from jaxrl.verify.pool import VerifierPool
from tests.tasks.fresh import output_of

GSM8K = Path(__file__).parents[3].parent / "shared" / "data" / "gsm8k"
needs_files = pytest.mark.skipif(
    not (GSM8K / "train.jsonl").exists(), reason="GSM8K is not at ../shared/data/gsm8k"
)

QUESTIONS = [
    {"question": f"What is {i} + {i}?", "answer": f"{i} + {i} = <<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i:,}"}
    for i in range(600, 1000)
]
MATH = {
    "problem": "Find $x$.",
    "level": "Level 1",
    "solution": r"As $2x=1$, $x=\boxed{1}$, no: $x=\boxed{\frac{1}{2}}$.",
}
MATH_500 = MATH | {"answer": r"\frac{1}{2}", "subject": "Algebra", "level": 1, "unique_id": "a/1.json"}


def make(**values):
    return make_task(MathSection(name="math", **values))


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


# --------------------------------------------------------------------------------------------- the real GSM8K


@pytest.fixture(scope="module")
def gsm8k():
    task = make(train_file=str(GSM8K / "train.jsonl"), test_file=str(GSM8K / "test.jsonl"), val=None)
    return task, {split: task.problems(split) for split in ("train", "val", "test")}


def renderings(gold):
    number = int(gold.replace(",", ""))
    return [
        *(
            gold,
            str(number),
            f"{number:,}",
            f"#### {gold}",
            f"\\boxed{{{gold}}}",
            f"${gold}",
            f"{number}.0",
            f"{number:,}.00",
        ),
        *(
            f"{gold}.",
            f"So the answer is {gold}.",
            f"She pays ${number:,} in all.",
            f"12 + 3 = 15\n#### {number}\n",
        ),
        f"**{number}**",
        *(
            f"$\\boxed{{{number:,}}}$.",
            f"\\boxed{{{number}\\text{{ dollars}}}}",
            f"<think>#### 0.5</think>\n{number}",
        ),
        f"x = {number}",
        *(
            f"#### The answer is {number}.",
            f"#### ${number}/week</s>",
            f"\\boxed{{{number:,}\\text{{ m}}^2}}",
        ),
        f"{number} miles.",
    ]


@needs_files
def test_all_of_gsm8k_is_there_once(gsm8k):
    _, splits = gsm8k
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 7109,
        "val": 364,
        "test": 1319,
    }
    assert len({problem.uid for problems in splits.values() for problem in problems}) == 8792


@needs_files
def test_every_gold_answer_verifies_against_itself_and_no_other_does(gsm8k):
    task, splits = gsm8k
    problems = [problem for problems in splits.values() for problem in problems]
    numbers = [read_number(problem.data["gold"]) for problem in problems]
    assert None not in numbers
    for i, problem in enumerate(problems):
        other = problems[i - 1]
        for text in renderings(problem.data["gold"]):
            assert task.verify(problem, text).correct, (problem.data["gold"], text)
        for text in renderings(problem.data["gold"])[::4]:
            assert task.verify(other, text).correct == (numbers[i] == numbers[i - 1]), (
                other.data["gold"],
                text,
            )
    assert sum(a == b for a, b in itertools.pairwise(numbers)) < 300


@needs_files
@pytest.mark.parametrize("answer_format", ["hashes", "boxed"])
def test_every_solution_of_gsm8k_is_a_demonstration(gsm8k, answer_format):
    task = make(answer_format=answer_format)
    for problem in gsm8k[1]["train"] + gsm8k[1]["test"]:
        text = task.demonstration(problem)
        verdict = task.verify(problem, text)
        assert verdict.reward == 1.0 and verdict.parts["marked"] == 1.0
        assert (
            "<<" not in text
            and ("####" in text) == (answer_format == "hashes")
            and ("\\boxed" in text) == (answer_format == "boxed")
        )


@needs_files
def test_numbers_of_the_question_are_seldom_the_answer(gsm8k):
    task, rng = gsm8k[0], random.Random(0)
    for baseline in task.baselines().values():
        verdicts = [task.verify(problem, baseline(problem, rng)) for problem in gsm8k[1]["test"]]
        assert all(verdict.format_ok for verdict in verdicts)
        assert sum(verdict.reward for verdict in verdicts) / len(verdicts) < 0.05


# ---------------------------------------------------------------------------------------------------- rewards


@pytest.mark.parametrize(
    "gold, text, correct, format_ok, is_marked",
    [
        ("42", "#### 42", True, True, True),
        ("42", "It is 42.", True, True, False),
        ("42", "#### 41\n42", False, True, True),  # the marked one counts
        ("42", "\\boxed{42} or \\boxed{43}", False, True, True),
        ("42, 43", "\\boxed{42} or \\boxed{43}", True, True, True),
        ("42", "It is either 41 or 42.", False, False, False),
        ("42", "The answer is surely not 42.", False, False, False),
        ("42", "#### 42 or 43", False, True, True),
        ("42", "#### forty-two", False, True, True),
        ("42", "#### 4２", False, True, True),
        ("42", "", False, False, False),
        ("42", "no number", False, False, False),
        ("42", "<think>#### 42", False, False, False),
        ("50", "#### 50%", False, True, True),  # nobody asked for a percentage
        ("0.5", "#### 50%", True, True, True),
        ("42", "\\boxed{42}\n#### Explanation\nIt is 6 times 7.", True, True, True),
        ("Monday", "It is the 3rd.\n#### Monday</s>", True, True, True),
        (r"\frac{1}{2}", r"\boxed{0.5}", True, True, True),
        (r"\frac{1}{2}", r"\boxed{\dfrac12}", True, True, True),
        (r"2\sqrt{3}", r"\boxed{2 \sqrt{3}}", True, True, True),
        (r"2\sqrt{3}", r"\boxed{\sqrt{12}}", False, True, True),  # without `symbolic`
        ("x+1", "it is x+1", False, False, False),  # an expression counts where it is marked
        ("42", "\\boxed{9^{9^{9^9}}}", False, True, True),
    ],
)
def test_rewards(gold, text, correct, format_ok, is_marked):
    task = make()
    verdict = task.verify(task.problem({"question": "?", "answer": gold}), text)
    assert (verdict.reward, verdict.correct, verdict.format_ok) == (float(correct), correct, format_ok)
    assert verdict.parts == {
        "correct": float(correct),
        "format": float(format_ok),
        "marked": float(is_marked),
    }
    assert verdict.detail and verdict.error is None


@pytest.mark.parametrize(
    "question, answer, correct",
    [
        *(("What percentage of them left?", "50%", True), ("By what percent?", r"50\%", True)),
        ("In percent?", "50 per cent", True),
        *(
            ("What is his new win percentage?", "50%", True),
            ("What percent?", "50", True),
            ("What percent?", "0.5%", False),
        ),
        *(("The tax is 5%. How much is it?", "50%", False), ("What is half of 1?", "0.5", False)),
        ("What percent?", "5000%", False),
        ("A tax of 5 percent is paid in May. What is left?", "50%", False),
    ],
)
def test_a_percentage_is_the_plain_number_where_it_was_asked_for(question, answer, correct):
    task = make()
    assert (
        task.verify(task.problem({"question": question, "answer": "50"}), f"#### {answer}").correct is correct
    )


@pytest.mark.parametrize(
    "question, answer, correct",
    [
        *(("Which are the roots?", "5, 3", True), ("List them in descending order.", "5, 3", False)),
        ("What are p and q, respectively?", "5, 3", False),
        *(
            ("Name them from least to greatest.", "5, 3", False),
            ("In order to win, which must he draw?", "5, 3", True),
        ),
        *(("What is the correct order?", "5, 3", False), ("Arrange them.", "5, 3", False)),
        ("What is the order of the group?", "5, 3", True),
    ],
)
def test_the_order_of_a_list_counts_where_it_was_asked_for(question, answer, correct):
    task = make()
    assert (
        task.verify(task.problem({"question": question, "answer": "3, 5"}), f"#### {answer}").correct
        is correct
    )


def test_symbolic_comparison_runs_inside_the_pool_and_survives_hostile_answers():
    pytest.importorskip("mpmath", reason="the extra `math` is not installed")
    task = make(symbolic=True)
    gold = task.problem({"problem": "?", "answer": r"2\sqrt{3}"})
    texts = [
        r"\boxed{\sqrt{12}}",
        r"\boxed{9^{9^{9^9}}}",
        r"\boxed{\sqrt{12}}",
        r"\boxed{\sqrt{13}}",
        r"\boxed{2\sqrt{3}}",
    ]
    with VerifierPool(task.verify, 1, 30.0, task.failure_reward) as pool:
        verdicts = pool.gather([pool.submit(gold, text) for text in texts])
    assert [verdict.correct for verdict in verdicts] == [True, False, True, False, True]
    assert all(verdict.error is None for verdict in verdicts)


def test_symbolic_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError,
        match=r"task.symbolic needs the mpmath library; install it with: pip install 'jaxrl\[math\]'",
    ):
        make(symbolic=True)


# ---------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    "record, gold",
    [
        (QUESTIONS[0], "1,200"),
        ({"question": "?", "answer": "12"}, "12"),
        ({"question": "?", "answer": 12}, "12"),
        ({"question": "?", "answer": 27.0}, "27.0"),
        ({"question": "?", "answer": "27\r\n"}, "27"),
        (
            {"question": "?", "answer": "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}\n"},
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        ),
        ({"problem": "?", "solution": "\\boxed{\n\\frac{1}{2}\n}"}, r"\frac{1}{2}"),
        ({"problem": "?", "solution": r"So $\boxed{1}$ and $\boxed{-2}$."}, "1, -2"),
        ({"question": "?", "answer": "step 3\n#### -7"}, "-7"),
        (MATH, r"\frac{1}{2}"),
        (MATH_500, r"\frac{1}{2}"),
        ({"problem": "?", "solution": r"so $\boxed 2$"}, "2"),
        ({"problem": "?", "solution": r"\boxed{\text{Monday}}"}, r"\text{Monday}"),
    ],
)
def test_where_the_right_answer_is(record, gold):
    assert gold_of(record) == gold
    task = make(answer_format="boxed")
    problem = task.problem(record)
    assert problem.data == {**record, "gold": gold}
    assert task.verify(problem, task.demonstration(problem)).correct


@pytest.mark.parametrize(
    "record, message",
    [
        ({"answer": "12"}, "field 'question' is missing; it should hold the question"),
        ({"question": " ", "answer": "12"}, "field 'question' is ' '"),
        ({"problem": 3, "answer": "12"}, "field 'problem' is 3"),
        ({"question": "?"}, "field 'answer' is missing; it should hold a text that ends with `#### 42`"),
        ({"question": "?", "answer": ""}, "field 'answer' is ''"),
        ({"question": "?", "answer": None}, "field 'answer' is None"),
        ({"question": "?", "answer": True}, "field 'answer' is True"),
        ({"question": "?", "answer": float("nan")}, "field 'answer' is nan"),
        ({"question": "?", "answer": "#### "}, "field 'answer' is '#### '"),
        ({"question": "?", "answer": "12\n####"}, "field 'answer'"),
        ({"question": "?", "answer": "a long text\nwithout a mark: 12"}, "field 'answer'"),
        (
            {"problem": "?", "solution": "it is 12"},
            "field 'solution' is 'it is 12'; it should hold a text that ends with",
        ),
        ({"problem": "?", "solution": r"\boxed{12"}, "field 'solution'"),
    ],
)
def test_broken_records_are_named(record, message):
    with pytest.raises(InputError, match=message):
        make().problem(record)


# ----------------------------------------------------------------------------------------------------- splits


def test_val_is_a_twentieth_of_the_train_file_by_content_and_test_is_kept_out(tmp_path):
    train, test = write(tmp_path / "train.jsonl", QUESTIONS), write(tmp_path / "test.jsonl", QUESTIONS[:50])
    task = make(train_file=train, test_file=test, val=None)
    splits = {split: [p.data["question"] for p in task.problems(split)] for split in ("train", "val", "test")}
    assert splits["test"] == [record["question"] for record in QUESTIONS[:50]]
    assert sorted(splits["train"] + splits["val"]) == sorted(record["question"] for record in QUESTIONS[50:])
    assert 5 <= len(splits["val"]) <= 35
    reordered = make(
        train_file=write(tmp_path / "again.jsonl", QUESTIONS[::-1] + QUESTIONS[:3]), test_file=test, val=None
    )
    assert [p.data["question"] for p in reordered.problems("val")] == splits["val"][::-1]
    few = make(train_file=train, test_file=test, train=7, val=2, test=3)
    for split, count in (("train", 7), ("val", 2), ("test", 3)):
        assert [p.data["question"] for p in few.problems(split)] == splits[split][:count]


def test_what_is_not_named_is_asked_for(tmp_path):
    test = write(tmp_path / "test.jsonl", QUESTIONS[:5])
    assert len(make(test_file=test).problems("test")) == 5
    assert make(test_file=test, train=0, val=0).problems("train") == []
    with pytest.raises(InputError, match="set task.train_file or task.hub, or task.train to 0"):
        make(test_file=test).problems("train")
    with pytest.raises(InputError, match="set task.test_file or task.hub"):
        make().problems("test")
    with pytest.raises(InputError, match="unknown split 'dev'"):
        make(test_file=test).problems("dev")
    with pytest.raises(InputError, match="has no generator"):
        make(test_file=test).generate(3, 0)


def test_a_broken_line_is_named(tmp_path):
    path = write(tmp_path / "test.jsonl", [*QUESTIONS[:3], {"question": "?"}])
    with pytest.raises(InputError, match="test.jsonl, line 4: field 'answer' is missing"):
        make(test_file=path).problems("test")


def test_a_saved_dataset_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {
        "train": datasets.Dataset.from_list(QUESTIONS[5:]),
        "test": datasets.Dataset.from_list(QUESTIONS[:5]),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    task = make(hub=str(tmp_path / "saved"), val=None)
    assert len(task.problems("train")) + len(task.problems("val")) == 395 and len(task.problems("test")) == 5
    datasets.DatasetDict({"train": parts["train"]}).save_to_disk(tmp_path / "train_only")
    only = make(hub=str(tmp_path / "train_only"), val=None, test=0)
    assert len(only.problems("train")) + len(only.problems("val")) == 395 and only.problems("test") == []
    with pytest.raises(InputError, match="split 'test' cannot be loaded"):
        make(hub=str(tmp_path / "train_only")).problems("train")


# -------------------------------------------------------------------------------------------------- processes


def test_what_verifier_processes_receive_is_small_and_loads_nothing_heavy():
    assert len(pickle.dumps(make().verify)) < 150
    program = """
import sys
from jaxrl.tasks.math.task import MathReward
from jaxrl.types import Problem
assert MathReward()(Problem("p", (), {"gold": "42"}), "#### 42").correct
print(sorted({"jax", "flax", "pydantic", "numpy", "sympy", "datasets", "pyarrow"} & set(sys.modules)))
"""
    assert output_of(program, "1") == "[]"
