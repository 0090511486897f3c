"""The policy as it is handed from one stage to the next."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.shared import LoraSection
from jaxrl.device.mesh import shardings_for
from jaxrl.model.lora import merge_lora
from jaxrl.model.policy import Policy
from jaxrl.types import Tree


@dataclass(frozen=True)
class PolicyWeights:
    """A policy with its arrays. `is_new_base`: the base is not the one that `model.path` names (made or
    trained here).
    """

    policy: Policy
    trainable: Tree
    frozen: Tree
    is_new_base: bool = False


def enter_stage(
    weights: PolicyWeights, lora: LoraSection | None, dtype: str, mesh: Mesh, key: Array
) -> PolicyWeights:
    """The policy that a stage with these adapters trains, starting from the one that the stage before left.

    The same adapters go on; other ones start at zero over the base with the old ones merged in (and rounded
    to `dtype`); without adapters the (merged) base itself is trained, in float32.
    """
    before = weights.policy
    policy = replace(before, lora=lora)
    if weights.trainable and _go_on(before.lora, lora):
        return replace(weights, policy=policy)
    model_dtype = jnp.dtype("float32" if lora is None else dtype)

    def plain_model(trainable: Tree, frozen: Tree) -> Tree:
        # merged in float32 and rounded once, if at all
        model = cast({**frozen, **trainable}["model"], "float32")
        if before.lora is not None:
            model = merge_lora(model, trainable["lora"], before.lora)
        return cast(model, model_dtype)

    if not weights.trainable and weights.frozen["model"]["norm"]["scale"].dtype == model_dtype:
        model = weights.frozen["model"]  # as it was loaded: no second copy on the devices
    else:
        shardings = shardings_for(jax.eval_shape(plain_model, weights.trainable, weights.frozen), mesh)
        model = jax.jit(plain_model, out_shardings=shardings)(weights.trainable, weights.frozen)
    is_new_base = weights.is_new_base or bool(weights.trainable) or lora is None
    if lora is None:
        return PolicyWeights(policy, {"model": model}, {}, is_new_base)
    lora_shardings = shardings_for(jax.eval_shape(policy.init_lora, key), mesh)
    adapters = jax.jit(policy.init_lora, out_shardings=lora_shardings)(key)
    return PolicyWeights(policy, {"lora": adapters}, {"model": model}, is_new_base)


def entered_shapes(weights: PolicyWeights, lora: LoraSection | None, dtype: str, mesh: Mesh) -> PolicyWeights:
    """What `enter_stage` will give, with shapes for arrays, of such weights."""
    entered = None

    def arrays(trainable: Tree, frozen: Tree) -> tuple[Tree, Tree]:
        nonlocal entered
        before = replace(weights, trainable=trainable, frozen=frozen)
        entered = enter_stage(before, lora, dtype, mesh, jax.random.key(0))
        return entered.trainable, entered.frozen

    trainable, frozen = jax.eval_shape(arrays, weights.trainable, weights.frozen)
    return replace(entered, trainable=trainable, frozen=frozen)


def _go_on(before: LoraSection | None, lora: LoraSection | None) -> bool:
    """Do the arrays of `before` mean the same under `lora`? Dropout is not in them; PEFT names the targets in
    any order.
    """
    if before is None or lora is None:
        return before is lora
    same = {"dropout": before.dropout, "targets": before.targets}
    return set(before.targets) == set(lora.targets) and lora.model_copy(update=same) == before


def cast(tree: Tree, dtype: str) -> Tree:
    """The arrays in another type."""
    return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), tree)
