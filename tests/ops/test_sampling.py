import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops import sampling as module
from jaxrl.ops.sampling import keep_likely, sample_tokens, sample_with_sets, uniforms
from tests.ops.plain_filters import kept_ids

LOGITS = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
        ({"top_p": 0.4}, [0]),  # the likeliest always stays
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 0.76}, [0, 1, 2]),
        ({"top_k": 3, "top_p": 0.8}, [0, 1]),  # 0.5 and 0.25 of 0.9 are more than 0.8
        ({"min_p": 0.25}, [0, 1, 2]),
        ({"min_p": 0.6}, [0]),
        ({"top_p": 0.99, "min_p": 0.4}, [0, 1]),
    ],
)
def test_filters_by_hand(settings, kept):
    filters = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings
    order = np.array([2, 0, 3, 1])  # the filters look at probabilities, not at places
    alone = np.isfinite(keep_likely(LOGITS[:, order], *(np.array([v]) for v in filters.values())))[0]
    assert sorted(order[alone].tolist()) == kept
    # beside a row that asks for nothing
    two = np.isfinite(
        keep_likely(
            np.repeat(LOGITS, 2, 0),
            np.array([filters["top_k"], 0]),
            np.array([filters["top_p"], 1.0]),
            np.array([filters["min_p"], 0.0]),
        )
    )
    assert np.flatnonzero(two[0]).tolist() == kept and two[1].all()


def draw(count, temperature, top_k=0, top_p=1.0, logits=LOGITS):
    u = uniforms(jax.random.split(jax.random.key(0), count), np.zeros(count, int))
    full = lambda value: jnp.full(count, value)
    filters = (full(top_k), full(top_p), full(0.0)) if top_k or top_p < 1 else None
    return sample_tokens(jnp.repeat(logits, count, axis=0), u, full(float(temperature)), filters)


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


FILTERS = [
    (0, 1.0, 0.0),
    (4, 1.0, 0.0),
    (0, 0.8, 0.0),
    (0, 1.0, 0.1),
    (9, 0.9, 0.02),
    (1, 1.0, 0.0),
    (99, 0.5, 0.9),
]


@pytest.mark.parametrize("num_tokens", [None, 21, 17])
def test_what_is_kept_is_recorded_and_shares_the_probability(num_tokens):
    """Each row with a filter of its own, against one made row by row in float64."""
    B, V = 4 * len(FILTERS), 21
    rng = np.random.default_rng(0)
    logits, temperature = (
        2 * rng.normal(size=(B, V)).astype(np.float32),
        rng.uniform(0.5, 2, B).astype(np.float32),
    )
    top_k, top_p, min_p = (
        np.array(column * 4, dtype)
        for column, dtype in zip(zip(*FILTERS), (np.int32, np.float32, np.float32))
    )
    u = rng.random(B).astype(np.float32)
    arguments = (logits, u, temperature, (top_k, top_p, min_p), num_tokens)
    tokens, logprobs, excluded = sample_with_sets(*arguments)
    kept = np.unpackbits(excluded, axis=-1, count=V) == 0
    for b in range(B):
        scaled = logits[b].astype(np.float64) / temperature[b]
        assert (
            kept[b].tolist()
            == kept_ids(scaled, int(top_k[b]), float(top_p[b]), float(min_p[b]), num_tokens).tolist()
        )
        assert kept[b, tokens[b]]
        np.testing.assert_allclose(
            logprobs[b], scaled[tokens[b]] - np.log(np.exp(scaled[kept[b]]).sum()), atol=1e-5
        )
    same, of_the_model = sample_tokens(*arguments)
    assert same.tolist() == tokens.tolist()
    scaled = logits / temperature[:, None]
    np.testing.assert_allclose(
        of_the_model,
        np.take_along_axis(
            scaled - np.log(np.exp(scaled).sum(-1, keepdims=True)), np.array(tokens)[:, None], 1
        )[:, 0],
        atol=1e-5,
    )


