"""The hand-over of the policy from one stage to the next."""

import dataclasses

import jax
import numpy as np

from jaxrl.config import LoraSection
from jaxrl.model.lora import merge_lora
from jaxrl.train.setup import Weights, enter_stage
from tests.tiny import LORA, max_difference, one_device, policy_and_trees

KEY = jax.random.key(0)
TOKENS = jax.random.randint(jax.random.key(1), (2, 10), 0, 64)


def adapted(dtype: str = "float32") -> Weights:
    policy, trainable, frozen = policy_and_trees()
    frozen = jax.tree.map(lambda x: x.astype(dtype), frozen)
    return Weights(dataclasses.replace(policy, dtype=dtype), trainable, frozen)


def logits(weights: Weights):
    positions = np.broadcast_to(np.arange(10), (2, 10))
    hidden = weights.policy.apply(weights.trainable, weights.frozen, TOKENS, positions, np.ones((2, 10), np.int32))
    return weights.policy.logits(weights.trainable, weights.frozen, hidden)


def test_the_same_adapters_go_on():
    weights = adapted()
    assert enter_stage(weights, LORA, "float32", one_device(), KEY) is weights


def test_a_loaded_base_is_not_copied_for_its_first_adapters():
    policy, _, frozen = policy_and_trees()
    base = Weights(dataclasses.replace(policy, lora=None), {}, frozen)
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
    """W + delta in bfloat16 would round most of a small delta away; the trained base is float32, so nothing is lost."""
    weights = adapted("bfloat16")
    small = Weights(weights.policy, jax.tree.map(lambda x: 0.1 * x, weights.trainable), weights.frozen)
    entered = enter_stage(small, None, "bfloat16", one_device(), KEY)
    base = jax.tree.map(lambda x: x.astype("float32"), weights.frozen["model"])
    exact = merge_lora(base, small.trainable["lora"], LORA)
    assert max_difference(entered.trainable["model"], exact) < 1e-6
    assert max_difference(exact, base) > 1e-4
