"""GRPO's family and PPO as whole stages with everything switched on: what they log, that stopping them
changes nothing.
"""

import io
import itertools
import math
import zlib
from pathlib import Path

import pytest

from jaxrl.commands.run import run
from jaxrl.config.file import load_config
from jaxrl.tasks import TASKS
from jaxrl.tasks.tiny import Tiny
from jaxrl.types import Problem, Verdict
from jaxrl.update.checkpoint import Checkpoints
from tests.docs_pages import undocumented_in
from tests.end_to_end.runs import interrupted_after, lines

CONFIG = """
name: tiny
model:
  architecture: {d_model: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, d_ff: 64}
lora: {rank: 4, alpha: 8}
task: {name: tiny, game: count, train: 12, val: 0, test: 8}
sample: {max_prompt_tokens: 16, max_new_tokens: 10, slots: 32, window: 9}
optim: {learning_rate: 3.0e-3}
checkpoint: {every: 2}
verify: {workers: 1}
stages:
  - {kind: sft, lora: null, steps: 20, rows: 8, seq_len: 48, optim: {learning_rate: 1.0e-2}}
  - kind: grpo
    steps: 4
    seq_len: 32
    sample: {temperature: 1.3, top_p: 0.98}
    algo:
      {problems_per_batch: 4, group_size: 4, updates_per_batch: 2, kl_coef: 0.05, reference_every: 2,
       dynamic_sampling: 3, curriculum: success_rate, sampler_correction: {level: sequence},
       replay: {ratio: 0.3, capacity: 8}}
  - kind: ppo
    steps: 4
    seq_len: 32
    sample: {top_k: 40, min_p: 0.001}
    algo:
      {problems_per_batch: 8, group_size: 2, critic: separate, kl_coef: 0.1, kl_target: 0.01,
       kl_horizon: 50, entropy_coef: 0.01, critic_warmup: 1, critic_learning_rate: 1.0e-2,
       overlong: penalty, overlong_buffer: 2, replay: {ratio: 0.2, use: off_policy}}
  - {kind: eval, name: after, sample: {temperature: 0}}
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(CONFIG)
    return file


def start(config_file: Path, folder: Path, *overrides: str) -> tuple[Path, str]:
    stream = io.StringIO()
    return run(load_config(config_file, [f"runs_dir={folder}", *overrides]), stream), stream.getvalue()


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory) -> Path:
    return start(config_file, tmp_path_factory.mktemp("whole"))[0]


def rows_of(folder: Path, stage: str | None = None) -> list[dict]:
    """metrics.jsonl without what the clock and the machine have a say in."""
    return [row for row in lines(folder, "metrics.jsonl") if stage in (None, row["stage"])]


def test_what_is_promised_is_logged(whole):
    grpo, ppo = rows_of(whole, "grpo"), rows_of(whole, "ppo")
    common = {
        "reward/mean",
        "reward/std",
        "reward/flat_groups",
        "reward/not_finite",
        "sample/truncated",
        "sample/length_p10",
        "sample/length_p90",
        "clip_fraction/low",
        "clip_fraction/high",
        "ratio/mean",
        "ratio/max",
        "entropy",
        "sampler_mismatch/mean",
        "sampler_mismatch/p99",
        "sampler_mismatch/max",
        "kl/old",
        "groups/used",
        "groups/dropped",
        "grad_norm",
        "kl/ref",
        "replay/size",
        "replay/used",
        "loss/policy",
        "learning_rate",
    }
    for rows, own in (
        (grpo, {"loss/imitation"}),
        (ppo, {"loss/value", "value/explained_variance", "value/clip_fraction", "kl/coef"}),
    ):
        assert len(rows) == 4
        assert common | own <= set(rows[-1]), (common | own) - set(rows[-1])
        assert all(math.isfinite(row[name]) for row in rows for name in common)
    assert (
        max(row["sampler_mismatch/p99"] for row in grpo + ppo)
        <= max(row["sampler_mismatch/max"] for row in grpo + ppo)
        < 1e-4
    )
    assert grpo[-1]["groups/dropped"] + sum(row["groups/dropped"] for row in grpo[:-1]) > 0, (
        "a new policy has groups without spread"
    )
    assert 0 < grpo[-1]["replay/size"] <= 8 and grpo[-1]["replay/used"] > 0


def test_every_metric_is_explained_in_docs(whole):
    assert undocumented_in(whole) == set()


def test_the_kl_coefficient_goes_up_where_the_kl_is_above_its_target_and_down_below(whole):
    ppo = rows_of(whole, "ppo")
    assert ppo[0]["kl/coef"] == ppo[1]["kl/coef"] == 0.1, (
        "while the critic warms up there is no KL to adapt to"
    )
    for row, after in itertools.pairwise(ppo[1:]):
        assert (after["kl/coef"] > row["kl/coef"]) == (row["kl/ref"] > 0.01) and after["kl/coef"] != row[
            "kl/coef"
        ]


def test_the_policy_of_ppo_starts_where_grpo_ended_and_holds_still_while_the_critic_warms_up(whole):
    ppo = rows_of(whole, "ppo")
    assert (
        ppo[0]["learning_rate"] == 0
        and ppo[0]["kl/ref"] == 0
        and ppo[0]["ratio/max"] == pytest.approx(1, abs=1e-5)
    )
    assert abs(ppo[-1]["kl/ref"]) > 0


@pytest.mark.parametrize("stop_after", [("grpo", 1), ("grpo", 3), ("ppo", 1), ("ppo", 3)])
def test_interrupted_and_resumed_is_uninterrupted(stop_after, whole, config_file, tmp_path, monkeypatch):
    """Replay buffer, success rates, stream position, KL coefficient and reference included."""
    with interrupted_after(stop_after, monkeypatch):
        start(config_file, tmp_path)
    folder, _ = start(config_file, tmp_path)
    assert rows_of(folder) == rows_of(whole)
    for name in ("adapter/adapter_model.safetensors", "eval.json", "samples.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_checkpoint_holds_what_the_stage_has_to_know(whole):
    with Checkpoints(whole / "checkpoints" / "1_grpo", 2) as checkpoints:
        meta = checkpoints._checkpointer.metadata(4).custom_metadata["meta"]["progress"]
    assert (
        meta["batches"] == 4
        and meta["rounds"] >= 4
        and meta["drawn"] >= 16
        and meta["rates"]
        and 0 < len(meta["replay"]) <= 8
    )


class Careless:
    """A verifier whose rewards are not always numbers, even if the policy says the same to all problems."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        reward = (math.nan, math.inf, -0.75, 0.5, 0.0)[(len(text) + zlib.crc32(problem.uid.encode())) % 5]
        return Verdict(reward, reward == 0.5, True)


class CarelessTask(Tiny):
    def __init__(self, section):
        super().__init__(section)
        self.verify = Careless()


def test_rewards_that_are_no_numbers_are_left_out_and_the_run_goes_on(config_file, tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", CarelessTask)
    plain = "{problems_per_batch: 8, group_size: 4}"
    overrides = [f"stages.{stage}.{key}" for stage in (1, 2) for key in ("steps=2", f"algo={plain}")]
    folder, said = start(config_file, tmp_path, *overrides)
    for name in ("grpo", "ppo"):
        rows = rows_of(folder, name)
        assert sum(row["reward/not_finite"] for row in rows) > 0
        assert all(row["sample/left_out"] == row["reward/not_finite"] for row in rows)
        assert all(
            math.isfinite(row["loss"]) and row["skipped"] == 0 and math.isfinite(row["reward/mean"])
            for row in rows
        )
        assert f"{name}, step" in said and "rewards are not finite" in said
