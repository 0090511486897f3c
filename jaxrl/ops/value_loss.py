"""The critic's loss and how well it predicts. Axes: B rows, T tokens."""

import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def clipped_value_loss(values: Array, old_values: Array, returns: Array, value_clip: float | None) -> Array:
    """The squared error of each token's value, to be minimised; going far from the old one is not rewarded.

        L = 0.5 * max((V - R)^2, (clip(V, V_old - value_clip, V_old + value_clip) - R)^2)

    Args:
      values: [B, T] float32, V, which carry the gradient.
      old_values: [B, T] float32, V_old, the critic's values when the batch was collected.
      returns: [B, T] float32, R.
      value_clip: how far a value may move from the old one and still earn gradient (units of the return);
        None: any distance, L = 0.5 * (V - R)^2.
    Returns:
      [B, T] float32.
    Source: Engstrom et al. 2020 (Implementation matters in deep policy gradients), value function clipping:
      it is in the code of Schulman et al. 2017 (PPO), not in the paper.
    """
    check_shapes(values=(values, "B T"), old_values=(old_values, "B T"), returns=(returns, "B T"))
    clipped = _clip_to_old(values, old_values, value_clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def is_value_clipped(values: Array, old_values: Array, returns: Array, value_clip: float | None) -> Array:
    """[B, T] bool: where the clip has taken the gradient away (the value has left the range, and the held one
    errs more).
    """
    check_shapes(values=(values, "B T"), old_values=(old_values, "B T"), returns=(returns, "B T"))
    # Inside the range both errors are the same number, so that the held one is larger only where the clip
    # holds it.
    return (_clip_to_old(values, old_values, value_clip) - returns) ** 2 > (values - returns) ** 2


def explained_variance(values: Array, returns: Array, mask: Array) -> Array:
    """The share of the returns' variance that the values predict.

        1 - Var(R - V) / Var(R)

    1 is a perfect critic up to a constant, which the variance does not see; 0 is no better than one number
    for all states; below 0 is worse than that.

    Args:
      values, returns: [..., B, T] float32.
      mask: [..., B, T] bool, the tokens that count.
    Returns:
      [] float32. 0 where the returns are all equal or none counts: there is nothing to explain, and a NaN
      would spoil every mean that is taken of it.
    """
    check_shapes(values=(values, "... B T"), returns=(returns, "... B T"), mask=(mask, "... B T"))
    # Rounding gives equal numbers a variance above 0, as their mean can miss them by an ulp: ask directly.
    has_spread = jnp.max(returns, where=mask, initial=-jnp.inf) > jnp.min(
        returns, where=mask, initial=jnp.inf
    )
    return jnp.where(
        has_spread, 1.0 - jnp.var(returns - values, where=mask) / jnp.var(returns, where=mask), 0.0
    )


def _clip_to_old(values: Array, old_values: Array, value_clip: float | None) -> Array:
    return (
        values if value_clip is None else jnp.clip(values, old_values - value_clip, old_values + value_clip)
    )
