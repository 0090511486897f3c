"""The pieces of the policy-gradient losses, each one small function. Axes: B rows, T tokens; [B, T] unless said.

A loss is put together in the open, in `train/step.py`:

    loss = sum(weights * (clipped_surrogate(ratio, advantages) + kl_coef * kl_k3(logprobs, ref_logprobs)))
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def importance_ratio(logprobs: Array, old_logprobs: Array) -> Array:
    """ratio = exp(logprobs - old_logprobs), token by token: how much likelier a token has become since it was sampled.

    Args:
      logprobs, old_logprobs: [B, T] float32; equal (0) where there is no token.
    Returns:
      [B, T] float32; 1 where there is no token.
    Source: Schulman et al. 2017 (PPO), equation 6.
    """
    check_shapes(logprobs=(logprobs, "B T"), old_logprobs=(old_logprobs, "B T"))
    return jnp.exp(logprobs - old_logprobs)


def clipped_surrogate(ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> Array:
    """The clipped policy loss of each token, to be minimised.

        L = -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)

    Args:
      ratio, advantages: [B, T] float32.
      clip_low, clip_high: how far the ratio may fall below and rise above 1 while it still earns gradient.
    Returns:
      [B, T] float32.
    Source: Schulman et al. 2017 (PPO), equation 7; two bounds as in Yu et al. 2025 (DAPO), section 3.1.
    """
    check_shapes(ratio=(ratio, "B T"), advantages=(advantages, "B T"))
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def is_clipped(ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> Array:
    """[B, T] bool: where the clip has taken the gradient away (the ratio has left the range on the side it was pushed to)."""
    too_high = (ratio > 1.0 + clip_high) & (advantages > 0)
    too_low = (ratio < 1.0 - clip_low) & (advantages < 0)
    return too_high | too_low


def kl_k3(logprobs: Array, ref_logprobs: Array) -> Array:
    """Estimate of KL(policy || reference) from each sampled token; never negative, unbiased in value.

        k3 = exp(d) - d - 1,   d = ref_logprobs - logprobs

    Args:
      logprobs, ref_logprobs: [B, T] float32.
    Returns:
      [B, T] float32, nats.
    Source: Schulman 2020 (Approximating KL divergence); Shao et al. 2024 (DeepSeekMath), equation 4.
    """
    check_shapes(logprobs=(logprobs, "B T"), ref_logprobs=(ref_logprobs, "B T"))
    d = ref_logprobs - logprobs
    return jnp.expm1(d) - d


def loss_weights(mask: Array, segment_ids: Array, how: str) -> Array:
    """The weight of each token in the loss of the whole optimiser batch; they add up to 1.

        token_mean:     mask / (number of tokens)
        sequence_mean:  mask / (tokens of its own sequence) / (number of sequences)

    They are computed once for the whole batch, before it is cut up: a loss written as sum(weights * per_token) is then
    the same for any microbatch size, padding, packing and mesh.

    Args:
      mask: [M, B, T] bool, the tokens that count.
      segment_ids: [M, B, T] int32; one segment of a row is one sequence.
      how: `token_mean` or `sequence_mean`.
    Returns:
      [M, B, T] float32; all zero where no token counts.
    Source: token_mean: Yu et al. 2025 (DAPO), section 3.3. sequence_mean: Shao et al. 2024 (DeepSeekMath), equation 3.
    """
    check_shapes(mask=(mask, "M B T"), segment_ids=(segment_ids, "M B T"))
    if how == "token_mean":
        return mask / jnp.maximum(jnp.sum(mask), 1)
    if how == "sequence_mean":
        lengths = jax.vmap(jax.vmap(_own_segment_sum))(mask.astype(jnp.float32), segment_ids)  # [M, B, T]
        per_sequence = mask / jnp.maximum(lengths, 1)
        return per_sequence / jnp.maximum(jnp.sum(per_sequence), 1)
    raise ValueError(f"unknown way of averaging {how!r}; the ways are token_mean, sequence_mean")


def _own_segment_sum(x: Array, segment_ids: Array) -> Array:
    """x [T] summed over the segment that each token belongs to, [T]."""
    return jax.ops.segment_sum(x, segment_ids, num_segments=x.shape[0] + 1)[segment_ids]
