"""Drawing: distinct problems, splits by content alone, prefixes that stay, and an end where there is nothing
more.
"""

import itertools
import random

import pytest

from jaxrl.errors import InputError
from jaxrl.tasks.drawing import MAX_DRAWS, Drawn, digest
from jaxrl.types import Problem

SPLITS = ("train", "val", "test")


def drawn(most, seed=0, sizes=None, **counts):
    """Problems that are numbers below `most`."""

    def make_draw(seed):
        def draw(rng: random.Random, index, claim):
            number = rng.randrange(most)
            return {"number": number, "index": index} if claim(number) else None

        return draw

    counts = {"train": 0, "val": 0, "test": 0} | counts
    return Drawn(
        "numbers",
        "task.most",
        seed,
        counts,
        make_draw,
        lambda record: Problem(str(record["number"]), (), record),
    )


def test_every_number_is_in_one_split_and_about_eight_of_ten_in_train():
    splits = {
        split: {int(p.uid) for p in drawn(1000, train=780, val=80, test=80).problems(split)}
        for split in SPLITS
    }
    for seed in range(1, 4):
        for split in SPLITS:
            splits[split] |= {
                int(p.uid) for p in drawn(1000, seed=seed, train=780, val=80, test=80).problems(split)
            }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not splits[one] & splits[other]
    assert (
        780 <= len(splits["train"]) <= 840
        and 80 <= len(splits["val"]) <= 130
        and 80 <= len(splits["test"]) <= 130
    )


def test_problems_are_distinct_in_order_and_fewer_are_the_first_of_more():
    task = drawn(500, train=200)
    numbers = [p.uid for p in task.problems("train")]
    assert len(set(numbers)) == 200 and [p.data["index"] for p in task.problems("train")] == list(range(200))
    assert [p.uid for p in drawn(500, train=50).problems("train")] == numbers[:50]
    assert [p.uid for p in drawn(500, train=50, seed=1).problems("train")] != numbers[:50]
    assert task.problems("val") == []


def test_generated_records_come_from_all_splits_and_hang_on_the_seed_alone():
    task = drawn(300, train=200)
    records = list(task.generate(300, seed=5))
    assert {record["number"] for record in records} == set(range(300))
    assert list(drawn(300, seed=9).generate(20, seed=5)) == records[:20]
    assert list(task.generate(20, seed=6)) != records[:20]


def test_generation_is_lazy():
    assert len(list(itertools.islice(drawn(10**9).generate(10**9, seed=0), 5))) == 5


def test_the_caller_cannot_spoil_what_is_kept():
    task = drawn(500, train=20)
    task.problems("train").clear()
    assert len(task.problems("train")) == 20


def test_there_is_an_end():
    message = (
        f"asked for 6 different problems of numbers, and after 5 of them {MAX_DRAWS:,} draws gave no new one"
        " that fits; .* task.most"
    )
    with pytest.raises(InputError, match=message):
        list(drawn(5).generate(6, seed=0))
    with pytest.raises(InputError, match="unknown split 'dev'; the splits are: train, val, test"):
        drawn(5).problems("dev")


def test_digests_are_of_the_values():
    assert digest([1, [2, -3]]) == digest([1, [2, -3]]) != digest([1, [2, 3]]) and len(digest("x")) == 16
