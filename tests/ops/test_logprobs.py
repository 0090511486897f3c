"""Laws of `token_logprobs`, against a naive float64 implementation whose gradients are finite differences."""

import re
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxrl.config.shared import MeshSection
from jaxrl.device.mesh import P, make_mesh, over_rows, rows_sharding
from jaxrl.ops import logprobs as module
from jaxrl.ops.logprobs import token_logprobs

B, T, D, V = 3, 12, 8, 20
TEMPERATURE = 0.7
MASKS = {
    "none given": None,
    "empty": np.zeros((B, T), bool),
    "full": np.ones((B, T), bool),
    "ragged": np.arange(T) >= np.array([[4], [1], [11]]),  # one row nearly full, one with a single token
    "holes": np.random.default_rng(1).random((B, T)) < 0.4,
}
BOTH = pytest.mark.parametrize("trains_head", [True, False])


def arrays():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    head = rng.normal(size=(V, D)).astype(np.float32)
    tokens = rng.integers(0, V, (B, T))
    segment_ids = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12, [1] * 1 + [2] * 11])
    return hidden, head, tokens, segment_ids


def could_come():
    """[B, T, V] bool: half of the ids and the token that came, none from 18 on."""
    tokens = arrays()[2]
    some = np.random.default_rng(2).random((B, T, V)) < 0.5
    return (some | (np.arange(V) == tokens[..., None])) & (np.arange(V) < 18)


def naive(hidden, head, mask, filtered=False):
    """(logprobs, entropy) in float64, one token at a time."""
    _, _, tokens, segment_ids = arrays()
    logprobs, entropy = np.zeros((2, B, T))
    for b, t in np.ndindex(B, T):
        starts = t == 0 or segment_ids[b, t] != segment_ids[b, t - 1]
        if starts or segment_ids[b, t] == 0 or not (mask is None or mask[b, t]):
            continue
        logits = (head.astype(np.float64) @ hidden[b, t - 1].astype(np.float64)) / TEMPERATURE
        p = np.exp(logits - logits.max()) * (could_come()[b, t] if filtered else 1)
        p /= p.sum()
        logprobs[b, t], entropy[b, t] = np.log(p[tokens[b, t]]), -(p[p > 0] * np.log(p[p > 0])).sum()
    return logprobs, entropy


def some_loss(xp, logprobs, entropy, with_entropy: bool):
    """Any function would do; this one treats every token differently."""
    return xp.sum(xp.sin(logprobs + xp.arange(T)) + with_entropy * entropy**2)


@lru_cache
def naive_gradients(mask_name: str, with_entropy: bool):
    """d some_loss / d hidden and / d head, by central differences."""
    inputs = [x.astype(np.float64) for x in arrays()[:2]]
    gradients = [np.zeros_like(x) for x in inputs]
    for x, gradient in zip(inputs, gradients):
        for i in np.ndindex(x.shape):
            here, values = x[i], []
            for x[i] in (here + 1e-5, here - 1e-5):
                values.append(some_loss(np, *naive(*inputs, MASKS[mask_name]), with_entropy))
            x[i], gradient[i] = here, (values[0] - values[1]) / 2e-5
    return gradients


def gradients(mask_name="none given", argnums=(0, 1), **settings):
    hidden, head, tokens, segment_ids = arrays()

    def loss(hidden, head):
        results = token_logprobs(
            hidden, head, tokens, segment_ids, TEMPERATURE, mask=MASKS[mask_name], **settings
        )
        return some_loss(jnp, *results, settings.get("entropy_gradient", False))

    return jax.jit(jax.grad(loss, argnums))(hidden, head)


