"""Run one config on several seeds, and on each with perturbations that should not matter: does it always
learn?

    python scripts/seeds.py configs/quickstart.yaml --seeds 0 1 2 --perturb threads fusion noise
        [key=value ...]

Every run is one of its own (`<name>-seed<k>[-<perturbation>]`). A seed has its own initialisation, sampling
noise and, for a generated graph, its own graph. The perturbations of each seed:

  threads  one core and one thread instead of all: sums are cut otherwise
  fusion   XLA's CPU compiler without its fusion pass: operations are rounded in other places
  noise    the initial weights times 1 + 1e-7 z, z normal: a float32's last bit or two (configs with
           `model.architecture`)

Prints a table, the worst run first, with the 80 % intervals of the last evaluation and of the one before it.
A run that is there already is not run again, one that was stopped goes on, and one that fails is told and the
others are run. Exit code 0 if in every run the lower bound of the last evaluation lies above the upper bound
of the one before it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jaxrl.config.experiment import Config, EvalStage
from jaxrl.config.file import difference, load_config
from jaxrl.errors import InputError
from jaxrl.track.evaluations import Row, load_rows
from jaxrl.track.format import markdown_table, percent

PERTURBATIONS = ("threads", "fusion", "noise")
NOISE = 1e-7  # relative; half a unit in the last place of a float32 is 3e-8 to 6e-8 of it
MEASURED = "measured.json"  # in the run's folder: what it cost


@dataclass(frozen=True)
class Result:
    """One run. before, after: its last two evaluations, None if it has not come to its end. cost: of
    `measured.json`.
    """

    name: str
    before: Row | None = None
    after: Row | None = None
    cost: dict[str, float] | None = None
    failure: str = ""

    @property
    def is_apart(self) -> bool:
        return self.after is not None and self.after.ci80[0] > self.before.ci80[1]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--perturb", choices=PERTURBATIONS, nargs="*", default=[], help="beside each seed as it is"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", default=[])
    # a list of seeds would swallow them
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    arguments = parser.parse_args([word for word in words if word not in overrides])
    try:
        results = [
            one_run(arguments.config, overrides, seed, perturbation)
            for seed in arguments.seeds
            for perturbation in ("", *arguments.perturb)
        ]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results.sort(key=lambda result: result.after.accuracy if result.after else -1.0)
    print(f"\n{table(results)}\n\n{summary(results)}")
    return 0 if all(result.is_apart for result in results) else 1


def one_run(path: Path, overrides: list[str], seed: int, perturbation: str) -> Result:
    """Run to the end what has not been; nothing of a run that is there with the same settings.

    Raises:
      InputError: the config is at fault.
    """
    config = load_config(path, overrides)
    name = "-".join(filter(None, (config.name, f"seed{seed}", perturbation)))
    own = [*overrides, f"name={name}", f"seed={seed}", "expect=null"]  # here it is found out
    if config.task and getattr(config.task, "graph", "") is None:
        own.append(f"task.graph_seed={seed}")
    folder = config.folder.with_name(name)
    if perturbation == "noise":
        start = folder.with_name(f"{name}-start")
        if not make_noisy_model(load_config(path, own), start):
            return Result(name, failure="no start")
        own += ["model.architecture=null", f"model.path={start}"]
    config = load_config(path, own)
    evaluations = [stage.name for stage in config.stages if isinstance(stage, EvalStage)]
    if len(evaluations) < 2:
        raise InputError(
            f"{path} has {len(evaluations)} eval stages; an improvement is seen between two, so add them"
        )
    before, after = evaluations[-2:]
    if not (folder / MEASURED).exists() or difference(folder / "config.yaml", config):
        cost = spend([sys.executable, "-m", "jaxrl.cli", "run", str(path), *own], perturbation)
        if cost["exit_code"]:
            return Result(name, failure=f"exit code {cost['exit_code']:.0f}")
        (folder / MEASURED).write_text(json.dumps(cost) + "\n", encoding="utf-8")
    rows = {row.name: row for row in load_rows(folder / "eval.json")}
    return Result(
        name, rows[before], rows[after], json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    )


def spend(command: list[str], perturbation: str) -> dict[str, float]:
    """Run a command under a perturbation; what it cost: seconds on the clock, seconds of CPU, the process's
    peak MiB.

    Of a run that was stopped and goes on, it is the cost of going on.
    """
    environment = dict(os.environ)
    if perturbation == "fusion":
        environment["XLA_FLAGS"] = (
            f"{environment.get('XLA_FLAGS', '')} --xla_disable_hlo_passes=fusion".strip()
        )
    one_core = (
        (lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}))
        if perturbation == "threads"
        else None
    )
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, preexec_fn=one_core)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "exit_code": process.returncode,
        "wall_s": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,  # KiB on Linux
    }


def make_noisy_model(config: Config, folder: Path) -> bool:
    """The fresh model that this config would start from, each weight times 1 + NOISE z, as a model directory;
    whether it is there.

    Made in a process of its own, so that the script holds no device.
    """
    if config.model.architecture is None:
        raise InputError(
            "--perturb noise disturbs the weights of a fresh model, and this config has none "
            "(model.architecture)"
        )
    if not (folder / "config.json").exists():
        subprocess.run(
            [sys.executable, __file__, "--make-noisy-model", config.model_dump_json(), str(folder)]
        )
    return (folder / "config.json").exists()


def noisy_model(config: Config, folder: Path) -> None:
    import jax

    from jaxrl.data.tokenizer import num_tokens
    from jaxrl.device.mesh import make_mesh
    from jaxrl.policy.load import load_base
    from jaxrl.policy.tokenizer import load_run_tokenizer
    from jaxrl.train.layout import choose_mesh
    from jaxrl.weights.safetensors import save_model

    tokenizer, eos_ids = load_run_tokenizer(config, folder, datetime.now())
    mesh = make_mesh(choose_mesh(config.mesh, config.model, config.stages, num_tokens(tokenizer))[0])
    weights = load_base(config.model, num_tokens(tokenizer), mesh, config.seed)
    leaves, tree = jax.tree.flatten(weights.frozen["model"])
    keys = jax.random.split(jax.random.key(config.seed + 1), len(leaves))
    noisy = [leaf * (1 + NOISE * jax.random.normal(key, leaf.shape)) for leaf, key in zip(leaves, keys)]
    tokenizer.save_pretrained(folder / "tokenizer")
    model = jax.tree.unflatten(tree, noisy)
    save_model(
        model,
        weights.policy.config,
        folder,
        config.model.dtype,
        tokenizer_from=folder / "tokenizer",
        eos_ids=eos_ids,
    )


def table(results: list[Result]) -> str:
    before, after = next(((r.before.name, r.after.name) for r in results if r.after), ("before", "after"))
    header = ["run", before, "80% interval", after, "80% interval", "apart", "wall", "CPU", "peak"]
    return markdown_table(header, [_cells(result) for result in results])


def _cells(result: Result) -> list[str]:
    if result.after is None:
        return [result.name, result.failure, *["–"] * 7]
    numbers = [
        cell
        for row in (result.before, result.after)
        for cell in (percent(row.accuracy), " – ".join(map(percent, row.ci80)))
    ]
    cost = [
        f"{result.cost['wall_s']:.0f} s",
        f"{result.cost['cpu_s']:.0f} s",
        f"{result.cost['peak_mib']:.0f} MiB",
    ]
    return [result.name, *numbers, "yes" if result.is_apart else "no", *cost]


def summary(results: list[Result]) -> str:
    ended = [result.after.accuracy for result in results if result.after]
    if not ended:
        return f"none of {len(results)} runs came to its end"
    return (
        f"{len(ended)} of {len(results)} runs came to their end: {percent(ended[0])} at worst, "
        f"{percent(ended[len(ended) // 2])} in the middle, {percent(ended[-1])} at best; intervals apart in "
        f"{sum(result.is_apart for result in results)}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make-noisy-model"]:
        noisy_model(Config.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1:]))
