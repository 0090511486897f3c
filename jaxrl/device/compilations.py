"""The programs that XLA builds: kept on disk, and counted while something runs.

After a warm-up none should be built.
"""

import logging
import os
import warnings
from collections import Counter
from pathlib import Path

import jax

log = logging.getLogger("jaxrl")
MOST_NAMES = 6  # in a line


class Compilations:
    """Counts programs, by name, that are built (or taken from the cache on disk) while it is open.

    seconds: that this took.
    """

    def __init__(self) -> None:
        self.programs: Counter[str] = Counter()
        self.seconds = 0.0
        self._taken = 0

    def __enter__(self) -> "Compilations":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def take(self) -> int:
        """How many there were since the last call."""
        since, self._taken = self.programs.total() - self._taken, self.programs.total()
        return since

    def line(self) -> str:
        """How many, and those of most shapes."""
        named = ", ".join(
            name if count == 1 else f"{name} {count}" for name, count in self.programs.most_common(MOST_NAMES)
        )
        return f"{self.programs.total()} programs compiled or loaded" + (
            f", most of all {named}" if named else ""
        )

    def _listen(self, event: str, duration_secs: float, **details: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            name = str(details.get("fun_name", "unnamed"))
            self.seconds += duration_secs
            self.programs[name.removeprefix("jit(").removesuffix(")")] += 1


def set_up_jax(compilation_cache: str | None) -> None:
    """Keep compiled programs on disk: a second start compiles none. Warn once if the disk takes none."""
    if compilation_cache is None:
        return
    folder = Path(compilation_cache).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it is read-only, or not yours"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        log.warning(
            "compilation_cache %s cannot be written (%s): what is not in it yet is compiled at every start",
            folder,
            reason,
        )
        # JAX would say it of every program
        warnings.filterwarnings("ignore", "Error writing persistent compilation cache")
