"""Every term of a step's loss reaches its gradient: against the same loss written out over all logits, and by
taking terms apart.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection
from jaxrl.config.shared import LoraSection, SampleSection
from jaxrl.device.mesh import shard_batch
from jaxrl.ops.policy_loss import loss_weights
from jaxrl.update.state import place_state
from jaxrl.update.step import make_grpo_step, make_sft_step
from tests.tiny import one_device, policy_and_trees, policy_batch, relative_difference, sft_batch
from tests.update.test_step import KEEP_GRADIENT, trees_for, update

SHARED = ("clip_low", "clip_high", "aggregate", "entropy_coef")


def grpo_of(algo: PPOSection) -> GRPOSection:
    """The policy's part of PPO alone."""
    return GRPOSection(**{name: getattr(algo, name) for name in SHARED})


def test_a_separate_critic_leaves_the_policy_its_own_gradient():
    algo, batch = PPOSection(critic="separate", entropy_coef=0.05), policy_batch(2)
    gradient = update(algo, batch)[0]["lora"]
    alone, metrics = update(grpo_of(algo), batch)
    assert metrics["grad_norm"] > 1e-3
    assert relative_difference(gradient, alone["lora"]) < 1e-6


def test_on_a_shared_trunk_the_gradients_of_policy_and_critic_add_up():
    algo, batch = PPOSection(), policy_batch(2)
    both = update(algo, batch)[0]["lora"]
    policy = update(grpo_of(algo), batch)[0]["lora"]
    critic = update(algo, dataclasses.replace(batch, advantages=0 * batch.advantages))[0]["lora"]
    assert relative_difference(both, jax.tree.map(np.add, policy, critic)) < 1e-5
    assert relative_difference(both, policy) > 1e-3 and relative_difference(both, critic) > 1e-3


def written_out(batch, temperature, entropy_coef):
    """Gradient of -mean(A * logprob) - entropy_coef * mean(H) over the completion tokens, from softmax(logits
    / temperature).
    """
    policy, trainable, frozen = policy_and_trees()
    weights = loss_weights(batch.completion_mask, batch.segment_ids, "token_mean")[0]

    def loss(trainable):
        hidden = policy.apply(trainable, frozen, batch.tokens[0], batch.positions[0], batch.segment_ids[0])
        log_p = jax.nn.log_softmax(policy.logits(trainable, frozen, hidden) / temperature)[:, :-1]
        logprobs = jnp.take_along_axis(log_p, batch.tokens[0][:, 1:, None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
        return -jnp.sum(weights[:, 1:] * (batch.advantages[0][:, 1:] * logprobs + entropy_coef * entropy))

    return jax.jit(jax.grad(loss))(trainable)


@pytest.mark.parametrize("temperature, entropy_coef", [(0.6, 0.0), (1.0, 0.5)])
def test_on_policy_the_gradient_is_that_of_reinforce_at_the_samplers_temperature(temperature, entropy_coef):
    batch = policy_batch(1)
    batch = dataclasses.replace(
        batch,
        old_logprobs=np.full_like(batch.old_logprobs, np.nan),
        ref_logprobs=None,
        old_values=None,
        returns=None,
        replay_mask=None,
    )
    policy, trainable, frozen = trees_for(None)
    state = place_state(trainable, KEEP_GRADIENT, jax.random.key(0), one_device())
    algo, sample = GRPOSection(entropy_coef=entropy_coef), SampleSection(temperature=temperature)
    step = make_grpo_step(policy, KEEP_GRADIENT, algo, sample, state, one_device())
    after, metrics = step(state, frozen, shard_batch(batch, one_device()))
    assert metrics["grad_norm"] > 1e-3
    assert (
        relative_difference(jax.device_get(after.opt_state), written_out(batch, temperature, entropy_coef))
        < 1e-4
    )


def test_dropout_draws_anew_for_every_step_and_every_microbatch():
    """Two equal microbatches: without dropout their mean gradient is that of one of them; with it, it is
    not.
    """
    single = sft_batch(policy_batch(1))
    two = dataclasses.replace(
        jax.tree.map(lambda x: np.concatenate([x, x]) if np.ndim(x) == 3 else x, single),
        num_microbatches=np.int32(2),
    )
    blank = np.zeros_like(single.loss_mask)  # the second is not run: one shape, one program
    one = dataclasses.replace(
        two, loss_mask=np.concatenate([single.loss_mask, blank]), num_microbatches=np.int32(1)
    )
    gradients = {}
    for dropout in (0.0, 0.5):
        policy, trainable, frozen = policy_and_trees(LoraSection(rank=4, alpha=8.0, dropout=dropout))

        def gradient(batch, at_step=0):
            state = place_state(trainable, KEEP_GRADIENT, jax.random.key(0), one_device())
            state = dataclasses.replace(state, step=jnp.int32(at_step))
            return jax.device_get(step(state, frozen, shard_batch(batch, one_device()))[0].opt_state)

        step = make_sft_step(
            policy,
            KEEP_GRADIENT,
            place_state(trainable, KEEP_GRADIENT, jax.random.key(0), one_device()),
            one_device(),
        )
        gradients[dropout] = [gradient(one), gradient(one), gradient(one, at_step=1), gradient(two)]
    first, again, later, of_two = gradients[0.0]
    for other in (again, later, of_two):
        assert relative_difference(other, first) < 1e-6
    first, again, later, of_two = gradients[0.5]
    assert relative_difference(again, first) == 0
    assert relative_difference(later, first) > 0.1, "step 1 draws what step 0 drew"
    assert relative_difference(of_two, first) > 0.1, "the second microbatch draws what the first one drew"
