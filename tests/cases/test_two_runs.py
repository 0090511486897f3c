"""Case 14, two starts of one run: the second is refused at once, the first ends as if alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl.cli import main
from tests.cases.run_case import CASES
from tests.sandbox.processes import wait_until

CASE = CASES / "14-two-runs-in-one-folder"
ROOT = Path(__file__).resolve().parents[2]
REFUSED = r"error: another process is at work in runs/x: pid {pid} on host .+\n"


def test_two_runs_in_one_folder(tmp_path, monkeypatch, capsys):
    """The second comes when the first has just taken the folder, and when it trains already."""
    if not CASE.is_dir():
        pytest.skip(f"the case is not at {CASE}")
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text((CASE / "run.yaml").read_text())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-m", "jaxrl.cli", "run", "run.yaml"]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for sign in ("lock", "metrics.jsonl"):
        file = Path("runs/x") / sign
        assert wait_until(lambda file=file: (file.exists() and file.read_text()) or first.poll(), 600)
        assert first.poll() is None
        assert main(["run", "run.yaml"]) == 2
        assert re.fullmatch(REFUSED.format(pid=first.pid), capsys.readouterr().err)
    _, errors = first.communicate(timeout=1200)
    assert first.returncode == 0 and b"Traceback" not in errors
    assert len(Path("runs/x/metrics.jsonl").read_text().splitlines()) == 40