def test_without_filters_nothing_is_recorded_and_ids_that_are_no_tokens_share_in_nothing():
    logits = np.tile(np.array([[1.0, 2.0, 9.0, 30.0]], np.float32), (200, 1))
    u = np.arange(200, dtype=np.float32) / 200
    for temperature in (1.0, 0.0):
        full = np.full(200, temperature, np.float32)
        tokens, logprobs, excluded = sample_with_sets(logits, u, full, num_tokens=2)
        assert excluded is None and set(tokens.tolist()) == ({0, 1} if temperature else {1})
        if temperature:
            np.testing.assert_allclose(logprobs, -np.log1p(np.exp(1 - 2 * np.asarray(tokens))), rtol=1e-5)
        np.testing.assert_allclose(
            sample_tokens(logits, u, full, num_tokens=2)[1],
            np.array([-29.0, -28.0])[np.asarray(tokens)],
            rtol=1e-5,
        )


@pytest.mark.parametrize("temperature", [1e-4, 1e-9, 1e-20, 1e-30, 1e-38, 1e-45])
def test_no_temperature_is_too_low(temperature):
    """The likeliest token, and of two equal ones either, with the logprob of a certain or an even choice."""
    logits = np.array([[-8.0, 3.0, 2.99, -1e4], [5e3, 5e3, 0.0, -7.0]], np.float32).repeat(8, axis=0)
    u, full = np.tile(np.arange(8, dtype=np.float32) / 8, 2), np.full(16, temperature, np.float32)
    for sample in (sample_tokens, sample_with_sets):
        for filters in (None, (np.full(16, 3), np.full(16, np.float32(0.99)), np.full(16, np.float32(0.01)))):
            tokens, logprobs, *_ = sample(logits, u, full, filters)
            assert tokens.tolist() == [1] * 8 + [0] * 4 + [1] * 4
            np.testing.assert_allclose(logprobs, [0.0] * 8 + [np.log(0.5)] * 8, atol=1e-6)


def test_logits_that_are_no_numbers_are_told_by_their_logprobs():
    logits = np.zeros((3, 5), np.float32)
    logits[0, 4], logits[1, 2], logits[2] = np.nan, np.inf, -np.inf
    for temperature in (1.0, 1e-9, 0.0):
        for sample in (sample_tokens, sample_with_sets):
            assert not np.isfinite(
                sample(logits, np.full(3, 0.5, np.float32), np.full(3, temperature, np.float32))[1]
            ).any()


def test_greedy_takes_the_likeliest_and_tells_its_logprob_at_temperature_one():
    tokens, logprobs = draw(3, 0.0)
    assert tokens.tolist() == [0, 0, 0]
    np.testing.assert_allclose(logprobs, np.log(0.5), rtol=1e-6)
    ties = np.array([[0.0, 2.0, 1.0, 2.0]], np.float32)
    assert draw(2, 0.0, logits=ties)[0].tolist() == [1, 1]


def test_greedy_rows_stand_beside_others():
    u = uniforms(jax.random.split(jax.random.key(0), 4000), np.zeros(4000, int))
    temperature = jnp.where(jnp.arange(4000) % 2 == 0, 0.0, 1.0)
    tokens, _ = sample_tokens(jnp.repeat(LOGITS, 4000, axis=0), u, temperature)
    assert set(np.asarray(tokens[::2]).tolist()) == {0} and set(np.asarray(tokens[1::2]).tolist()) == {
        0,
        1,
        2,
        3,
    }


@pytest.mark.parametrize("V", [3, 128, 1000])
def test_every_token_of_a_vocabulary_of_any_size_comes_as_often_as_it_should(V):
    p = np.random.default_rng(V).dirichlet(np.ones(V))
    tokens, _ = draw(40_000, 1.0, logits=np.log(p)[None].astype(np.float32))
    frequencies = np.bincount(tokens, minlength=V) / 40_000
    assert np.abs(frequencies - p).max() < 4 * np.sqrt(p.max() / 40_000)
    statistic = np.sum((frequencies - p) ** 2 / p) * 40_000  # chi-square with V - 1 degrees of freedom
    assert statistic < V + 5 * np.sqrt(2 * V)


