import jax.numpy as jnp
import numpy as np

from jaxrl.ops.cached_attention import cached_attention
from tests.ops.plain_attention import attention, segment_mask

B, T, N, K, H = 2, 7, 4, 2, 8


def arrays():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, K, K)]


def test_agrees_with_a_loop_over_queries():
    q, k, v = arrays()
    mask = np.asarray(segment_mask(np.array([[1] * 7, [1, 1, 1, 2, 2, 2, 2]])))
    out = attention(q, k, v, mask)
    for b in range(B):
        for t in range(T):
            for n in range(N):
                seen = mask[b, t]
                scores = k[b, seen, n // 2] @ q[b, t, n] / H**0.5
                p = np.exp(scores - scores.max())
                expected = (p / p.sum()) @ v[b, seen, n // 2]
                np.testing.assert_allclose(out[b, t, n], expected, rtol=1e-5, atol=1e-5)


def test_the_newest_tokens_over_a_cache_are_the_last_rows_of_the_whole():
    q, k, v = arrays()
    causal = np.tril(np.ones((B, T, T), bool))
    whole = attention(q, k, v, causal)
    for new in (1, 3):
        newest = cached_attention(
            q[:, -new:], k.swapaxes(1, 2), v.swapaxes(1, 2), None, None, causal[:, -new:]
        )
        np.testing.assert_allclose(newest, whole[:, -new:], rtol=1e-6, atol=1e-6)


def test_a_query_that_sees_nothing_gets_a_number():
    """Padding: whatever it gets is thrown away, but it must not be NaN, which would spread."""
    q, k, v = arrays()
    mask = np.tril(np.ones((B, T, T), bool))
    mask[0, 3] = False
    out = np.asarray(cached_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), None, None, mask))
    assert np.isfinite(out).all()
    whole = np.asarray(
        cached_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), None, None, np.tril(np.ones((B, T, T), bool)))
    )
    others = np.arange(T) != 3
    np.testing.assert_array_equal(out[:, others], whole[:, others])


def test_scores_are_added_up_in_float32_whatever_the_arrays_are():
    """bfloat16 has 8 bits: a score near 30 would be off by up to 1/8, and its weight by 13 %."""
    q, k, v = (x.astype(jnp.bfloat16) for x in arrays())
    q = q * jnp.bfloat16(8)
    mask = np.tril(np.ones((B, T, T), bool))
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    found = cached_attention(q, k, v, None, None, mask)
    exact = cached_attention(*(x.astype(np.float32) for x in (q, k, v)), None, None, mask)
    assert found.dtype == jnp.bfloat16
    assert np.abs(np.asarray(found, np.float32) - np.asarray(exact)).max() < 0.02


def test_an_int8_cache_is_what_its_scales_make_of_it():
    q, _, _ = arrays()
    mask = np.tril(np.ones((B, T, T), bool))
    rng = np.random.default_rng(1)
    k8, v8 = (rng.integers(-127, 128, (B, K, T, H)).astype(np.int8) for _ in range(2))
    k_scale, v_scale = (rng.uniform(0.01, 0.02, (B, K, T)).astype(np.float32) for _ in range(2))
    plain = cached_attention(q, k8 * k_scale[..., None], v8 * v_scale[..., None], None, None, mask)
    np.testing.assert_allclose(
        cached_attention(q, k8, v8, k_scale, v_scale, mask), plain, rtol=1e-4, atol=1e-5
    )


def test_segments_do_not_see_each_other():
    mask = np.asarray(segment_mask(np.array([[1, 1, 2, 2]])))[0]
    assert mask.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
