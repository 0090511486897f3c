"""The law of taking up: wherever in an experiment its process ends, started again it comes out bit for bit
the same.
"""

import io
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxrl.commands import run as run_module
from jaxrl.commands.run import run
from jaxrl.config.file import parse_yaml, validate_config
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupted
from jaxrl.train import evaluation as evaluation_module
from jaxrl.train import sft as sft_module
from jaxrl.update.checkpoint import Checkpoints
from tests.end_to_end.runs import lines

CONFIG = """
name: tiny
model: {architecture: {d_model: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, d_ff: 32}}
lora: {rank: 2, alpha: 4, dropout: 0.1}
task: {name: tiny, game: letter, train: 12, val: 4, test: 8}
sample: {max_prompt_tokens: 16, max_new_tokens: 6, slots: 16, window: 5}
optim: {learning_rate: 3.0e-3}
checkpoint: {every: 10}
verify: {workers: 1}
stages:
  - {kind: sft, lora: null, steps: 24, rows: 8, seq_len: 48, eval_every: 4, optim: {learning_rate: 1.0e-2}}
  - {kind: rsft, iterations: 2, samples_per_problem: 4, min_reward: -1, steps: 2, rows: 4, seq_len: 48}
  - {kind: grpo, steps: 3, seq_len: 32, algo: {problems_per_batch: 4, group_size: 4, kl_coef: 0.05}}
  - {kind: ppo, steps: 3, seq_len: 32, algo: {problems_per_batch: 4, group_size: 4, ppo_epochs: 1}}
  - {kind: eval, name: after, sample: {temperature: 0}}
"""
BEST = 20  # of the SFT stage's 24 steps


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it but the closing of files."""


@pytest.fixture
def best_is_not_last(monkeypatch):
    monkeypatch.setattr(
        sft_module, "evaluate_loss", lambda score, state, *_: 1.0 + abs(int(state.step) - BEST)
    )


def load(folder: Path, **changes):
    return validate_config(parse_yaml(CONFIG) | {"runs_dir": str(folder)} | changes, "tiny")


def kill() -> None:
    raise Killed


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def stopped(how, stage: str, step: int, when: str, monkeypatch):
    """The run inside is stopped once it has logged this step, or saved it, or saved the row of this eval
    stage.
    """
    log, save, save_rows = run_module.RunLogger.log, Checkpoints.save, evaluation_module.save_rows

    def log_then(self, at_stage, at_step, metrics):
        log(self, at_stage, at_step, metrics)
        if (at_stage, at_step, "logged") == (stage, step, when):
            how()

    def save_then(self, at_step, *rest, **named):
        save(self, at_step, *rest, **named)
        if (self.folder.name.split("_")[1], at_step, "saved") == (stage, step, when):
            how()

    def save_rows_then(file, rows):
        save_rows(file, rows)
        if (rows[-1].name, "saved") == (stage, when):
            how()

    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunLogger, "log", log_then)
        patch.setattr(Checkpoints, "save", save_then)
        patch.setattr(evaluation_module, "save_rows", save_rows_then)
        with pytest.raises((Interrupted, Killed)):
            yield


def test_stopped_inside_and_after_every_stage_it_is_the_same_run(best_is_not_last, tmp_path, monkeypatch):
    """One run, stopped again and again, beside one that nobody disturbed."""
    whole = run(load(tmp_path / "whole"), io.StringIO())
    config = load(tmp_path / "stopped")
    assert lines(whole, "metrics.jsonl")[23]["val/loss"] == 5.0, "the last step is not the best"
    stops = [
        (ctrl_c, "sft", 22, "logged"),
        (kill, "sft", 24, "saved"),
        (kill, "rsft", 1, "logged"),
        (kill, "rsft", 4, "saved"),
        (ctrl_c, "grpo", 2, "logged"),
        (kill, "grpo", 3, "saved"),
        (kill, "ppo", 1, "logged"),
        (kill, "ppo", 3, "saved"),
        (kill, "after", 0, "saved"),
    ]
    for stop in stops:
        with stopped(*stop, monkeypatch):
            run(config, io.StringIO())
        assert not (tmp_path / "stopped" / "tiny" / "adapter").exists()
    folder = run(config, io.StringIO())
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(folder, name) == lines(whole, name)
    events, restarts = lines(folder, "events.jsonl"), len(stops) - 1  # the last start has nothing left to do
    assert [event for event in events if event["kind"] != "restart"] == lines(whole, "events.jsonl") != []
    assert [event["kind"] for event in events].count("restart") == restarts
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors", "eval.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name

    # ------------------------------------------ what was the best and is lost is told, and nothing else taken
    shutil.rmtree(folder / "checkpoints" / "0_sft" / str(BEST))
    with pytest.raises(
        InputError,
        match=(
            rf"the best checkpoint cannot be used.*0_sft/{BEST}.*restore it, or delete .*0_sft to train the"
            r" stage again"
        ),
    ):
        run(config, io.StringIO())

    # ------------------------------------------------- checkpoints that no config speaks for are not believed
    (folder / "config.yaml").unlink()
    with pytest.raises(
        InputError,
        match=(
            "holds checkpoints and .* and no config.yaml.*restore config.yaml, set another `name`, or delete"
        ),
    ):
        run(config, io.StringIO())
    assert not (folder / "config.yaml").exists()


# ------------------------------------------------------------------------------------------------- divergence


def assert_nothing_exported(folder: Path) -> None:
    assert not {"adapter", "model", "report.md"} & {path.name for path in folder.iterdir()}


def test_a_run_that_is_stopped_while_it_skips_goes_on_counting_and_ends_in_an_error_at_every_start(
    tmp_path, monkeypatch
):
    stage = {"kind": "sft", "rows": 4, "seq_len": 48, "steps": 40, "optim": {"learning_rate": 1e6}}
    config = load(tmp_path, stages=[stage])
    with stopped(ctrl_c, "sft", 6, "logged", monkeypatch):
        run(config, io.StringIO())
    for _ in range(2):
        with pytest.raises(
            InputError, match="stage sft has diverged: 10 updates in a row.*lower optim.learning_rate"
        ):
            run(config, io.StringIO())
        assert [row["step"] for row in lines(tmp_path / "tiny", "metrics.jsonl")] == list(range(1, 10))
    assert_nothing_exported(tmp_path / "tiny")


def test_a_stage_that_ends_in_skipped_updates_is_an_error_at_every_start(tmp_path):
    """With fewer updates than the guard waits for, two in each step, and a last checkpoint that says that all
    steps are done.
    """
    algo = {"problems_per_batch": 4, "group_size": 4, "ppo_epochs": 1, "critic_learning_rate": 1e39}
    config = load(tmp_path, stages=[{"kind": "ppo", "seq_len": 32, "steps": 2, "algo": algo}])
    for _ in range(2):
        with pytest.raises(
            InputError, match="stage ppo has diverged: the last 4 update.*lower optim.learning_rate"
        ):
            run(config, io.StringIO())
    assert_nothing_exported(tmp_path / "tiny")
