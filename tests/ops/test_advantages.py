import jax
import numpy as np
import pytest

from jaxrl.ops.advantages import group_normalize


@pytest.mark.parametrize("jit", [False, True])
def test_hand_table(jit):
    f = jax.jit(group_normalize) if jit else group_normalize
    rewards = np.array([[1.0, 0.0], [3.0, 1.0], [5.0, 5.0]], np.float32)
    half = 0.5 / (0.5 * 2**0.5)  # the sample deviation of two numbers is half their distance times sqrt 2
    expected = [[half, -half], [half, -half], [0.0, 0.0]]
    np.testing.assert_allclose(f(rewards), expected, atol=1e-5)


def test_shift_and_scale_of_rewards_change_nothing():
    rewards = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    np.testing.assert_allclose(group_normalize(3 * rewards + 7), group_normalize(rewards), atol=1e-4)
    np.testing.assert_allclose(group_normalize(-rewards), -group_normalize(rewards), atol=1e-6)


def test_flat_group_gets_exact_zeros_whatever_the_number():
    for reward in (0.1, -2.0, 1e-8, 3e7):
        assert not np.any(group_normalize(np.full((2, 7), reward, np.float32)))


def test_group_of_one_is_refused():
    with pytest.raises(ValueError, match="group_size"):
        group_normalize(np.ones((3, 1), np.float32))
