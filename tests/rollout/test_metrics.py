"""Metrics of a rollout, by hand."""

import math

import pytest

from jaxrl.rollout.metrics import rollout_metrics
from tests.rollout.episodes import group, group_of, trajectory


def test_by_hand():
    metrics = rollout_metrics(
        [
            group(
                trajectory(1.0, said=[1] * 2, parts={"fit": 0.5}),
                trajectory(-0.5, said=[1] * 4, cut=True, parts={"fit": 1.5}),
            ),
            group(trajectory(1.0, said=[1] * 6), trajectory(1.0, said=[1] * 8)),
        ]
    )
    expected = {
        "reward/mean": 0.625,
        "reward/std": (0.421875) ** 0.5,
        "reward/flat_groups": 0.5,
        "reward/not_finite": 0,
        "reward/fit": 1.0,
        "reward/fit_std": 0.5,
        "sample/accuracy": 0.75,
        "sample/truncated": 0.25,
        "sample/length_mean": 5,
        "sample/length_p50": 5,
        "sample/length_max": 8,
        "sample/format_rate": 1.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert 2 <= metrics["sample/length_p10"] <= 3 and 7 <= metrics["sample/length_p90"] <= 8


def test_rewards_that_are_no_numbers_are_counted_and_left_out():
    metrics = rollout_metrics(
        [group_of(1.0, math.nan, 0.0, math.inf), group_of(-1.0, 0.0, 0.0, 0.0, parts={"x": math.nan})]
    )
    assert (
        metrics["reward/not_finite"] == 2
        and metrics["reward/mean"] == 0
        and metrics["reward/x"] == 0
        and metrics["reward/x_std"] == 0
    )
    assert all(math.isfinite(value) for value in metrics.values())
    assert rollout_metrics([group_of(math.nan, math.nan)])["reward/mean"] == 0


def test_errors_are_counted_by_kind_and_what_could_not_be_judged_is_not_wrong():
    errors = [
        "timeout",
        "timeout: the batch's",
        "crash: killed by SIGSEGV",
        "exception: ValueError: no",
        "sandbox: no memory",
        "something else",
        None,
    ]
    missing = [
        trajectory(math.nan if error and "sandbox" in error else -1.0, error=error) for error in errors
    ]
    metrics = rollout_metrics([group(*missing, trajectory(1.0))])
    counted = {
        "verify/errors": 6,
        "verify/timeouts": 2,
        "verify/crashes": 1,
        "verify/exceptions": 1,
        "verify/sandbox": 1,
        "reward/not_finite": 1,
    }
    assert {name: metrics[name] for name in counted} == counted
    assert metrics["sample/accuracy"] == pytest.approx(1 / 7), (
        "of eight samples, the one that the sandbox failed to judge is left out"
    )


def test_groups_of_one_are_not_called_flat():
    assert rollout_metrics([group_of(1.0), group_of(0.0)])["reward/flat_groups"] == 0
