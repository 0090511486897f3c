"""The critic's head: a two-layer perceptron from a hidden state to the value of the state it has read.

    value = out(gelu(hidden(x)))        parameters {"hidden": {kernel [D, D], bias [D]}, "out": {kernel [D,
                                        1], bias [1]}}

Axes: B rows, T tokens, D width.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes
from jaxrl.ops.segments import segment_starts, shift_right
from jaxrl.types import Tree


def init_value_head(key: Array, d_model: int) -> Tree:
    """Fresh parameters, float32.

    The last layer is zero: a critic that knows nothing says 0 for every state.
    """
    kernel = d_model**-0.5 * jax.random.normal(key, (d_model, d_model))
    return {
        "hidden": {"kernel": kernel, "bias": jnp.zeros(d_model)},
        "out": {"kernel": jnp.zeros((d_model, 1)), "bias": jnp.zeros(1)},
    }


def value_head(params: Tree, hidden: Array) -> Array:
    """Values [B, T] float32 of the states after each token, from hidden [B, T, D], which has read it."""
    check_shapes(hidden=(hidden, "B T D"), kernel=(params["hidden"]["kernel"], "D D"))
    x = hidden.astype(jnp.float32)
    x = jax.nn.gelu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return (x @ params["out"]["kernel"] + params["out"]["bias"])[..., 0]


def state_values(values_after: Array, segment_ids: Array) -> Array:
    """[B, T]: the value of the state before each token, from those after each; 0 at the start of a
    segment.
    """
    return jnp.where(segment_starts(segment_ids), 0.0, shift_right(values_after))
