"""Which problems come next: recent success rates, and a draw that favours problems solved half the time.

Host only, no jax.

A group whose completions are all right or all wrong has no spread and teaches nothing; the chance of spread
is largest where the rate r is 1/2, and r (1 - r) is the variance of a verdict.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxrl.types import Group

PRIOR = 0.5  # rate of a problem never visited: the largest weight there is, so what is unknown is tried early
# what the past counts at each visit: the policy moves, so a problem's last few groups say the most
DECAY = 0.5
# added to every weight: what is solved or hopeless comes back now and then, for that may have changed
FLOOR = 0.05


class SuccessRates:
    """The recent success rate of each problem, by uid: between 0 and 1.

        rate <- DECAY * rate + (1 - DECAY) * (share of the group's completions that are correct)

    starting at PRIOR. A completion that timed out or crashed counts as not correct; one that could not be
    judged (its reward is not finite) does not count.

    Args:
      state: what `state` returned; None where nothing has been visited yet.
    """

    def __init__(self, state: Mapping[str, float] | None = None):
        self._rates = dict(state or {})

    def update(self, groups: Iterable[Group]) -> None:
        """Take in verified groups, in order; a problem that occurs twice is visited twice."""
        for group in groups:
            judged = [t.verdict.correct for t in group.trajectories if math.isfinite(t.verdict.reward)]
            if not judged:
                continue
            share = sum(judged) / len(judged)
            self._rates[group.problem.uid] = DECAY * self.rate(group.problem.uid) + (1 - DECAY) * share

    def rate(self, uid: str) -> float:
        """The rate of one problem."""
        return self._rates.get(uid, PRIOR)

    def state(self) -> dict[str, float]:
        """Plain JSON, from which the constructor makes equal rates."""
        return dict(self._rates)


def choose(uids: Sequence[str], rates: SuccessRates, count: int, seed: Sequence[int]) -> np.ndarray:
    """Draw problems, oftenest those solved half the time.

        weight = FLOOR + 4 r (1 - r), between FLOOR and FLOOR + 1

    No problem twice while there are enough of them. A count beyond that takes all of them as often as it can,
    and draws the rest.

    Args:
      uids: of the problems there are. rates: is read only.
      count: how many to draw.
      seed: not negative, for example (seed, step); the draw depends on the arguments alone.
    Returns:
      [count] int64, indices into uids.
    Raises:
      ValueError: no problems.
    """
    if not uids:
        raise ValueError(f"{count} problems cannot be chosen from none; give at least one uid")
    r = np.array([rates.rate(uid) for uid in uids])
    weights, rng = FLOOR + 4 * r * (1 - r), np.random.default_rng(seed)
    chosen = np.empty(count, np.int64)
    for start in range(0, count, len(uids)):
        chosen[start : start + len(uids)] = sample_weighted(weights, count - start, rng)
    return chosen


def sample_weighted(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Weighted sampling without replacement: as if drawn one by one, each in proportion to the weights of
    those left.

        key_i = log(u_i) / w_i, u_i uniform in (0, 1); the items with the largest keys, largest first

    Args:
      weights: [n] positive.
      count: how many; more than n gives all n.
    Returns:
      [min(count, n)] int64, distinct indices in the order drawn.
    Source: Efraimidis and Spirakis 2006, Weighted random sampling with a reservoir (algorithm A). Departure:
      logarithms of its keys u^(1/w), which underflow for small weights; -log(u) is drawn as an exponential
      number.
    """
    return np.argsort(rng.standard_exponential(len(weights)) / weights, kind="stable")[:count]
