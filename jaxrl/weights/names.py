"""The one table of names: a path in our parameter tree <-> a tensor in a Hugging Face file.

Both directions read it.

Our kernels are [in, out] and all layers lie stacked on axis 0; theirs are torch's [out, in], one tensor per
layer. Embedding and head are [V, D] in both. Axes: V vocabulary, D width, F feed-forward width, N query
heads, K key/value heads, H head width, L layers.
"""

from typing import Any, NamedTuple

from jaxrl.model.config import ModelConfig
from jaxrl.types import Tree


class HFName(NamedTuple):
    """`{i}` in `name` is the layer; `is_transposed` says that theirs is [out, in] where ours is [in, out]."""

    name: str
    is_transposed: bool = False


# the seven linear layers, which are also what adapters can be put on
MODULES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
NORMS = {
    "attn_norm": "input_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
}
LAYER = "model.layers.{i}."

TABLE: dict[str, HFName] = {
    "embed/kernel": HFName("model.embed_tokens.weight"),
    **{f"layers/{ours}/scale": HFName(f"{LAYER}{theirs}.weight") for ours, theirs in NORMS.items()},
    **{f"layers/{ours}/kernel": HFName(f"{LAYER}{theirs}.weight", True) for ours, theirs in MODULES.items()},
    **{f"layers/{ours}/bias": HFName(f"{LAYER}{theirs}.bias") for ours, theirs in MODULES.items()},
    "norm/scale": HFName("model.norm.weight"),
    "head/kernel": HFName("lm_head.weight"),
}


def leaf_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every leaf of the model's tree, in the table's order."""
    L, D, H = config.num_layers, config.d_model, config.head_dim
    has_bias = {"q": config.qkv_bias, "k": config.qkv_bias, "v": config.qkv_bias, "o": config.o_bias}
    shapes: dict[str, tuple[int, ...]] = {"embed/kernel": (config.vocab_size, D), "norm/scale": (D,)}
    shapes |= {"layers/attn_norm/scale": (L, D), "layers/mlp_norm/scale": (L, D)}
    if config.qk_norm:
        shapes |= {"layers/q_norm/scale": (L, H), "layers/k_norm/scale": (L, H)}
    for module, (d_in, d_out) in config.linear_sizes.items():
        shapes[f"layers/{module}/kernel"] = (L, d_in, d_out)
        if has_bias.get(module, config.mlp_bias):
            shapes[f"layers/{module}/bias"] = (L, d_out)
    if not config.tie_embeddings:
        shapes["head/kernel"] = (config.vocab_size, D)
    return {path: shapes[path] for path in TABLE if path in shapes}


def is_stacked(path: str) -> bool:
    """Whether axis 0 of the leaf is the layer."""
    return path.startswith("layers/")


def hf_tensors(config: ModelConfig) -> dict[str, tuple[str, int | None, tuple[int, ...]]]:
    """Every tensor of the model's Hugging Face files: name -> (our path, layer or None, their shape)."""
    tensors: dict[str, tuple[str, int | None, tuple[int, ...]]] = {}
    for path, shape in leaf_shapes(config).items():
        name, is_transposed = TABLE[path]
        one = shape[1:] if is_stacked(path) else shape
        theirs = one[::-1] if is_transposed else one
        for layer in range(shape[0]) if is_stacked(path) else (None,):
            tensors[name.format(i=layer)] = (path, layer, theirs)
    return tensors


def nest(leaves: dict[str, Any]) -> Tree:
    """`{"a/b": x}` -> `{"a": {"b": x}}`."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def leaf_at(tree: Tree, path: str) -> Any:
    """The leaf (or subtree) at `a/b`."""
    for part in path.split("/"):
        tree = tree[part]
    return tree
