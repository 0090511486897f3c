"""Alarms: each sounds for its own cause and for no other; a healthy step is silent."""

import pytest

from jaxrl.train.alarms import find_alarms

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
}


def test_a_healthy_step_is_silent():
    assert find_alarms(HEALTHY) == {}
    assert (
        find_alarms({k: v for k, v in HEALTHY.items() if k not in ("entropy", "sampler_mismatch/p99")}) == {}
    ), "a step without an update"


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
        ("few groups", {"groups/used": 1.0, "groups/dropped": 31.0}, "only 1 of 32 groups"),
    ],
)
def test_what_is_broken_is_said_in_words(kind, broken, words):
    alarms = find_alarms(HEALTHY | broken)
    assert list(alarms) == [kind] and words in alarms[kind]


def test_few_groups_are_less_than_a_fifth_of_those_that_were_sampled():
    assert list(find_alarms(HEALTHY | {"groups/used": 6.0, "groups/dropped": 25.0})) == ["few groups"]
    assert find_alarms(HEALTHY | {"groups/used": 6.0, "groups/dropped": 24.0}) == {}
