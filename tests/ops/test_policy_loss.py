import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.policy_loss import clipped_surrogate, importance_ratio, is_clipped, kl_k3, loss_weights


def test_clip_hand_table_and_its_gradient():
    """Both signs of the advantage, below, inside and above the range 0.8 .. 1.3."""
    ratio = np.array([[0.5, 1.0, 2.0, 0.5, 1.0, 2.0]], np.float32)
    advantage = np.array([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]], np.float32)
    loss = [[-0.5, -1.0, -1.3, 0.8, 1.0, 2.0]]
    gradient = [[-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]]
    for f in (clipped_surrogate, jax.jit(clipped_surrogate)):
        np.testing.assert_allclose(f(ratio, advantage, 0.2, 0.3), loss, rtol=1e-6)
    grad = jax.grad(lambda r: jnp.sum(clipped_surrogate(r, advantage, 0.2, 0.3)))(ratio)
    np.testing.assert_allclose(grad, gradient, atol=1e-6)
    assert is_clipped(ratio, advantage, 0.2, 0.3).tolist() == [[False, False, True, True, False, False]]


def test_ratio_is_one_on_policy_and_its_gradient_is_the_score():
    logprobs = np.array([[-1.0, -2.0]], np.float32)
    assert importance_ratio(logprobs, logprobs).tolist() == [[1.0, 1.0]]
    grad = jax.grad(lambda x: jnp.sum(importance_ratio(x, logprobs)))(logprobs)
    np.testing.assert_allclose(grad, [[1.0, 1.0]])


def test_k3_hand_values_and_expectation():
    same = np.array([[-1.0]], np.float32)
    assert kl_k3(same, same)[0, 0] == 0
    np.testing.assert_allclose(kl_k3(same, same + 1), [[np.e - 2]], rtol=1e-6)
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    k3 = np.asarray(kl_k3(np.log(p)[None].astype(np.float32), np.log(q)[None].astype(np.float32)))[0]
    assert (k3 >= 0).all()
    np.testing.assert_allclose((p * k3).sum(), (p * np.log(p / q)).sum(), rtol=1e-5)


def test_weights_by_hand():
    mask = np.array([[[1, 1, 0, 1]], [[1, 0, 0, 0]]], bool)
    segment_ids = np.array([[[1, 1, 2, 2]], [[1, 1, 0, 0]]])
    np.testing.assert_allclose(loss_weights(mask, segment_ids, "token_mean"), mask / 4)
    expected = np.array([[[1 / 6, 1 / 6, 0, 1 / 3]], [[1 / 3, 0, 0, 0]]])
    np.testing.assert_allclose(loss_weights(mask, segment_ids, "sequence_mean"), expected, rtol=1e-6)
    assert not np.any(loss_weights(np.zeros_like(mask), segment_ids, "token_mean"))
    with pytest.raises(ValueError, match="token_mean, sequence_mean"):
        loss_weights(mask, segment_ids, "mean")
