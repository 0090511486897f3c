import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxrl.config.shared import LoraSection
from jaxrl.errors import InputError
from jaxrl.model.policy import Policy
from jaxrl.weights import files
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.peft import load_adapter, save_adapter
from tests.weights.goldens import ADAPTERS, CONFIGS, GOLDEN, assert_same_tensors, read_tensors

CONFIG = CONFIGS["llama"]
SECTION = LoraSection(rank=3, alpha=6.5, dropout=0.1, targets=("o", "q", "down"), rslora=True)


def random_adapter(section=SECTION, config=CONFIG):
    abstract = jax.eval_shape(Policy(config, section).init_lora, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract)


def saved(folder, **changes):
    """An adapter folder with some keys of its adapter_config.json changed."""
    save_adapter(random_adapter(), SECTION, CONFIG, folder, "base")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("section", [SECTION, LoraSection(rank=2, alpha=4)], ids=["some", "all"])
def test_what_is_saved_is_loaded(section, tmp_path):
    adapter = random_adapter(section)
    save_adapter(adapter, section, CONFIG, tmp_path, "base")
    found, found_section = load_adapter(tmp_path, CONFIG)
    assert found_section == section
    assert jax.tree.structure(found) == jax.tree.structure(adapter)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(adapter), strict=True):
        assert x.tobytes() == y.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_peft_comes_out_with_the_same_bits(name, tmp_path):
    config = read_hf_config(GOLDEN / name)
    adapter, section = load_adapter(GOLDEN / name / "adapter", config)
    save_adapter(adapter, section, config, tmp_path, None)
    assert_same_tensors(read_tensors(tmp_path), read_tensors(GOLDEN / name / "adapter"))
    ours, theirs = (
        json.loads((folder / "adapter_config.json").read_text())
        for folder in (tmp_path, GOLDEN / name / "adapter")
    )
    assert {key: theirs[key] for key in ours.keys() - {"base_model_name_or_path"}} == {
        key: value for key, value in ours.items() if key != "base_model_name_or_path"
    }


def test_a_flipped_byte_anywhere_in_an_adapter_is_an_error_that_names_the_file(tmp_path):
    """In the data, in a tensor's name, in the digest's own digits; never other weights in silence."""
    path = saved(tmp_path) / "adapter_model.safetensors"
    right = path.read_bytes()
    rng = np.random.default_rng(0)
    header = int.from_bytes(right[:8], "little") + 8
    for place in [
        8,
        header - 1,
        header,
        len(right) - 1,
        right.index(b"0:") if b"0:" in right else 9,
        *rng.integers(0, len(right), 40),
    ]:
        wrong = bytearray(right)
        wrong[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="adapter_model.safetensors"):
            load_adapter(tmp_path, CONFIG)
    path.write_bytes(right)
    load_adapter(tmp_path, CONFIG)


def test_equal_adapters_are_equal_files(tmp_path):
    """Whatever order the library gives the metadata."""
    files = {(saved(tmp_path / str(i)) / "adapter_model.safetensors").read_bytes() for i in range(8)}
    assert len(files) == 1
    assert b'{"__metadata__":{"format":"pt","jaxrl_sha256":"' in files.pop()


def test_an_adapter_without_a_digest_loads_as_it_is(tmp_path):
    path = saved(tmp_path) / "adapter_model.safetensors"
    tensors = read_tensors(tmp_path)
    tensors[min(tensors)] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    found, _ = load_adapter(tmp_path, CONFIG)
    moved = [
        np.abs(x - y).max()
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(random_adapter()), strict=True)
    ]
    assert sorted(moved)[-2:] == pytest.approx([0, 1])


def test_the_sections_of_the_goldens():
    _, section = load_adapter(GOLDEN / "smollm" / "adapter", read_hf_config(GOLDEN / "smollm"))
    assert section == LoraSection(rank=4, alpha=3.0, targets=("q", "v"), rslora=True)
    _, section = load_adapter(GOLDEN / "qwen3" / "adapter", read_hf_config(GOLDEN / "qwen3"))
    assert (section.rank, section.alpha, set(section.targets)) == (
        2,
        6.0,
        {"q", "k", "v", "o", "gate", "up", "down"},
    )


