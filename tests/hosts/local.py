"""Runs of several processes on this machine: started, watched, and their folders compared."""

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.end_to_end.runs import lines

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 900  # of a test with a process: the machine may be busy, and nothing is timed


@dataclass(frozen=True)
class Ended:
    """A process at its end."""

    code: int
    output: str
    errors: str


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(
    arguments: list[str], devices: int, settings: Mapping[str, str], cwd: Path = ROOT
) -> subprocess.Popen:
    """A Python process with so many CPU devices; `settings` go into its environment."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environ = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": path, **settings}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_run(
    config: Path, count: int, devices: int, settings: Mapping[int, Mapping[str, str]] | None = None
) -> list[subprocess.Popen]:
    """`jaxrl run` in so many processes with so many devices each; they get their places by the command line
    and by the environment.
    """
    address = f"127.0.0.1:{free_port()}"
    return [
        start(
            ["-m", "jaxrl.cli", "run", str(config), f"distributed.process_id={n}"],
            devices,
            {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(count),
                **(settings or {}).get(n, {}),
            },
        )
        for n in range(count)
    ]


def end(processes: list[subprocess.Popen]) -> list[Ended]:
    """Wait for all; none outlives the test."""
    try:
        return [
            Ended(*((out := p.communicate(timeout=PATIENCE_S)) and (p.returncode, *out))) for p in processes
        ]
    finally:
        for process in processes:
            process.kill()


def wait_until(is_so: Callable[[], bool], processes: list[subprocess.Popen]) -> None:
    """Wait for something that the processes do; give up when one of them has ended."""
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            raise AssertionError("\n".join(str(ended) for ended in end(processes)))
        time.sleep(0.05)


def has_row(folder: Path, stage: str, step: int) -> bool:
    """Whether metrics.jsonl tells of a step; its last line may be half written."""
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()[:-1]] if file.exists() else []
    return any((row["stage"], row["step"]) >= (stage, step) and row["stage"] == stage for row in rows)


def differences(folder: Path, other: Path) -> dict[str, float]:
    """The largest difference in each thing that two runs leave, beside the size of its larger number; texts
    and tokens differ by 0 or infinity.
    """
    found = {}
    for stage in ("sft", "rsft", "grpo", "ppo"):
        mine, theirs = (
            [row for row in lines(f, "metrics.jsonl") if row["stage"] == stage] for f in (folder, other)
        )
        found[f"metrics of {stage}"] = _of(mine, theirs)
    found["samples.jsonl"] = _of(*(lines(f, "samples.jsonl") for f in (folder, other)))
    found["eval.json"] = _of(*(json.loads((f / "eval.json").read_text()) for f in (folder, other)))
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        found[name] = _of(*(load_file(f / name) for f in (folder, other)))
    return found


def _of(mine, theirs) -> float:
    if isinstance(mine, np.ndarray):
        size = max(np.abs(mine).max(), np.abs(theirs).max(), 1e-30)
        return float(np.abs(mine.astype(np.float64) - theirs).max() / size)
    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        return max((_of(mine[key], theirs[key]) for key in mine), default=0.0)
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return max((_of(*pair) for pair in zip(mine, theirs, strict=True)), default=0.0)
    if isinstance(mine, float) and isinstance(theirs, float):
        return abs(mine - theirs) / max(abs(mine), abs(theirs), 1e-3)
    return 0.0 if mine == theirs else math.inf