def columns_at_a_time(monkeypatch, C: int):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", B * V * C)


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f])
@pytest.mark.parametrize("mask_name", MASKS)
@pytest.mark.parametrize("C", [1, 5, 12])
def test_agrees_with_a_loop_over_tokens(mask_name, C, wrap, monkeypatch):
    columns_at_a_time(monkeypatch, C)
    hidden, head, tokens, segment_ids = arrays()
    mask = MASKS[mask_name]
    score = wrap(lambda *inputs: token_logprobs(*inputs, TEMPERATURE, mask=mask))
    results = score(hidden, head, tokens, segment_ids)
    for ours, theirs in zip(results, naive(hidden, head, mask)):
        assert ours.dtype == jnp.float32 and np.array_equal(ours == 0, theirs == 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trains_head, entropy_gradient", [(True, True), (False, True), (False, False)])
def test_what_could_not_have_come_has_no_part(trains_head, entropy_gradient, monkeypatch):
    """Values and gradients where some ids are excluded as bits, and the last two for good, against the loop
    over tokens.
    """
    columns_at_a_time(monkeypatch, 5)
    hidden, head, tokens, segment_ids = arrays()
    tokens = tokens % 18
    monkeypatch.setitem(globals(), "arrays", lambda: (hidden, head, tokens, segment_ids))
    kept = could_come() | (np.arange(V) >= 18)  # these two are left out by their number
    sets = {"excluded": np.packbits(~kept, axis=-1), "num_tokens": 18}

    def loss(hidden, head):
        results = token_logprobs(
            hidden,
            head,
            tokens,
            segment_ids,
            TEMPERATURE,
            mask=MASKS["holes"],
            trains_head=trains_head,
            entropy_gradient=entropy_gradient,
            **sets,
        )
        return some_loss(jnp, *results, entropy_gradient), results

    (_, results), ours = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(hidden, head)
    for x, y in zip(results, naive(hidden, head, MASKS["holes"], filtered=True)):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    inputs = [x.astype(np.float64) for x in (hidden, head)]
    rng = np.random.default_rng(3)
    for x, gradient, has_gradient in zip(inputs, ours, (True, trains_head)):
        for _ in range(3):  # along directions
            here, direction, values = x.copy(), rng.normal(size=x.shape), []
            for sign in (1, -1):
                x[:] = here + sign * 1e-5 * direction
                values.append(some_loss(np, *naive(*inputs, MASKS["holes"], filtered=True), entropy_gradient))
            x[:] = here
            np.testing.assert_allclose(
                np.sum(gradient * direction),
                has_gradient * (values[0] - values[1]) / 2e-5,
                rtol=2e-4,
                atol=1e-4,
            )


def test_a_policy_that_finds_nothing_in_what_was_kept_has_finite_logprobs():
    """A reference, for example: its mass on the kept ids is e^-200 here, and is nevertheless shared among
    them.
    """
    hidden, head = (
        np.full((1, 3, 1), 1, np.float32),
        np.array([[100.0], [-100.0], [-101.0], [-150.0]], np.float32),
    )
    tokens, excluded = np.array([[0, 1, 2]]), np.packbits(np.array([[1, 0, 0, 1]] * 3, bool)[None], axis=-1)
    logprobs, entropy = token_logprobs(hidden, head, tokens, np.ones((1, 3), int), excluded=excluded)
    expected = -np.log1p(np.exp([-1, 1]))
    np.testing.assert_allclose(logprobs[0], [0, *expected], rtol=1e-5)
    np.testing.assert_allclose(entropy[0, 1:], -np.sum(np.exp(expected) * expected), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 1e-9, 1e-30, 1e-45, 1e-300])
def test_no_temperature_is_too_low(temperature):
    """Two of the likeliest share everything; another one is as unlikely as float32 can say."""
    hidden, head = np.full((1, 4, 1), 1, np.float32), np.array([[7.0], [3e3], [3e3], [2.9e3]], np.float32)
    tokens = np.array([[0, 1, 2, 0]])
    logprobs, entropy = token_logprobs(hidden, head, tokens, np.ones((1, 4), int), temperature)
    np.testing.assert_allclose(logprobs[0, 1:3], np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(entropy[0, 1:], np.log(2), rtol=1e-6)
    assert np.isfinite(logprobs).all() and logprobs[0, 3] <= -1e6


def test_temperature_may_be_static_or_not():
    inputs = arrays()
    static = jax.jit(token_logprobs, static_argnums=4)(*inputs, TEMPERATURE)
    traced = jax.jit(token_logprobs)(*inputs, TEMPERATURE)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), static, traced)


# -------------------------------------------------------------------------------------------------- gradients


@BOTH
@pytest.mark.parametrize("entropy_gradient", [False, True])
@pytest.mark.parametrize("mask_name", MASKS)
def test_gradients_agree_with_finite_differences(mask_name, entropy_gradient, trains_head, monkeypatch):
    columns_at_a_time(monkeypatch, 5)
    d_hidden, d_head = gradients(mask_name, trains_head=trains_head, entropy_gradient=entropy_gradient)
    by_hidden, by_head = naive_gradients(mask_name, entropy_gradient)
    np.testing.assert_allclose(d_hidden, by_hidden, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(d_head, by_head if trains_head else np.zeros((V, D)), rtol=1e-4, atol=2e-5)


@BOTH
def test_entropy_carries_no_gradient_unless_asked(trains_head):
    hidden, *others = arrays()
    grad = jax.grad(lambda h: jnp.sum(token_logprobs(h, *others, trains_head=trains_head)[1]))(hidden)
    assert not np.any(grad)


@BOTH
def test_chunks_change_no_gradient(trains_head, monkeypatch):
    whole = gradients("holes", trains_head=trains_head, entropy_gradient=True)
    for C in (1, 7, 11, 12):  # 12 columns: 7 and 11 do not divide them
        columns_at_a_time(monkeypatch, C)
        chunked = gradients("holes", trains_head=trains_head, entropy_gradient=True)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), whole, chunked)


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_keeping_and_recomputing_give_the_same_gradient(entropy_gradient):
    kept = gradients(argnums=0, trains_head=False, entropy_gradient=entropy_gradient)
    recomputed = gradients(argnums=0, trains_head=True, entropy_gradient=entropy_gradient)
    assert np.abs(kept - recomputed).max() <= 1e-6 * np.abs(recomputed).max()


