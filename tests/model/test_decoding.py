"""The form that decoding reads computes what the trained form does; rows may be moved between caches as one
likes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.config.shared import LoraSection, MeshSection
from jaxrl.device.mesh import make_mesh, shardings_for
from jaxrl.model.cache import KVCache, LayerCache, empty_layer, make_layer, move_rows, put_rows, quantize
from jaxrl.model.decoding import decode_logits, decode_weights, extend
from tests.tiny import CONFIG, LORA, max_difference, one_device, policy_and_trees

TOKENS = np.asarray(jax.random.randint(jax.random.key(9), (3, 12), 0, CONFIG.vocab_size))
SOME = LoraSection(rank=4, alpha=8.0, targets=("k", "up", "down"))


def full_logits(policy, trainable, frozen):
    positions, segments = np.broadcast_to(np.arange(12), TOKENS.shape), np.ones_like(TOKENS)
    return np.asarray(
        policy.logits(trainable, frozen, policy.apply(trainable, frozen, TOKENS, positions, segments))
    )


def empty_cache(B, size, start, cursor, int8=False):
    like = make_layer(
        *(jnp.zeros((B, size, CONFIG.num_kv_heads, CONFIG.head_dim)) for _ in range(2)), int8=int8
    )
    return KVCache(
        tuple(like for _ in range(CONFIG.num_layers)), jnp.asarray(start, jnp.int32), jnp.int32(cursor)
    )


# op by op, eight CPU devices that share two cores can wait for each other in vain
@partial(jax.jit, static_argnums=0)
def fed(policy, weights, tokens, counts, cache):
    hidden, cache = extend(policy, weights, tokens, counts, cache)
    return decode_logits(weights, hidden), cache


def fed_in_pieces(policy, weights, pieces, lengths, int8=False):
    """Logits after every piece; row b has lengths[p][b] tokens of piece p, the rest is padding on the
    left.
    """
    total = np.sum(lengths, axis=0)
    width = sum(pieces)
    cache = empty_cache(3, 40, np.zeros(3), 0, int8)
    found, done = [], np.zeros(3, int)
    for T, counts in zip(pieces, lengths):
        tokens = np.zeros((3, T), np.int32)
        # every piece starts with each row's tokens ending at the cursor: move them there
        for b, n in enumerate(counts):
            tokens[b, T - n :] = TOKENS[b, done[b] : done[b] + n]
        shift = np.array([[T - n for n in counts]], np.int32)
        moved = tuple(move_rows(e, np.arange(3)[None], shift, size=40, shards=1) for e in cache.layers)
        start = cache.start + shift[0]
        logits, cache = fed(policy, weights, tokens, np.asarray(counts), KVCache(moved, start, cache.cursor))
        done += counts
        found.append((done.copy(), np.asarray(logits)))
    assert done.tolist() == total.tolist() and int(cache.cursor) == width
    return found


@pytest.mark.parametrize("lora", [LORA, SOME, None])
@pytest.mark.parametrize("merge", [False, True])
def test_fed_in_ragged_pieces_is_the_full_forward(lora, merge):
    policy, trainable, frozen = policy_and_trees(lora)
    expected = full_logits(policy, trainable, frozen)
    weights = decode_weights(policy, trainable, frozen, one_device(), merge)
    for done, logits in fed_in_pieces(
        policy, weights, (5, 4, 1, 1), ([3, 5, 1], [4, 1, 2], [1, 1, 1], [1, 1, 1])
    ):
        for b in range(3):
            np.testing.assert_allclose(logits[b], expected[b, done[b] - 1], rtol=1e-4, atol=1e-4)


@pytest.mark.mesh
def test_over_a_mesh_it_is_the_same():
    policy, trainable, frozen = policy_and_trees()
    plain = fed_in_pieces(
        policy, decode_weights(policy, trainable, frozen, one_device()), (5, 1), ([3, 5, 1], [1, 1, 1])
    )
    cube = make_mesh(MeshSection(data=2, fsdp=2, tensor=2))
    spread = [jax.device_put(tree, shardings_for(tree, cube)) for tree in (trainable, frozen)]
    weights = decode_weights(policy, *spread, cube)
    assert len(weights.layers[0].linears) == 7  # cut over `tensor`, so not joined
    for (_, ours), (_, expected) in zip(
        fed_in_pieces(policy, weights, (5, 1), ([3, 5, 1], [1, 1, 1])), plain
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_matrices_with_the_same_input_are_joined_and_nothing_lies_in_memory_twice():
    policy, trainable, frozen = policy_and_trees()
    weights = decode_weights(policy, trainable, frozen, one_device())
    assert set(weights.layers[0].linears) == {("q", "k", "v"), ("o",), ("gate", "up"), ("down",)}
    qkv = weights.layers[1].linears["q", "k", "v"]
    assert qkv.kernel.shape == (32, 32 + 16 + 16 + 3 * 4) and qkv.b.shape == (12, 64)
    assert weights.embed is frozen["model"]["embed"]["kernel"] and weights.head.kernel is weights.embed


@pytest.mark.parametrize("weight, cache", [(True, False), (False, True), (True, True)])
def test_int8_stays_near(weight, cache):
    policy, trainable, frozen = policy_and_trees()
    expected = full_logits(policy, trainable, frozen)
    weights = decode_weights(policy, trainable, frozen, one_device(), int8=weight)
    assert (weights.head.kernel.dtype == jnp.int8) == weight
    ((done, logits),) = fed_in_pieces(policy, weights, (6,), ([3, 6, 1],), int8=cache)
    ours = np.stack([expected[b, done[b] - 1] for b in range(3)])
    assert 1e-4 < np.abs(logits - ours).max() < 0.1 * np.abs(ours).max()


def test_quantized_is_within_half_a_step():
    x = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    values, scale = quantize(jnp.asarray(x), axis=1)
    assert values.dtype == jnp.int8 and scale.shape == (6,)
    assert (np.abs(values * scale[:, None] - x) <= 0.5001 * scale[:, None]).all()
    np.testing.assert_allclose(np.abs(values).max(1), 127)
    assert np.isfinite(quantize(jnp.zeros((2, 3)), axis=1)[1]).all()


def entry(B, S, seed):
    rng = np.random.default_rng(seed)
    return LayerCache(
        *(jnp.asarray(rng.normal(size=(B, 2, S, 3)).astype(np.float32)) for _ in range(2)),
        *(jnp.asarray(rng.normal(size=(B, 2, S)).astype(np.float32)) for _ in range(2)),
    )


def test_rows_move_within_their_shard():
    source = entry(6, 8, 0)
    rows, shift = np.array([[2, 0], [1, 1]], np.int32), np.array([[0, 3], [-2, 1]], np.int32)
    moved = move_rows(source, rows, shift, size=10, shards=2)
    for x, y in zip(moved, source):
        assert x.shape[:3] == (4, 2, 10)
        for n, (old, by) in enumerate([(2, 0), (0, 3), (4, -2), (4, 1)]):
            for s in range(10):
                if 0 <= s - by < 8:
                    np.testing.assert_array_equal(x[n, :, s], y[old, :, s - by])


def test_rows_are_put_into_slots_and_the_others_stay():
    target, source = entry(4, 8, 1), entry(3, 5, 2)
    before = jax.tree.map(np.array, target)
    rows, shift, slots = (
        np.array(x, np.int32) for x in ([[2, 0], [1, 0]], [[3, 0], [1, 0]], [[1, 9], [0, 9]])
    )
    placed = put_rows(target, source, rows, shift, slots, shards=2)
    for x, y, old in zip(placed, source, before):
        np.testing.assert_array_equal(x[1, :, 3:8], y[2])
        np.testing.assert_array_equal(x[2, :, 1:6], y[1])
        np.testing.assert_array_equal(x[0], old[0])
        np.testing.assert_array_equal(x[3], old[3])
    assert empty_layer(source, 4, 8, None).k_scale.shape == (4, 2, 8)
    assert max_difference(empty_layer(source, 4, 8, None), jax.tree.map(jnp.zeros_like, placed)) == 0
