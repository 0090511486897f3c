"""The objectives of policy gradients, put together from the pieces in `ops/`: here is what is minimised.

    policy:  sum(weights * (surrogate * correction + kl_coef * kl - entropy_coef * entropy))
             - coef * sum(imitation * logprobs)
             imitation: the mean over replayed tokens, where the replay buffer is used for SFT
    value:   vf_coef * sum(weights * clipped_value_loss)

Weights divide by the whole optimiser batch (`ops/policy_loss.py: loss_weights`); the sums here are over one
microbatch. Metrics carry in their prefix how microbatches are put together, see `update/step.py`. Axes: B
rows, T tokens.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.config.algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.ops.kl import KL_ESTIMATORS, kl_k3, unbiased_kl
from jaxrl.ops.masked import masked_max, masked_sum
from jaxrl.ops.policy_loss import (
    cispo,
    clipped_surrogate,
    importance_ratio,
    is_clipped_high,
    is_clipped_low,
    loss_weights,
    sampler_weights,
)
from jaxrl.ops.value_loss import clipped_value_loss, is_value_clipped
from jaxrl.update.batch import PolicyBatch

Metrics = dict[str, Array]


def weigh(algo: PolicyGradientSection, max_new_tokens: int, batch: PolicyBatch) -> dict[str, Array]:
    """The weights [M, B, T] of every token in each term of the loss."""
    mask, segment_ids = batch.completion_mask, batch.segment_ids
    weights = {"policy": loss_weights(mask, segment_ids, algo.aggregate, max_new_tokens)}
    if batch.returns is not None:
        weights["value"] = loss_weights(mask, segment_ids, "token_mean")
    if algo.replay is not None and algo.replay.use == "sft":
        assert batch.replay_mask is not None, "a replay buffer, and a batch without its mask"
        weights["imitation"] = loss_weights(batch.replay_mask, segment_ids, "token_mean")
    return weights


def policy_objective(
    algo: PolicyGradientSection,
    logprobs: Array,
    entropy: Array,
    batch: PolicyBatch,
    weights: dict[str, Array],
) -> tuple[Array, Metrics]:
    """The policy's loss over one microbatch.

    Args:
      logprobs, entropy: [B, T] of the policy being updated; they carry the gradient.
      weights: [B, T] each, from `weigh`.
    Returns:
      loss [] and metrics.
    Raises:
      ValueError: a KL term in the loss and no reference logprobs in the batch.
    """
    mask, fresh = batch.completion_mask, _fresh(batch)
    new = jnp.where(mask, logprobs, 0.0)  # replayed tokens and prompts have their logprobs, too
    now = jax.lax.stop_gradient(new)
    old = jnp.where(mask, jnp.where(jnp.isnan(batch.old_logprobs), now, batch.old_logprobs), 0.0)
    ratio = importance_ratio(new, old, mask, batch.segment_ids, algo.ratio_level)

    surrogate = _surrogate(algo, new, ratio, batch.advantages)
    if (c := algo.sampler_correction) is not None:
        surrogate = surrogate * sampler_weights(
            old, batch.sampler_logprobs, mask, batch.segment_ids, c.level, c.cap, c.how
        )
    loss = jnp.sum(weights["policy"] * surrogate)
    metrics = {
        "sum/loss/policy": loss,
        "sum/tokens": masked_sum(jnp.ones_like(ratio), fresh),
        "mean/entropy": masked_sum(entropy, fresh),
        **_ratio_metrics(algo, new, old, ratio, batch),
    }
    if algo.kl_coef > 0 and algo.kl_in == "loss":
        kl = _kl_to_reference(algo, new, old, batch)
        loss = loss + algo.kl_coef * jnp.sum(weights["policy"] * kl)
        metrics["mean/kl/ref"] = masked_sum(kl, fresh)
    if algo.entropy_coef > 0:
        loss = loss - algo.entropy_coef * jnp.sum(weights["policy"] * entropy)
    if algo.replay is not None and algo.replay.use == "sft":
        assert batch.replay_mask is not None, "a replay buffer, and a batch without its mask"
        imitation = -jnp.sum(weights["imitation"] * jnp.where(batch.replay_mask, logprobs, 0.0))
        loss = loss + algo.replay.coef * imitation
        metrics["sum/loss/imitation"] = imitation
    return loss, metrics


def value_objective(
    algo: PPOSection, values: Array, batch: PolicyBatch, weights: dict[str, Array]
) -> tuple[Array, Metrics]:
    """The critic's loss over one microbatch; values [B, T] are of the states before each token."""
    assert batch.old_values is not None and batch.returns is not None, "a critic, and a batch without targets"
    fresh = _fresh(batch)
    per_token = clipped_value_loss(values, batch.old_values, batch.returns, algo.value_clip)
    loss = jnp.sum(weights["value"] * per_token)
    clipped = is_value_clipped(values, batch.old_values, batch.returns, algo.value_clip)
    metrics = {
        "sum/loss/value": loss,
        "mean/value/mean": masked_sum(values, fresh),
        "mean/value/clip_fraction": masked_sum(clipped, fresh),
    }
    return algo.vf_coef * loss, metrics


