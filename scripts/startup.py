"""Where the seconds go between `jaxrl run` and the first sampled token.

    python scripts/startup.py configs/quickstart.yaml [key=value ...]

Runs the config in a folder of its own until the first tokens are drawn, twice: the first start fills the
cache of compiled programs, the second is printed. Wall and CPU seconds, the verifiers' own processes left
out. The config's first stage should sample (an `eval` does).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from jaxrl.track.format import text_table

PARTS = {  # functions of `commands/run.py`, and what they are called here
    "load_run_tokenizer": "tokenizer made or read",
    "preflight": "all stages looked through",
    "load": "weights drawn or read",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            words = [arguments.config, *arguments.overrides, f"runs_dir={folder}"]
            child = [sys.executable, __file__, "--child", str(time.time()), *words]
            told = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(told, end="")


def child(began: float, words: list[str]) -> None:
    """`jaxrl run` with these words, and the table at the first token."""
    from jaxrl.config.file import load_config

    rows: list[tuple[str, ...]] = []
    last = [time.perf_counter() - (time.time() - began), 0.0]  # of wall and CPU

    def lap(name: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        rows.append((name, *(f"{after - before:.2f}" for before, after in zip(last, now, strict=True))))
        last[:] = now

    def timed(function: Callable, name: str) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            lap("between")
            result = function(*args, **kwargs)
            lap(name)
            return result

        return call

    def first_tokens(session: Any) -> None:
        arrange(session)
        lap("the first prompts read, their first tokens drawn")
        rows[:] = [row for row in rows if max(map(float, row[1:])) >= 0.05]
        rows.append(("in all", *(f"{sum(float(row[i]) for row in rows):.2f}" for i in (1, 2))))
        print(text_table(("part", "wall s", "CPU s"), rows), flush=True)
        os._exit(0)

    lap("Python, the command line")
    config = load_config(words[0], words[1:])
    lap("config read and validated")
    import jaxrl.commands.run as run
    from jaxrl.sample.session import Session

    lap("all other imports")
    for name, part in PARTS.items():
        setattr(run, name, timed(getattr(run, name), part))
    arrange, Session._arrange = Session._arrange, first_tokens
    run.run(config, stream=None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
