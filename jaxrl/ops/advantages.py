"""Advantages: what a completion's reward is worth beside the others. Axes: P problems, G completions of one problem."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def group_normalize(rewards: Array, eps: float = 1e-6) -> Array:
    """Advantages of one group of completions: centred and scaled rewards.

        A_i = (r_i - mean(r)) / (std(r) + eps),   std with the divisor G - 1

    A group whose rewards are all equal gets exact zeros.

    Args:
      rewards: [P, G] float32, one row per problem.
      eps: added to the standard deviation (reward units).
    Returns:
      [P, G] float32, zero mean along G.
    Raises:
      ValueError: if G < 2.
    Source: Shao et al. 2024 (DeepSeekMath), section 4.1.2. The paper writes std(r) without saying which; TRL, verl and
      Tunix take the sample one (divisor G - 1), and so do we.
    """
    check_shapes(rewards=(rewards, "P G"))
    if rewards.shape[1] < 2:
        raise ValueError(f"a group of {rewards.shape[1]} completion has no spread to normalise by; set group_size to 2 or more")
    centred = rewards - jnp.mean(rewards, axis=1, keepdims=True)
    std = jnp.std(rewards, axis=1, keepdims=True, ddof=1)
    # The mean of equal float32 numbers can miss them by an ulp, which the division by eps would blow up: ask directly.
    is_flat = jnp.max(rewards, axis=1, keepdims=True) == jnp.min(rewards, axis=1, keepdims=True)
    return jnp.where(is_flat, 0.0, centred / (std + eps))


ADVANTAGES: dict[str, Callable[[Array], Array]] = {"grpo": group_normalize}
