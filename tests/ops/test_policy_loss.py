"""Ratio, clips, weights: by hand, in float64, jitted and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.policy_loss import (
    cispo,
    clipped_surrogate,
    importance_ratio,
    is_clipped_high,
    is_clipped_low,
    loss_weights,
    sampler_weights,
)

# Both signs of the advantage; below, inside and above the range 0.8 .. 1.3.
RATIO = np.array([[0.5, 1.0, 2.0, 0.5, 1.0, 2.0]])
ADVANTAGES = np.array([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]])
MASK = np.array([[True, True, False, True], [False, True, True, True]])
SEGMENTS = np.array([[1, 1, 2, 2], [1, 1, 1, 2]])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    "dual_clip, loss, gradient",
    [
        (None, [[-0.5, -1.0, -1.3, 0.8, 1.0, 2.0]], [[-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]]),
        (1.5, [[-0.5, -1.0, -1.3, 0.8, 1.0, 1.5]], [[-1.0, -1.0, 0.0, 0.0, 1.0, 0.0]]),
    ],
)
def test_clip_hand_table_and_its_gradient(dual_clip, loss, gradient):
    f = lambda ratio: clipped_surrogate(ratio, ADVANTAGES, 0.2, 0.3, dual_clip)
    np.testing.assert_allclose(f(RATIO), loss, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(f)(RATIO), loss, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda r: jnp.sum(f(r)))(RATIO), gradient, atol=1e-12)


def test_where_the_clip_is_in_force():
    assert is_clipped_high(RATIO, ADVANTAGES, 0.3).tolist() == [[False, False, True, False, False, False]]
    assert is_clipped_low(RATIO, ADVANTAGES, 0.2).tolist() == [[False, False, False, True, False, False]]
    # a token that is worth nothing has no gradient that a clip could take
    nothing = np.zeros_like(ADVANTAGES)
    assert not np.any(is_clipped_high(RATIO, nothing, 0.3)) and not np.any(
        is_clipped_low(RATIO, nothing, 0.2)
    )


def test_cispo_keeps_every_tokens_gradient_and_caps_its_weight():
    logprobs = np.log(RATIO) - 3.0  # old logprobs of -3
    f = lambda x: cispo(x, jnp.exp(x + 3.0), ADVANTAGES, 0.2, 0.3)
    weights = np.array([[0.8, 1.0, 1.3, 0.8, 1.0, 1.3]])
    np.testing.assert_allclose(f(logprobs), -weights * ADVANTAGES * logprobs, rtol=1e-12)
    for grad in (jax.grad(lambda x: jnp.sum(f(x))), jax.jit(jax.grad(lambda x: jnp.sum(f(x))))):
        np.testing.assert_allclose(grad(logprobs), -weights * ADVANTAGES, rtol=1e-12)
    # TRL's cap 5: out of reach
    np.testing.assert_allclose(cispo(logprobs, RATIO, ADVANTAGES, 1.0, 4.0), -RATIO * ADVANTAGES * logprobs)


def test_ratio_of_tokens_and_of_sequences():
    old = np.full((2, 4), -2.0)
    new = old + np.array([[0.1, 0.3, 9.0, -0.4], [9.0, 0.2, 0.4, 0.0]])
    token = np.exp([[0.1, 0.3, 0.0, -0.4], [0.0, 0.2, 0.4, 0.0]])  # 1 outside the mask
    sequence = np.exp([[0.2, 0.2, 0.0, -0.4], [0.0, 0.3, 0.3, 0.0]])
    for level, expected in (("token", token), ("sequence", sequence)):
        for f in (importance_ratio, jax.jit(importance_ratio, static_argnames="level")):
            np.testing.assert_allclose(f(new, old, MASK, SEGMENTS, level=level), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="token, sequence"):
        importance_ratio(new, old, MASK, SEGMENTS, "word")


def test_ratio_is_one_on_policy_and_its_gradient_is_the_score():
    logprobs = np.array([[-1.0, -2.0, -3.0, -4.0], [-0.1, -0.2, -0.3, -0.4]])
    for level, per_token in (("token", MASK * 1.0), ("sequence", [[0.5, 0.5, 0, 1], [0, 0.5, 0.5, 1]])):
        f = lambda x, level=level: importance_ratio(x, logprobs, MASK, SEGMENTS, level)
        assert np.all(f(logprobs) == 1)
        # The ratio of a sequence is written on each of its tokens: the mean over them has the mean of the
        # scores.
        mean = lambda x: jnp.sum(f(x) * loss_weights(MASK[None], SEGMENTS[None], "sequence_mean")[0]) * 4
        if level == "sequence":
            np.testing.assert_allclose(jax.grad(mean)(logprobs), per_token, rtol=1e-6)
        else:
            np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(f(x)))(logprobs), per_token)


def test_a_ratio_that_would_overflow_is_held_and_its_gradient_is_a_number():
    far = np.array([[1e4]])
    f = lambda x: jnp.sum(
        clipped_surrogate(importance_ratio(x, np.zeros((1, 1)), far > 0, far > 0), np.ones((1, 1)), 0.2, 0.2)
    )
    assert f(far) == -1.2 and jax.grad(f)(far) == 0


def test_sampler_weights_by_hand():
    gap = np.log([[0.5, 4.0, 7.0, 3.0], [9.0, 1.0, 1.5, 0.1]])
    inside = np.exp(np.where(MASK, gap, 0))
    of_sequence = [[2.0, 2.0, 1.0, 3.0], [1.0, 1.5, 1.5, 0.1]]
    expected = {
        ("token", "truncate"): np.minimum(inside, 2.0),
        ("token", "mask"): np.where(inside <= 2.0, inside, 0),
        ("sequence", "truncate"): [[2.0, 2.0, 1.0, 2.0], [1.0, 1.5, 1.5, 0.1]],
        ("sequence", "mask"): np.where(np.array(of_sequence) <= 2.0 + 1e-9, of_sequence, 0),
    }
    for (level, how), table in expected.items():
        cap = 2.0 + 1e-9 if level == "sequence" else 2.0  # 0.5 * 4 is the cap itself, give or take a rounding
        np.testing.assert_allclose(
            sampler_weights(gap, 0 * gap, MASK, SEGMENTS, level, cap, how), table, rtol=1e-8
        )
    grad = jax.grad(lambda x: jnp.sum(sampler_weights(x, 0 * gap, MASK, SEGMENTS, "token", 2.0, "truncate")))(
        gap
    )
    assert not np.any(grad)


def test_a_weight_that_equals_the_cap_is_kept():
    gap, seen = np.full((1, 1), np.log(3.0)), np.ones((1, 1), bool)
    cap = float(jnp.exp(jnp.asarray(gap))[0, 0])
    for how in ("mask", "truncate"):
        assert sampler_weights(gap, 0 * gap, seen, seen, "token", cap, how) == cap
    assert sampler_weights(gap, 0 * gap, seen, seen, "token", np.nextafter(cap, 0), "mask") == 0


def test_weights_by_hand():
    mask = np.array([[[1, 1, 0, 1]], [[1, 0, 0, 0]]], bool)
    segment_ids = np.array([[[1, 1, 2, 2]], [[1, 1, 0, 0]]])
    np.testing.assert_allclose(loss_weights(mask, segment_ids, "token_mean"), mask / 4)
    expected = np.array([[[1 / 6, 1 / 6, 0, 1 / 3]], [[1 / 3, 0, 0, 0]]])
    np.testing.assert_allclose(loss_weights(mask, segment_ids, "sequence_mean"), expected, rtol=1e-6)
    np.testing.assert_allclose(loss_weights(mask, segment_ids, "constant", max_len=10), mask / 30, rtol=1e-6)
    for how in ("token_mean", "sequence_mean", "constant"):
        assert not np.any(loss_weights(np.zeros_like(mask), segment_ids, how, max_len=10))
    with pytest.raises(ValueError, match="token_mean, sequence_mean, constant"):
        loss_weights(mask, segment_ids, "mean")
    with pytest.raises(ValueError, match="max_len"):
        loss_weights(mask, segment_ids, "constant")
