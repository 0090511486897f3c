"""Alarms: each sounds for its own cause and for no other; a healthy step is silent."""

import dataclasses

import pytest

from jaxrl.track.alarms import in_answers, in_evaluation, in_step
from jaxrl.track.evaluations import row_from_verdicts
from jaxrl.types import Verdict

HEALTHY = {
    "reward/mean": 0.4,
    "reward/std": 0.3,
    "reward/flat_groups": 0.2,
    "reward/not_finite": 0.0,
    "entropy": 0.7,
    "sampler_mismatch/p99": 1e-5,
    "sample/truncated": 0.1,
    "groups/used": 8,
    "groups/dropped": 12,
    "loss": 0.1,
}


def found(metrics) -> dict[str, str]:
    """The sentences of a step's alarms by their kind."""
    return {alarm.kind: alarm.sentence for alarm in in_step(metrics)}


def test_a_healthy_step_is_silent():
    assert found(HEALTHY) == {}
    assert found({k: v for k, v in HEALTHY.items() if k not in ("entropy", "sampler_mismatch/p99")}) == {}, (
        "a step without an update"
    )


@pytest.mark.parametrize(
    "kind, broken, words",
    [
        ("equal rewards", {"reward/std": 0.0, "reward/flat_groups": 1.0}, "all rewards are 0.4"),
        ("flat groups", {"reward/flat_groups": 0.95}, "95% of the groups"),
        ("entropy", {"entropy": 0.001}, "0.0010 nats"),
        ("mismatch", {"sampler_mismatch/p99": 0.5}, "0.50 nats"),
        ("truncated", {"sample/truncated": 1.0}, "max_new_tokens"),
        ("not finite", {"reward/not_finite": 3.0}, "3 rewards are not finite"),
        (
            "not finite",
            {"reward/not_finite": 3.0, "reward/std": 0.0, "reward/mean": 0.0},
            "mend the verifier",
        ),
        ("verifier errors", {"verify/errors": 3}, "3 samples have no verdict"),
        ("skipped", {"skipped": 1.0}, "1 updates changed nothing, because a loss"),
        ("loss", {"loss": float("nan")}, "the loss is not a finite number"),
        ("loss", {"loss": None, "skipped": 0.0}, "lower optim.learning_rate"),
        ("skipped", {"loss": None, "skipped": 1.0}, "because a loss"),
        ("few groups", {"groups/used": 1.0, "groups/dropped": 31.0}, "only 1 of 32 groups"),
    ],
)
def test_what_is_broken_is_said_in_words(kind, broken, words):
    alarms = found(HEALTHY | broken)
    assert list(alarms) == [kind] and words in alarms[kind]


def test_few_groups_are_less_than_a_fifth_of_those_that_were_sampled():
    assert list(found(HEALTHY | {"groups/used": 6.0, "groups/dropped": 25.0})) == ["few groups"]
    assert found(HEALTHY | {"groups/used": 6.0, "groups/dropped": 24.0}) == {}


def test_what_a_step_does_not_measure_is_no_alarm_and_what_is_null_is_not_finite():
    """Every subset of a healthy step is healthy, and a row of another version has other keys."""
    assert in_step({}) == []
    for name in HEALTHY:
        assert in_step({name: HEALTHY[name]}) == []
        kinds = {alarm.kind for alarm in in_step(HEALTHY | {name: None})}
        assert kinds == ({"loss"} if name == "loss" else set()), name


def test_an_alarm_has_the_numbers_by_which_it_was_found():
    (alarm,) = in_step(HEALTHY | {"verify/errors": 3, "verify/timeouts": 2, "verify/crashes": 1})
    assert alarm.numbers == {"verify/errors": 3, "verify/timeouts": 2, "verify/crashes": 1}


# ------------------------------------------------------------------------------------------------ evaluations

RIGHT = {"reward": 1.0, "correct": True, "stop_reason": "eos"}
WRONG = {"reward": 0.0, "correct": False, "stop_reason": "eos"}


@pytest.mark.parametrize(
    "samples, kinds",
    [
        ([RIGHT, WRONG, RIGHT], []),
        ([RIGHT] * 3, []),  # all are right
        ([WRONG] * 3, ["equal rewards"]),
        ([{**RIGHT, "correct": False}] * 3, ["equal rewards"]),
        ([{**WRONG, "reward": None}] * 2, ["equal rewards"]),
        ([{**WRONG, "error": "exception: KeyError: 'x' (mine.py, line 2)"}] * 3, ["verifier errors"]),
        ([WRONG], []),  # one says nothing
        ([], []),
        ([{**RIGHT, "stop_reason": "max_tokens"}] * 10, ["truncated"]),
        ([{**RIGHT, "stop_reason": "max_tokens"}] * 9 + [RIGHT], []),  # as in a step: more than nine in ten
        ([{**WRONG, "stop_reason": "max_tokens"}] * 3, ["truncated", "equal rewards"]),
    ],
)
def test_completions_of_an_evaluation(samples, kinds):
    assert [alarm.kind for alarm in in_answers(samples)] == kinds


def test_a_policy_that_answers_worse_than_the_first_one():
    first, chance, worse = (
        row_from_verdicts(name, [Verdict(1.0, i < correct, True) for i in range(100)])
        for name, correct in [("base", 50), ("after-sft", 45), ("after-grpo", 10)]
    )
    assert in_evaluation(first, first) == in_evaluation(dataclasses.replace(first, accuracy=0.6), first) == []
    for row, sentence in [
        (chance, "after-sft answers worse than base: 45.0% against 50.0%, though within the 95% interval"),
        (worse, "after-grpo answers worse than base: 10.0% against 50.0%, beyond chance"),
    ]:
        (alarm,) = in_evaluation(row, first)
        assert alarm.sentence.startswith(sentence)
