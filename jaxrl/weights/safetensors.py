"""Models in and out of Hugging Face directories: `model.safetensors`, whole or in shards, `config.json`.

Loading reads each device's part of each leaf straight from the files, one leaf at a time: a model never lies
whole on the host or on one device. Tokenizers are only copied.
"""

import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Sharding, SingleDeviceSharding

from jaxrl.device.arrays import fetch
from jaxrl.errors import InputError
from jaxrl.files.disk import read_json
from jaxrl.model.config import ModelConfig
from jaxrl.weights.files import FLOATS, check_tensors, open_tensors, save_tensors, saving
from jaxrl.weights.hf_config import write_hf_config
from jaxrl.weights.names import TABLE, Tree, hf_tensors, is_stacked, leaf_at, leaf_shapes, nest

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
TOKENIZER_PATTERNS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.jinja",
)


def load_model(
    folder: str | Path, config: ModelConfig, shardings: Tree | None = None, dtype: str = "float32"
) -> Tree:
    """The parameters of a Hugging Face directory as a tree of device arrays.

    A `lm_head.weight` beside tied embeddings is accepted if it equals them (some writers store both), and the
    rotary buffers of old files (`rotary_emb.inv_freq`) are passed over: both hold nothing that the config
    does not say.

    Args:
      folder: with `model.safetensors`, or `model.safetensors.index.json` and its shards; float32, float16 or
        bfloat16.
      shardings: a tree of `jax.sharding.Sharding` like the parameters; None puts all on the default device.
      dtype: of the arrays made.
    Raises:
      InputError: no weights there, broken files, or tensors that are not those of `config` (all of them
        listed).
    """
    folder = Path(folder)
    tensors = open_tensors(_weight_files(folder))
    expected = {name: shape for name, (_, _, shape) in hf_tensors(config).items()}
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings and _is_copy_of_embedding(kept):
        del kept["lm_head.weight"]
    check_tensors(folder, kept, expected, _remedy(config))
    default = SingleDeviceSharding(jax.local_devices()[0])
    leaves = {}
    for path, shape in leaf_shapes(config).items():
        sharding = default if shardings is None else leaf_at(shardings, path)
        leaves[path] = _load_leaf(kept, path, shape, sharding, jnp.dtype(dtype))
    return nest(leaves)


def save_model(
    tree: Tree,
    config: ModelConfig,
    folder: str | Path,
    dtype: str,
    tokenizer_from: str | Path | None = None,
    bos_id: int | None = None,
    eos_ids: tuple[int, ...] = (),
) -> None:
    """Write a Hugging Face directory: weights (in shards above 5 GB), config.json, and a tokenizer if
    its source is given.

    The folder gets its config.json when all else is in place, and nothing at all when writing fails (see
    `saving`).

    Args:
      tree: the parameters. One shard lies on the host at a time. Where several processes have parts of them,
        one writes, and the others call `help_save` meanwhile.
      dtype: on disk, `float32`, `bfloat16` or `float16`.
      tokenizer_from: a directory whose tokenizer files are copied.
      bos_id, eos_ids: for config.json.
    Raises:
      InputError: a folder that cannot be written, or a config that no Hugging Face model type can express.
    """
    _check_tree(tree, config)
    folder, kind = Path(folder), jnp.dtype(dtype)
    tensors = hf_tensors(config)
    shards = _plan_shards({name: math.prod(shape) * kind.itemsize for name, (_, _, shape) in tensors.items()})
    with saving(
        folder, last="config.json", replaces=(SINGLE, INDEX, "model-*-of-*.safetensors")
    ) as temporary:
        for file, names in shards.items():
            arrays = {
                name: _theirs(leaf_at(tree, tensors[name][0]), *tensors[name][:2], kind) for name in names
            }
            save_tensors(arrays, temporary / file)
        if len(shards) > 1:
            _write_index(
                temporary / INDEX,
                shards,
                total=sum(math.prod(s) for _, _, s in tensors.values()) * kind.itemsize,
            )
        if tokenizer_from is not None:
            for path in (
                path for pattern in TOKENIZER_PATTERNS for path in Path(tokenizer_from).glob(pattern)
            ):
                shutil.copyfile(path, temporary / path.name)
        write_hf_config(config, temporary, kind.name, bos_id, eos_ids)


