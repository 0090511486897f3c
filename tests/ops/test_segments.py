import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.segments import segment_ends, segment_starts, segment_sum, shift_right

IDS = np.array([[1, 1, 1, 2, 3, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0, 0]], np.int32)


def test_starts_and_ends_by_hand():
    starts = [[1, 0, 0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0]]
    ends = [[0, 0, 1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1]]
    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_array_equal(wrap(segment_starts)(IDS), np.array(starts, bool))
        np.testing.assert_array_equal(wrap(segment_ends)(IDS), np.array(ends, bool))


def test_shift_right_by_hand_for_numbers_flags_and_vectors():
    assert shift_right(np.array([[5, 6, 7], [8, 9, 10]])).tolist() == [[0, 5, 6], [0, 8, 9]]
    assert shift_right(np.array([[True, True, False]])).tolist() == [[False, True, True]]
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    shifted = jax.jit(shift_right)(x)
    assert not shifted[:, 0].any()
    np.testing.assert_array_equal(shifted[:, 1:], x[:, :-1])


def test_sum_by_hand_is_of_each_row_by_itself():
    x = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 1, 1, 1, 1, 1, 9], [1, 0, 0, 0, 0, 0, 0, 1]], np.float32)
    expected = [[6, 6, 6, 4, 11, 11, 15, 15], [7, 7, 7, 7, 7, 7, 7, 9], [2, 2, 2, 2, 2, 2, 2, 2]]
    for f in (segment_sum, jax.jit(segment_sum)):
        np.testing.assert_array_equal(f(x, IDS), expected)
    assert segment_sum(x.astype(np.int32), IDS).dtype == jnp.int32
    each_token_alone = np.arange(1, 9, dtype=np.int32)[None]  # the largest id that there can be is T
    np.testing.assert_array_equal(segment_sum(x[:1], each_token_alone), x[:1])


def test_sum_is_that_of_a_loop_in_float64():
    rng = np.random.default_rng(1)
    ids = np.sort(rng.integers(0, 6, size=(5, 24)), axis=1)
    x = rng.normal(size=ids.shape)
    loop = [[sum(x[b, s] for s in range(24) if ids[b, s] == ids[b, t]) for t in range(24)] for b in range(5)]
    with jax.enable_x64(True):
        summed = jax.jit(segment_sum)(x, ids)
        assert summed.dtype == jnp.float64
        np.testing.assert_allclose(summed, loop, rtol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="segment_ids has shape"):
        segment_sum(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.int32))
