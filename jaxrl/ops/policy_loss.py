"""The pieces of the policy-gradient losses, each one small function.

Axes: B rows, T tokens; arrays are [B, T] where nothing else is given.

A loss is put together in the open, in `update/objective.py`:

    loss = sum(weights * (clipped_surrogate(ratio, advantages) + kl_coef * kl_k3(logprobs, ref_logprobs)))
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes
from jaxrl.ops.segments import segment_sum


def importance_ratio(
    logprobs: Array, old_logprobs: Array, mask: Array, segment_ids: Array, level: str = "token"
) -> Array:
    """How much likelier tokens have become since they were sampled.

        token:     ratio_t = exp(logprobs_t - old_logprobs_t)
        sequence:  ratio_t = exp(mean over the tokens of its sequence of (logprobs - old_logprobs)),
                   one for all of them

    The exponent is held within +-20, far outside of every clip, so that nothing overflows.

    Args:
      logprobs, old_logprobs: [B, T] float.  mask: [B, T] bool, the tokens that count.
      segment_ids: [B, T] int32; one segment of a row is one sequence.
      level: `token` or `sequence`.
    Returns:
      [B, T]; 1 outside the mask.
    Source: token: Schulman et al. 2017 (PPO), equation 6. sequence: Zheng et al. 2025 (GSPO), equation 7.
    """
    check_shapes(
        logprobs=(logprobs, "B T"),
        old_logprobs=(old_logprobs, "B T"),
        mask=(mask, "B T"),
        segment_ids=(segment_ids, "B T"),
    )
    log_ratio = jnp.where(mask, logprobs - old_logprobs, 0)
    if level == "sequence":
        lengths = segment_sum(mask.astype(log_ratio.dtype), segment_ids)
        log_ratio = jnp.where(mask, segment_sum(log_ratio, segment_ids) / jnp.maximum(lengths, 1), 0)
    elif level != "token":
        raise ValueError(f"unknown ratio level {level!r}; the levels are token, sequence")
    return jnp.exp(jnp.clip(log_ratio, -20.0, 20.0))


def clipped_surrogate(
    ratio: Array, advantages: Array, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Array:
    """The clipped policy loss of each token, to be minimised.

        L = -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)
        with dual_clip, where A < 0:  L = min(L, -dual_clip * A)

    Args:
      ratio, advantages: [B, T] float.
      clip_low, clip_high: how far the ratio may fall below and rise above 1 while it still earns gradient.
      dual_clip: above 1: a bound of the loss of a bad token that has become much likelier; None: no bound.
    Returns:
      [B, T].
    Source: Schulman et al. 2017 (PPO), equation 7; two bounds as in Yu et al. 2025 (DAPO), section 3.1; dual
      clip: Ye et al. 2020 ("Mastering complex control in MOBA games"), section 4.
    """
    check_shapes(ratio=(ratio, "B T"), advantages=(advantages, "B T"))
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = -jnp.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is None:
        return loss
    return jnp.where(advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)


def cispo(logprobs: Array, ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> Array:
    """REINFORCE with the clipped ratio as a constant weight: no token loses its gradient.

        L = -stop_gradient(clip(ratio, 1 - clip_low, 1 + clip_high)) * A * logprobs

    The bounds are relative to 1, as in PPO: clip_high 4 caps the weight at 5 (TRL gives the cap itself,
    epsilon_high 5). clip_low 1 is no lower bound.

    Args:
      logprobs, ratio, advantages: [B, T] float; only logprobs carries a gradient.
    Returns:
      [B, T].
    Source: MiniMax 2025 (MiniMax-M1), equation 4.
    """
    check_shapes(logprobs=(logprobs, "B T"), ratio=(ratio, "B T"), advantages=(advantages, "B T"))
    weight = jax.lax.stop_gradient(jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high))
    return -weight * advantages * logprobs


def is_clipped_low(ratio: Array, advantages: Array, clip_low: float) -> Array:
    """[B, T] bool: where a bad token has become so unlikely that `clipped_surrogate` is flat."""
    return (ratio < 1.0 - clip_low) & (advantages < 0)


def is_clipped_high(ratio: Array, advantages: Array, clip_high: float) -> Array:
    """[B, T] bool: where a good token has become so likely that `clipped_surrogate` is flat."""
    return (ratio > 1.0 + clip_high) & (advantages > 0)


def sampler_weights(
    old_logprobs: Array,
    sampler_logprobs: Array,
    mask: Array,
    segment_ids: Array,
    level: str,
    cap: float,
    how: str,
) -> Array:
    """Weights that correct for a sampler whose arithmetic is not quite the trainer's: truncated importance
    sampling.

        w = exp(old_logprobs - sampler_logprobs), summed over its sequence in the exponent for `sequence`
        truncate:  min(w, cap)          mask:  w where w <= cap, else 0

    Args:
      old_logprobs: [B, T], the trainer's, of the policy that sampled.
      sampler_logprobs: [B, T], what the sampler computed.
      mask: [B, T] bool.  segment_ids: [B, T] int32.
      level: `token` or `sequence`.  cap: above 1.  how: `truncate` or `mask`.
    Returns:
      [B, T], 1 outside the mask; carries no gradient.
    Source: Ionides 2008 (truncated importance sampling); Yao et al. 2025 ("Your efficient RL framework
      secretly brings you off-policy RL training").
    """
    gap = jnp.where(mask, old_logprobs - sampler_logprobs, 0)
    if level == "sequence":
        gap = jnp.where(mask, segment_sum(gap, segment_ids), 0)
    weights = jax.lax.stop_gradient(jnp.exp(jnp.clip(gap, -20.0, 20.0)))
    return jnp.minimum(weights, cap) if how == "truncate" else jnp.where(weights <= cap, weights, 0)


def loss_weights(mask: Array, segment_ids: Array, how: str, max_len: int | None = None) -> Array:
    """The weight of each token in the loss of the whole optimiser batch.

        token_mean:     mask / (number of tokens)
        sequence_mean:  mask / (tokens of its own sequence) / (number of sequences)
        constant:       mask / max_len / (number of sequences)

    They are computed once for the whole batch, before it is cut up: a loss written as sum(weights *
    per_token) is then the same for any microbatch size, padding, packing and mesh. The first two add up to 1.
    Sequences none of whose tokens count are not counted.

    Args:
      mask: [M, B, T] bool, the tokens that count.
      segment_ids: [M, B, T] int32; one segment of a row is one sequence.
      how: `token_mean`, `sequence_mean` or `constant`.
      max_len: for `constant`: the most tokens that a completion may have.
    Returns:
      [M, B, T] float32; all zero where no token counts.
    Source: token_mean: Yu et al. 2025 (DAPO), section 3.3. sequence_mean: Shao et al. 2024 (DeepSeekMath),
      equation 3. constant: Liu et al. 2025 (Dr. GRPO), appendix A.
    """
    check_shapes(mask=(mask, "M B T"), segment_ids=(segment_ids, "M B T"))
    if how == "token_mean":
        return mask / jnp.maximum(jnp.sum(mask), 1)
    lengths = jax.vmap(segment_sum)(mask.astype(jnp.float32), segment_ids)  # [M, B, T]
    per_sequence = mask / jnp.maximum(lengths, 1)
    num_sequences = jnp.maximum(jnp.sum(per_sequence), 1)
    if how == "sequence_mean":
        return per_sequence / num_sequences
    if how == "constant" and max_len is not None:
        return mask / max_len / num_sequences
    raise ValueError(
        f"unknown way of averaging {how!r} (max_len {max_len}); the ways are token_mean, sequence_mean, "
        "constant with max_len"
    )
