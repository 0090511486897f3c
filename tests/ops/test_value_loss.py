import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.ops.value_loss import clipped_value_loss, explained_variance, is_value_clipped

# inside; left it past R; left it towards R, twice; left it away from R
VALUES = np.array([[0.25, 2.0, 1.0, -1.0, -1.0]], np.float32)
RETURNS = np.array([[1.25, 1.0, 2.0, -3.0, 3.0]], np.float32)
OLD = np.zeros_like(VALUES)


def rows(seed):
    return np.random.default_rng(seed).normal(size=(3, 4, 50))


def test_clip_hand_table_and_its_gradient():
    """The range is -0.5 .. 0.5. Errors of the value 1, 1, 1, 2, 4; of the held value 1, 0.5, 1.5, 2.5,
    3.5.
    """
    for f in (clipped_value_loss, jax.jit(clipped_value_loss)):
        np.testing.assert_allclose(f(VALUES, OLD, RETURNS, 0.5), [[0.5, 0.5, 1.125, 3.125, 8.0]], rtol=1e-6)
    grad = jax.grad(lambda v: jnp.sum(clipped_value_loss(v, OLD, RETURNS, 0.5)))(VALUES)
    np.testing.assert_allclose(grad, [[-1.0, 1.0, 0.0, 0.0, -4.0]], rtol=1e-6)
    assert is_value_clipped(VALUES, OLD, RETURNS, 0.5).tolist() == [[False, False, True, True, False]]


def test_without_a_clip_it_is_half_the_squared_error():
    np.testing.assert_allclose(
        clipped_value_loss(VALUES, OLD, RETURNS, None), [[0.5, 0.5, 0.5, 2.0, 8.0]], rtol=1e-6
    )
    grad = jax.grad(lambda v: jnp.sum(clipped_value_loss(v, OLD, RETURNS, None)))(VALUES)
    np.testing.assert_allclose(grad, VALUES - RETURNS, rtol=1e-6)
    assert not np.any(is_value_clipped(VALUES, OLD, RETURNS, None))


def test_like_the_loop_and_without_gradient_exactly_where_it_says():
    values, old_values, returns = rows(0)
    expected = np.empty_like(values)
    for at, (v, old, r) in enumerate(zip(values.flat, old_values.flat, returns.flat)):
        held = min(max(v, old - 0.3), old + 0.3)
        expected.flat[at] = 0.5 * max((v - r) ** 2, (held - r) ** 2)
    with jax.enable_x64(True):
        for f in (clipped_value_loss, jax.jit(clipped_value_loss)):
            loss = f(values, old_values, returns, 0.3)
            assert loss.dtype == jnp.float64
            np.testing.assert_allclose(loss, expected, rtol=1e-12)
        grad = jax.grad(lambda v: jnp.sum(clipped_value_loss(v, old_values, returns, 0.3)))(values)
        clipped = is_value_clipped(values, old_values, returns, 0.3)
        assert 0 < clipped.sum() < clipped.size
        np.testing.assert_allclose(grad, np.where(clipped, 0.0, values - returns), rtol=1e-12)


def test_explained_variance_by_hand():
    """R = 1, 3 (variance 1), V = 1, 2: errors 0, 1 (variance 1/4). What stands outside the mask is not
    read.
    """
    returns, values = np.array([[1.0, np.nan, 3.0]], np.float32), np.array([[1.0, 5.0, 2.0]], np.float32)
    mask = np.array([[True, False, True]])
    for f in (explained_variance, jax.jit(explained_variance)):
        assert f(values, returns, mask) == 0.75
        assert f(returns + 7, returns, mask) == 1.0  # a constant is not seen
        assert f(np.full_like(values, 9), returns, mask) == 0.0
        assert f(-values, returns, mask) == -1.25  # errors 2, 5


def test_explained_variance_is_zero_where_there_is_nothing_to_explain():
    values = rows(1)[0].astype(np.float32)
    for reward in (0.0, 0.1, 1 / 3, 3e7):
        assert explained_variance(values, np.full_like(values, reward), np.ones(values.shape, bool)) == 0.0
    assert explained_variance(values, values, np.zeros(values.shape, bool)) == 0.0


def test_explained_variance_is_that_of_a_loop_over_any_leading_axes():
    values, returns, chance = rows(2)
    mask = chance > 0
    expected = 1 - (returns - values)[mask].var() / returns[mask].var()
    with jax.enable_x64(True):
        for shape in ((4, 50), (2, 2, 50)):
            found = explained_variance(*(x.reshape(shape) for x in (values, returns, mask)))
            assert found.dtype == jnp.float64 and found.shape == ()
            np.testing.assert_allclose(found, expected, rtol=1e-12)
