import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.kl import KL_ESTIMATORS, adapt_kl_coef, kl_k1, kl_k2, kl_k3, unbiased_kl

LOGITS = np.array([[1.0, -0.5, 0.3, 0.0]])
REF_LOGPROBS = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))


def kl(logits):
    """KL(policy || reference) of one state, by its definition."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logprobs) * (logprobs - REF_LOGPROBS))


def reverse_kl(logits):
    return jnp.sum(jnp.exp(REF_LOGPROBS) * (REF_LOGPROBS - jax.nn.log_softmax(logits)))


def expected(estimate, logits):
    """The mean of an estimate over every token the policy may sample; the gradient does not see who samples,
    as in training.
    """
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logprobs)) * estimate(logprobs, REF_LOGPROBS))


def test_hand_table():
    """d = 0, 1, -1."""
    logprobs, ref_logprobs = (
        np.array([[-1.0, -1.0, -2.0]], np.float32),
        np.array([[-1.0, -2.0, -1.0]], np.float32),
    )
    table = {"k1": [[0, 1, -1]], "k2": [[0, 0.5, 0.5]], "k3": [[0, 1 / np.e, np.e - 2]]}
    assert table.keys() == KL_ESTIMATORS.keys()
    for name, row in table.items():
        for f in (KL_ESTIMATORS[name], jax.jit(KL_ESTIMATORS[name])):
            np.testing.assert_allclose(f(logprobs, ref_logprobs), row, rtol=1e-6)


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_like_the_loop_in_float64(name):
    logprobs, ref_logprobs = -np.random.default_rng(0).exponential(size=(2, 3, 20))
    formula = {"k1": lambda d: d, "k2": lambda d: d * d / 2, "k3": lambda d: np.exp(-d) + d - 1}[name]
    loop = [[formula(p - q) for p, q in zip(*pair)] for pair in zip(logprobs, ref_logprobs)]
    with jax.enable_x64(True):
        found = KL_ESTIMATORS[name](logprobs, ref_logprobs)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, loop, rtol=1e-12, atol=1e-15)
        assert name == "k1" or (found >= 0).all()


def test_k3_is_never_negative_in_float32_however_close_the_two_are():
    rng = np.random.default_rng(0)
    logprobs = -rng.exponential(size=(10, 1000)).astype(np.float32)
    for spread in (1e-7, 1e-4, 1e-2, 1.0, 10.0):
        assert (
            kl_k3(logprobs, logprobs + spread * rng.normal(size=logprobs.shape).astype(np.float32)) >= 0
        ).all()


def test_k1_and_k3_are_unbiased_in_value_and_k2_is_not():
    with jax.enable_x64(True):
        np.testing.assert_allclose(expected(kl_k1, LOGITS), kl(LOGITS), rtol=1e-12)
        np.testing.assert_allclose(expected(kl_k3, LOGITS), kl(LOGITS), rtol=1e-12)
        assert abs(expected(kl_k2, LOGITS) / kl(LOGITS) - 1) > 0.1


def test_in_a_loss_k1_pushes_nowhere_k2_down_the_kl_and_k3_down_the_other_kl():
    with jax.enable_x64(True):
        gradient = {name: jax.grad(lambda x: expected(f, x))(LOGITS) for name, f in KL_ESTIMATORS.items()}
        true, reverse = jax.grad(kl)(LOGITS), jax.grad(reverse_kl)(LOGITS)
    np.testing.assert_allclose(gradient["k1"], np.zeros_like(LOGITS), atol=1e-12)
    np.testing.assert_allclose(gradient["k2"], true, rtol=1e-12)
    np.testing.assert_allclose(gradient["k3"], reverse, rtol=1e-12)
    assert np.abs(true - reverse).max() > 0.05


def test_times_the_ratio_k1_and_k3_have_the_kl_s_value_and_gradient_whoever_sampled():
    """By enumeration of a vocabulary: the mean over what a policy sampled that has since moved, and over what
    it samples itself.
    """
    with jax.enable_x64(True):
        for sampler in (jax.nn.log_softmax(LOGITS), np.log(np.array([[0.4, 0.1, 0.2, 0.3]]))):

            def mean(estimate, is_unbiased, logits):
                logprobs = jax.nn.log_softmax(logits)
                value = estimate(logprobs, REF_LOGPROBS)
                return jnp.sum(
                    jnp.exp(sampler)
                    * (unbiased_kl(value, jnp.exp(logprobs - sampler)) if is_unbiased else value)
                )

            for estimate in (kl_k1, kl_k3):
                value, gradient = jax.value_and_grad(lambda x: mean(estimate, True, x))(LOGITS)
                np.testing.assert_allclose(value, kl(LOGITS), rtol=1e-12)
                np.testing.assert_allclose(gradient, jax.grad(kl)(LOGITS), rtol=1e-9, atol=1e-15)
                plain = jax.grad(lambda x: mean(estimate, False, x))(LOGITS)
                assert np.abs(plain - jax.grad(kl)(LOGITS)).max() > 0.05
            assert abs(mean(kl_k2, True, LOGITS) / kl(LOGITS) - 1) > 0.1


def test_k1_in_the_reward_pushes_down_the_kl():
    """The score function weighted by k1 itself, where no gradient passes through the weight."""
    with jax.enable_x64(True):
        weighted = jax.grad(lambda x: expected(lambda p, q: jax.lax.stop_gradient(kl_k1(p, q)) * p, x))(
            LOGITS
        )
        np.testing.assert_allclose(weighted, jax.grad(kl)(LOGITS), rtol=1e-12)


@pytest.mark.parametrize(
    "kl, factor",
    [(6.0, 1.0), (6.6, 1.01), (12.0, 1.02), (600.0, 1.02), (5.4, 0.99), (0.0, 0.98), (-1.0, 0.98)],
)
def test_controller_by_hand(kl, factor):
    """Target 6, 64 sequences of a horizon of 640: a tenth of the error, which counts up to a fifth, is what
    the coefficient moves by.
    """
    found = adapt_kl_coef(0.5, kl, 6.0, 640.0, 64)
    assert type(found) is float and found == pytest.approx(0.5 * factor, rel=1e-12)
