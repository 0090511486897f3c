"""Updates that are not sound: whatever part of one is not finite, nothing but the count of steps changes, and a run gives up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.config_algo import GRPOSection, PPOSection
from jaxrl.config_sections import OptimSection, SampleSection
from jaxrl.errors import InputError
from jaxrl.model.value_head import init_value_head
from jaxrl.ops.kl import adapt_kl_coef
from jaxrl.sharding import shard_batch
from jaxrl.train.loop import MAX_SKIPPED, FinitenessGuard
from jaxrl.train.state import MAX_WEIGHT, all_finite, all_within, make_actor_critic_optimizer, make_optimizer, place_state
from jaxrl.train.step import make_grpo_step, make_ppo_step, make_sft_step
from tests.tiny import noisy, one_device, policy_and_trees, policy_batch, sft_batch

SAMPLE = SampleSection(max_new_tokens=12)


def step_with(algo, tx, batch):
    """(state before, state after, metrics) of one step; both states on the host."""
    policy, trainable, frozen = policy_and_trees()
    if isinstance(algo, PPOSection):
        trainable = trainable | {"value_head": noisy(init_value_head(jax.random.key(5), policy.config.d_model), 6)}
    state = place_state(trainable, tx, jax.random.key(0), one_device())
    unused = {"ref_logprobs", "replay_mask"} | (set() if isinstance(algo, PPOSection) else {"old_values", "returns"})
    batch = dataclasses.replace(batch, **dict.fromkeys(unused))
    if algo is None:
        step, batch = make_sft_step(policy, tx, state, one_device()), sft_batch(batch)
    else:
        make_step = make_ppo_step if isinstance(algo, PPOSection) else make_grpo_step
        step = make_step(policy, tx, algo, SAMPLE, state, one_device())
    before = jax.tree.map(np.array, (state.trainable, state.opt_state))
    after, metrics = step(state, frozen, shard_batch(batch, one_device()))
    return before, after, jax.device_get(metrics)


def assert_skipped(before, after, metrics):
    assert metrics["skipped"] == 1 and int(after.step) == 1
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves((after.trainable, after.opt_state)), strict=True):
        assert old.tobytes() == np.asarray(new).tobytes()


def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped():
    """Advantages of 1e30: their sum is a float32, the square of the gradient is none. The optimiser would not notice."""
    batch = policy_batch(1)
    batch = dataclasses.replace(batch, advantages=np.float32(1e30) * batch.advantages)
    keep_gradient = optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), lambda g, *_: (jax.tree.map(jnp.zeros_like, g), g))
    before, after, metrics = step_with(GRPOSection(), keep_gradient, batch)
    assert np.isfinite(metrics["loss"]) and not np.isfinite(metrics["grad_norm"])
    assert_skipped(before, after, metrics)


PPO = PPOSection(critic_learning_rate=1e39)
RESULTS = {
    "sft, weights that overflow": (None, make_optimizer(OptimSection(learning_rate=1e39), 10)),
    "sft, weights beyond all measure": (None, make_optimizer(OptimSection(learning_rate=2 * MAX_WEIGHT), 10)),
    "grpo, weights that overflow": (GRPOSection(), make_optimizer(OptimSection(learning_rate=1e39), 10)),
    "ppo, the critic's weights alone": (PPO, make_actor_critic_optimizer(OptimSection(learning_rate=1e-3), PPO, 10)),
    "sft, the optimiser's state alone": (
        None,
        optax.GradientTransformation(lambda p: p, lambda g, *_: (jax.tree.map(jnp.zeros_like, g), jax.tree.map(lambda x: x / 0.0, g))),
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_is_not_sound_is_skipped(name):
    """Loss and gradient are finite in all of them."""
    algo, tx = RESULTS[name]
    before, after, metrics = step_with(algo, tx, policy_batch(1))
    assert np.isfinite(metrics["loss"]) and 0 < metrics["grad_norm"] < np.inf
    assert_skipped(before, after, metrics)


def test_finite_and_within_by_hand():
    tree = {"a": jnp.array([1.0, -3.0]), "b": jnp.bfloat16(2.0), "count": jnp.int32(2**31 - 1), "key": jax.random.key(0)}
    assert all_finite(tree) and all_within(tree, 3.0) and not all_within(tree, 2.9) and all_finite({})
    for x in (jnp.nan, jnp.inf, -jnp.inf):
        assert not all_finite(tree | {"c": jnp.array([0.0, x])})
        assert not all_finite(tree | {"c": jnp.array([0.0, x], jnp.bfloat16)})


# --------------------------------------------------------------------------------------------------------------- guard

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
