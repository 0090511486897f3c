import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.low_rank import low_rank
from tests.tiny import max_difference

B, T, I, O, R = 2, 40, 24, 32, 4  # noqa: E741


def arrays(dtype="float32"):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in ((B, T, I), (I, R), (R, O))]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_it_is_what_autodiff_makes_of_two_products(dtype, tolerance):
    weights = np.random.default_rng(1).normal(size=(B, T, O))

    def of(function):
        loss = lambda x, a, b: jnp.sum(weights * function(x, a, b).astype(jnp.float32))
        return [function(*arrays(dtype)), *jax.grad(loss, (0, 1, 2))(*arrays(dtype))]

    plain = of(lambda x, a, b: 1.7 * ((x @ a) @ b))
    for expected, got in zip(plain, of(lambda x, a, b: low_rank(x, a, b, 1.7)), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert max_difference(got.astype(jnp.float32), expected.astype(jnp.float32)) < tolerance * float(
            jnp.abs(expected).max()
        )


def test_no_array_as_wide_as_the_layer_is_transposed():
    """What autodiff would do, and what a third of an update on CPU went into: [O, tokens] beside
    [tokens, O].
    """
    transposed = re.compile(rf"f32\[{O},({B * T}|{B},{T})\]")

    def program(function):
        loss = lambda x, a, b, weights: jnp.sum(weights * jnp.sin(function(x, a, b)))
        return jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays(), jnp.ones((B, T, O))).compile().as_text()

    assert transposed.search(program(lambda x, a, b: 1.7 * ((x @ a) @ b))), (
        "the pattern finds it in plain code"
    )
    assert not transposed.search(program(lambda x, a, b: low_rank(x, a, b, 1.7)))
