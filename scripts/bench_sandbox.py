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
    print(
        f"{'level':<12}{'start, s':>9}{'run/s':>8}{'median ms':>11}{'imports/s':>11}{'files/s':>9}{'functions/s':>13}{'call/s':>9}"
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
            runs, median = rate(lambda stdin: check(sandbox.run(PROGRAM, stdin), stdin), seconds)
            imports, _ = rate(lambda stdin: check(sandbox.run(IMPORTS, stdin), stdin), seconds)
            files = "-"
            if level == Level.NAMESPACES:
                files = f"{rate(lambda stdin: check(sandbox.run(PROGRAM, stdin, Limits(files=8)), stdin), seconds)[0]:.0f}"
            loads, _ = rate(lambda stdin: load(sandbox), seconds)
            with sandbox.functions(FUNCTION, Limits(wall_s=10 * seconds, cpu_s=10 * seconds)) as functions:
                calls, _ = rate(lambda stdin: functions.call("add", [1]), seconds)
            print(
                f"{level.name:<12}{started:>9.2f}{runs:>8.0f}{1000 * median:>11.2f}{imports:>11.0f}{files:>9}{loads:>13.0f}{calls:>9.0f}"
            )
    return 0


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
