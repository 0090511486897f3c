"""Where the wall time of a step goes: what the device worked on, and how long it had nothing to do."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Timeline:
    """The times of one step, as metrics. What the device is known to do is taken off; the rest is idleness.

        idle_s = step_s - (prefill_s + decode_s + score_s + update_s)

    It holds whatever the host did meanwhile: rendering prompts, waiting for verdicts, collating, logging the
    step before.
    """

    def __init__(self):
        self.begin()

    def begin(self) -> None:
        """A new step."""
        self.started = time.perf_counter()
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Count the time inside as the device's work `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def metrics(self, sampler: dict[str, float]) -> dict[str, float]:
        """`time/...` of the step until now; `sampler` are the engine's own."""
        step_s = time.perf_counter() - self.started
        busy = {"time/score_s": self.seconds["score"], "time/update_s": self.seconds["update"]}
        busy |= {name: seconds for name, seconds in sampler.items() if name != "time/idle_s"}
        return {**busy, "time/step_s": step_s, "time/idle_s": step_s - sum(busy.values())}
