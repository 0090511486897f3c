"""The critic's head: what it says, where it is read, that it knows nothing at first."""

import jax
import numpy as np

from jaxrl.model.value_head import init_value_head, state_values, value_head
from tests.tiny import noisy


def test_a_fresh_critic_says_zero_and_learns_at_once():
    params = init_value_head(jax.random.key(0), 8)
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 8))
    assert not np.any(value_head(params, hidden))
    grads = jax.grad(lambda p: value_head(p, hidden).sum())(params)
    assert np.any(grads["out"]["kernel"]) and np.any(grads["out"]["bias"])
    assert params["out"]["kernel"].shape == (8, 1) and params["out"]["bias"].shape == (1,)


def test_against_numpy():
    params = noisy(init_value_head(jax.random.key(0), 8), 2, size=0.5)
    hidden = np.asarray(jax.random.normal(jax.random.key(1), (2, 3, 8)))
    x = hidden @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    x = 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))  # the tanh form of GELU
    np.testing.assert_allclose(
        value_head(params, hidden),
        (x @ params["out"]["kernel"] + params["out"]["bias"])[..., 0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_values_before_a_token_are_those_after_the_one_before_it():
    after = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert state_values(after, np.array([[1, 1, 2, 2, 0]])).tolist() == [[0, 1, 0, 3, 0]]
