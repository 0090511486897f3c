"""The policy that a run starts with, and its hand-over from one stage to the next."""

import dataclasses
import io
import json
import os
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrl.commands.run import run
from jaxrl.config.file import parse_yaml, validate_config
from jaxrl.config.shared import LoraSection, ModelSection
from jaxrl.device.compilations import set_up_jax
from jaxrl.errors import InputError
from jaxrl.model.lora import merge_lora
from jaxrl.policy.describe import describe
from jaxrl.policy.hand_over import PolicyWeights, enter_stage, entered_shapes
from jaxrl.policy.load import load as load_weights
from jaxrl.policy.load import load_base
from jaxrl.weights.peft import save_adapter
from jaxrl.weights.safetensors import save_model
from tests.tiny import CONFIG, LORA, max_difference, one_device, policy_and_trees

KEY = jax.random.key(0)
TOKENS = jax.random.randint(jax.random.key(1), (2, 10), 0, 64)


def adapted(dtype: str = "float32") -> PolicyWeights:
    policy, trainable, frozen = policy_and_trees()
    frozen = jax.tree.map(lambda x: x.astype(dtype), frozen)
    return PolicyWeights(dataclasses.replace(policy, dtype=dtype), trainable, frozen)


def logits(weights: PolicyWeights):
    positions = np.broadcast_to(np.arange(10), (2, 10))
    hidden = weights.policy.apply(
        weights.trainable, weights.frozen, TOKENS, positions, np.ones((2, 10), np.int32)
    )
    return weights.policy.logits(weights.trainable, weights.frozen, hidden)


def test_the_same_adapters_go_on():
    weights = adapted()
    assert enter_stage(weights, LORA, "float32", one_device(), KEY) == weights


def test_dropout_and_the_order_of_targets_do_not_make_other_adapters():
    """PEFT writes the targets in any order, and dropout is not in the arrays."""
    weights = adapted()
    same = LORA.model_copy(update={"dropout": 0.1, "targets": LORA.targets[::-1]})
    entered = enter_stage(weights, same, "float32", one_device(), KEY)
    assert (
        entered.trainable is weights.trainable
        and entered.frozen is weights.frozen
        and not entered.is_new_base
    )
    assert entered.policy == dataclasses.replace(weights.policy, lora=same)
    for other in ({"alpha": 9.0}, {"rslora": True}, {"targets": LORA.targets[:-1]}):
        assert (
            enter_stage(weights, LORA.model_copy(update=other), "float32", one_device(), KEY).trainable
            is not weights.trainable
        )


def test_a_loaded_base_is_not_copied_for_its_first_adapters():
    policy, _, frozen = policy_and_trees()
    base = PolicyWeights(dataclasses.replace(policy, lora=None), {}, frozen)
    entered = enter_stage(base, LORA, "float32", one_device(), KEY)
    assert entered.frozen["model"] is frozen["model"] and not entered.is_new_base
    np.testing.assert_allclose(logits(entered), logits(base), rtol=1e-5, atol=1e-5)


def test_other_adapters_and_none_start_from_the_same_policy():
    weights = adapted()
    for lora in (LoraSection(rank=2), None):
        entered = enter_stage(weights, lora, "float32", one_device(), KEY)
        np.testing.assert_allclose(logits(entered), logits(weights), rtol=1e-4, atol=1e-4)
        assert entered.is_new_base and set(entered.trainable) == {"lora" if lora else "model"}
    again = enter_stage(entered, LORA, "float32", one_device(), KEY)
    np.testing.assert_allclose(logits(again), logits(weights), rtol=1e-4, atol=1e-4)


def test_a_small_adapter_survives_the_merge_of_a_bfloat16_base():
    """W + delta in bfloat16 would round most of a small delta away; the trained base is float32, so nothing
    is lost.
    """
    weights = adapted("bfloat16")
    small = PolicyWeights(weights.policy, jax.tree.map(lambda x: 0.1 * x, weights.trainable), weights.frozen)
    entered = enter_stage(small, None, "bfloat16", one_device(), KEY)
    base = jax.tree.map(lambda x: x.astype("float32"), weights.frozen["model"])
    exact = merge_lora(base, small.trainable["lora"], LORA)
    assert max_difference(entered.trainable["model"], exact) < 1e-6
    assert max_difference(exact, base) > 1e-4


# ---------------------------------------------------------------------------------------------- model.adapter


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[PolicyWeights, Path]:
    """A policy with adapters, and the folder where `model` and `adapter` are."""
    weights, folder = (
        PolicyWeights(*policy_and_trees(config=dataclasses.replace(CONFIG, qkv_bias=False))),
        tmp_path_factory.mktemp("saved"),
    )
    save_model(weights.frozen["model"], weights.policy.config, folder / "model", "float32", eos_ids=(2,))
    save_adapter(
        weights.trainable["lora"], LORA, weights.policy.config, folder / "adapter", str(folder / "model")
    )
    return weights, folder


def load(folder: Path, adapter: Path) -> PolicyWeights:
    section = ModelSection(path=str(folder / "model"), adapter=str(adapter))
    return load_base(section, vocab_size=0, mesh=one_device(), seed=0)


