"""Run one config on several seeds and print what each learnt: is the improvement larger than its uncertainty?

    python scripts/seeds.py configs/quickstart.yaml --seeds 0 1 2 [key=value ...]

Every seed is a run of its own (`<name>-seed<k>`), with its own initialisation, sampling noise and, for a generated
graph, its own graph. Exit code 0 if in every run the lower 80 % bound of the last evaluation lies above the upper 80 %
bound of the one before it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from jaxrl.config import EvalStage
from jaxrl.config_file import load_config
from jaxrl.eval.table import Row, load_rows, render_markdown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    evaluations = [stage.name for stage in config.stages if isinstance(stage, EvalStage)]
    rows, learnt, seconds = [], [], []
    for seed in arguments.seeds:
        name = f"{config.name}-seed{seed}"
        own = [f"name={name}", f"seed={seed}"] + ([f"task.graph_seed={seed}"] if config.task and config.task.graph is None else [])
        started = time.monotonic()
        command = [sys.executable, "-m", "jaxrl.cli", "run", str(arguments.config), *arguments.overrides, *own]
        subprocess.run(command, check=True)
        seconds.append(time.monotonic() - started)
        by_name = {row.name: row for row in load_rows(Path(config.runs_dir) / name / "eval.json")}
        before, after = (by_name[evaluation] for evaluation in evaluations[-2:])
        rows += [_renamed(before, seed), _renamed(after, seed)]
        learnt.append(after.ci80[0] > before.ci80[1])
    print(f"\n{render_markdown(rows)}\n")
    for seed, is_better, took in zip(arguments.seeds, learnt, seconds):
        print(f"seed {seed}: {'intervals apart' if is_better else 'intervals overlap'}, {took:.0f} s")
    return 0 if all(learnt) else 1


def _renamed(row: Row, seed: int) -> Row:
    return Row(**{**vars(row), "name": f"seed {seed}, {row.name}"})


if __name__ == "__main__":
    sys.exit(main())
