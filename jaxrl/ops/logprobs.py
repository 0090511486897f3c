"""Logprobs of given tokens from hidden states, without ever holding [B, T, V].

    z = W x / temperature        logits after the state x; p = softmax(z), y the token that came
    logprob = log p_y            d logprob / d z_v = 1[v = y] - p_v
    H = -sum_v p_v log p_v       d H / d z_v       = -p_v (log p_v + H)

Where some ids could not have come (what a filter of the sampler left out, what no tokenizer knows), z is -inf
there: p is renormalised over the others, and nothing flows to those.

Axes: B rows, T tokens, C tokens of a chunk, N >= T tokens in whole chunks, D width, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes
from jaxrl.ops.sampling import LEAST_TEMPERATURE, scaled_logits
from jaxrl.ops.segments import segment_starts

CHUNK_ELEMENTS = 1 << 25  # float32 logits alive at once: 128 MiB
LEAST_LOGPROB = -1e30  # in place of -inf, so that p log p is 0 where p is


class _Settings(NamedTuple):
    """What is fixed when a program is compiled, as `token_logprobs` has it; C: columns of a chunk."""

    C: int
    num_tokens: int | None
    entropy_gradient: bool


def token_logprobs(
    hidden: Array,
    head: Array,
    tokens: Array,
    segment_ids: Array,
    temperature: float | Array = 1.0,
    *,
    mask: Array | None = None,
    excluded: Array | None = None,
    num_tokens: int | None = None,
    trains_head: bool = True,
    entropy_gradient: bool = False,
) -> tuple[Array, Array]:
    """Logprob of each token given those before it in its segment, and the entropy of what it was drawn from.

        logprobs[b, t] = log softmax(hidden[b, t-1] @ head^T / temperature)[tokens[b, t]]

    The one shift by one of the logprobs is here: index t of the result describes token t. The first token of
    a segment, padding, and what `mask` leaves out get 0, and cost nothing.

    Args:
      hidden: [B, T, D] last hidden states (after the final norm). head: [V, D] output embedding.
      tokens, segment_ids: [B, T] int32; segment 0 is padding.
      temperature: what the sampler divided its logits by; carries no gradient.
      mask: [B, T] bool, the tokens to score; None: all that have a token before them.
      excluded: [B, T, ceil(V / 8)] uint8, the ids that could not have come in a token's place, as bits, the
        highest of a byte first (`ops/sampling.py: sample_with_sets`); None: there are no such ids. The token
        itself is never one of them.
      num_tokens: ids from here on could not have come in any place. None: all could.
      trains_head: whether `head` gets a gradient. If so, the backward pass makes the logits anew; if not, the
        forward pass keeps d logprob / d hidden, one vector per token, which then is only multiplied by.
      entropy_gradient: whether the entropy carries a gradient, too.
    Returns:
      logprobs [B, T] float32 and entropy [B, T] float32 (nats).
    """
    check_shapes(
        hidden=(hidden, "B T D"), head=(head, "V D"), tokens=(tokens, "B T"), segment_ids=(segment_ids, "B T")
    )
    scored = ~segment_starts(segment_ids) & (segment_ids > 0)
    if mask is not None:
        check_shapes(tokens=(tokens, "B T"), mask=(mask, "B T"))
        scored &= mask
    order, place, used, C = _to_front(scored, head.shape[0])
    # the state that predicts a token
    before = jnp.take_along_axis(hidden, jnp.maximum(order - 1, 0)[..., None], axis=1)
    targets = jnp.take_along_axis(tokens, order, axis=1)
    if excluded is not None:
        check_shapes(tokens=(tokens, "B T"), excluded=(excluded, "B T E"))
        excluded = jnp.take_along_axis(excluded, order[..., None], axis=1)
    is_all = num_tokens is None or num_tokens >= head.shape[0]
    settings = _Settings(C, None if is_all else num_tokens, entropy_gradient)
    score = _score_and_recompute if trains_head else _score_and_keep
    divisor = jnp.maximum(temperature, LEAST_TEMPERATURE)
    results = score(settings, before, head, targets, excluded, used, divisor)
    logprobs, entropy = (jnp.where(scored, jnp.take_along_axis(x, place, axis=1), 0.0) for x in results)
    return logprobs, entropy


def _to_front(scored: Array, V: int) -> tuple[Array, Array, Array, int]:
    """The tokens to score [B, T] bool at the front of their rows, so that only chunks of columns that hold
    one are computed. Nothing moves across rows: they may be sharded.

    Returns:
      order [B, N], from which column each comes; place [B, T], to which it goes; used [], the chunks that the
      fullest row fills; and C.
    """
    B, T = scored.shape
    num_chunks = min(T, -(-B * T * V // CHUNK_ELEMENTS))
    C = -(-T // num_chunks)
    used = -(-jnp.max(jnp.sum(scored, axis=1)) // C)
    order = jnp.pad(jnp.argsort(~scored, axis=1, stable=True), ((0, 0), (0, num_chunks * C - T)))
    place = jnp.maximum(jnp.cumsum(scored, axis=1) - 1, 0)
    return order, place, used, C


def _score(
    settings: _Settings,
    hidden: Array,
    head: Array,
    targets: Array,
    excluded: Array | None,
    used: Array,
    temperature: Array,
) -> tuple[Array, Array]:
    """Logprobs and entropy [B, N] float32 of targets [B, N] after hidden [B, N, D]; 0 beyond the chunks
    used.
    """

    def chunk(_: Any, hidden: Array, targets: Array, excluded: Array | None) -> tuple[Any, Any]:
        logprobs, entropy, _ = _score_chunk(settings, hidden, head, targets, excluded, temperature)
        return (), (logprobs, entropy)

    return _scan_chunks(chunk, (), settings.C, used, hidden, targets, excluded)[1]


# -------------------------------------------------------- head frozen: the forward pass keeps the derivatives

_score_and_keep = jax.custom_vjp(_score, nondiff_argnums=(0,))


def _keep(
    settings: _Settings,
    hidden: Array,
    head: Array,
    targets: Array,
    excluded: Array | None,
    used: Array,
    temperature: Array,
) -> tuple[tuple[Array, Array], list[Array]]:
    def chunk(_: Any, hidden: Array, targets: Array, excluded: Array | None) -> tuple[Any, Any]:
        logprobs, entropy, log_p = _score_chunk(settings, hidden, head, targets, excluded, temperature)
        by_logits = [_logprob_by_logits(log_p, targets)]
        if settings.entropy_gradient:
            by_logits.append(_entropy_by_logits(log_p, entropy))
        # Kept in hidden's dtype. In bfloat16 the gradient of hidden, itself rounded to it, is then off by
        # 2.3e-3 in place of 1.7e-3 (relative, root mean square): one more rounding, of the size that every
        # layer below adds.
        by_hidden = [_to_hidden(x.astype(hidden.dtype), head, temperature) for x in by_logits]
        return (), ((logprobs, entropy), by_hidden)

    return _scan_chunks(chunk, (), settings.C, used, hidden, targets, excluded)[1]


def _multiply(settings: _Settings, by_hidden: list[Array], cotangents: tuple[Array, Array]) -> tuple:
    d_hidden = cotangents[0][..., None] * by_hidden[0]
    if settings.entropy_gradient:
        d_hidden += cotangents[1][..., None] * by_hidden[1]
    return d_hidden.astype(by_hidden[0].dtype), None, None, None, None, None


_score_and_keep.defvjp(_keep, _multiply)

# ------------------------------------------------------ head trained: the backward pass makes the logits anew

_score_and_recompute = jax.custom_vjp(_score, nondiff_argnums=(0,))


def _keep_inputs(settings: _Settings, *inputs: Any) -> tuple[tuple[Array, Array], tuple]:
    return _score(settings, *inputs), inputs


def _recompute(settings: _Settings, inputs: tuple, cotangents: tuple[Array, Array]) -> tuple:
    hidden, head, targets, excluded, used, temperature = inputs

    def chunk(
        d_head: Array,
        hidden: Array,
        targets: Array,
        excluded: Array | None,
        d_logprobs: Array,
        d_entropy: Array,
    ) -> tuple[Array, Array]:
        _, entropy, log_p = _score_chunk(settings, hidden, head, targets, excluded, temperature)
        d_logits = d_logprobs[..., None] * _logprob_by_logits(log_p, targets)
        if settings.entropy_gradient:
            d_logits += d_entropy[..., None] * _entropy_by_logits(log_p, entropy)
        d_logits = d_logits.astype(hidden.dtype)
        d_head += jnp.einsum("bcv,bcd->vd", d_logits, hidden, preferred_element_type=jnp.float32)
        return d_head, _to_hidden(d_logits, head, temperature)

    zeros = jnp.zeros(head.shape, jnp.float32)  # a sum over many chunks: bfloat16 would lose the small ones
    d_head, d_hidden = _scan_chunks(chunk, zeros, settings.C, used, hidden, targets, excluded, *cotangents)
    return d_hidden, (d_head / temperature).astype(head.dtype), None, None, None, None


_score_and_recompute.defvjp(_keep_inputs, _recompute)

# -------------------------------------------------------------------------------------------------- one chunk


def _score_chunk(
    settings: _Settings,
    hidden: Array,
    head: Array,
    targets: Array,
    excluded: Array | None,
    temperature: Array,
) -> tuple[Array, Array, Array]:
    """hidden [B, C, D] -> logprobs [B, C], entropy [B, C] and log p [B, C, V], float32."""
    logits = jnp.einsum("bcd,vd->bcv", hidden, head, preferred_element_type=jnp.float32)
    could_come = _could_come(excluded, settings.num_tokens, head.shape[0])
    _, scaled = scaled_logits(logits, temperature, could_come)
    log_normaliser = jnp.log(jnp.sum(jnp.exp(scaled), axis=-1))  # [B, C]; the largest of scaled is 0
    # Picked from the logits, so that log p is an expression within its users, never an array: scoring takes a
    # third less.
    chosen = jnp.take_along_axis(scaled, targets[..., None], axis=-1)[..., 0]
    log_p = jnp.maximum(scaled - log_normaliser[..., None], LEAST_LOGPROB)
    logprobs = jnp.maximum(chosen - log_normaliser, LEAST_LOGPROB)
    return logprobs, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1), log_p


def _could_come(excluded: Array | None, num_tokens: int | None, V: int) -> Array | None:
    """[B, C, V] or [V] bool, the ids that a token was drawn among; None: all."""
    if excluded is not None:
        could = jnp.unpackbits(excluded, axis=-1, count=V) == 0
        return could if num_tokens is None else could & (jnp.arange(V) < num_tokens)
    return None if num_tokens is None else jnp.arange(V) < num_tokens


def _logprob_by_logits(log_p: Array, targets: Array) -> Array:
    """1[v = y] - p_v, [B, C, V].

    As one number: rounded apart, the two would leave nothing but noise where p_y is near 1.
    """
    return (targets[..., None] == jnp.arange(log_p.shape[-1])) - jnp.exp(log_p)


def _entropy_by_logits(log_p: Array, entropy: Array) -> Array:
    """-p_v (log p_v + H), [B, C, V]."""
    return -jnp.exp(log_p) * (log_p + entropy[..., None])


def _to_hidden(by_logits: Array, head: Array, temperature: Array) -> Array:
    """Derivatives by logits [B, C, V] -> by hidden [B, C, D], in their dtype."""
    by_hidden = jnp.einsum("bcv,vd->bcd", by_logits, head, preferred_element_type=jnp.float32) / temperature
    return by_hidden.astype(by_logits.dtype)


def _scan_chunks(
    function: Callable, carry: Any, C: int, used: Array, first: Array, *others: Array | None
) -> tuple[Any, Any]:
    """`lax.scan` over the first `used` (traced) chunks of C columns of arrays [B, N, ...]; others may be
    None.

    function: (carry, *chunks [B, C, ...]) -> (carry, results [B, C, ...]).

    Returns:
      The last carry, and the results [B, N, ...], 0 in the columns that were not reached.
    """

    def chunks(i: Array | int) -> list[Array | None]:
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=i * C, slice_size=C, axis=1)
        return [None if x is None else cut(x) for x in (first, *others)]

    def body(i: Array, state: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, results = state
        carry, new = function(carry, *chunks(i))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * C, axis=1)
        return carry, jax.tree.map(put, results, new)

    shapes = jax.eval_shape(lambda: function(carry, *chunks(0))[1])
    N = first.shape[1]
    nothing = jax.tree.map(lambda s: jnp.zeros((s.shape[0], N, *s.shape[2:]), s.dtype), shapes)
    return jax.lax.fori_loop(0, used, body, (carry, nothing))