def test_an_adapter_is_loaded_with_its_base(saved):
    weights, folder = saved
    loaded = load(folder, folder / "adapter")
    assert loaded.policy.lora == LORA and not loaded.is_new_base
    assert (
        max_difference(loaded.trainable, weights.trainable) == 0
        and max_difference(loaded.frozen, weights.frozen) == 0
    )
    np.testing.assert_array_equal(logits(loaded), logits(weights))
    assert enter_stage(loaded, LORA, "float32", one_device(), KEY).trainable is loaded.trainable
    merged = enter_stage(loaded, LoraSection(rank=2), "float32", one_device(), KEY)
    np.testing.assert_allclose(logits(merged), logits(weights), rtol=1e-4, atol=1e-4)


def test_adapters_that_do_not_fit_are_named(saved, tmp_path):
    weights, folder = saved
    with pytest.raises(InputError, match="adapter_config.json"):
        load(folder, tmp_path)
    shallow = dataclasses.replace(weights.policy.config, num_layers=1)
    save_adapter(
        jax.tree.map(lambda x: x[:1], weights.trainable["lora"]), LORA, shallow, tmp_path / "adapter", None
    )
    with pytest.raises(InputError, match="the adapter is not one for this model"):
        load(folder, tmp_path / "adapter")


RUN = """
name: first
model: {architecture: {d_model: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, d_ff: 64}}
lora: {rank: 4, alpha: 8}
task:
  {name: knowledge_graph, entities: 24, relations: 4, letters: fixed, hops: [1], eval_hops: [2], train: 60,
   val: 0, test: 16}
sample: {max_prompt_tokens: 48, max_new_tokens: 17, slots: 16, window: 8, temperature: 0}
optim: {learning_rate: 5.0e-3}
verify: {workers: 1}
"""


def test_a_run_starts_from_the_adapter_of_another(tmp_path):
    def start(name: str, model: dict | None, *stages: dict) -> Path:
        values = parse_yaml(RUN) | {"name": name, "runs_dir": str(tmp_path), "stages": list(stages)}
        return run(validate_config(values | ({"model": model} if model else {}), name), io.StringIO())

    def last_row(folder: Path) -> dict:
        return json.loads((folder / "eval.json").read_text())[-1]

    sft = {"kind": "sft", "rows": 16, "seq_len": 64}
    evaluation = {"kind": "eval", "name": "after"}
    first = start(
        "first",
        None,
        sft | {"name": "base", "lora": None, "steps": 30},
        sft | {"name": "adapter", "steps": 10},
        evaluation,
    )
    model = {"path": str(first / "model"), "adapter": str(first / "adapter")}
    assert last_row(start("second", model, evaluation)) == last_row(first)
    trained = load_file(first / "adapter" / "adapter_model.safetensors")
    still = start("third", model, sft | {"steps": 1, "optim": {"learning_rate": 1e-30}})
    assert (
        not (still / "model").exists()
        and json.loads((still / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == model["path"]
    )
    for name, tensor in load_file(still / "adapter" / "adapter_model.safetensors").items():
        np.testing.assert_allclose(tensor, trained[name], rtol=0, atol=1e-29)
    # it had learnt something
    assert any(np.abs(tensor).max() > 1e-3 for name, tensor in trained.items() if "lora_B" in name)


def test_a_compilation_cache_that_takes_nothing_is_told_once(tmp_path, monkeypatch, caplog):
    """JAX would warn of every program."""
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    (tmp_path / "file").touch()
    for folder, reason in [
        (tmp_path / "file" / "x", "Not a directory"),
        (tmp_path / "read-only", "it is read-only"),
    ]:
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            patch.setattr(os, "access", lambda path, mode: False)
            set_up_jax(str(folder))
            warnings.warn(
                "Error writing persistent compilation cache entry for 'jit_x': OSError", stacklevel=1
            )
        assert f"{folder} cannot be written ({reason}" in caplog.text and not caught
    caplog.clear()
    set_up_jax(str(tmp_path / "new"))
    set_up_jax(None)
    assert not caplog.text and (tmp_path / "new").is_dir()


# ------------------------------------------------------------------------------------------------ description


def shapes_of(weights: PolicyWeights):
    """What two policies are compared by where one has shapes for arrays."""
    trees = jax.tree.map(lambda x: (x.shape, x.dtype), (weights.trainable, weights.frozen))
    return weights.policy, weights.is_new_base, trees


@pytest.mark.parametrize("adapter", [None, "adapter"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_description_is_what_is_loaded_and_what_stages_make_of_it(saved, adapter, dtype):
    """From one stage to the next: the same adapters, others, none, and adapters again."""
    _, folder = saved
    adapter = adapter and str(folder / adapter)
    section = ModelSection(path=str(folder / "model"), adapter=adapter, dtype=dtype)
    described = describe(section, 0, one_device())
    weights, shapes = load_weights(described, seed=0), described.shapes()
    assert shapes_of(shapes) == shapes_of(weights)
    for lora in (LORA, LoraSection(rank=2), None, LORA):
        weights = enter_stage(weights, lora, dtype, one_device(), KEY)
        shapes = entered_shapes(shapes, lora, dtype, one_device())
        assert shapes_of(shapes) == shapes_of(weights)
        assert not any(isinstance(x, jax.Array) for x in jax.tree.leaves((shapes.trainable, shapes.frozen)))


def test_a_description_asks_for_no_weights(saved, tmp_path):
    """Nor does it read them: with the files that describe a model, it is the same."""
    _, folder = saved
    (tmp_path / "model").mkdir()
    for file in (folder / "model").glob("*.json"):
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    described = [describe(ModelSection(path=str(at / "model")), 0, one_device()) for at in (folder, tmp_path)]
    assert described[0].policy == described[1].policy
    with pytest.raises(InputError, match="safetensors"):
        load_weights(described[1], seed=0)