# ---------------------------------------------------------------------------------------------------- terms


def _fresh(batch: PolicyBatch) -> Array:
    """[B, T] bool, the tokens that metrics are of: what is old says nothing of this update."""
    mask = batch.completion_mask
    return mask if batch.replay_mask is None else mask & ~batch.replay_mask


def _surrogate(algo: PolicyGradientSection, logprobs: Array, ratio: Array, advantages: Array) -> Array:
    if isinstance(algo, GRPOSection) and algo.loss == "cispo":
        return cispo(logprobs, ratio, advantages, algo.clip_low, algo.clip_high)
    return clipped_surrogate(ratio, advantages, algo.clip_low, algo.clip_high, algo.dual_clip)


def _clipped(algo: PolicyGradientSection, ratio: Array, advantages: Array) -> tuple[Array, Array]:
    """[B, T] bool twice: where the lower and the upper bound are in force.

    CISPO bounds the weight whatever the advantage.
    """
    if isinstance(algo, GRPOSection) and algo.loss == "cispo":
        return ratio < 1.0 - algo.clip_low, ratio > 1.0 + algo.clip_high
    low, high = (
        is_clipped_low(ratio, advantages, algo.clip_low),
        is_clipped_high(ratio, advantages, algo.clip_high),
    )
    if algo.dual_clip is not None:
        high |= (ratio > algo.dual_clip) & (advantages < 0)
    return low, high


def _kl_to_reference(algo: PolicyGradientSection, new: Array, old: Array, batch: PolicyBatch) -> Array:
    if batch.ref_logprobs is None:
        raise ValueError(
            f"kl_coef={algo.kl_coef} and the batch has no ref_logprobs; score it with the reference first"
        )
    mask = batch.completion_mask
    kl = KL_ESTIMATORS[algo.kl_estimator](new, jnp.where(mask, batch.ref_logprobs, 0.0))
    return unbiased_kl(kl, importance_ratio(new, old, mask, batch.segment_ids)) if algo.kl_unbiased else kl


def _ratio_metrics(
    algo: PolicyGradientSection, new: Array, old: Array, ratio: Array, batch: PolicyBatch
) -> Metrics:
    """How far the policy is from the one that sampled, and that from what the sampler computed."""
    fresh = _fresh(batch)
    low, high = _clipped(algo, ratio, batch.advantages)
    mismatch = jnp.abs(old - batch.sampler_logprobs)
    return {
        "mean/clip_fraction": masked_sum(low | high, fresh),
        "mean/clip_fraction/low": masked_sum(low, fresh),
        "mean/clip_fraction/high": masked_sum(high, fresh),
        "mean/ratio/mean": masked_sum(ratio, fresh),
        "max/ratio/max": masked_max(ratio, fresh),
        "mean/kl/old": masked_sum(kl_k3(old, new), fresh),  # of the policy that sampled, from this one
        "mean/sampler_mismatch/mean": masked_sum(mismatch, fresh),
        "p99/sampler_mismatch/p99": jnp.where(fresh, mismatch, jnp.nan),
        "max/sampler_mismatch/max": masked_max(mismatch, fresh),
    }
