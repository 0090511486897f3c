"""How many programs per second does the sandbox run here? One line per level that this machine offers.

    python scripts/bench_sandbox.py [--seconds 3]

One process, one program after the other, nothing from the cache: per second and core, where a core is idle.
`functions` is a child that loads a program and answers one call; `call` is a further call to the same child.
"""

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable

from jaxrl.sandbox.sandbox import Level, Limits, Sandbox

PROGRAM = "print(int(input()) + 1)"
IMPORTS = "import collections, datetime, heapq, itertools, json, math, random, re\nprint(int(input()) + 1)"
FUNCTION = "def add(x): return x + 1"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="per number; default: %(default)s")
    seconds = parser.parse_args().seconds
    row = "{:<12}{:>9}{:>8}{:>11}{:>11}{:>9}{:>13}{:>9}"
    print(
        row.format("level", "start, s", "run/s", "median ms", "imports/s", "files/s", "functions/s", "call/s")
    )
    for level in (Level.NAMESPACES, Level.KERNEL, Level.PROCESS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            sandbox = Sandbox(min_level=Level.NONE, max_level=level)
            started = time.perf_counter() - began
        with sandbox:
            if sandbox.level != level:
                print(f"{level.name:<12}not offered: {sandbox.shortfall}")
                continue
            print(row.format(level.name, f"{started:.2f}", *speeds(sandbox, seconds)))
    return 0


def speeds(sandbox: Sandbox, seconds: float) -> list[str]:
    """The cells of a level's row, from runs per second on; each number takes so many seconds."""

    def programs(program: str, limits: Limits | None = None) -> tuple[float, float]:
        return rate(lambda stdin: check(sandbox.run(program, stdin, limits), stdin), seconds)

    runs, median = programs(PROGRAM)
    imports, _ = programs(IMPORTS)
    files = f"{programs(PROGRAM, Limits(files=8))[0]:.0f}" if sandbox.level == Level.NAMESPACES else "-"
    loads, _ = rate(lambda stdin: load(sandbox), seconds)
    with sandbox.functions(FUNCTION, Limits(wall_s=10 * seconds, cpu_s=10 * seconds)) as functions:
        calls, _ = rate(lambda stdin: functions.call("add", [1]), seconds)
    return [f"{runs:.0f}", f"{1000 * median:.2f}", f"{imports:.0f}", files, f"{loads:.0f}", f"{calls:.0f}"]


def rate(action: Callable[[bytes], object], seconds: float) -> tuple[float, float]:
    """Actions per second, and the median of their seconds. Each gets another input."""
    times = []
    end = time.perf_counter() + seconds
    for number in itertools.count():
        began = time.perf_counter()
        action(b"%d\n" % number)
        times.append(time.perf_counter() - began)
        if time.perf_counter() > end:
            return len(times) / sum(times), sorted(times)[len(times) // 2]


def check(outcome, stdin: bytes) -> None:
    assert outcome.stdout == b"%d\n" % (int(stdin) + 1), outcome


def load(sandbox: Sandbox) -> None:
    with sandbox.functions(FUNCTION) as functions:
        assert functions.call("add", [1]).value == 2


if __name__ == "__main__":
    sys.exit(main())
