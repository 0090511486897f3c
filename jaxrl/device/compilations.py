"""Which programs XLA builds while something runs: after a warm-up there should be none."""

from collections import Counter

import jax

MOST_NAMES = 6  # in a line


class Compilations:
    """Counts programs, by name, that are built (or taken from the cache on disk) while it is open."""

    def __init__(self):
        self.programs: Counter[str] = Counter()
        self._told = 0

    def __enter__(self) -> "Compilations":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def take(self) -> int:
        """How many there were since the last call."""
        since, self._told = self.programs.total() - self._told, self.programs.total()
        return since

    def line(self) -> str:
        """How many, and those of most shapes."""
        named = ", ".join(
            name if count == 1 else f"{name} {count}" for name, count in self.programs.most_common(MOST_NAMES)
        )
        return f"{self.programs.total()} programs compiled or loaded" + (
            f", most of all {named}" if named else ""
        )

    def _listen(self, event: str, seconds: float, fun_name: str = "unnamed", **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            self.programs[fun_name.removeprefix("jit(").removesuffix(")")] += 1