@BOTH
def test_what_is_not_scored_is_not_computed(trains_head, monkeypatch):
    """Three columns at a time and six tokens of each row: the NaN in the other states are never touched."""
    columns_at_a_time(monkeypatch, 3)
    hidden, head, tokens, _ = arrays()
    mask = np.tile([False, True], (B, T // 2))
    hidden = np.where(np.roll(mask, -1, axis=1)[..., None], hidden, np.nan)

    def loss(hidden, head):
        results = token_logprobs(
            hidden,
            head,
            tokens,
            np.ones((B, T), int),
            mask=mask,
            trains_head=trains_head,
            entropy_gradient=True,
        )
        return some_loss(jnp, *results, True)

    value, grads = jax.value_and_grad(loss, (0, 1))(hidden, head)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in grads)


@BOTH
@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_bfloat16_gradient_has_the_error_of_bfloat16(trains_head, sharpness):
    """Of each token on its own. Sharp: many tokens have a probability near 1, and a gradient that all but
    cancels.
    """
    rng = np.random.default_rng(0)
    rows, length, width, vocab = 2, 64, 64, 500
    hidden = jnp.asarray(rng.normal(size=(rows, length, width)), jnp.bfloat16)
    head = jnp.asarray(sharpness * width**-0.5 * rng.normal(size=(vocab, width)), jnp.bfloat16)
    logits = np.einsum("btd,vd->btv", *(np.asarray(x, np.float32) for x in (hidden, head)))
    # samples of the policy
    tokens = np.roll(np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1), 1, axis=1)

    def gradient(dtype):
        def loss(x):
            results = token_logprobs(
                x, head.astype(dtype), tokens, np.ones((rows, length), int), trains_head=trains_head
            )
            return jnp.sum(3 * results[0])

        return np.asarray(jax.jit(jax.grad(loss))(hidden.astype(dtype)), np.float64)[:, :-1]

    exact, rounded = gradient(jnp.float32), gradient(jnp.bfloat16)
    error = np.linalg.norm(rounded - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    assert np.median(error) < 4e-3 and error.max() < 1e-2  # one rounding to nearest: at most 2^-9 = 2e-3


# ----------------------------------------------------------------------------------------------- many devices


@pytest.mark.mesh
@BOTH
def test_eight_devices_give_the_same_and_gather_no_rows(trains_head, monkeypatch):
    rows, length, width, vocab = 8, 24, 12, 40
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", rows * vocab * 5)
    rng = np.random.default_rng(0)
    mesh = make_mesh(MeshSection(data=2, fsdp=2, tensor=2))
    inputs = {
        "hidden": rng.normal(size=(rows, length, width)).astype(np.float32),
        "head": rng.normal(size=(vocab, width)).astype(np.float32),
        "tokens": rng.integers(0, vocab, (rows, length)).astype(np.int32),
        "segment_ids": np.sort(rng.integers(1, 4, (rows, length)), axis=1).astype(np.int32),
        "mask": rng.random((rows, length)) < np.linspace(0.1, 0.9, rows)[:, None],
    }
    kept = (rng.random((rows, length, vocab)) < 0.5) | (np.arange(vocab) == inputs["tokens"][..., None])
    inputs["excluded"] = np.packbits(~kept, axis=-1)
    sharding = dict.fromkeys(inputs, rows_sharding(mesh)) | {"head": NamedSharding(mesh, P("tensor", "fsdp"))}

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def update(hidden, head, others):
        def score(rows, head):
            hidden, others = rows
            return token_logprobs(hidden, head, **others, trains_head=trains_head, entropy_gradient=True)

        results = over_rows(score, mesh, rows)((hidden, others), head)
        return sum(jnp.sum(jnp.sin(x)) for x in results), results

    def arguments(arrays):
        return (
            arrays["hidden"],
            arrays["head"],
            {k: arrays[k] for k in ("tokens", "segment_ids", "mask", "excluded")},
        )

    placed = arguments({name: jax.device_put(x, sharding[name]) for name, x in inputs.items()})
    same = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(same, update(*placed), update(*arguments(inputs)))
    # The program of one device knows of 2 rows, and of half the vocabulary. No other size here is 8 or 40.
    program = update.lower(*placed).compile().as_text()
    assert "[2,24,12]" in program and "[8," not in program
    assert not re.search(r"f32\[[\d,]*40\]", program)


# ----------------------------------------------------------------------------------------------------- errors


def test_wrong_shape_is_named():
    hidden, head, tokens, segment_ids = arrays()
    with pytest.raises(ValueError, match=r"tokens has shape \(3, 11\)"):
        token_logprobs(hidden, head, tokens[:, 1:], segment_ids)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 11\)"):
        token_logprobs(hidden, head, tokens, segment_ids, mask=np.ones((3, 11), bool))
