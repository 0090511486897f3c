"""What a run is told of the numbers that its config expects: inside, outside, or not comparable."""

import pytest

from jaxrl.config.shared import ExpectSection
from jaxrl.track.expected import compare

EXPECT = ExpectSection(accuracy={"before": (0.1, 0.3), "after": (0.95, 1.0)}, runs=15)


@pytest.mark.parametrize(
    "correct, words",
    [
        (95, "after: 95.0% is in the normal range, 95.0% to 100.0% of the 15 runs that were measured"),
        (100, "after: 100.0% is in the normal range"),
        (
            94,
            (
                "after: 94.0% is below the normal range, 95.0% to 100.0% of the 15 runs that were measured;"
                " try another seed"
            ),
        ),
    ],
)
def test_the_ends_of_the_range_belong_to_it_and_outside_there_is_a_remedy(correct, words):
    _, sentence = compare(EXPECT, {"chance": 0.25, "before": 0.2, "after": correct / 100})
    assert sentence.startswith(words)
    assert ("try another seed" in sentence) == (correct < 95)


def test_better_than_ever_is_outside_too():
    (sentence,) = compare(EXPECT, {"before": 0.4})
    assert sentence.startswith("before: 40.0% is above the normal range, 10.0% to 30.0%")


def test_only_what_was_evaluated_is_compared():
    assert compare(EXPECT, {"chance": 0.25}) == []


def test_a_run_with_other_settings_is_not_compared_and_told_why():
    expect = EXPECT.model_copy(update={"changed": ("task.test", "stages.3.steps"), "runs": 1})
    assert compare(expect, {"after": 0.2}) == [
        "not compared with the one run that was measured: this run changes task.test, stages.3.steps"
    ]
