"""The small story equals the big one: `examples/grpo_by_hand.py`, which is written without `jaxrl.train`, and
the `rl` stage draw the same tokens and make the same updates.
"""

import io
import runpy
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxrl.train.rl as rl_module
from jaxrl.commands.run import run
from jaxrl.config.file import parse_yaml, validate_config
from tests.end_to_end.runs import lines
from tests.sample.watching import watch_decode_weights
from tests.tiny import relative_difference

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "grpo_by_hand.py"
STEPS = 6
CONFIG = """
name: grpo
model:
  architecture: {d_model: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2, d_ff: 128}
  remat: none
task: {name: tiny, game: letter}
sample: {max_prompt_tokens: 16, max_new_tokens: 8, window: 8}
optim: {learning_rate: 3.0e-3}
verify: {workers: 1}
stages:
  - {kind: grpo, seq_len: 64, algo: {problems_per_batch: 16, group_size: 16, updates_per_batch: 2}}
"""


def on_host(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def example() -> dict:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def by_hand(example) -> list:
    """(model, completions, rewards) after each update."""
    return [(on_host(model), *learnt_from) for model, *learnt_from in example["train"](STEPS)]


@pytest.fixture(scope="module")
def by_rl(tmp_path_factory) -> tuple[Path, list]:
    """The run's folder, and the model before the first update and after each. What the sampler makes of the
    weights, once a batch, is gone when they are updated.
    """
    models, make_step = [], rl_module.make_grpo_step

    def make_spied_step(*args):
        step = make_step(*args)

        def spied(state, *rest):
            if not models:
                models.append(on_host(state.trainable["model"]))
            assert len(made) == 1 + (len(models) - 1) // 2 and all(weights() is None for weights in made)
            state, metrics = step(state, *rest)
            models.append(on_host(state.trainable["model"]))
            return state, metrics

        return spied

    values = parse_yaml(CONFIG) | {"runs_dir": str(tmp_path_factory.mktemp("runs"))}
    values["stages"][0]["steps"] = STEPS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl_module, "make_grpo_step", make_spied_step)
        made = watch_decode_weights(patch)
        return run(validate_config(values, "grpo"), io.StringIO()), models


def test_the_same_tokens_are_drawn_and_the_same_rewards_given(by_hand, by_rl):
    rows = lines(by_rl[0], "metrics.jsonl")
    assert len(rows) == STEPS and len(by_hand) == 2 * STEPS
    for row, (_, completions, rewards) in zip(rows, by_hand[::2], strict=True):
        ids = [completion.completion_ids for completion in completions]
        assert zlib.crc32(repr(ids).encode()) == row["batch_hash"]
        assert rewards.mean() == pytest.approx(row["reward/mean"])
    assert rows[-1]["reward/mean"] > 0, "there was something to learn from"


def test_every_update_is_the_same_to_rounding(by_hand, by_rl):
    """The difference is 7e-6 of the way that the weights have gone since the start, and less later (with
    another bound of the clip or other weights of the tokens it grows to 0.3 and more). While there is nothing
    to learn, there is none.
    """
    start, *models = by_rl[1]
    change = lambda model: jax.tree.map(np.subtract, model, start)
    differences = []
    for ours, theirs in zip((model for model, *_ in by_hand), models, strict=True):
        if any(np.any(x) for x in jax.tree.leaves(change(theirs))):
            differences.append(relative_difference(change(ours), change(theirs)))
        else:
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert len(differences) > 3 and max(differences) < 3e-5


def test_the_example_tells_what_it_learns(example, by_hand, monkeypatch, capsys):
    monkeypatch.setitem(example["main"].__globals__, "train", lambda: iter(by_hand))
    example["main"]()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"batch  5  reward {by_hand[9][2].mean():.2f} of 1  for example: '")
