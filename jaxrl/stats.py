"""Interval estimates for what evaluations report. Arithmetic on numbers; no files, no jax."""

import numpy as np
from numpy.typing import ArrayLike

MAX_DRAWS = 1_000_000  # numbers resampled at a time, which bounds the memory


def jeffreys_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for a proportion: equal tails of the posterior under Jeffreys' prior.

        low, high = quantiles (1 - level)/2 and (1 + level)/2 of Beta(s + 1/2, n - s + 1/2)

    With the usual rule at the borders: low is 0 if s = 0, high is 1 if s = n (else the interval would leave
    out the very proportion that was observed). Nothing observed, n = 0, says nothing: (0, 1).

    Args:
      successes: s, between 0 and n.
      n: number of independent trials. Several samples of one problem are not independent.
      level: coverage, between 0 and 1.
    Returns:
      (low, high), fractions.
    Raises:
      ValueError: successes outside 0..n, or level outside (0, 1).
    Source: Brown, Cai and DasGupta 2001, Interval Estimation for a Binomial Proportion, section 4.1.2.
    """
    if not 0 <= successes <= n:
        raise ValueError(
            f"{successes} successes of {n} trials is impossible; successes must lie between 0 and n"
        )
    _check_level(level)
    # late: tenths of a second that programs without intervals need not pay
    from scipy.special import betaincinv

    if n == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    a, b = successes + 0.5, n - successes + 0.5
    low = 0.0 if successes == 0 else float(betaincinv(a, b, tail))
    high = 1.0 if successes == n else float(betaincinv(a, b, 1 - tail))
    return low, high


def bootstrap_mean_interval(
    values: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float]:
    """Interval for a mean by resampling: percentiles of the means of `resamples` draws with replacement.

        low, high = quantiles (1 - level)/2 and (1 + level)/2 of { mean(x*_1), ..., mean(x*_resamples) }

    Too narrow for small n (below about 30), and of width 0 where all values are equal, n = 1 included.

    Args:
      values: [n] numbers, independent of each other: for several samples per problem, give the means of the
        problems.
      level: coverage, between 0 and 1.
      seed: the same seed gives the same interval.
      resamples: number of resampled means.
    Returns:
      (low, high), in the unit of the values.
    Raises:
      ValueError: no values, a value that is not finite, level outside (0, 1), or resamples < 1.
    Source: Efron 1979; the percentile method.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        bad = np.sum(~np.isfinite(values))
        raise ValueError(
            f"{values.size} values, {bad} of them not finite, have no mean; give one or more finite ones"
        )
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; set it to at least 1, better 1000 or more")
    _check_level(level)
    rng = np.random.default_rng(seed)
    rows = max(1, MAX_DRAWS // values.size)
    means = np.empty(resamples)
    for first in range(0, resamples, rows):
        chunk = means[first : first + rows]
        chunk[:] = values[rng.integers(values.size, size=(chunk.size, values.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not a coverage; set it between 0 and 1, for example 0.95")
