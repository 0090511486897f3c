"""Intervals against values worked out elsewhere, and against the laws they must keep."""

import numpy as np
import pytest
from scipy import stats

from jaxrl.stats import bootstrap_mean_interval, jeffreys_interval


def test_jeffreys_is_the_beta_posterior_with_equal_tails():
    for successes, n, level in [(1, 2, 0.5), (3, 10, 0.95), (15, 20, 0.8), (999, 1000, 0.99)]:
        expected = stats.beta.ppf([(1 - level) / 2, (1 + level) / 2], successes + 0.5, n - successes + 0.5)
        np.testing.assert_allclose(jeffreys_interval(successes, n, level), expected, rtol=1e-9)


def test_jeffreys_published_values():
    # The accuracy that multi-hop-reasoning reports, 15 of 20, at 80 %.
    np.testing.assert_allclose(jeffreys_interval(15, 20, 0.8), (0.61, 0.86), atol=0.01)
    # Tabulated by Brown, Cai and DasGupta 2001: n = 7, 95 %.
    table = {0: (0, 0.292), 1: (0.016, 0.501), 2: (0.065, 0.648), 3: (0.139, 0.766)}
    for successes, expected in table.items():
        np.testing.assert_allclose(jeffreys_interval(successes, 7, 0.95), expected, atol=6e-4)


def test_jeffreys_border_rule():
    assert jeffreys_interval(0, 5)[0] == 0.0 and 0 < jeffreys_interval(0, 5)[1] < 1
    assert jeffreys_interval(5, 5)[1] == 1.0 and 0 < jeffreys_interval(5, 5)[0] < 1
    assert jeffreys_interval(0, 0) == (0.0, 1.0)


def test_jeffreys_is_symmetric_and_covers():
    for n in (1, 4, 30):
        for successes in range(n + 1):
            low, high = jeffreys_interval(successes, n, 0.9)
            assert low <= successes / n <= high
            np.testing.assert_allclose(
                jeffreys_interval(n - successes, n, 0.9), (1 - high, 1 - low), atol=1e-12
            )


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (1, 0), (1, 5, 0.0), (1, 5, 1.0), (0, 0, 95)])
def test_jeffreys_refuses_the_impossible(arguments):
    with pytest.raises(ValueError):
        jeffreys_interval(*arguments)


def test_bootstrap_agrees_with_the_normal_interval_for_many_values():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_mean_interval(values, level=0.9, seed=1, resamples=4000)
    half = 1.6449 * values.std() / np.sqrt(values.size)
    np.testing.assert_allclose((low, high), (values.mean() - half, values.mean() + half), atol=0.1 * half)


def test_bootstrap_depends_on_the_seed_alone():
    values = [0.0, 1.03, 5.17, 2.01, 3.3, 0.7]
    assert bootstrap_mean_interval(values, 0.8, 3, 500) == bootstrap_mean_interval(values, 0.8, 3, 500)
    assert bootstrap_mean_interval(values, 0.8, 3, 500) != bootstrap_mean_interval(values, 0.8, 4, 500)


def test_bootstrap_moves_and_scales_with_the_values():
    values = np.array([0.0, 1.0, 5.0, 2.0, 2.5])
    low, high = bootstrap_mean_interval(values, 0.9, 0, 1000)
    np.testing.assert_allclose(
        bootstrap_mean_interval(10 + 3 * values, 0.9, 0, 1000), (10 + 3 * low, 10 + 3 * high)
    )


def test_bootstrap_of_equal_values_has_no_width():
    assert bootstrap_mean_interval([0.25] * 9) == (0.25, 0.25)
    assert bootstrap_mean_interval([7]) == (7.0, 7.0)


def test_the_bootstrap_of_two_values_has_the_means_that_can_be_counted():
    """0 and 1 drawn twice: 0, 1/2, 1 come with chances 1/4, 1/2, 1/4. Seven of eight values 0: (7/8)^8 =
    0.344 have none.
    """
    assert bootstrap_mean_interval([0.0, 1.0], 0.4) == (0.5, 0.5)
    assert bootstrap_mean_interval([0.0, 1.0], 0.6) == (0.0, 1.0)
    one_of_eight = [1.0] + [0.0] * 7
    assert bootstrap_mean_interval(one_of_eight, 0.36)[0] == 0.0  # quantile 0.32
    assert bootstrap_mean_interval(one_of_eight, 0.24)[0] == 0.125  # quantile 0.38
    assert bootstrap_mean_interval(one_of_eight[::-1], 0.24)[0] == 0.125, (
        "the last value is drawn as the others are"
    )


def test_the_bootstrap_does_not_depend_on_how_its_draws_are_cut(monkeypatch):
    values = np.random.default_rng(0).normal(size=7)
    at_once = bootstrap_mean_interval(values, 0.8, 3, 500)
    for most in (1, 21, 1000):
        monkeypatch.setattr("jaxrl.stats.MAX_DRAWS", most)
        assert bootstrap_mean_interval(values, 0.8, 3, 500) == at_once


@pytest.mark.parametrize(
    "arguments", [([],), ([1.0, float("nan")],), ([1.0, float("inf")],), ([1.0], 1.5), ([1.0], 0.9, 0, 0)]
)
def test_bootstrap_refuses_the_impossible(arguments):
    with pytest.raises(ValueError):
        bootstrap_mean_interval(*arguments)
