import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrl.config.shared import LoraSection
from jaxrl.model.config import ModelConfig
from jaxrl.model.lora import count_params, merge_lora, params_line
from jaxrl.model.policy import Policy
from jaxrl.model.transformer import Linear
from tests.tiny import CONFIG, max_difference, policy_and_trees, ragged_sequences

QWEN_1_5B = ModelConfig(
    family="qwen2",
    vocab_size=151_936,
    d_model=1536,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    head_dim=128,
    d_ff=8960,
    qkv_bias=True,
    tie_embeddings=True,
)


def whole(tokens):
    """positions and segment ids of unpacked rows."""
    return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape), jnp.ones(tokens.shape, jnp.int32)


def logits_of(policy, trainable, frozen, tokens):
    return policy.logits(trainable, frozen, policy.apply(trainable, frozen, tokens, *whole(tokens)))


TOKENS = jax.random.randint(jax.random.key(9), (2, 12), 0, CONFIG.vocab_size)


def test_published_parameter_counts():
    policy = Policy(QWEN_1_5B, LoraSection(rank=16))
    model, lora = (jax.eval_shape(init, jax.random.key(0)) for init in (policy.init_model, policy.init_lora))
    line = params_line({"lora": lora}, {"model": model})
    assert line == "trainable params: 18,464,768 || all params: 1,562,179,072 || trainable%: 1.182"


def test_scan_over_layers_is_the_layers_one_by_one():
    policy, trainable, frozen = policy_and_trees()
    from jaxrl.model.rope import rope_angles
    from tests.ops.plain_attention import attention, segment_mask

    positions, segment_ids = whole(TOKENS)
    params = {**frozen, **trainable}
    x, angles, mask = policy._embed(params, TOKENS), rope_angles(CONFIG, positions), segment_mask(segment_ids)
    for i in range(CONFIG.num_layers):
        block = policy._block(jax.tree.map(lambda leaf: leaf[i], policy._layers(params)))
        x, _ = block(x, angles, lambda q, k, v: (attention(q, k, v, mask), None))
    unrolled = policy._final_norm(params, x)
    scanned = policy.apply(trainable, frozen, TOKENS, positions, segment_ids)
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-5, atol=1e-5)


def test_packed_is_padded():
    policy, trainable, frozen = policy_and_trees()
    a, b = ragged_sequences(2, shortest=6, longest=9)
    packed = jnp.array([a + b + [0, 0]])
    positions = jnp.array([[*range(len(a)), *range(len(b)), 0, 0]])
    segment_ids = jnp.array([[1] * len(a) + [2] * len(b) + [0, 0]])
    together = policy.apply(trainable, frozen, packed, positions, segment_ids)[0]
    for sequence, first in ((a, 0), (b, len(a))):
        row = jnp.array([sequence])
        alone = policy.apply(trainable, frozen, row, *whole(row))[0]
        np.testing.assert_allclose(together[first : first + len(sequence)], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rslora", [False, True])
def test_fresh_adapters_are_the_base_and_merged_is_unmerged(rslora):
    section = LoraSection(rank=4, alpha=8.0, rslora=rslora)
    policy, trainable, frozen = policy_and_trees(section)
    bare = Policy(CONFIG)
    base = logits_of(bare, {}, frozen, TOKENS)
    fresh = logits_of(policy, {"lora": policy.init_lora(jax.random.key(5))}, frozen, TOKENS)
    np.testing.assert_allclose(fresh, base, rtol=1e-5, atol=1e-5)  # another program, so up to rounding
    adapted = logits_of(policy, trainable, frozen, TOKENS)
    assert max_difference(adapted, base) > 1e-2
    merged = {"model": merge_lora(frozen["model"], trainable["lora"], section)}
    np.testing.assert_allclose(logits_of(bare, {}, merged, TOKENS), adapted, rtol=1e-4, atol=1e-4)


def test_adapters_exist_for_their_targets_only():
    policy = Policy(CONFIG, LoraSection(rank=4, targets=("q", "down")))
    lora = policy.init_lora(jax.random.key(0))
    assert set(lora["layers"]) == {"q", "down"}
    c = CONFIG
    per_layer = 4 * (c.d_model + c.num_heads * c.head_dim) + 4 * (c.d_ff + c.d_model)
    assert count_params(lora) == c.num_layers * per_layer


def test_remat_changes_no_gradient():
    grads = []
    for remat in ("none", "full"):
        policy, trainable, frozen = policy_and_trees(remat=remat)
        grads.append(jax.grad(lambda t: jnp.sum(logits_of(policy, t, frozen, TOKENS) ** 2))(trainable))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), *grads)


def test_dropout_needs_a_key_and_keeps_the_mean():
    layer = Linear(8, 5, False, LoraSection(rank=2, dropout=0.5), nnx.Rngs(0))
    layer.lora_b = nnx.LoRAParam(jnp.ones((2, 5)))
    plain = Linear(8, 5, False, LoraSection(rank=2), nnx.Rngs(0))
    plain.lora_b = nnx.LoRAParam(jnp.ones((2, 5)))
    x = jax.random.normal(jax.random.key(1), (3, 8))
    assert max_difference(layer(x), plain(x)) == 0
    dropped = jax.vmap(lambda key: layer(x, key))(jax.random.split(jax.random.key(0), 4000))
    assert float(dropped.std(0).min()) > 0.1
    standard_error = dropped.std(0) / 4000**0.5
    assert float(jnp.max(jnp.abs(dropped.mean(0) - plain(x)) / standard_error)) < 4.5


def test_dropout_reaches_every_layer():
    policy, trainable, frozen = policy_and_trees(LoraSection(rank=4, alpha=8.0, dropout=0.5))
    one, other = (
        policy.apply(trainable, frozen, TOKENS, *whole(TOKENS), jax.random.key(i)) for i in range(2)
    )
    assert max_difference(one, other) > 1e-3
    assert (
        max_difference(one, policy.apply(trainable, frozen, TOKENS, *whole(TOKENS), jax.random.key(0))) == 0
    )


def test_bfloat16_computes_in_bfloat16_and_stays_near():
    policy, trainable, frozen = policy_and_trees()
    half = dataclasses.replace(policy, dtype="bfloat16")
    hidden = half.apply(trainable, frozen, TOKENS, *whole(TOKENS))
    assert hidden.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        hidden.astype(jnp.float32), policy.apply(trainable, frozen, TOKENS, *whole(TOKENS)), atol=0.15
    )
