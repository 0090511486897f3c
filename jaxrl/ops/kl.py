"""Estimates of KL(policy || reference) from sampled tokens, and the coefficient that keeps it near a target.

With d = logprobs - ref_logprobs of tokens that the policy itself sampled, a state's

    estimate    mean value                mean gradient, in a loss
    k1          KL(policy || reference)   0: it regularises nothing, and belongs in the reward
    k2          biased                    that of KL(policy || reference)
    k3          KL(policy || reference)   that of KL(reference || policy)

where the reference has no tokens that the policy never samples. Off-policy the means are taken over other
tokens, and none of this holds without importance weights: `unbiased_kl` has them. Axes: B rows, T tokens.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def kl_k1(logprobs: Array, ref_logprobs: Array) -> Array:
    """Estimate of KL(policy || reference) from each sampled token: unbiased in value, of either sign.

        k1 = d,   d = logprobs - ref_logprobs

    In a loss, on-policy, its gradient is the score, whose mean is 0: it adds noise and regularises nothing.
    Taken off the reward it does what it should.

    Args:
      logprobs, ref_logprobs: [B, T] float32.
    Returns:
      [B, T] float32, nats.
    Source: Schulman 2020 (Approximating KL divergence).
    """
    check_shapes(logprobs=(logprobs, "B T"), ref_logprobs=(ref_logprobs, "B T"))
    return logprobs - ref_logprobs


def kl_k2(logprobs: Array, ref_logprobs: Array) -> Array:
    """Estimate of KL(policy || reference) from each sampled token; never negative, biased in value.

        k2 = d^2 / 2,   d = logprobs - ref_logprobs

    In a loss, on-policy, its gradient is d times the score: the unbiased gradient of the KL, state by state.

    Args:
      logprobs, ref_logprobs: [B, T] float32.
    Returns:
      [B, T] float32, nats.
    Source: Schulman 2020 (Approximating KL divergence).
    """
    check_shapes(logprobs=(logprobs, "B T"), ref_logprobs=(ref_logprobs, "B T"))
    return 0.5 * (logprobs - ref_logprobs) ** 2


def kl_k3(logprobs: Array, ref_logprobs: Array) -> Array:
    """Estimate of KL(policy || reference) from each sampled token; never negative, unbiased in value.

        k3 = exp(d) - d - 1,   d = ref_logprobs - logprobs

    In a loss, on-policy, its gradient is not that of KL(policy || reference): its mean is the gradient of
    KL(reference || policy), close to it only while the two are close.

    Args:
      logprobs, ref_logprobs: [B, T] float32.
    Returns:
      [B, T] float32, nats.
    Source: Schulman 2020 (Approximating KL divergence); Shao et al. 2024 (DeepSeekMath), equation 4.
    """
    check_shapes(logprobs=(logprobs, "B T"), ref_logprobs=(ref_logprobs, "B T"))
    d = ref_logprobs - logprobs
    return jnp.expm1(d) - d


def unbiased_kl(kl: Array, ratio: Array) -> Array:
    """An estimate of KL(policy || reference), unbiased in value and gradient, from an older policy's tokens.

        ratio * kl,   ratio = exp(logprobs - old_logprobs), through which the gradient passes, too

    A state's mean of ratio * kl over the old policy's tokens is that of kl over the policy's own. For k1 and
    k3 that is KL(policy || reference), and so its gradient is the gradient of it. On-policy the ratio is 1
    and its gradient the score, which is what turns k3's gradient from that of KL(reference || policy) to that
    of KL(policy || reference).

    Args:
      kl: [B, T] float32, k1 or k3.
      ratio: [B, T] float32, each token's own, whatever the level of the policy loss.
    Returns:
      [B, T] float32, nats.
    Source: DeepSeek-AI 2025 (DeepSeek-V3.2, arXiv 2512.02556), the unbiased KL estimate, there of k3; TRL's
      `use_bias_correction_kl`. Departure from TRL: with sequence ratios it multiplies by the sequence's.
    """
    check_shapes(kl=(kl, "B T"), ratio=(ratio, "B T"))
    return ratio * kl


KL_ESTIMATORS: dict[str, Callable[[Array, Array], Array]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, num_sequences: int) -> float:
    """The KL coefficient for the next batch: larger after too much KL, smaller after too little.

        kl_coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_sequences / horizon)

    Args:
      kl_coef: the coefficient of this batch.
      kl, target: the KL that was measured in this batch and the one that is wanted, in the same unit. One
        that is NaN, of a policy that has diverged, moves nothing.
      horizon: in sequences; the coefficient moves by a fifth in so many at the most. It stays positive while
        a batch has fewer than 5 * horizon of them.
      num_sequences: sequences of this batch.
    Source: Ziegler et al. 2019 (Fine-tuning language models from human preferences), section 2.2; the paper's
      gain of 0.1 is written as num_sequences / horizon in its code.
    """
    error = 0.0 if math.isnan(kl) else min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * num_sequences / horizon)
