import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from jaxrl.config.shared import MeshSection
from jaxrl.device.mesh import make_mesh, shardings_for
from jaxrl.errors import InputError
from jaxrl.model.policy import Policy
from jaxrl.weights import safetensors
from jaxrl.weights.hf_config import read_hf_config, write_hf_config
from jaxrl.weights.names import hf_tensors
from jaxrl.weights.safetensors import load_model, save_model
from tests.weights.goldens import CONFIGS, DTYPES, GOLDEN, MODELS, assert_same_tensors, read_tensors


def fresh(config, seed=0):
    return Policy(config).init_model(jax.random.key(seed))


def assert_same_trees(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def write_folder(folder, config, change=None):
    """A model directory of `config` with random tensors, after `change(tensors)`; returns the tensors."""
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(size=shape).astype(np.float32) for name, (_, _, shape) in hf_tensors(config).items()
    }
    if change is not None:
        change(tensors)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_hf_config(config, folder, "float32")
    return tensors


# ------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("name", MODELS)
def test_import_then_export_gives_the_same_bits(name, tmp_path):
    config = read_hf_config(GOLDEN / name)
    model = load_model(GOLDEN / name, config, dtype=DTYPES[name])
    save_model(model, config, tmp_path / "out", DTYPES[name])
    assert_same_tensors(read_tensors(tmp_path / "out"), read_tensors(GOLDEN / name))
    assert read_hf_config(tmp_path / "out") == config


def test_bfloat16_through_float32_gives_the_same_bits(tmp_path):
    config = read_hf_config(GOLDEN / "smollm")
    save_model(load_model(GOLDEN / "smollm", config, dtype="float32"), config, tmp_path, "bfloat16")
    assert_same_tensors(read_tensors(tmp_path), read_tensors(GOLDEN / "smollm"))
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", CONFIGS)
def test_export_then_import_gives_the_same_tree(name, tmp_path):
    model = fresh(CONFIGS[name])
    save_model(model, CONFIGS[name], tmp_path, "float32")
    assert_same_trees(load_model(tmp_path, CONFIGS[name]), model)


def test_kernels_are_transposed_and_embeddings_are_not(tmp_path):
    tensors = write_folder(tmp_path, CONFIGS["qwen2"])
    model = load_model(tmp_path, CONFIGS["qwen2"])
    np.testing.assert_array_equal(model["embed"]["kernel"], tensors["model.embed_tokens.weight"])
    np.testing.assert_array_equal(
        model["layers"]["down"]["kernel"][2], tensors["model.layers.2.mlp.down_proj.weight"].T
    )
    np.testing.assert_array_equal(
        model["layers"]["k"]["bias"][1], tensors["model.layers.1.self_attn.k_proj.bias"]
    )


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_files_are_cast_exactly(stored, tmp_path):
    def cast(tensors):
        tensors.update({name: tensor.astype(stored) for name, tensor in tensors.items()})

    tensors = write_folder(tmp_path, CONFIGS["llama"], cast)
    wide = load_model(tmp_path, CONFIGS["llama"])["layers"]["q"]["kernel"]
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(
        wide[0], tensors["model.layers.0.self_attn.q_proj.weight"].T.astype(np.float32)
    )
    narrow = load_model(tmp_path, CONFIGS["llama"], dtype="bfloat16")["layers"]["q"]["kernel"]
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


# --------------------------------------------------------------------------------------------------- sharding


