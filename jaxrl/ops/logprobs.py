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

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes
from jaxrl.ops.sampling import LEAST_TEMPERATURE, scaled_logits
from jaxrl.ops.segments import segment_starts

CHUNK_ELEMENTS = 1 << 25  # float32 logits alive at once: 128 MiB
LEAST_LOGPROB = -1e30  # in place of -inf, so that p log p is 0 where p is


def token_logprobs(
    hidden: Array,
    head: Array,
    tokens: Array,
    segment_ids: Array,
    temperature: float = 1.0,
    *,
    mask: Array | None = None,
    excluded: Array | None = None,
    num_tokens: int | None = None,
    trains_head: bool = True,
    entropy_gradient: bool = False,
) -> tuple[Array, Array]:
    """Logprob of each token given the tokens before it in its segment, and the entropy of the distribution it
    came from.

        logprobs[b, t] = log softmax(hidden[b, t-1] @ head^T / temperature)[tokens[b, t]]

    The one shift by one of the logprobs is here: index t of the result describes token t. The first token of
    a segment, padding, and what `mask` leaves out get 0. All others come to the front of their row, and only
    the chunks of columns that hold one are computed. Nothing moves across rows, so that rows may be sharded.

    Args:
      hidden: [B, T, D] last hidden states (after the final norm).
      head: [V, D] output embedding.
      tokens: [B, T] int32.
      segment_ids: [B, T] int32, 0 = padding.
      temperature: what the sampler divided its logits by; carries no gradient.
      mask: [B, T] bool, the tokens to score; None: all that have a token before them.
      excluded: [B, T, ceil(V / 8)] uint8, the ids that could not have come in a token's place, as bits, the
        highest of a byte first (`ops/sampling.py: sample_with_sets`); None: there are no such ids. The token
        itself is never one of them.
      num_tokens: ids from here on could not have come in any place. None: all could.
      trains_head: whether `head` gets a gradient. If so, the backward pass makes the logits anew. If not, the
        forward pass keeps d logprob / d hidden, one vector per token, and there is nothing left to do but to
        multiply by it.
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
    B, T, _ = hidden.shape
    num_chunks = min(T, -(-B * T * head.shape[0] // CHUNK_ELEMENTS))
    C = -(-T // num_chunks)
    used = -(-jnp.max(jnp.sum(scored, axis=1)) // C)  # as many chunks as the fullest row fills

    order = jnp.argsort(~scored, axis=1, stable=True)  # the tokens to score first
    order = jnp.pad(order, ((0, 0), (0, num_chunks * C - T)))  # [B, N]
    # the state that predicts a token
    before = jnp.take_along_axis(hidden, jnp.maximum(order - 1, 0)[..., None], axis=1)
    targets = jnp.take_along_axis(tokens, order, axis=1)
    if excluded is not None:
        check_shapes(tokens=(tokens, "B T"), excluded=(excluded, "B T E"))
        excluded = jnp.take_along_axis(excluded, order[..., None], axis=1)
    if num_tokens is not None and num_tokens >= head.shape[0]:
        num_tokens = None
    score = _score_and_recompute if trains_head else _score_and_keep
    results = score(
        C,
        entropy_gradient,
        num_tokens,
        before,
        head,
        targets,
        excluded,
        used,
        jnp.maximum(temperature, LEAST_TEMPERATURE),
    )
    place = jnp.maximum(jnp.cumsum(scored, axis=1) - 1, 0)  # [B, T]: where `order` has put each of them
    logprobs, entropy = (jnp.where(scored, jnp.take_along_axis(x, place, axis=1), 0.0) for x in results)
    return logprobs, entropy


def _score(
    C,
    entropy_gradient,
    num_tokens,
    hidden: Array,
    head: Array,
    targets: Array,
    excluded: Array | None,
    used: Array,
    temperature,
):
    """Logprobs and entropy [B, N] float32 of targets [B, N] after hidden [B, N, D]; 0 beyond the chunks
    used.
    """

    def chunk(_, hidden: Array, targets: Array, excluded: Array | None):
        logprobs, entropy, _ = _score_chunk(hidden, head, targets, excluded, num_tokens, temperature)
        return (), (logprobs, entropy)

    return _scan_chunks(chunk, (), C, used, hidden, targets, excluded)[1]


# -------------------------------------------------------- head frozen: the forward pass keeps the derivatives

_score_and_keep = jax.custom_vjp(_score, nondiff_argnums=(0, 1, 2))


def _keep(
    C,
    entropy_gradient,
    num_tokens,
    hidden: Array,
    head: Array,
    targets: Array,
    excluded: Array | None,
    used: Array,
    temperature,
):
    def chunk(_, hidden: Array, targets: Array, excluded: Array | None):
        logprobs, entropy, log_p = _score_chunk(hidden, head, targets, excluded, num_tokens, temperature)
        by_logits = [_logprob_by_logits(log_p, targets)]
        if entropy_gradient:
            by_logits.append(_entropy_by_logits(log_p, entropy))
        # Kept in hidden's dtype. In bfloat16 the gradient of hidden, itself rounded to it, is then off by
        # 2.3e-3 in place of 1.7e-3 (relative, root mean square): one more rounding, of the size that every
        # layer below adds.
        return (), (
            (logprobs, entropy),
            [_to_hidden(x.astype(hidden.dtype), head, temperature) for x in by_logits],
        )

    return _scan_chunks(chunk, (), C, used, hidden, targets, excluded)[1]


def _multiply(C, entropy_gradient, num_tokens, by_hidden: list[Array], cotangents: tuple[Array, Array]):
    d_hidden = cotangents[0][..., None] * by_hidden[0]
    if entropy_gradient:
        d_hidden += cotangents[1][..., None] * by_hidden[1]
    return d_hidden.astype(by_hidden[0].dtype), None, None, None, None, None


_score_and_keep.defvjp(_keep, _multiply)

# ------------------------------------------------------ head trained: the backward pass makes the logits anew

_score_and_recompute = jax.custom_vjp(_score, nondiff_argnums=(0, 1, 2))


def _keep_inputs(C, entropy_gradient, num_tokens, *inputs):
    return _score(C, entropy_gradient, num_tokens, *inputs), inputs


def _recompute(C, entropy_gradient, num_tokens, inputs, cotangents: tuple[Array, Array]):
    hidden, head, targets, excluded, used, temperature = inputs

    def chunk(
        d_head: Array,
        hidden: Array,
        targets: Array,
        excluded: Array | None,
        d_logprobs: Array,
        d_entropy: Array,
    ):
        _, entropy, log_p = _score_chunk(hidden, head, targets, excluded, num_tokens, temperature)
        d_logits = d_logprobs[..., None] * _logprob_by_logits(log_p, targets)
        if entropy_gradient:
            d_logits += d_entropy[..., None] * _entropy_by_logits(log_p, entropy)
        d_logits = d_logits.astype(hidden.dtype)
        d_head += jnp.einsum("bcv,bcd->vd", d_logits, hidden, preferred_element_type=jnp.float32)
        return d_head, _to_hidden(d_logits, head, temperature)

    zeros = jnp.zeros(head.shape, jnp.float32)  # a sum over many chunks: bfloat16 would lose the small ones
    d_head, d_hidden = _scan_chunks(chunk, zeros, C, used, hidden, targets, excluded, *cotangents)
    return d_hidden, (d_head / temperature).astype(head.dtype), None, None, None, None


_score_and_recompute.defvjp(_keep_inputs, _recompute)

# -------------------------------------------------------------------------------------------------- one chunk


def _score_chunk(
    hidden: Array, head: Array, targets: Array, excluded: Array | None, num_tokens: int | None, temperature
):
    """hidden [B, C, D] -> logprobs [B, C], entropy [B, C] and log p [B, C, V], float32."""
    logits = jnp.einsum("bcd,vd->bcv", hidden, head, preferred_element_type=jnp.float32)
    _, scaled = scaled_logits(logits, temperature, _could_come(excluded, num_tokens, head.shape[0]))
    log_normaliser = jnp.log(jnp.sum(jnp.exp(scaled), axis=-1))  # [B, C]; the largest of scaled is 0
    # Picked from the logits, so that log p is an expression within its users, never an array: scoring takes a
    # third less.
    chosen = jnp.take_along_axis(scaled, targets[..., None], axis=-1)[..., 0]
    log_p = jnp.maximum(scaled - log_normaliser[..., None], LEAST_LOGPROB)
    return (
        jnp.maximum(chosen - log_normaliser, LEAST_LOGPROB),
        -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
        log_p,
    )


def _could_come(excluded: Array | None, num_tokens: int | None, V: int) -> Array | None:
    """[B, C, V] or [V] bool, the ids that a token was drawn among; None: all."""
    if excluded is not None:
        could = jnp.unpackbits(excluded, axis=-1, count=V) == 0
        return could if num_tokens is None else could & (jnp.arange(V) < num_tokens)
    return None if num_tokens is None else jnp.arange(V) < num_tokens


def _logprob_by_logits(log_p: Array, targets: Array) -> Array:
    """1[v = y] - p_v, [B, C, V]. As one number: rounded apart, the two would leave nothing but noise where
    p_y is near 1.
    """
    return (targets[..., None] == jnp.arange(log_p.shape[-1])) - jnp.exp(log_p)


def _entropy_by_logits(log_p: Array, entropy: Array) -> Array:
    """-p_v (log p_v + H), [B, C, V]."""
    return -jnp.exp(log_p) * (log_p + entropy[..., None])


def _to_hidden(by_logits: Array, head: Array, temperature: float) -> Array:
    """Derivatives by logits [B, C, V] -> by hidden [B, C, D], in their dtype."""
    by_hidden = jnp.einsum("bcv,vd->bcd", by_logits, head, preferred_element_type=jnp.float32) / temperature
    return by_hidden.astype(by_logits.dtype)


def _scan_chunks(function: Callable, carry, C: int, used: Array, *arrays: Array | None):
    """`lax.scan` over the first `used` (traced) chunks of C columns of arrays [B, N, ...], or None.

    function: (carry, *chunks [B, C, ...]) -> (carry, results [B, C, ...]). Returns the last carry and the
      results
    [B, N, ...], 0 in the columns that were not reached.
    """

    def chunks(i: Array | int):
        return (None if x is None else jax.lax.dynamic_slice_in_dim(x, i * C, C, axis=1) for x in arrays)

    def body(i: Array, state):
        carry, results = state
        carry, new = function(carry, *chunks(i))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * C, axis=1)
        return carry, jax.tree.map(put, results, new)

    shapes = jax.eval_shape(lambda: function(carry, *chunks(0))[1])
    N = arrays[0].shape[1]
    nothing = jax.tree.map(lambda s: jnp.zeros((s.shape[0], N, *s.shape[2:]), s.dtype), shapes)
    return jax.lax.fori_loop(0, used, body, (carry, nothing))
