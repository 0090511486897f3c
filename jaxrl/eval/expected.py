"""Is what a run measured what its config says to expect? For configs whose numbers have been measured over many runs."""

from collections.abc import Sequence

from jaxrl.config_sections import ExpectSection
from jaxrl.eval.table import Row
from jaxrl.track.format import percent


def judge(expect: ExpectSection, rows: Sequence[Row]) -> list[str]:
    """One sentence for each evaluation that `expect` names and the run has made: in the normal range, or what to do.

    Where overrides changed what is learnt, the range says nothing about the run, and one sentence says that instead.
    """
    runs = f"the {expect.runs} runs that were measured" if expect.runs > 1 else "the one run that was measured"
    if expect.changed:
        return [f"not compared with {runs}: this run changes {', '.join(expect.changed)}"]
    by_name = {row.name: row for row in rows}
    return [_sentence(by_name[name], bounds, runs) for name, bounds in expect.accuracy.items() if name in by_name]


def _sentence(row: Row, bounds: tuple[float, float], runs: str) -> str:
    low, high = bounds
    span = f"{percent(low)} to {percent(high)} of {runs}"
    if low <= row.accuracy <= high:
        return f"{row.name}: {percent(row.accuracy)} is in the normal range, {span}"
    where = "below" if row.accuracy < low else "above"
    return (
        f"{row.name}: {percent(row.accuracy)} is {where} the normal range, {span}; try another seed (seed=1, name=again). If that is "
        "outside too, it is not chance: compare the versions of jax and the warnings above with those of a run that was inside"
    )
