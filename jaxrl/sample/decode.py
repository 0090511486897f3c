"""The jitted programs of sampling: prefill, first tokens, windows of decode steps, what an environment says.

A window has a fixed number of steps and nothing in it depends on data: rows that have ended go on computing
and are masked, and the host looks between windows. Axes: P prompts, B rows, T prompt positions, W steps of a
window, E stop ids.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl.device.mesh import ROWS
from jaxrl.model.cache import KVCache, LayerCache, make_layer
from jaxrl.model.decoding import DecodeWeights, decode_logits, extend
from jaxrl.model.policy import Policy
from jaxrl.ops.sampling import sample_tokens, sample_with_sets, uniforms
from jaxrl.types import Tree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Draw:
    """How each row's tokens are drawn, and when it ends."""

    keys: Array  # [B] PRNG keys; the token that comes after n others is drawn with fold_in(key, n)
    temperature: Array  # [B] float32
    top_k: Array  # [B] int32
    top_p: Array  # [B] float32
    min_p: Array  # [B] float32
    stop_ids: Array  # [B, E] int32, -1 where there is none


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """The rows of a decode batch between two steps, beside their caches."""

    last_tokens: Array  # [B] int32, drawn and not yet in the cache
    left: Array  # [B] int32, tokens that the row may still draw
    is_done: Array  # [B] bool
    draw: Draw


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Emitted:
    """What the rows emitted: it counts only where `is_live`; a row's live steps are the first ones."""

    tokens: Array  # [W, B] int32
    logprobs: Array  # [W, B] float32
    is_live: Array  # [W, B] bool
    # [W, B, ceil(V / 8)] uint8, the ids that a filter left out, of a decoder that `records`
    excluded: Array | None = None


@dataclass(frozen=True)
class Decoder:
    """The static part of the programs; hashable.

    records: what is drawn will be learnt from: logprobs are those of the distribution drawn from, and with
      filters the sets that they left out come out, too. filters: some row uses top-k, top-p or min-p.
    """

    policy: Policy
    mesh: Mesh
    int8_cache: bool = False
    records: bool = False
    filters: bool = False

    @partial(jax.jit, static_argnums=0)
    def prefill(
        self, trainable: Tree, frozen: Tree, prompts: Array, lengths: Array
    ) -> tuple[Array, tuple[LayerCache, ...]]:
        """Run left-aligned prompts [P, T] of `lengths` [P] -> logits after each [P, V], and their keys and
        values.
        """
        in_prompt = jnp.arange(prompts.shape[1]) < lengths[:, None]
        hidden, k, v = self.policy.prefill(trainable, frozen, prompts, in_prompt.astype(jnp.int32))
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
        entries = tuple(make_layer(k[i], v[i], self.int8_cache) for i in range(self.policy.config.num_layers))
        logits = self.policy.logits(trainable, frozen, last)
        return self._cut_vocabulary(logits, rows=None), self._constrain(entries, rows=None)

    @partial(jax.jit, static_argnums=0, donate_argnums=2)
    def feed(
        self,
        weights: DecodeWeights,
        layers: tuple[LayerCache, ...],
        start: Array,
        cursor: Array,
        tokens: Array,
        num_new: Array,
    ) -> tuple[Array, tuple[LayerCache, ...]]:
        """Right-aligned new tokens [B, T] of rows with a cache -> logits after the last [B, V], and the
        cache's layers.
        """
        hidden, cache = extend(self.policy, weights, tokens, num_new, KVCache(layers, start, cursor))
        logits = decode_logits(weights, hidden)
        return self._cut_vocabulary(logits, rows=None), self._constrain(cache.layers, rows=None)

    @partial(jax.jit, static_argnums=0)
    def begin(
        self, rows: DecodeState, lengths: Array, logits: Array, source: Array
    ) -> tuple[DecodeState, Emitted]:
        """Draw the first token of rows that have just been filled.

        Args:
          lengths: [B] int32, tokens of each row so far. logits: [P, V].
          source: [B] int32, whose logits are the row's; -1 for rows that stay as they are.
        """
        begins = source >= 0
        drawn, emitted = self._draw(rows, uniforms(rows.draw.keys, lengths), logits[jnp.maximum(source, 0)])
        keep = lambda new, old: jnp.where(begins, new, old)
        rows = replace(
            rows,
            last_tokens=keep(drawn.last_tokens, rows.last_tokens),
            left=keep(drawn.left, rows.left),
            is_done=keep(drawn.is_done, rows.is_done),
        )
        emitted = replace(emitted, is_live=emitted.is_live & begins)
        return self._constrain(rows), jax.tree.map(lambda x: x[None], emitted)

    @partial(jax.jit, static_argnums=(0, 4), donate_argnums=(2, 3))
    def window(
        self, weights: DecodeWeights, cache: KVCache, rows: DecodeState, steps: int
    ) -> tuple[KVCache, DecodeState, Emitted]:
        """`steps` steps for every row. Cache and rows given are consumed: the cache is updated in place."""

        def step(carry: tuple[KVCache, DecodeState], _: None) -> tuple[tuple[KVCache, DecodeState], Emitted]:
            cache, rows = carry
            hidden, cache = extend(self.policy, weights, rows.last_tokens[:, None], None, cache)
            u = uniforms(rows.draw.keys, cache.cursor - cache.start)
            rows, emitted = self._draw(rows, u, decode_logits(weights, hidden))
            return (cache, rows), emitted

        (cache, rows), emitted = jax.lax.scan(step, self._constrain((cache, rows)), length=steps)
        return *self._constrain((cache, rows)), emitted

    def _draw(self, rows: DecodeState, u: Array, logits: Array) -> tuple[DecodeState, Emitted]:
        draw = rows.draw
        filters = (draw.top_k, draw.top_p, draw.min_p) if self.filters else None
        logits, parts = self._cut_vocabulary(logits), self.mesh.shape["tensor"]
        arguments = (logits, u, draw.temperature, filters, self.policy.num_tokens, parts)
        tokens, logprobs, excluded = (
            sample_with_sets(*arguments) if self.records else (*sample_tokens(*arguments), None)
        )
        is_live = ~rows.is_done
        left = rows.left - is_live
        is_stop = jnp.any(tokens[:, None] == draw.stop_ids, axis=1)
        after = replace(rows, last_tokens=tokens, left=left, is_done=rows.is_done | is_stop | (left <= 0))
        return after, Emitted(tokens=tokens, logprobs=logprobs, is_live=is_live, excluded=excluded)

    def _cut_vocabulary(self, logits: Array, rows: tuple[str, ...] | None = ROWS) -> Array:
        """Logits [B, V] where the head's rows are that made them: over `tensor`."""
        return jax.lax.with_sharding_constraint(
            logits, NamedSharding(self.mesh, PartitionSpec(rows, "tensor"))
        )

    def _constrain(self, tree: Any, rows: tuple[str, ...] | None = ROWS) -> Any:
        """Rows over the row shards (None: a copy everywhere), key/value heads over `tensor` where they can be
        cut.
        """
        heads = "tensor" if self.policy.config.num_kv_heads % self.mesh.shape["tensor"] == 0 else None

        def constrain(x: Array) -> Array:
            spec = (rows, None, heads)[: x.ndim] if x.ndim < 3 else (rows, heads)
            return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*spec)))

        return jax.tree.map(constrain, tree)
