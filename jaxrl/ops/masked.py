"""Sums, means and extremes over the places where a mask is true."""

import jax.numpy as jnp
from jax import Array


def masked_sum(x: Array, mask: Array) -> Array:
    """sum of x over mask; what stands outside the mask (NaN too) has no part in it."""
    return jnp.sum(x, where=mask, dtype=jnp.float32)


def masked_max(x: Array, mask: Array) -> Array:
    """max of x over mask; -inf where the mask is empty."""
    return jnp.max(x, where=mask, initial=-jnp.inf)
