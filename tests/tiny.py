"""Tiny models and batches for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.config.shared import LoraSection, MeshSection
from jaxrl.device.mesh import make_mesh
from jaxrl.model.config import ModelConfig, RopeScaling
from jaxrl.model.policy import Policy
from jaxrl.model.value_head import init_value_head
from jaxrl.update.batch import PolicyBatch, SFTBatch

CONFIG = ModelConfig(
    family="qwen3",
    vocab_size=64,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    qk_norm=True,
    qkv_bias=True,
    tie_embeddings=True,
    rope_scaling=RopeScaling("llama3", 4.0, 1.0, 4.0, 16),
)
LORA = LoraSection(rank=4, alpha=8.0)


def one_device():
    return make_mesh(MeshSection())


def noisy(tree, seed: int, size: float = 0.05):
    """Every leaf moved a little, so that zeros and ones of the initialisation hide nothing. Drawn by NumPy:
    jax would compile a program for the random bits of every shape, seconds for each tree.
    """
    rng = np.random.default_rng(seed)

    def moved(x):
        values = (np.asarray(x) + size * rng.standard_normal(x.shape)).astype(x.dtype)
        # what is on no device in particular stays so, and can be cut over others
        return jax.device_put(values, x.sharding) if x.committed else jnp.asarray(values)

    return jax.tree.map(moved, tree)


def drawn(init, seed: int):
    """A tree of the shapes and names that `init(key)` has, with weights of the size that they have there,
    drawn by NumPy: norms one, biases zero, kernels N(0, 1/d_in), the B of adapters zero.
    """
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        name = jax.tree_util.keystr(path)
        if "scale" in name:
            return jnp.asarray(np.ones(x.shape, x.dtype))
        if "bias" in name or "lora_b" in name:
            return jnp.asarray(np.zeros(x.shape, x.dtype))
        d_in = x.shape[-1] if "embed" in name or "head" in name else x.shape[-2]
        return jnp.asarray((d_in**-0.5 * rng.standard_normal(x.shape)).astype(x.dtype))

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))


def policy_and_trees(lora: LoraSection | None = LORA, config: ModelConfig = CONFIG, **settings):
    """(policy, trainable, frozen) with adapters that do something."""
    policy = Policy(config, lora, **settings)
    model = noisy(drawn(policy.init_model, 0), 1)
    if lora is None:
        return policy, {"model": model}, {}
    return policy, {"lora": noisy(drawn(policy.init_lora, 2), 3)}, {"model": model}


def fresh_value_head(d_model: int):
    """The critic's head as training begins it: its last layer is zero."""
    tree = drawn(lambda key: init_value_head(key, d_model), 4)
    return tree | {"out": jax.tree.map(lambda x: jnp.asarray(np.zeros_like(x)), tree["out"])}


def ragged_sequences(
    count: int, seed: int = 0, vocab_size: int = 64, shortest: int = 4, longest: int = 11
) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, vocab_size, rng.integers(shortest, longest + 1)).tolist() for _ in range(count)]


def policy_batch(M: int, rows: int = 8, T: int = 24, seed: int = 0, order=None) -> PolicyBatch:
    """Two segments and padding in every row; every per-token field is random inside its mask, and every field
    is there.
    """
    rng = np.random.default_rng(seed)
    shape = (rows, T)
    segment_ids = np.broadcast_to(np.repeat([1, 2, 0], [10, 9, T - 19]), shape).astype(np.int32)
    positions = np.broadcast_to(
        np.concatenate([np.arange(10), np.arange(9), np.zeros(T - 19)]), shape
    ).astype(np.int32)
    tokens = rng.integers(0, 64, shape).astype(np.int32)
    is_token = (segment_ids > 0) & (positions > 0)
    mask = (rng.random(shape) < 0.6) & is_token
    floats = [np.where(mask, rng.normal(size=shape), 0).astype(np.float32) for _ in range(5)]
    returns = np.where(is_token, rng.normal(size=shape), 0).astype(np.float32)
    replay_mask = (rng.random(shape) < 0.5) & is_token & ~mask
    order = np.arange(rows) if order is None else order

    def cut(x):
        return x[order].reshape(M, rows // M, T)

    return PolicyBatch(
        np.int32(M),
        cut(tokens),
        cut(positions),
        cut(segment_ids),
        cut(mask),
        advantages=cut(floats[0]),
        sampler_logprobs=cut(-4 + 0.3 * floats[1]),
        old_logprobs=cut(-4 + 0.2 * floats[2]),
        ref_logprobs=cut(-4 + 0.1 * floats[3]),
        old_values=cut(0.1 * floats[4]),
        returns=cut(returns),
        replay_mask=cut(replay_mask),
    )


def sft_batch(batch: PolicyBatch) -> SFTBatch:
    return SFTBatch(
        batch.num_microbatches, batch.tokens, batch.positions, batch.segment_ids, batch.completion_mask
    )


def relative_difference(a, b) -> float:
    """Size of the difference of two trees beside the size of the second, both as one long vector."""
    square = lambda tree: sum(
        float(np.sum(np.square(np.asarray(x, np.float64)))) for x in jax.tree.leaves(tree)
    )
    difference = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b)
    return (square(difference) / square(b)) ** 0.5


def max_difference(a, b) -> float:
    """Largest absolute difference between two trees of arrays."""
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
