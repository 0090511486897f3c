"""What is kept for the backward pass changes its memory and its work, never its result."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxrl.config.shared import LoraSection
from jaxrl.model.policy import Policy
from jaxrl.model.remat import kept_bytes
from tests.tiny import CONFIG, LORA, policy_and_trees, relative_difference

KINDS = ("none", "selective", "full")
B, T = 2, 12
TOKENS = jax.random.randint(jax.random.key(9), (B, T), 0, CONFIG.vocab_size)
POSITIONS, SEGMENTS = (
    np.broadcast_to(np.arange(T), (B, T)),
    np.repeat([[1, 2, 0]], [6, 4, 2], axis=1).repeat(B, axis=0),
)
OTHER = dataclasses.replace(
    CONFIG, num_heads=6, num_kv_heads=3, head_dim=16, d_ff=40, num_layers=3, qk_norm=False
)
LARGER = dataclasses.replace(
    CONFIG, d_model=64, num_heads=8, num_kv_heads=2, head_dim=16, d_ff=256, num_layers=4
)


def loss(policy, trainable, frozen, key=None):
    return jnp.sum(policy.apply(trainable, frozen, TOKENS, POSITIONS, SEGMENTS, key).astype(jnp.float32) ** 2)


@pytest.mark.parametrize(
    "lora", [LORA, LORA.model_copy(update={"dropout": 0.3}), None], ids=["lora", "dropout", "all"]
)
def test_the_gradient_is_the_same_whatever_is_kept(lora):
    gradients = {}
    for remat in KINDS:
        policy, trainable, frozen = policy_and_trees(lora, remat=remat)
        gradients[remat] = jax.jit(jax.grad(lambda t: loss(policy, t, frozen, jax.random.key(3))))(trainable)
    assert relative_difference(gradients["selective"], gradients["none"]) < 1e-6
    assert relative_difference(gradients["full"], gradients["none"]) < 1e-6


def matrix_products(policy, trainable, frozen) -> int:
    """Multiplications in the matrix products of a gradient, those in loops as often as they run."""

    def count(jaxpr) -> int:
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                total += equation.outvars[0].aval.size * int(
                    np.prod([equation.invars[0].aval.shape[i] for i in contracted])
                )
            inner = sum(count(sub) for sub in jaxprs_in_params(equation.params))
            total += inner * equation.params.get("length", 1)
        return total

    return count(jax.make_jaxpr(jax.grad(lambda t: loss(policy, t, frozen)))(trainable).jaxpr)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "all"])
def test_selective_makes_no_matrix_product_twice_and_full_all_of_the_forward_pass(lora):
    products = {}
    for remat in KINDS:
        policy, trainable, frozen = policy_and_trees(lora, LARGER, remat=remat)
        products[remat] = matrix_products(policy, trainable, frozen)
    assert products["selective"] == products["none"]
    # a pass over frozen weights needs the gradient of its input alone; adapters and attention are little here
    passes = 2 if lora else 3
    assert products["full"] / products["none"] == pytest.approx((passes + 1) / passes, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "lora", [LORA, LoraSection(rank=3, targets=("q", "down")), None], ids=["all layers", "two", "none"]
)
@pytest.mark.parametrize("config", [CONFIG, OTHER, LARGER], ids=["tiny", "other", "larger"])
def test_what_is_kept_is_what_the_formula_says(config, lora, dtype):
    """Counted in the arrays that stand between the two passes of the whole stack."""

    def kept(remat: str) -> float:
        policy = Policy(config, lora, dtype, remat)
        model = {
            "model": jax.eval_shape(
                lambda k: jax.tree.map(lambda x: x.astype(dtype), policy.init_model(k)), jax.random.key(0)
            )
        }
        adapters = {"lora": jax.eval_shape(policy.init_lora, jax.random.key(0))} if lora else {}
        trainable, frozen = (adapters, model) if lora else (model, {})
        between = lambda t, f: jax.vjp(lambda t: policy.apply(t, f, TOKENS, POSITIONS, SEGMENTS), t)[1]
        leaves = jax.tree.leaves(jax.eval_shape(between, trainable, frozen))
        per_layer = [leaf for leaf in leaves if leaf.ndim >= 4 and leaf.shape[:2] == (config.num_layers, B)]
        return sum(leaf.size * leaf.dtype.itemsize for leaf in per_layer) / (config.num_layers * B * T)

    assert kept("full") == kept_bytes(config, lora, dtype, "full")
    assert kept("selective") == kept_bytes(config, lora, dtype, "selective")
    bound = kept_bytes(config, lora, dtype, "none")
    assert bound / 4 < kept("none") <= bound
