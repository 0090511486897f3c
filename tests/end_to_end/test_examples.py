"""A user's own task and reward, in whole runs: the files that the examples name are all that they need. And a
model used from Python.
"""

import io
import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl.commands.run import run
from jaxrl.config.file import load_config
from jaxrl.data.tokenizer import num_tokens, train_tokenizer
from jaxrl.errors import InputError
from jaxrl.weights.safetensors import save_model
from tests.tiny import CONFIG as MODEL
from tests.tiny import max_difference, policy_and_trees

ROOT = Path(__file__).resolve().parents[2]
BROKEN = """
from jaxrl.types import Verdict
def reward(problem, text, verdict):
    {body}
"""


@pytest.fixture
def at_root(tmp_path, monkeypatch):
    """A folder that looks like the project's from where examples are run."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(folder, stage):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage]


def test_a_task_of_ones_own_learns(at_root):
    folder = run(load_config("examples/sort.yaml", ["stages.2.steps=20"]), io.StringIO())
    rows = rows_of(folder, "grpo")
    assert len(rows) == 20 and all(row["verify/errors"] == 0 for row in rows)
    assert rows[0]["reward/mean"] < 0.5 < 0.65 < rows[-1]["reward/mean"], "from chance, which is 0.36"
    for row in rows:
        assert row["reward/mean"] == pytest.approx(row["reward/in_place"] - 0.1 * row["reward/surplus"])
    assert [row["name"] for row in json.loads((folder / "eval.json").read_text())] == [
        "chance",
        "after sft",
        "after grpo",
    ]


CONFIG = """
name: reward
model: {architecture: {d_model: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, d_ff: 32}}
task: {name: tiny, game: echo, train: 64, test: 8, reward: my_reward.py}
sample: {max_prompt_tokens: 16, max_new_tokens: 4, slots: 32, window: 4}
stages: [{kind: grpo, steps: 4, algo: {problems_per_batch: 4, group_size: 4}}]
"""


def test_a_reward_of_ones_own_and_runs_that_its_errors_end(at_root):
    Path("reward.yaml").write_text(CONFIG)
    Path("my_reward.py").write_text(
        BROKEN.format(body="return Verdict(0.25 * len(text), True, True, {'letters': len(text)})")
    )
    folder = run(load_config("reward.yaml", []), io.StringIO())
    for row in rows_of(folder, "grpo"):
        assert row["reward/mean"] == pytest.approx(0.25 * row["reward/letters"])
        assert row["sample/accuracy"] == 1 and row["verify/errors"] == 0

    Path("broken.py").write_text(BROKEN.format(body="return float('nan')"))
    told = io.StringIO()
    with pytest.raises(InputError, match="100% of the last 64 samples have no verdict.*mend the verifier"):
        run(load_config("reward.yaml", ["name=broken", "task.reward=broken.py", "stages.0.steps=20"]), told)
    rows = rows_of(Path("runs/broken"), "grpo")
    assert [row["verify/errors"] for row in rows] == [16, 16, 16], "the fourth batch of 16 made it 64"
    assert all(row["reward/not_finite"] == 16 and "loss" not in row for row in rows)
    assert "warning: grpo, step 1: 16 samples have no verdict" in told.getvalue()


# ----------------------------------------------------------------------------------------------------- Python


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A model directory with a tokenizer, both tiny."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["Where do you arrive?"])
    config = replace(MODEL, vocab_size=num_tokens(tokenizer), qkv_bias=False)
    _, model, _ = policy_and_trees(None, config)
    tokenizer.save_pretrained(folder / "tokenizer")
    save_model(
        model["model"], config, folder, "float32", folder / "tokenizer", eos_ids=(tokenizer.eos_token_id,)
    )
    return folder


def test_a_model_is_used_from_python_in_forty_lines(model_folder, monkeypatch, capsys):
    script = ROOT / "examples" / "use_from_python.py"
    assert len(script.read_text().splitlines()) < 40
    monkeypatch.setattr(sys, "argv", [script.name, str(model_folder)])
    found = runpy.run_path(str(script))
    completions, metrics = found["completions"], found["metrics"]
    assert (
        len({tuple(c.completion_ids) for c in completions})
        > 1
        == len({tuple(c.prompt_ids) for c in completions})
    )
    for completion, logprobs in zip(completions, found["logprobs"], strict=True):
        sampled = logprobs[len(completion.prompt_ids) :]
        np.testing.assert_allclose(sampled, completion.sampler_logprobs, atol=1e-4)
    assert metrics["ratio/mean"] == 1 and metrics["sampler_mismatch/max"] < 1e-4 and metrics["skipped"] == 0
    assert metrics["tokens"] == sum(len(c.completion_ids) for c in completions)
    before, after = found["weights"].trainable, found["state"].trainable
    assert max_difference(after, before) > 0 and found["state"].step == 1
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(before)), (
        "the model that was loaded is left alone"
    )
    assert len(capsys.readouterr().out.splitlines()) == len(completions) + 1