def help_save(tree: Tree, config: ModelConfig, dtype: str) -> None:
    """What other processes do while the first one calls `save_model`: hand it their parts of each array."""
    for path, layer, _ in hf_tensors(config).values():
        _theirs(leaf_at(tree, path), path, layer, jnp.dtype(dtype))


# ---------------------------------------------------------------------------------------------------- loading


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a directory; a single file comes before an index, as in transformers."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX, "fetch the file again").get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise InputError(f"{folder / INDEX}: weight_map is missing or broken; fetch the file again")
        return [folder / file for file in sorted(set(weight_map.values()))]
    others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))[:3]) or "no weights at all"
    raise InputError(
        f"{folder} holds neither {SINGLE} nor {INDEX} ({others}); convert the model to safetensors"
    )


def _is_copy_of_embedding(tensors: dict[str, Any], rows: int = 4096) -> bool:
    """Whether there is an `lm_head.weight` and it equals the embedding, compared some rows at a time."""
    head, embed = (tensors.get(name, (None,))[0] for name in ("lm_head.weight", "model.embed_tokens.weight"))
    if head is None or embed is None or head.get_shape() != embed.get_shape():
        return False
    if head.get_dtype() not in FLOATS or embed.get_dtype() not in FLOATS:
        return False
    total = head.get_shape()[0]
    cuts = [slice(start, min(start + rows, total)) for start in range(0, total, rows)]
    return all(np.array_equal(head[cut], embed[cut]) for cut in cuts)


def _remedy(config: ModelConfig) -> str:
    tied = (
        "it has a head of its own if lm_head.weight differs from the embedding (then set tie_word_embeddings "
        "to false)"
        if config.tie_embeddings
        else (
            "it shares its head with the embedding if lm_head.weight is missing (then set "
            "tie_word_embeddings to true)"
        )
    )
    return (
        f"the weights are not those that config.json describes: check that both belong to one model; {tied}"
    )


def _load_leaf(
    tensors: dict[str, Any], path: str, shape: tuple[int, ...], sharding: Sharding, dtype: np.dtype
) -> Array:
    """One leaf, each device's part read by itself; parts that several devices hold are read once."""
    name, is_transposed = TABLE[path]

    def read_one(layer: int | None, bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        cut = [slice(*pair) for pair in bounds]
        tensor, _ = tensors[name.format(i=layer)]
        return tensor[tuple(reversed(cut))].T if is_transposed else tensor[tuple(cut)]

    @functools.cache
    def read(bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        if not is_stacked(path):
            return np.ascontiguousarray(read_one(None, bounds)).astype(dtype, copy=False)
        part = np.empty([stop - start for start, stop in bounds], dtype)
        for row, layer in enumerate(range(*bounds[0])):
            part[row] = read_one(layer, bounds[1:])
        return part

    def callback(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None, "jax asks for a part of the array"
        return read(tuple(cut.indices(size)[:2] for cut, size in zip(index, shape, strict=True)))

    # waited for: copies to a device run behind our back, and would keep the parts of many leaves on the host
    return jax.make_array_from_callback(shape, sharding, callback).block_until_ready()


# ----------------------------------------------------------------------------------------------------- saving


def _check_tree(tree: Tree, config: ModelConfig) -> None:
    """ValueError unless the tree's leaves are those of the config: a defect of the caller."""
    found = {
        "/".join(str(part.key) for part in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    expected = leaf_shapes(config)
    for path in sorted(found.keys() | expected.keys()):
        if found.get(path) != expected.get(path):
            raise ValueError(
                f"leaf {path} has the shape {found.get(path)} and the model config says {expected.get(path)}"
            )


def _plan_shards(sizes: dict[str, int], limit: int | None = None) -> dict[str, list[str]]:
    """File name -> tensor names, in order, each file up to `limit` bytes (one tensor at least)."""
    limit = SHARD_BYTES if limit is None else limit
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {
        f"model-{i:05d}-of-{len(shards):05d}.safetensors": names for i, names in enumerate(shards, start=1)
    }


def _theirs(leaf: Array, path: str, layer: int | None, dtype: np.dtype) -> np.ndarray:
    """A leaf, or one layer of it, as the tensor of the file."""
    ours = fetch(leaf if layer is None else leaf[layer])
    return np.ascontiguousarray(ours.T if TABLE[path].is_transposed else ours).astype(dtype, copy=False)


def _write_index(path: Path, shards: dict[str, list[str]], total: int) -> None:
    weight_map = {name: file for file, names in shards.items() for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
