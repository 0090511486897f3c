"""Advantages: what a completion's reward is worth beside the others.

Axes: P problems, G completions of one problem.

Every estimator takes a mask of the completions that count (a reward that is not a number, a completion set
aside): the others get 0 and have no part in any mean. Completions whose rewards are all equal get exact
zeros.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def group_normalize(rewards: Array, mask: Array | None = None, eps: float = 1e-6) -> Array:
    """Advantages of one group of completions: centred and scaled rewards.

        A_i = (r_i - mean(r)) / (std(r) + eps),   std with the divisor G - 1

    Args:
      rewards: [P, G] float, one row per problem.
      mask: [P, G] bool, the completions that count; None: all.
      eps: added to the standard deviation (reward units).
    Returns:
      [P, G], zero mean along G.
    Raises:
      ValueError: if G < 2.
    Source: Shao et al. 2024 (DeepSeekMath), section 4.1.2. The paper writes std(r) without saying which; TRL,
      verl and Tunix take the sample one (divisor G - 1), and so do we.
    """
    centred = group_center(rewards, mask)
    count = jnp.sum(_all_true(rewards, mask), axis=1, keepdims=True)
    std = jnp.sqrt(jnp.sum(centred**2, axis=1, keepdims=True) / jnp.maximum(count - 1, 1))
    return centred / (std + eps)


def group_center(rewards: Array, mask: Array | None = None) -> Array:
    """Advantages without the scale, which would make easy and hard problems weigh more than those in between.

        A_i = r_i - mean(r)

    Args, Returns, Raises: as in `group_normalize`.
    Source: Liu et al. 2025 (Dr. GRPO, "Understanding R1-Zero-like training"), section 3.2.
    """
    mask = _all_true(rewards, mask)
    _check_groups(rewards, mask)
    return _center(rewards, mask, axis=1)


def leave_one_out(rewards: Array, mask: Array | None = None) -> Array:
    """Advantages against the mean of the other completions: a baseline that does not know the reward it is
    taken from.

        A_i = r_i - mean(r_j, j != i) = G / (G - 1) * (r_i - mean(r))

    Args, Returns, Raises: as in `group_normalize`. A group of which only one completion counts gets 0.
    Source: Kool et al. 2019 ("Buy 4 REINFORCE samples, get a baseline for free!"); Ahmadian et al. 2024
      (RLOO), equation 8.
    """
    centred = group_center(rewards, mask)
    count = jnp.sum(_all_true(rewards, mask), axis=1, keepdims=True)
    return centred * count / jnp.maximum(count - 1, 1)


def batch_normalize(rewards: Array, mask: Array | None = None, eps: float = 1e-6) -> Array:
    """Advantages over the whole batch: one baseline and one scale for all problems; groups of one are
    allowed.

        A_i = (r_i - mean(all r)) / (std(all r) + eps),   std with the divisor P * G - 1

    Args, Returns: as in `group_normalize`.
    Source: Hu et al. 2025 (REINFORCE++), section 3. The paper normalises over the tokens of the batch; here
      every completion counts once, so that long ones do not move the baseline.
    """
    mask = _all_true(rewards, mask)
    check_shapes(rewards=(rewards, "P G"), mask=(mask, "P G"))
    centred = _center(rewards, mask, axis=None)
    std = jnp.sqrt(jnp.sum(centred**2) / jnp.maximum(jnp.sum(mask) - 1, 1))
    return centred / (std + eps)


def part_normalize(parts: Array, weights: Array, mask: Array | None = None, eps: float = 1e-6) -> Array:
    """Advantages of a reward of several parts, each normalised in its group before they are added up (GDPO).

        A_k = (r_k - mean(r_k)) / (std(r_k) + eps) in the group;   S = sum over k of w_k A_k;   A = S /
                                                                   (std(all S) + eps)

    A part's weight is then what it says, whatever the part's own spread: in the sum of the rewards a part
    that is mostly luck and spreads widely drowns one that is honest and spreads little, and equal sums of
    different parts are all the same.

    Args:
      parts: [K, P, G] float, one table for each part of the reward.
      weights: [K]; negative for a part that is a penalty.
      mask, eps: as in `group_normalize`.
    Returns:
      [P, G], zero mean along G.
    Raises:
      ValueError: if G < 2.
    Source: Liu et al. 2026 (GDPO, 2601.05242). The sum's mean over the batch, which the paper takes off, is
      0: every group's is.
    """
    normalized = jax.vmap(lambda part: group_normalize(part, mask, eps))(parts)
    return batch_normalize(jnp.einsum("k,kpg->pg", weights, normalized), mask, eps)


ADVANTAGES: dict[str, Callable[..., Array]] = {
    "grpo": group_normalize,
    "center": group_center,
    "rloo": leave_one_out,
    "reinforce_pp": batch_normalize,
}


def whiten(advantages: Array, mask: Array) -> Array:
    """Advantages of a batch of tokens, centred and scaled over the tokens that count; 0 elsewhere.

        (A - mean(A)) / sqrt(var(A) + 1e-8),   var with the number of tokens as its divisor

    Args:
      advantages: [...] float.  mask: [...] bool.
    Source: the habit of PPO implementations (Huang et al. 2022, "The 37 implementation details of PPO",
      detail 7).
    """
    centred = _center(advantages, mask, axis=None)
    variance = jnp.sum(centred**2) / jnp.maximum(jnp.sum(mask), 1)
    return centred / jnp.sqrt(variance + 1e-8)


def overlong_penalty(lengths: Array, max_len: int, buffer: int) -> Array:
    """What is taken off the reward of long completions: nothing up to max_len - buffer tokens, then ever
    more, up to 1.

        clip((length - (max_len - buffer)) / buffer, 0, 1)

    Args:
      lengths: [...] tokens of each completion.  max_len: tokens where it is cut off.  buffer: tokens, below
        max_len.
    Returns:
      [...] float, 0 .. 1; to be subtracted.
    Source: Yu et al. 2025 (DAPO), equation 13.
    """
    return jnp.clip((lengths - (max_len - buffer)) / buffer, 0.0, 1.0)


def _center(x: Array, mask: Array, axis: int | None) -> Array:
    x = jnp.where(mask, x, 0)
    mean = jnp.sum(x, axis=axis, keepdims=True) / jnp.maximum(jnp.sum(mask, axis=axis, keepdims=True), 1)
    # The mean of equal numbers can miss them by an ulp, which a division by eps would blow up: ask directly.
    highest = jnp.max(x, axis=axis, keepdims=True, where=mask, initial=-jnp.inf)
    lowest = jnp.min(x, axis=axis, keepdims=True, where=mask, initial=jnp.inf)
    return jnp.where(mask & (highest > lowest), x - mean, 0)


def _all_true(rewards: Array, mask: Array | None) -> Array:
    return jnp.ones(rewards.shape, bool) if mask is None else mask


def _check_groups(rewards: Array, mask: Array) -> None:
    check_shapes(rewards=(rewards, "P G"), mask=(mask, "P G"))
    if rewards.shape[1] < 2:
        raise ValueError(
            f"a group of {rewards.shape[1]} completion has nothing to be compared with; set group_size to 2 "
            "or more"
        )
