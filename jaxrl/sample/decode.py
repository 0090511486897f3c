"""The jitted programs of sampling: prefill prompts and lay them out for their rows, then decode windows of steps.

A window has a fixed number of steps and nothing in it depends on data: rows that have ended go on computing and are
masked, and the host looks between windows. Axes: P prompts, B rows, T prompt positions, W steps of a window.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl.config import SampleSection
from jaxrl.model.cache import KVCache, cache_from_prefill
from jaxrl.model.policy import Policy
from jaxrl.ops.sampling import sample_tokens
from jaxrl.sharding import ROWS, gather_weights

Tree = dict
SCORE_ELEMENTS = 1 << 28  # float32 attention scores of one layer alive at once in prefill: 1 GiB


def next_power_of_two(n: int) -> int:
    """The smallest power of two that is at least n (n >= 1)."""
    return 1 << (n - 1).bit_length()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SamplerState:
    """A decode batch between two steps."""

    cache: KVCache
    last_tokens: Array  # [B] int32, sampled and not yet in the cache
    count: Array  # [B] int32, tokens emitted so far
    is_done: Array  # [B] bool
    keys: Array  # [B] PRNG keys; token number t of a row is drawn with fold_in(key, t)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Emitted:
    """What the rows emitted: tokens and logprobs count only where `is_live`."""

    tokens: Array  # [W, B] int32
    logprobs: Array  # [W, B] float32
    is_live: Array  # [W, B] bool


@dataclass(frozen=True)
class Decoder:
    """The static part of both programs; hashable."""

    policy: Policy
    sample: SampleSection
    eos_ids: tuple[int, ...]
    mesh: Mesh

    @partial(jax.jit, static_argnums=0)
    def start(
        self, trainable: Tree, frozen: Tree, prompts: Array, lengths: Array, rows: Array, keys: Array, is_done: Array
    ) -> tuple[SamplerState, Emitted]:
        """Run every prompt once, copy it to its rows, and draw each row's first token.

        Args:
          prompts: [P, T] int32, left-aligned. lengths: [P] int32.
          rows: [B] int32, the prompt of each row. keys: [B]. is_done: [B] bool, true for rows that only fill the batch.
        """
        last, k, v = self._prefill(trainable, frozen, prompts, lengths)
        logits = self.policy.logits(trainable, frozen, last)[rows]
        state = SamplerState(
            cache=cache_from_prefill(k, v, lengths, rows, room=self.num_windows * self.sample.window),
            last_tokens=jnp.zeros_like(rows),
            count=jnp.zeros_like(rows),
            is_done=is_done,
            keys=keys,
        )
        state, emitted = self._draw(state, logits)
        return self._spread(state), jax.tree.map(lambda x: x[None], emitted)

    @partial(jax.jit, static_argnums=0, donate_argnums=3)
    def window(self, trainable: Tree, frozen: Tree, state: SamplerState) -> tuple[SamplerState, Emitted]:
        """`sample.window` steps for every row. The state given is consumed: its cache is updated in place."""
        trainable, frozen = gather_weights(trainable, self.mesh), gather_weights(frozen, self.mesh)

        def step(state: SamplerState, _):
            logits, cache = self.policy.decode(trainable, frozen, state.last_tokens, state.cache)
            return self._draw(replace(state, cache=cache), logits)

        return jax.lax.scan(step, state, length=self.sample.window)

    @property
    def num_windows(self) -> int:
        """Windows that the longest completion needs; its first token comes from `start`."""
        return -(-(self.sample.max_new_tokens - 1) // self.sample.window)

    def _prefill(self, trainable: Tree, frozen: Tree, prompts: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """Last hidden state of each prompt [P, D], keys and values [L, P, T, K, H]; so many prompts at a time that the
        attention scores stay small."""

        def run(prompts: Array, lengths: Array) -> tuple[Array, Array, Array]:
            in_prompt = jnp.arange(prompts.shape[1]) < lengths[:, None]
            hidden, k, v = self.policy.prefill(trainable, frozen, prompts, in_prompt.astype(jnp.int32))
            return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0], k, v

        P, T = prompts.shape
        pieces = min(P, next_power_of_two(-(-P * self.policy.config.num_heads * T * T // SCORE_ELEMENTS)))  # P is a power of two
        if pieces == 1:
            return run(prompts, lengths)
        last, k, v = jax.lax.map(lambda x: run(*x), (prompts.reshape(pieces, -1, T), lengths.reshape(pieces, -1)))
        join = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], P, *x.shape[3:])  # noqa: E731  [pieces, L, P/pieces, ...]
        return last.reshape(P, -1), join(k), join(v)

    def _draw(self, state: SamplerState, logits: Array) -> tuple[SamplerState, Emitted]:
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.count)
        tokens, logprobs = sample_tokens(logits, keys, self.sample.temperature, self.sample.top_k, self.sample.top_p)
        is_live = ~state.is_done
        count = state.count + is_live
        is_eos = jnp.isin(tokens, jnp.array(self.eos_ids, jnp.int32))
        is_done = state.is_done | is_eos | (count >= self.sample.max_new_tokens)
        after = replace(state, last_tokens=tokens, count=count, is_done=is_done)
        return after, Emitted(tokens=tokens, logprobs=logprobs, is_live=is_live)

    def _spread(self, state: SamplerState) -> SamplerState:
        """Rows over the row shards; key/value heads over `tensor` where they can be cut."""
        heads = "tensor" if self.policy.config.num_kv_heads % self.mesh.shape["tensor"] == 0 else None

        def constrain(x: Array) -> Array:
            spec = {0: PartitionSpec(), 1: PartitionSpec(ROWS), 4: PartitionSpec(ROWS, heads)}[x.ndim]
            return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

        return jax.tree.map(constrain, state)
