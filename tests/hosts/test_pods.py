"""The law of several machines without a shared disk: on a bucket, their processes are one run, equal to the
run of one process with as many devices, whichever machines they are when it goes on.
"""

import io
import shutil
import signal
from pathlib import Path

import pytest
import yaml

pytest.importorskip("gcsfs", reason="pip install 'jaxrl[gcs]'")

from jaxrl.commands.run import run
from jaxrl.config.file import load_config
from jaxrl.files.place import CACHE, local_copy
from tests.files.gcs import serving, settings
from tests.hosts.local import differences, end, has_row, start_run, wait_until

RUNS = "gs://bucket/runs"
# A reward of the user's, slow where the environment says so.
REWARD = """
import os, time

def reward(problem, text, verdict):
    time.sleep(float(os.environ.get("SLOW", 0)))
    return verdict.reward + len(text) / 100
"""
CONFIG = """
name: run
runs_dir: {runs}
compilation_cache: null
model: {{architecture: {{d_model: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2, d_ff: 32}}}}
lora: {{rank: 2, alpha: 4}}
mesh: {{data: 1, fsdp: 2}}
distributed: {{timeout_s: 120}}
task: {{name: tiny, game: letter, train: 12, val: 4, test: 8}}
sample: {{max_prompt_tokens: 16, max_new_tokens: 6, slots: 16, window: 5}}
optim: {{learning_rate: 3.0e-3}}
checkpoint: {{every: 1, keep: 1}}
verify: {{workers: 1}}
stages:
  - {{kind: sft, lora: null, steps: 4, rows: 8, seq_len: 48, optim: {{learning_rate: 1.0e-2}}}}
  - {{kind: rsft, samples_per_problem: 4, min_reward: -1, steps: 2, rows: 4, seq_len: 48}}
  - kind: grpo
    steps: 5
    seq_len: 32
    task: {{reward: {reward}}}
    algo: {{problems_per_batch: 4, group_size: 4, kl_coef: 0.05}}
  - {{kind: eval, name: after, sample: {{temperature: 0}}}}
"""
LARGEST = 2e-3  # as in test_runs.py: devices add up in another order across processes


def write_config(file: Path, runs: str, reward: Path) -> Path:
    file.write_text(CONFIG.format(runs=runs, reward=reward))
    return file


def brought(objects: dict[str, bytes], folder: Path) -> Path:
    """The run's folder as it stands in the bucket."""
    for name, content in objects.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder / "runs" / "run"


def test_on_a_bucket_two_machines_that_change_in_the_middle_are_one_run(tmp_path, monkeypatch):
    reward = tmp_path / "reward.py"
    reward.write_text(REWARD)
    whole = run(load_config(write_config(tmp_path / "one.yaml", tmp_path / "one", reward)), io.StringIO())
    config = write_config(tmp_path / "config.yaml", RUNS, reward)
    with serving() as (url, objects):

        def start(*machines: str):
            of_all = {**settings(url), "SLOW": "0.2"}
            return start_run(
                config, 2, 1, {n: {**of_all, CACHE: str(tmp_path / m)} for n, m in enumerate(machines)}
            )

        monkeypatch.setenv(CACHE, str(tmp_path / "a"))
        processes = start("a", "b")
        wait_until(lambda: has_row(local_copy(RUNS) / "run", "grpo", 1), processes)
        processes[1].send_signal(signal.SIGTERM)
        for ended in end(processes):
            assert ended.code == 128 + signal.SIGTERM, ended
        assert not list(local_copy(RUNS).rglob("commit_success.txt")), "a checkpoint is copied here"
        shutil.rmtree(tmp_path / "a")
        ended = end(start("b", "c"))  # the second machine is the first now
        assert [each.code for each in ended] == [0, 0], ended
    assert b"grpo: the run is taken up again at step" in objects["runs/run/events.jsonl"]
    there = brought(objects, tmp_path / "bucket")
    found = differences(there, whole)
    print("\n".join(f"  {what:36} {difference:.1e}" for what, difference in found.items()))
    assert max(found.values()) <= LARGEST
    assert "distributed" not in yaml.safe_load((there / "config.yaml").read_text())
    assert not (there / "lock").exists()
    for stage in whole.glob("checkpoints/*"):
        kept = sorted(path.name for path in stage.iterdir())
        assert sorted(path.name for path in (there / "checkpoints" / stage.name).iterdir()) == kept
