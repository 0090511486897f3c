"""What the compiled update holds and multiplies, at the vocabulary of Qwen: compiled, never run."""

import math
import re
from functools import lru_cache

import jax
import jax.numpy as jnp
import pytest

from jaxrl.ops.logprobs import CHUNK_ELEMENTS, token_logprobs
from jaxrl.ops.policy_loss import clipped_surrogate

B, T, D, V = 8, 1_024, 64, 151_936
NUM_CHUNKS = -(-B * T * V // CHUNK_ELEMENTS)
C = -(-T // NUM_CHUNKS)

EVERY_WAY = [
    pytest.mark.parametrize("dtype", ["float32", "bfloat16"]),
    pytest.mark.parametrize("trains_head", [True, False]),
    pytest.mark.parametrize("entropy_gradient", [True, False]),
]


def in_every_way(test):
    for mark in EVERY_WAY:
        test = mark(test)
    return test


def abstract(*shape: int, dtype="float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@lru_cache
def compiled(dtype: str, trains_head: bool, entropy_gradient: bool, backward: bool = True):
    """The clipped policy loss on `token_logprobs`, with an entropy bonus, and its gradient."""

    def loss(hidden, head, tokens, segment_ids, mask, advantages, old_logprobs):
        logprobs, entropy = token_logprobs(
            hidden,
            head,
            tokens,
            segment_ids,
            0.9,
            mask=mask,
            trains_head=trains_head,
            entropy_gradient=entropy_gradient,
        )
        ratio = jnp.exp(jnp.where(mask, logprobs - old_logprobs, 0))
        return jnp.sum(mask * (clipped_surrogate(ratio, advantages, 0.2, 0.2) - 0.01 * entropy))

    function = jax.value_and_grad(loss, (0, 1) if trains_head else 0) if backward else loss
    integers = [abstract(B, T, dtype="int32")] * 2
    weights = [abstract(B, T, D, dtype=dtype), abstract(V, D, dtype=dtype)]
    arguments = [*weights, *integers, abstract(B, T, dtype="bool"), abstract(B, T), abstract(B, T)]
    return jax.jit(function).lower(*arguments).compile()


@in_every_way
def test_update_never_holds_all_logits(dtype, trains_head, entropy_gradient):
    program = compiled(dtype, trains_head, entropy_gradient)
    arrays = re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", program.as_text())
    largest = max(math.prod(map(int, shape.split(","))) for shape in arrays)
    assert B * C * V <= largest <= CHUNK_ELEMENTS < B * T * V / 30
    # Logits of a chunk, a derivative by each of them, and XLA's copies of the two in another layout: 2.3 to
    # 4.1 arrays of the chunk's size were measured, 300 to 540 MB; all logits would be 4.98 GB.
    assert program.memory_analysis().temp_size_in_bytes < 5 * 4 * CHUNK_ELEMENTS < 4 * B * T * V / 7


@in_every_way
def test_products_with_the_head(dtype, trains_head, entropy_gradient):
    """Logits, and the vectors that are kept: 2, with the entropy's 3. A trained head: logits twice, and two
    gradients: 4.

    A product of the head and a chunk is 2 B C D V operations, and a loop counts once. The rest is a few
    operations per logit, each a fiftieth of a product here.
    """
    products = compiled(dtype, trains_head, entropy_gradient).cost_analysis()["flops"] / (2 * B * C * D * V)
    expected = 4 if trains_head else 2 + entropy_gradient
    assert expected <= products < expected + 0.5


@pytest.mark.parametrize("trains_head", [True, False])
def test_scoring_takes_one_product_with_the_head(trains_head):
    products = compiled("float32", trains_head, False, backward=False).cost_analysis()["flops"] / (
        2 * B * C * D * V
    )
    assert 1 <= products < 1.5