@pytest.mark.mesh
@pytest.mark.parametrize("mesh", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize("name", ["llama3", "smollm", "qwen3"])
def test_load_onto_eight_devices_is_load_onto_one(name, mesh, monkeypatch):
    config = read_hf_config(GOLDEN / name)
    if name == "smollm" and mesh == {"fsdp": 8}:
        mesh = {"data": 2, "fsdp": 4}  # its width is 36
    abstract = jax.eval_shape(Policy(config).init_model, jax.random.key(0))
    shardings = shardings_for(abstract, make_mesh(MeshSection(**mesh)))
    whole, parts = load_model(GOLDEN / name, config), load_model(GOLDEN / name, config, shardings)
    assert_same_trees(parts, whole)
    assert jax.tree.map(lambda leaf: leaf.sharding, parts) == shardings
    kernel = parts["layers"]["q"]["kernel"]
    assert kernel.addressable_shards[0].data.size < kernel.size


@pytest.mark.mesh
def test_each_part_is_read_once_and_nothing_else(tmp_path, monkeypatch):
    """With 2 copies of 4 parts the file is read once, a quarter of each kernel at a time."""
    read = []

    class Recorder:
        def __init__(self, tensor):
            self.tensor = tensor
            self.get_shape, self.get_dtype = tensor.get_shape, tensor.get_dtype

        def __getitem__(self, index):
            read.append(self.tensor[index].size)
            return self.tensor[index]

    config = CONFIGS["llama"]
    tensors = write_folder(tmp_path, config)
    real = safetensors.open_tensors
    monkeypatch.setattr(
        safetensors, "open_tensors", lambda paths: {n: (Recorder(t), p) for n, (t, p) in real(paths).items()}
    )
    mesh = make_mesh(MeshSection(data=2, fsdp=4))
    shardings = shardings_for(jax.eval_shape(Policy(config).init_model, jax.random.key(0)), mesh)
    load_model(tmp_path, config, shardings)
    assert sum(read) == sum(tensor.size for tensor in tensors.values())
    assert max(read) == 40 * 16 // 4  # a quarter of the embedding


@pytest.mark.mesh
def test_layers_may_be_sharded_too(tmp_path):
    """Any sharding is served, one that cuts the stacked axis among them."""
    config = dataclasses.replace(CONFIGS["llama"], num_layers=4)
    model = fresh(config)
    save_model(model, config, tmp_path, "float32")
    mesh = make_mesh(MeshSection(data=4))
    cut = lambda leaf: NamedSharding(mesh, PartitionSpec("data") if leaf.shape[0] == 4 else PartitionSpec())
    assert_same_trees(load_model(tmp_path, config, jax.tree.map(cut, model)), model)


@pytest.mark.mesh
def test_a_sharded_tree_is_saved_whole(tmp_path):
    config = CONFIGS["qwen3"]
    model = fresh(config)
    parts = jax.device_put(model, shardings_for(model, make_mesh(MeshSection(fsdp=2, tensor=4))))
    save_model(parts, config, tmp_path, "float32")
    assert_same_trees(load_model(tmp_path, config), model)


# ----------------------------------------------------------------------------------------------------- shards


def test_large_models_are_saved_in_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "SHARD_BYTES", 4000)
    config = CONFIGS["llama"]
    model = fresh(config)
    save_model(model, config, tmp_path, "float32")
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 3
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    assert_same_trees(load_model(tmp_path, config), model)
    for path in tmp_path.glob("*.safetensors"):
        assert sum(t.nbytes for t in read_tensors(tmp_path, path.name).values()) <= 4000
    # saved again in one file, nothing of the shards is left to be confused with it
    monkeypatch.setattr(safetensors, "SHARD_BYTES", 10**9)
    save_model(model, config, tmp_path, "float32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_missing_shard_is_named(tmp_path):
    shutil.copytree(GOLDEN / "llama3", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00002.safetensors does not exist"):
        load_model(tmp_path, read_hf_config(tmp_path))


# ----------------------------------------------------------------------------------------------------- errors


def test_everything_that_does_not_fit_is_in_one_error(tmp_path):
    def change(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(16, np.float32)
        tensors["model.norm.weight"] = np.zeros(17, np.float32)
        tensors["model.layers.2.mlp.down_proj.weight"] = np.zeros((16, 24), np.int8)

    write_folder(tmp_path, CONFIGS["llama"], change)
    with pytest.raises(InputError) as error:
        load_model(tmp_path, CONFIGS["llama"])
    text = str(error.value)
    assert f"{tmp_path}: 5 tensor(s) do not fit" in text
    assert "missing: model.layers.1.mlp.up_proj.weight [24, 16]" in text
    assert "missing: lm_head.weight [40, 16]" in text
    assert "unexpected: model.layers.0.self_attn.q_proj.bias [16] in model.safetensors" in text
    assert "wrong shape: model.norm.weight is [17] in model.safetensors, should be [16]" in text
    assert "wrong type: model.layers.2.mlp.down_proj.weight is I8" in text
    assert "set tie_word_embeddings to true" in text


def test_long_lists_are_cut(tmp_path):
    write_folder(tmp_path, CONFIGS["llama"])
    with pytest.raises(InputError, match=r"and 11 more") as error:  # 7 biases in each of 3 layers
        load_model(tmp_path, CONFIGS["llama_biases"])
    assert str(error.value).count("\n") == 12


def test_harmless_extras_are_passed_over(tmp_path):
    config = CONFIGS["qwen2"]  # tied

    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    write_folder(tmp_path, config, change)
    assert "head" not in load_model(tmp_path, config)


def test_a_head_that_differs_from_tied_embeddings_is_an_error(tmp_path):
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    write_folder(tmp_path, CONFIGS["qwen2"], change)
    with pytest.raises(InputError, match="unexpected: lm_head.weight") as error:
        load_model(tmp_path, CONFIGS["qwen2"])
    assert "set tie_word_embeddings to false" in str(error.value)


def test_folders_without_whole_weights(tmp_path):
    config = CONFIGS["llama"]
    with pytest.raises(InputError, match="no weights at all"):
        load_model(tmp_path, config)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"pytorch_model.bin\); convert"):
        load_model(tmp_path, config)
    write_folder(tmp_path, config)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_model(tmp_path, config)
    path.unlink()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="weight_map"):
        load_model(tmp_path, config)


def test_a_tree_of_another_model_is_a_defect(tmp_path):
    with pytest.raises(ValueError, match="layers/k_norm/scale"):
        save_model(
            fresh(CONFIGS["llama"]), dataclasses.replace(CONFIGS["llama"], qk_norm=True), tmp_path, "float32"
        )


# ----------------------------------------------------------------------------------------------------- saving


def fail_after_weights(*_, **__):
    raise OSError(28, "No space left on device")


def test_nothing_remains_of_a_save_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "write_hf_config", fail_after_weights)
    with pytest.raises(OSError, match="No space"):
        save_model(fresh(CONFIGS["llama"]), CONFIGS["llama"], tmp_path / "new", "float32")
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    config = CONFIGS["llama"]
    save_model(fresh(config), config, tmp_path, "float32")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(safetensors, "write_hf_config", fail_after_weights)
    with pytest.raises(OSError, match="No space"):
        save_model(fresh(config, seed=1), config, tmp_path, "float32")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_save_over_an_older_model_keeps_other_files(tmp_path):
    config = CONFIGS["llama"]
    save_model(fresh(config), config, tmp_path, "float32")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".saving").mkdir()  # as a killed process leaves it
    (tmp_path / ".saving" / "model.safetensors").write_text("half")
    model = fresh(config, seed=1)
    save_model(model, config, tmp_path, "float32")
    assert_same_trees(load_model(tmp_path, config), model)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        save_model(fresh(CONFIGS["llama"]), CONFIGS["llama"], tmp_path / "file", "float32")
    assert (tmp_path / "file").is_file()


def test_tokenizer_files_are_copied(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
        "README.md",
    ):
        (source / name).write_text(name)
    save_model(
        fresh(CONFIGS["llama"]),
        CONFIGS["llama"],
        tmp_path / "out",
        "float32",
        tokenizer_from=source,
        eos_ids=(2,),
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 2


def test_all_files_get_the_mode_of_ordinary_ones(tmp_path):
    save_model(fresh(CONFIGS["llama"]), CONFIGS["llama"], tmp_path, "float32")
    (tmp_path / "ordinary").touch()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
