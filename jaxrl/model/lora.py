"""Adapters as trees of arrays: merging them into the base, counting them."""

import math

import jax
import jax.numpy as jnp

from jaxrl.config.shared import LoraSection
from jaxrl.model.transformer import lora_scale
from jaxrl.types import Tree


def merge_lora(model: Tree, lora: Tree, section: LoraSection) -> Tree:
    """The base with its adapters added in: W + scale * A B, summed in float32 and rounded once to W's dtype.

    Args:
      model: base parameters.  lora: adapter parameters, `{"layers": {target: {"lora_a", "lora_b"}}}`.
    Returns:
      A tree like `model`.
    """
    layers = dict(model["layers"])
    for target, adapter in lora["layers"].items():
        kernel = layers[target]["kernel"]
        delta = lora_scale(section) * jnp.einsum(
            "lir,lro->lio", adapter["lora_a"], adapter["lora_b"], preferred_element_type=jnp.float32
        )
        layers[target] = {
            **layers[target],
            "kernel": (kernel.astype(jnp.float32) + delta).astype(kernel.dtype),
        }
    return {**model, "layers": layers}


def count_params(tree: Tree) -> int:
    """Numbers in a tree of arrays (or of abstract arrays)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def params_line(trainable: Tree, frozen: Tree) -> str:
    """`trainable params: 18,464,768 || all params: 1,562,179,072 || trainable%: 1.182`"""
    ours, all_params = count_params(trainable), count_params(trainable) + count_params(frozen)
    return (
        f"trainable params: {ours:,} || all params: {all_params:,} || trainable%: "
        f"{100 * ours / all_params:.3f}"
    )