def test_what_is_filtered_out_never_comes_whatever_the_uniform_number():
    """Also where rounding leaves the running sum below its target: the ends of [0, 1)."""
    from jaxrl.ops.sampling import draw

    weights = np.zeros((6, 300), np.float32)
    weights[:, [7, 140, 290]] = [0.1, 0.2, 0.7]
    u = np.array(
        [0.0, 0.0999, 0.1001, 0.2999, 0.3001, np.nextafter(np.float32(1), np.float32(0))], np.float32
    )
    with np.errstate(divide="ignore"):
        logits = np.log(weights / 0.7)
    assert draw(logits, u).tolist() == [7, 7, 140, 140, 290, 290]


def test_logits_that_are_no_numbers_lead_to_no_token_beyond_the_vocabulary():
    for V in (5, 129, 300):
        logits = np.full((3, V), np.nan, np.float32)
        logits[1] = np.inf
        logits[2, V // 2 :] = 0.0
        tokens, _ = sample_tokens(logits, np.array([0.0, 0.5, 0.99], np.float32), np.ones(3, np.float32))
        assert (np.asarray(tokens) >= 0).all() and (np.asarray(tokens) < V).all()


@pytest.mark.parametrize("V, half", [(2, 1), (256, 128)])
def test_a_uniform_number_on_the_border_of_two_tokens_draws_the_second(V, half):
    """u lies in [0, 1), so token i owns [P_{i-1}, P_i): within a block of the vocabulary, and between
    blocks.
    """
    u = np.array([0.0, 0.5, np.nextafter(np.float32(0.5), np.float32(0))], np.float32)
    tokens, _ = sample_tokens(np.zeros((3, V), np.float32), u, np.ones(3, np.float32))
    assert tokens.tolist() == [0, half, half - 1]


@pytest.mark.parametrize("V, parts", [(600, 4), (512, 4), (520, 2), (8, 8)])
def test_a_vocabulary_that_is_cut_is_drawn_from_alike(V, parts):
    """Every token, from the middle of what is its own of [0, 1)."""
    p = np.random.default_rng(V).dirichlet(np.ones(V))
    u = (np.cumsum(p) - p / 2).astype(np.float32)
    logits = np.broadcast_to(np.log(p / p.max()), (V, V)).astype(np.float32)
    wide = p > 1e-5  # else float32 rounds its own away
    assert (module.draw(logits, u, parts) == np.arange(V))[wide].all() and wide.mean() > 0.9


def test_a_nucleus_that_is_full_takes_no_more():
    """Two tokens of 1/2 each, the first by a hair likelier: at top_p 1/2 the first alone makes up the mass
    asked for.
    """
    logits = np.array([[-1e-30, 0.0]], np.float32)
    kept = keep_likely(logits, np.array([0]), np.array([0.5], np.float32), np.array([0.0], np.float32))
    assert np.isfinite(kept).tolist() == [[False, True]]


def test_uniform_numbers_are_those_of_each_row_and_step():
    keys, counts = jax.random.split(jax.random.key(2), 5), np.array([[0, 3, 1, 9, 9], [1, 4, 2, 10, 10]])
    at_once = np.stack([uniforms(keys, step) for step in counts])
    for w, b in np.ndindex(2, 5):
        assert at_once[w, b] == jax.random.uniform(jax.random.fold_in(keys[b], counts[w, b]))
    assert len(set(at_once.ravel().tolist())) == 10


def test_a_rows_draw_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 50)).astype(np.float32)
    u = uniforms(jax.random.split(jax.random.key(1), 8), np.zeros(8, int))
    filters = (np.zeros(8, np.int32), np.full(8, 0.9, np.float32), np.zeros(8, np.float32))
    together, _ = sample_tokens(logits, u, np.ones(8, np.float32), filters)
    part = lambda i: (
        logits[i : i + 1],
        u[i : i + 1],
        np.ones(1, np.float32),
        tuple(f[i : i + 1] for f in filters),
    )
    assert together.tolist() == [int(sample_tokens(*part(i))[0][0]) for i in range(8)]
