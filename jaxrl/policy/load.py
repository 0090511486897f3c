"""The arrays of a described policy: read from files or made anew, each leaf directly in its sharding."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxrl.config.file import make_section
from jaxrl.config.shared import ModelSection
from jaxrl.device.arrays import put
from jaxrl.device.mesh import shardings_for
from jaxrl.policy.describe import PolicyDescription, describe
from jaxrl.policy.folder import model_folder
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.types import Tree
from jaxrl.weights.peft import load_adapter
from jaxrl.weights.safetensors import load_model


def load(description: PolicyDescription, seed: int) -> PolicyWeights:
    """The policy with its arrays, in the arithmetic's dtype, and its adapter if it has one.

    Raises:
      InputError: weights that are missing, broken or not this model's; an adapter that is not for it.
    """
    section, policy, mesh = description.section, description.policy, description.mesh
    shardings = jax.tree.map(lambda x: x.sharding, description.model_shapes())
    if section.path is None:
        model = jax.jit(description.init_model, out_shardings=shardings)(jax.random.key(seed))
    else:
        model = load_model(model_folder(section.path), policy.config, shardings, section.dtype)
    trainable: Tree = {}
    if section.adapter is not None:
        lora, _ = load_adapter(section.adapter, policy.config)
        trainable = {"lora": put(lora, shardings_for(lora, mesh))}
    return PolicyWeights(policy, trainable, {"model": model}, description.is_new_base)


def load_base(section: ModelSection, vocab_size: int, mesh: Mesh, seed: int) -> PolicyWeights:
    """`describe` and `load` in one, for those who have nothing to look through in between."""
    return load(describe(section, vocab_size, mesh), seed)


def load_policy(
    model: str | Path, adapter: str | Path | None, dtype: str, mesh: Mesh, vocab_size: int = 0
) -> PolicyWeights:
    """The policy of a model directory (or hub name), with an adapter folder laid over it if one is given.

    Args:
      dtype: of the arithmetic and of what is not trained, `float32` or `bfloat16`.
      vocab_size: ids from here on are never drawn: `num_tokens` of the tokenizer; 0 for all ids of the model.
    Raises:
      InputError: files that are missing or broken, or that do not belong to each other.
    """
    section = make_section(
        ModelSection, "model", path=str(model), adapter=adapter and str(adapter), dtype=dtype
    )
    return load_base(section, vocab_size, mesh, seed=0)