def test_keys_and_shapes_in_the_file(tmp_path):
    adapter = random_adapter()
    save_adapter(adapter, SECTION, CONFIG, tmp_path, "some/base")
    tensors = read_tensors(tmp_path)
    assert len(tensors) == 3 * 3 * 2
    b = tensors["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"]  # [out, R]
    np.testing.assert_array_equal(b, adapter["layers"]["down"]["lora_b"][1].T)
    a = tensors["base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"]  # [R, in]
    np.testing.assert_array_equal(a, adapter["layers"]["q"]["lora_a"][2].T)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == "some/base"
    assert values["target_modules"] == ["o_proj", "q_proj", "down_proj"]


def test_device_arrays_are_saved(tmp_path):
    adapter = jax.device_put(random_adapter())
    save_adapter(adapter, SECTION, CONFIG, tmp_path, None)
    np.testing.assert_array_equal(
        load_adapter(tmp_path, CONFIG)[0]["layers"]["q"]["lora_a"], adapter["layers"]["q"]["lora_a"]
    )


def test_all_linear_means_the_seven(tmp_path):
    section = LoraSection(rank=2, alpha=4)
    save_adapter(random_adapter(section), section, CONFIG, tmp_path, None)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": "all-linear"}))
    assert load_adapter(tmp_path, CONFIG)[1] == section


REFUSED = {
    "peft_type": "LOHA",
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "use_dora": True,
    "rank_pattern": {"q_proj": 8},
    "alpha_pattern": {"q_proj": 8},
    "layers_to_transform": [0],
    "fan_in_fan_out": True,
    "lora_bias": True,
    "init_lora_weights": "pissa",
    "target_modules": ["q_proj", "embed_tokens"],
    "something_of_tomorrow": {"on": True},
    "lora_alpha": "many",
    "r": 0,
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_represented_is_refused(key, tmp_path):
    ours = {"lora_alpha": "alpha", "r": "rank"}.get(key, key)
    with pytest.raises(InputError, match=ours) as error:
        load_adapter(saved(tmp_path, **{key: REFUSED[key]}), CONFIG)
    assert str(tmp_path / "adapter_config.json") in str(error.value)


def test_a_regular_expression_of_targets_is_refused(tmp_path):
    with pytest.raises(InputError, match="a list of names"):
        load_adapter(saved(tmp_path, target_modules=".*_proj"), CONFIG)


def test_keys_that_do_not_fit_are_listed(tmp_path):
    saved(tmp_path)
    tensors = read_tensors(tmp_path)
    prefix = "base_model.model.model.layers.0."
    tensors["base_model.model.layers.0.self_attn.q_proj.lora_A.weight"] = tensors.pop(
        prefix + "self_attn.q_proj.lora_A.weight"
    )
    tensors[prefix + "mlp.down_proj.lora_B.weight"] = np.zeros((5, 3), np.float32)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError) as error:
        load_adapter(tmp_path, CONFIG)
    text = str(error.value)
    assert "3 tensor(s) do not fit" in text
    assert f"missing: {prefix}self_attn.q_proj.lora_A.weight [3, 16]" in text
    assert "unexpected: base_model.model.layers.0.self_attn.q_proj.lora_A.weight" in text
    assert f"wrong shape: {prefix}mlp.down_proj.lora_B.weight is [5, 3]" in text


def test_an_adapter_of_another_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="not one for this model"):
        load_adapter(GOLDEN / "smollm" / "adapter", read_hf_config(GOLDEN / "qwen3"))


def test_folders_without_an_adapter(tmp_path):
    with pytest.raises(InputError, match="adapter_config.json cannot be read"):
        load_adapter(tmp_path, CONFIG)
    saved(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="adapter_model.safetensors does not exist"):
        load_adapter(tmp_path, CONFIG)
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(InputError, match="as safetensors"):
        load_adapter(tmp_path, CONFIG)


def test_a_tree_that_is_not_the_section_s_is_a_defect(tmp_path):
    with pytest.raises(ValueError, match="targets"):
        save_adapter(random_adapter(), LoraSection(rank=3), CONFIG, tmp_path / "a", None)
    with pytest.raises(ValueError, match="layers/q/lora_a has the shape"):
        save_adapter(
            random_adapter(), LoraSection(rank=4, targets=SECTION.targets), CONFIG, tmp_path / "a", None
        )
    assert not (tmp_path / "a").exists()


def test_nothing_remains_of_a_save_that_fails(tmp_path, monkeypatch):
    def half(tensors, path, **_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", half)
    with pytest.raises(OSError, match="No space"):
        save_adapter(random_adapter(), SECTION, CONFIG, tmp_path / "adapter", None)
    assert not list(tmp_path.iterdir())
