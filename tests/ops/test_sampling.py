import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.ops.sampling import keep_top_k, keep_top_p, sample_tokens

LOGITS = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))


def test_top_k_and_top_p_by_hand():
    kept = lambda x: np.isfinite(np.asarray(x))[0].tolist()  # noqa: E731
    assert kept(keep_top_k(LOGITS, 2)) == [True, True, False, False]
    assert kept(keep_top_k(LOGITS, 0)) == kept(keep_top_k(LOGITS, 9)) == [True] * 4
    assert kept(keep_top_p(LOGITS, 0.4)) == [True, False, False, False]  # the likeliest always stays
    assert kept(keep_top_p(LOGITS, 0.6)) == [True, True, False, False]
    assert kept(keep_top_p(LOGITS, 0.76)) == [True, True, True, False]
    assert kept(keep_top_p(LOGITS, 1.0)) == [True] * 4


def draw(count, temperature, top_k=0, top_p=1.0):
    keys = jax.random.split(jax.random.key(0), count)
    return sample_tokens(jnp.repeat(LOGITS, count, axis=0), keys, temperature, top_k, top_p)


def test_frequencies_are_the_probabilities():
    tokens, logprobs = draw(20_000, 0.5)
    p = np.array([0.5, 0.25, 0.15, 0.1]) ** 2
    p /= p.sum()
    frequencies = np.bincount(tokens, minlength=4) / 20_000
    np.testing.assert_allclose(frequencies, p, atol=0.015)  # four standard errors
    np.testing.assert_allclose(logprobs, np.log(p)[np.asarray(tokens)], rtol=1e-5)


def test_filtered_draws_stay_inside_and_keep_the_unfiltered_logprob():
    tokens, logprobs = draw(2_000, 1.0, top_k=2)
    assert set(np.asarray(tokens).tolist()) == {0, 1}
    np.testing.assert_allclose(logprobs, LOGITS[0][np.asarray(tokens)], rtol=1e-5)


def test_greedy_takes_the_likeliest_and_tells_its_logprob_at_temperature_one():
    tokens, logprobs = draw(3, 0.0)
    assert tokens.tolist() == [0, 0, 0]
    np.testing.assert_allclose(logprobs, np.log(0.5), rtol=1e-6)


def test_a_rows_draw_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 50)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), 8)
    together, _ = sample_tokens(logits, keys, 1.0, 0, 0.9)
    alone = [int(sample_tokens(logits[i : i + 1], keys[i : i + 1], 1.0, 0, 0.9)[0][0]) for i in range(8)]
    assert together.tolist() == alone
