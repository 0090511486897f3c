import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops import logprobs as module
from jaxrl.ops.logprobs import token_logprobs

B, T, D, V = 3, 12, 8, 20


def arrays():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    head = rng.normal(size=(V, D)).astype(np.float32)
    tokens = rng.integers(0, V, (B, T))
    segment_ids = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12, [1] * 1 + [2] * 11])
    return hidden, head, tokens, segment_ids


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_agrees_with_a_loop_over_tokens(temperature):
    hidden, head, tokens, segment_ids = arrays()
    logprobs, entropy = jax.jit(token_logprobs, static_argnums=4)(hidden, head, tokens, segment_ids, temperature)
    for b in range(B):
        for t in range(T):
            starts = t == 0 or segment_ids[b, t] != segment_ids[b, t - 1]
            if starts or segment_ids[b, t] == 0:
                assert logprobs[b, t] == 0 and entropy[b, t] == 0
                continue
            logits = (head.astype(np.float64) @ hidden[b, t - 1]) / temperature
            p = np.exp(logits - logits.max())
            p /= p.sum()
            np.testing.assert_allclose(logprobs[b, t], np.log(p[tokens[b, t]]), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(entropy[b, t], -(p * np.log(p)).sum(), rtol=1e-4, atol=1e-5)


def test_chunks_change_neither_values_nor_gradients(monkeypatch):
    hidden, head, tokens, segment_ids = arrays()

    def total(hidden, head):
        return jnp.sum(jnp.sin(token_logprobs(hidden, head, tokens, segment_ids)[0]))

    whole = jax.value_and_grad(total, argnums=(0, 1))(hidden, head)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", B * V * 5)  # five tokens of a row at a time: 12 does not divide
    chunked = jax.value_and_grad(total, argnums=(0, 1))(hidden, head)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)


def test_entropy_carries_no_gradient():
    hidden, head, tokens, segment_ids = arrays()
    grad = jax.grad(lambda h: jnp.sum(token_logprobs(h, head, tokens, segment_ids)[1]))(hidden)
    assert not np.any(grad)


def test_wrong_shape_is_named():
    hidden, head, tokens, segment_ids = arrays()
    with pytest.raises(ValueError, match=r"tokens has shape \(3, 11\)"):
        token_logprobs(hidden, head, tokens[:, 1:], segment_ids)
