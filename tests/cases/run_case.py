"""Runs a case of an outside user: the commands of its `cmd.sh`, on a copy of its files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"


def run_case(name: str, folder: Path, timeout: float = 3000) -> str:
    """What `cmd.sh` of the case prints, run in a copy of it under `folder`; the test is skipped where the
    case is not there.
    """
    if not (CASES / name).is_dir():
        pytest.skip(f"the case {name} is not at {CASES}")
    shutil.copytree(CASES / name, folder / name, copy_function=shutil.copyfile)
    (folder / "bin").mkdir()
    for command, program in {"jaxrl": f"{sys.executable} -m jaxrl.cli", "python": sys.executable}.items():
        (folder / "bin" / command).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (folder / "bin" / command).chmod(0o755)
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": root,
        "JAX_NUM_CPU_DEVICES": "1",
    }
    ran = subprocess.run(
        ["sh", "cmd.sh"],
        cwd=folder / name,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return ran.stdout + ran.stderr


def wrong(output: str) -> list[str]:
    """The lines of a verifier's case whose verdict is not the wanted one; there must be some lines."""
    verdicts = [line for line in output.splitlines() if line.startswith(("ok", "WRONG"))]
    assert verdicts, output
    return [line for line in verdicts if line.startswith("WRONG")]
