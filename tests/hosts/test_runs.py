"""The law of several processes: together they are one run, equal to the run of one process with as many
devices, whatever ends one of them on the way.
"""

import io
import signal
from pathlib import Path

import pytest
import yaml

from jaxrl.commands.run import run
from jaxrl.config.file import load_config
from jaxrl.errors import PROCESS_LOST
from tests.hosts.local import differences, end, has_row, start_run, wait_until

# A reward of the user's: it kills its verifier on some answers, and is slow where the environment says so.
REWARD = """
import os, time

def reward(problem, text, verdict):
    time.sleep(float(os.environ.get("SLOW", 0)))
    if len(text) % 7 == 3:
        os._exit(9)
    return verdict.reward + len(text) / 100
"""
BROKEN_TASK = """
import os
from jaxrl import InputError, Problem, Verdict

class Task:
    def __init__(self, **options):
        if os.environ.get("BROKEN"):
            raise InputError("the judge is out; call him")

    def verify(self, problem, text):
        return Verdict(0.0, False, True)

    def problems(self, split):
        return [Problem(split, ({"role": "user", "content": f"say {split}"},), {})]

    def demonstration(self, problem):
        return problem.uid
"""
CONFIG = """
name: run
runs_dir: {folder}
compilation_cache: null
model: {{architecture: {{d_model: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2, d_ff: 32}}}}
lora: {{rank: 2, alpha: 4}}
mesh: {{data: 2, fsdp: 2}}
distributed: {{timeout_s: 120}}
task: {{name: tiny, game: letter, train: 12, val: 4, test: 8}}
sample: {{max_prompt_tokens: 16, max_new_tokens: 6, slots: 16, window: 5}}
optim: {{learning_rate: 3.0e-3}}
checkpoint: {{every: 1}}
verify: {{workers: 1, max_error_share: 1.0}}
stages:
  - {{kind: sft, lora: null, steps: 4, rows: 8, seq_len: 48, eval_every: 2, optim: {{learning_rate: 1.0e-2}}}}
  - kind: grpo
    steps: 3
    seq_len: 32
    task: {{reward: {reward}}}
    algo: {{problems_per_batch: 4, group_size: 4, kl_coef: 0.05}}
  - {{kind: ppo, steps: 2, seq_len: 32, algo: {{problems_per_batch: 4, group_size: 4, ppo_epochs: 1}}}}
  - {{kind: eval, name: after, sample: {{temperature: 0}}}}
"""
# Devices add up in another order across processes than inside one, so that numbers differ by rounding.
LARGEST = 2e-3


def write_config(folder: Path, reward: Path) -> Path:
    folder.mkdir()
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(folder=folder, reward=reward))
    return file


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("reward") / "reward.py"
    file.write_text(REWARD)
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory, reward) -> Path:
    """The run of one process with four devices."""
    config = write_config(tmp_path_factory.mktemp("one") / "runs", reward)
    return run(load_config(config), io.StringIO())


def show_and_check(name: str, folder: Path, whole: Path) -> None:
    found = differences(folder, whole)
    print(f"\n{name}, beside one process:")
    print("\n".join(f"  {what:36} {difference:.1e}" for what, difference in found.items()))
    assert max(found.values()) <= LARGEST
    assert "distributed" not in yaml.safe_load((folder / "config.yaml").read_text())


def test_two_processes_one_of_them_slow_and_stopped_by_a_signal_are_one_run(whole, reward, tmp_path):
    config = write_config(tmp_path / "runs", reward)
    folder, slow = tmp_path / "runs" / "run", {1: {"SLOW": "0.2"}}
    processes = start_run(config, 2, 2, slow)
    wait_until(lambda: has_row(folder, "grpo", 1), processes)
    processes[1].send_signal(signal.SIGTERM)
    for ended in end(processes):
        assert ended.code == 128 + signal.SIGTERM, ended
        assert "stopped; the state is saved" in ended.errors
    assert not list(folder.glob("checkpoints/*_ppo")) and not (folder / "lock").exists()
    first, second = end(start_run(config, 2, 2, slow))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert "report:" in first.output and second.output.replace("[Gloo]", "").count("report") == 0
    show_and_check("two processes, stopped in GRPO by a signal to the second", folder, whole)


def test_four_processes_one_of_them_killed_are_one_run(whole, reward, tmp_path):
    config = write_config(tmp_path / "runs", reward)
    folder = tmp_path / "runs" / "run"
    processes = start_run(config, 4, 1)
    wait_until(lambda: has_row(folder, "grpo", 1), processes)
    processes[2].kill()
    for n, ended in enumerate(end(processes)):
        if n == 2:
            assert ended.code == -signal.SIGKILL
        else:
            assert ended.code == PROCESS_LOST, ended
            assert "error: process 2 has ended at" in ended.errors and "Traceback" not in ended.errors
    assert [ended.code for ended in end(start_run(config, 4, 1))] == [0, 0, 0, 0]
    show_and_check("four processes, the third killed in GRPO", folder, whole)


def test_what_one_process_cannot_read_ends_all_of_them_with_its_sentence(reward, tmp_path):
    config = write_config(tmp_path / "runs", reward)
    file = tmp_path / "task.py"
    task = "name: tiny, game: letter, train: 12, val: 4, test: 8"
    config.write_text(config.read_text().replace(task, f"name: custom, file: {file}"))
    file.write_text(BROKEN_TASK)
    first, second = end(start_run(config, 2, 2, {1: {"BROKEN": "1"}}))
    assert (first.code, second.code) == (2, 2), (first, second)
    assert "the judge is out; call him" in second.errors
    assert "error: process 1: " in first.errors and "the judge is out; call him" in first.errors
    assert not (tmp_path / "runs" / "run").exists()
