"""Does every algorithm learn? Each config on the tiny games and several seeds: steps until near the optimum.

    python scripts/learning.py configs/algorithms/{grpo,rloo,gspo,dapo,ppo}.yaml --seeds 0 1 2
        --games letter echo count [--set key=value ...]

The optimum of every game is a mean reward of 1. "Reached" is the first step at which the mean training reward
of the last five steps is at least 0.9. Prints one row for each config and game. Exit code 0 if every run
reached it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from jaxrl.config.experiment import RLStage
from jaxrl.config.file import load_config
from jaxrl.track.format import markdown_table

ROOM = {"letter": 10, "echo": 4, "count": 12}  # tokens that an answer may have, its end included
GOAL, WINDOW = 0.9, 5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", type=Path, nargs="+", metavar="config")
    parser.add_argument("--games", nargs="+", choices=list(ROOM), default=list(ROOM))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="key=value")
    arguments = parser.parse_args()
    rows, all_reached = [], True
    for config in arguments.configs:
        for game in arguments.games:
            runs = [learn(config, game, seed, arguments.overrides) for seed in arguments.seeds]
            reached, last, seconds = zip(*runs)
            all_reached &= None not in reached
            steps = ", ".join("–" if step is None else str(step) for step in reached)
            rows.append(
                [
                    config.stem,
                    game,
                    steps,
                    ", ".join(f"{x:.2f}" for x in last),
                    f"{statistics.median(seconds):.0f} s",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
    header = [
        "algorithm",
        "game",
        f"steps to {GOAL}, seeds {', '.join(map(str, arguments.seeds))}",
        f"mean of the last {WINDOW}",
        "a run",
    ]
    print("\n" + markdown_table(header, rows))
    return 0 if all_reached else 1


def learn(config: Path, game: str, seed: int, overrides: list[str]) -> tuple[int | None, float, float]:
    """(step at which the goal was reached, mean reward at the end, seconds) of one run."""
    name = f"{config.stem}-{game}-seed{seed}"
    own = [f"name={name}", f"seed={seed}", f"task.game={game}", f"sample.max_new_tokens={ROOM[game]}"]
    loaded = load_config(config, [*own, *overrides])
    stage = next(stage for stage in loaded.stages if isinstance(stage, RLStage))
    started = time.monotonic()
    command = [sys.executable, "-m", "jaxrl.cli", "run", str(config), *own, *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    lines = (loaded.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rewards = [row["reward/mean"] for row in map(json.loads, lines) if row["stage"] == stage.name]
    means = [statistics.fmean(rewards[i - WINDOW : i]) for i in range(WINDOW, len(rewards) + 1)]
    reached = next((i + WINDOW for i, mean in enumerate(means) if mean >= GOAL), None)
    return reached, means[-1], seconds


if __name__ == "__main__":
    sys.exit(main())
