import numpy as np

from jaxrl.ops.attention import attention, decode_attention, segment_mask

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


def test_decoding_the_last_token_is_the_last_row_of_the_whole():
    q, k, v = arrays()
    whole = attention(q, k, v, np.tril(np.ones((B, T, T), bool)))[:, -1]
    one = decode_attention(q[:, -1], k.swapaxes(1, 2), v.swapaxes(1, 2), np.ones((B, T), bool))
    np.testing.assert_allclose(one, whole, rtol=1e-6, atol=1e-6)


def test_segments_do_not_see_each_other():
    mask = np.asarray(segment_mask(np.array([[1, 1, 2, 2]])))[0]
    assert mask.tolist() == [[True, False, False, False], [True, True, False, False], [False, False, True, False], [False, False, True, True]]
