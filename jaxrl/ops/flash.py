"""Causal attention over packed rows in plain XLA, in memory between the passes that grows with T and not with
its square.

Queries are taken in blocks, each against the keys up to its last one: half of the square is never computed.
The backward pass makes the probabilities anew from the normalisers. (Within a pass the compiler may run
blocks side by side, as it does on CPU, and then holds the scores of several; a kernel that never does is
chosen where there is one.)

    S = q k^T / sqrt(H)    P = exp(S - L), L = log sum exp S    o = P v
    dS = P * (do v^T - sum_h do o)    dq = dS k / sqrt(H)    dk = dS^T q / sqrt(H)    dv = P^T do

Axes: B rows, T tokens, N query heads, K key/value heads, G = N / K query heads per key head, H width, n
queries of a block, e keys that they may see. Source: Dao et al. 2022 (FlashAttention), algorithms 1 and 4;
keys are not cut into tiles.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

BLOCK = 128  # queries, at least
MAX_BLOCKS = 16  # they are unrolled


@jax.custom_vjp
def flash_attention(q: Array, k: Array, v: Array, segment_ids: Array) -> Array:
    """softmax(q k^T / sqrt(H)) v over the earlier tokens of a token's own segment and itself.

    Args:
      q: [B, T, N, H].  k, v: [B, T, K, H].
      segment_ids: [B, T] int32; padding (0) is a segment of its own.
    Returns:
      [B, T, N, H] in q's dtype; scores and softmax are in float32.
    """
    return _forward(q, k, v, segment_ids)[0]


def _forward(q: Array, k: Array, v: Array, segment_ids: Array) -> tuple[Array, tuple[Array, ...]]:
    q_, k_, v_ = _by_head(q, k.shape[2]), k.swapaxes(1, 2), v.swapaxes(1, 2)
    outs, normalisers = [], []
    for start, end in _blocks(q.shape[1]):
        scores = _scores(q_[:, :, :, start:end], k_[:, :, :end], segment_ids, start)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)  # divides the result, not every weight
        out = _each_head("qe,eh->qh", weights.astype(v.dtype), v_[:, :, :end]) / total
        outs.append(out.astype(q.dtype))
        normalisers.append(largest + jnp.log(total))
    out = checkpoint_name(_by_token(jnp.concatenate(outs, axis=3)), "attention")
    normaliser = checkpoint_name(jnp.concatenate(normalisers, axis=3), "attention")
    return out, (q, k, v, segment_ids, out, normaliser)


def _backward(kept: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segment_ids, out, normaliser = kept
    K, scale = k.shape[2], q.shape[3] ** -0.5
    q_, k_, v_, d_out_ = _by_head(q, K), k.swapaxes(1, 2), v.swapaxes(1, 2), _by_head(d_out, K)
    offset = jnp.sum(_by_head(d_out.astype(jnp.float32) * out, K), axis=-1, keepdims=True)  # [B, K, G, T, 1]
    d_q_blocks = []
    d_k, d_v = jnp.zeros(k_.shape, jnp.float32), jnp.zeros(v_.shape, jnp.float32)
    for start, end in _blocks(q.shape[1]):
        queries, d_block = q_[:, :, :, start:end], d_out_[:, :, :, start:end]
        probs = jnp.exp(_scores(queries, k_[:, :, :end], segment_ids, start) - normaliser[:, :, :, start:end])
        d_probs = _each_head("qh,eh->qe", d_block, v_[:, :, :end])
        d_scores = (probs * (d_probs - offset[:, :, :, start:end])).astype(q.dtype)
        d_q_blocks.append(scale * _each_head("qe,eh->qh", d_scores, k_[:, :, :end]))
        d_k = d_k.at[:, :, :end].add(_all_heads(d_scores, queries))
        d_v = d_v.at[:, :, :end].add(_all_heads(probs.astype(q.dtype), d_block))
    d_q = _by_token(jnp.concatenate(d_q_blocks, axis=3))
    return (
        d_q.astype(q.dtype),
        (scale * d_k).swapaxes(1, 2).astype(k.dtype),
        d_v.swapaxes(1, 2).astype(v.dtype),
        None,
    )


flash_attention.defvjp(_forward, _backward)


def _blocks(T: int) -> Iterator[tuple[int, int]]:
    """(first, end) of each block of queries."""
    size = max(BLOCK, -(-T // MAX_BLOCKS))
    return ((start, min(start + size, T)) for start in range(0, T, size))


def _scores(q: Array, k: Array, segment_ids: Array, start: int) -> Array:
    """q [B, K, G, n, H] from position `start` on, k [B, K, e, H] -> [B, K, G, n, e] float32, very small where
    nothing is seen.
    """
    scores = _each_head("qh,eh->qe", q, k) * q.shape[-1] ** -0.5
    e = k.shape[2]
    seen = (segment_ids[:, start:e, None] == segment_ids[:, None, :e]) & (
        jnp.arange(start, e)[:, None] >= jnp.arange(e)
    )
    return jnp.where(seen[:, None, None], scores, -1e30)


def _each_head(product: str, x: Array, y: Array) -> Array:
    """A product for each key head: x [B, K, G, n, .] and y [B, K, e, .] -> [B, K, G, n, .] float32."""
    B, K, G, n, _ = x.shape
    left, right, out = product.replace("->", ",").split(",")
    # the queries of a key head's group one after another: one matrix product
    joined = x.reshape(B, K, G * n, -1)
    result = jnp.einsum(f"bk{left},bk{right}->bk{out}", joined, y, preferred_element_type=jnp.float32)
    return result.reshape(B, K, G, n, -1)


def _all_heads(x: Array, y: Array) -> Array:
    """Summed over a group and its queries: x [B, K, G, n, e], y [B, K, G, n, H] -> [B, K, e, H] float32.

    On CPU as (y^T x)^T, of which only the small sides are turned around: x^T y, which the barriers keep the
    compiler from making of it, is three times as slow there.
    """
    B, K = x.shape[:2]
    x, y = (z.reshape(B, K, -1, z.shape[-1]) for z in (x, y))
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    barrier = jax.lax.optimization_barrier

    def turned(x: Array, y: Array) -> Array:
        return barrier(product("bkhq,bkqe->bkhe", barrier(y.swapaxes(2, 3)), x)).swapaxes(2, 3)

    return jax.lax.platform_dependent(x, y, cpu=turned, default=partial(product, "bkqe,bkqh->bkeh"))


def _by_head(x: Array, K: int) -> Array:
    """[B, T, N, H] -> [B, K, G, T, H]."""
    B, T, N, H = x.shape
    return x.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)


def _by_token(x: Array) -> Array:
    """[B, K, G, T, H] -> [B, T, N, H]."""
    B, K, G, T, H = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H)
