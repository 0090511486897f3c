"""Updates that are not sound: whatever part of one is not finite, nothing but the count of steps changes, and
a run gives up.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection
from jaxrl.config.shared import OptimSection, SampleSection
from jaxrl.device.mesh import shard_batch
from jaxrl.errors import InputError
from jaxrl.ops.kl import adapt_kl_coef
from jaxrl.train.stage import MAX_SKIPPED, FinitenessGuard
from jaxrl.types import MAX_WEIGHT
from jaxrl.update.state import (
    all_finite,
    all_within,
    make_actor_critic_optimizer,
    make_optimizer,
    place_state,
)
from jaxrl.update.step import jit_step, make_grpo_step
from tests.tiny import one_device, policy_and_trees, policy_batch, sft_batch

SAMPLE = SampleSection(max_new_tokens=12)


def assert_skipped(step, state, frozen, batch):
    """The step leaves everything but its count as it was. Returns the metrics."""
    before = jax.tree.map(np.array, (state.trainable, state.opt_state))
    after, metrics = step(state, frozen, shard_batch(batch, one_device()))
    assert metrics["skipped"] == 1 and int(after.step) == 1
    for old, new in zip(
        jax.tree.leaves(before), jax.tree.leaves((after.trainable, after.opt_state)), strict=True
    ):
        assert old.tobytes() == np.asarray(new).tobytes()
    return metrics


def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped():
    """Advantages of 1e30: their sum is a float32, the square of the gradient is none. This optimiser would
    not notice.
    """
    policy, trainable, frozen = policy_and_trees()
    keep_gradient = optax.GradientTransformation(
        zeros_like, lambda gradient, *_: (zeros_like(gradient), gradient)
    )
    state = place_state(trainable, keep_gradient, jax.random.key(0), one_device())
    step = make_grpo_step(policy, keep_gradient, GRPOSection(), SAMPLE, state, one_device())
    batch = dataclasses.replace(
        policy_batch(1), **dict.fromkeys(("ref_logprobs", "replay_mask", "old_values", "returns"))
    )
    metrics = assert_skipped(
        step, state, frozen, dataclasses.replace(batch, advantages=np.float32(1e30) * batch.advantages)
    )
    assert np.isfinite(metrics["loss"]) and not np.isfinite(metrics["grad_norm"])


def zeros_like(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def weighted_sum(trainable, frozen, batch, weights, key):
    """A loss of which nothing but the update is of interest; it is finite, and so is its gradient."""
    loss = sum(jnp.sum(x) for x in jax.tree.leaves(trainable))
    return loss, {"sum/loss": loss, "sum/tokens": jnp.float32(1)}


PPO = PPOSection(critic_learning_rate=1e39)
RESULTS = {
    "weights that overflow": make_optimizer(OptimSection(learning_rate=1e39), 10),
    "weights beyond all measure": make_optimizer(OptimSection(learning_rate=2 * MAX_WEIGHT), 10),
    "the critic's weights alone": make_actor_critic_optimizer(OptimSection(learning_rate=1e-3), PPO, 10),
    "the optimiser's state alone": optax.GradientTransformation(
        zeros_like, lambda g, *_: (zeros_like(g), jax.tree.map(lambda x: x / 0, g))
    ),
}


@pytest.mark.parametrize("name", [*RESULTS, None])
def test_a_result_that_is_not_sound_is_skipped(name):
    """Loss and gradient are finite in all of them. What every loss has in common, with a loss that compiles
    at once.
    """
    tx = RESULTS.get(name, make_optimizer(OptimSection(), 10))
    trainable = {
        "lora": {"layers": {"q": {"lora_a": jnp.ones((2, 3))}}},
        "value_head": {"kernel": jnp.ones(3)},
    }
    state = place_state(trainable, tx, jax.random.key(0), one_device())
    step = jit_step(weighted_sum, lambda batch: {}, tx, state, one_device())
    batch = sft_batch(policy_batch(1))
    if name is None:  # the same with an ordinary rate moves
        after, metrics = step(state, {}, shard_batch(batch, one_device()))
        assert metrics["skipped"] == 0 and np.all(np.asarray(after.trainable["value_head"]["kernel"]) < 1)
        return
    metrics = assert_skipped(step, state, {}, batch)
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])


def test_finite_and_within_by_hand():
    tree = {
        "a": jnp.array([1.0, -3.0]),
        "b": jnp.bfloat16(2.0),
        "count": jnp.int32(2**31 - 1),
        "key": jax.random.key(0),
    }
    assert all_finite(tree) and all_within(tree, 3.0) and not all_within(tree, 2.9) and all_finite({})
    for x in (jnp.nan, jnp.inf, -jnp.inf):
        assert not all_finite(tree | {"c": jnp.array([0.0, x])})
        assert not all_finite(tree | {"c": jnp.array([0.0, x], jnp.bfloat16)})


# ------------------------------------------------------------------------------------------------------ guard

SOUND, SKIPPED, NOTHING = ({"skipped": s, "grad_norm": g} for s, g in ((0, 0.5), (1, np.nan), (0, 0.0)))


def test_the_guard_gives_up_after_so_many_skipped_updates_in_a_row():
    guard = FinitenessGuard("sft")
    for metrics in [SKIPPED] * (MAX_SKIPPED - 1) + [SOUND] + [SKIPPED] * (MAX_SKIPPED - 1):
        guard.check(metrics)
    with pytest.raises(InputError, match=f"stage sft has diverged: {MAX_SKIPPED} updates in a row"):
        guard.check(SKIPPED)


def test_a_guard_that_is_taken_up_again_goes_on_counting():
    guard = FinitenessGuard("sft")
    for _ in range(MAX_SKIPPED - 1):
        guard.check(SKIPPED)
    with pytest.raises(InputError):
        FinitenessGuard("sft", guard.skipped).check(SKIPPED)


def test_an_update_without_a_gradient_ends_no_row():
    """A policy that has diverged may get the same reward for everything it says."""
    guard = FinitenessGuard("grpo")
    for metrics in (SKIPPED, NOTHING, SKIPPED, NOTHING):
        guard.check(metrics)
    assert guard.skipped == 2
    with pytest.raises(InputError, match="the last 2 update"):
        guard.check_end()


def test_a_stage_that_does_not_end_in_skipped_updates_is_well():
    guard = FinitenessGuard("sft")
    guard.check_end()
    for metrics in (SKIPPED, SOUND, NOTHING):
        guard.check(metrics)
    guard.check_end()


def test_a_kl_that_is_no_number_moves_no_coefficient():
    assert adapt_kl_coef(0.1, float("nan"), target=0.01, horizon=50, num_sequences=8) == 0.1
    assert adapt_kl_coef(0.1, float("inf"), target=0.01, horizon=50, num_sequences=8) > 0.1
