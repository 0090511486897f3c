"""Is what a run measured what its config says to expect? For configs whose numbers have been measured over
many runs.
"""

from collections.abc import Mapping

from jaxrl.config.shared import ExpectSection
from jaxrl.track.format import percent


def compare(expect: ExpectSection, accuracies: Mapping[str, float]) -> list[str]:
    """One sentence for each evaluation that `expect` names and the run has made: in the normal range, or what
    to do.

    Where overrides changed what is learnt, the ranges say nothing about the run, and one sentence says that
    instead.

    Args:
      accuracies: by the evaluation's name, between 0 and 1.
    """
    runs = (
        f"the {expect.runs} runs that were measured" if expect.runs > 1 else "the one run that was measured"
    )
    if expect.changed:
        return [f"not compared with {runs}: this run changes {', '.join(expect.changed)}"]
    return [
        _sentence(name, accuracies[name], bounds, runs)
        for name, bounds in expect.accuracy.items()
        if name in accuracies
    ]


def _sentence(name: str, accuracy: float, bounds: tuple[float, float], runs: str) -> str:
    low, high = bounds
    span = f"{percent(low)} to {percent(high)} of {runs}"
    if low <= accuracy <= high:
        return f"{name}: {percent(accuracy)} is in the normal range, {span}"
    where = "below" if accuracy < low else "above"
    return (
        f"{name}: {percent(accuracy)} is {where} the normal range, {span}; try another seed (seed=1"
        " name=again). If that is outside too, it is not chance: compare the versions of jax and jaxlib with"
        " those that were measured, and look at report.md"
    )
