"""Splits of files: content alone decides, nothing tested is trained on, what is broken is named."""

import logging

import pytest

from jaxrl.errors import InputError
from tests.tasks.boxed import make, write_lines


def record(n):
    return {
        "prompt": f"Print {n}.",
        "test_cases": [{"type": "stdin_stdout", "input": "", "output": str(n)}],
        "program": f"print({n})",
    }


def uids(task, split):
    return [problem.uid for problem in task.problems(split)]


@pytest.fixture
def file(tmp_path):
    return write_lines(tmp_path / "all.jsonl", [record(n) for n in range(400)])


def test_a_twentieth_each_is_held_out_by_content(file, tmp_path):
    task = make("deduction", train_file=file, val=None)
    splits = {split: uids(task, split) for split in ("train", "val", "test")}
    assert sorted(sum(splits.values(), [])) == sorted({task.problem(record(n)).uid for n in range(400)})
    assert len(splits["train"]) > 300 and 5 < len(splits["val"]) < 40 and 5 < len(splits["test"]) < 40
    turned = write_lines(tmp_path / "turned.jsonl", [record(n) for n in reversed(range(400))])
    other = make("deduction", train_file=turned, train=50, val=None)
    assert uids(other, "train") == splits["train"][::-1][:50] and set(uids(other, "val")) == set(
        splits["val"]
    )


def test_a_test_file_is_the_whole_test_split_and_nothing_of_it_is_trained_on(file, tmp_path):
    test = write_lines(tmp_path / "test.jsonl", [record(n) for n in range(390, 420)])
    task = make("deduction", train_file=file, test_file=test, val=None)
    assert uids(task, "test") == [task.problem(record(n)).uid for n in range(390, 420)]
    assert len(uids(task, "train")) + len(uids(task, "val")) == 390
    assert not set(uids(task, "train")) & set(uids(task, "test")) and not set(uids(task, "val")) & set(
        uids(task, "test")
    )


def test_parquet_and_saved_datasets_are_the_same_problems(file, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([record(n) for n in range(400)])
    rows.to_parquet(tmp_path / "all.parquet")
    datasets.DatasetDict({"all": rows}).save_to_disk(tmp_path / "saved")
    expected = make("deduction", train_file=file).problems("train")
    assert make("deduction", train_file=str(tmp_path / "all.parquet")).problems("train") == expected
    assert make("deduction", hub=str(tmp_path / "saved"), hub_split="all").problems("train") == expected
    held_out = make("deduction", hub=str(tmp_path / "saved"), hub_split="all", hub_test_split="all", val=None)
    assert (
        len(held_out.problems("test")) == 400 and held_out.problems("train") == held_out.problems("val") == []
    )


def test_the_same_problem_twice_is_one(tmp_path):
    file = write_lines(tmp_path / "twice.jsonl", [record(n % 50) for n in range(100)])
    task = make("deduction", train_file=file, val=None)
    assert sum(len(task.problems(split)) for split in ("train", "val", "test")) == 50


def test_errors_name_the_place(file, tmp_path):
    broken = write_lines(
        tmp_path / "broken.jsonl", [record(1), {**record(2), "test_cases": [{"type": "magic"}]}]
    )
    with pytest.raises(InputError, match=r"broken.jsonl, line 2: test_cases, case 1 has the type 'magic'"):
        make("deduction", train_file=broken).problems("train")
    with pytest.raises(InputError, match=r"broken.jsonl, line 2"):
        make("deduction", train_file=file, test_file=broken).problems("train")
    with pytest.raises(InputError, match="no source for the split train; set task.train_file"):
        make("deduction", test_file=file).problems("train")
    with pytest.raises(InputError, match="unknown split 'dev'"):
        make("deduction", test_file=file).problems("dev")
    assert make("deduction", test_file=file, train=0, val=0).problems("train") == []


def test_records_that_cannot_be_asked_are_counted(tmp_path, caplog):
    rows = [
        {"program": "print(input())", "output": "1"},
        {"program": None, "output": "1"},
        {"program": "pass", "output": " \n"},
    ]
    task = make("abduction", test_file=write_lines(tmp_path / "some.jsonl", rows), check_programs=False)
    with caplog.at_level(logging.WARNING, logger="jaxrl"):
        assert len(task.problems("test")) == 1
    assert "2 records cannot be asked and are left out" in caplog.text and "line 2" in caplog.text
