"""Logprobs of given tokens from hidden states, without ever holding [B, T, V].

Axes: B rows, T tokens, C tokens of a chunk, D width, V vocabulary.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes

CHUNK_ELEMENTS = 1 << 25  # float32 logits alive at once: 128 MiB


def token_logprobs(
    hidden: Array, head: Array, tokens: Array, segment_ids: Array, temperature: float = 1.0
) -> tuple[Array, Array]:
    """Logprob of each token given the tokens before it in its segment, and the entropy of the distribution it came from.

        logprobs[b, t] = log softmax(hidden[b, t-1] @ head^T / temperature)[tokens[b, t]]

    The one shift by one of the project is here: index t of the result describes token t. The first token of a segment
    and padding get 0. Chunks run along T, never across rows, so that rows may be sharded.

    Args:
      hidden: [B, T, D] last hidden states (after the final norm).
      head: [V, D] output embedding.
      tokens: [B, T] int32.
      segment_ids: [B, T] int32, 0 = padding.
      temperature: what the sampler divided its logits by.
    Returns:
      logprobs [B, T] float32 and entropy [B, T] float32 (nats; carries no gradient).
    """
    check_shapes(hidden=(hidden, "B T D"), head=(head, "V D"), tokens=(tokens, "B T"), segment_ids=(segment_ids, "B T"))
    B, T, _ = hidden.shape
    before = jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))  # [B, T, D]: the state that predicts token t
    num_chunks = min(T, -(-B * T * head.shape[0] // CHUNK_ELEMENTS))
    C = -(-T // num_chunks)
    padding = num_chunks * C - T
    chunks = jnp.pad(before, ((0, 0), (0, padding), (0, 0))).reshape(B, num_chunks, C, -1).swapaxes(0, 1)
    targets = jnp.pad(tokens, ((0, 0), (0, padding))).reshape(B, num_chunks, C).swapaxes(0, 1)
    score = jax.checkpoint(partial(_score_chunk, head=head, temperature=temperature), prevent_cse=False)
    if num_chunks == 1:
        logprobs, entropy = score((chunks[0], targets[0]))
    else:
        logprobs, entropy = jax.lax.map(score, (chunks, targets))  # [num_chunks, B, C]
        logprobs, entropy = (x.swapaxes(0, 1).reshape(B, -1)[:, :T] for x in (logprobs, entropy))
    starts = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    has_context = ~starts & (segment_ids > 0)
    return jnp.where(has_context, logprobs, 0.0), jnp.where(has_context, entropy, 0.0)


def _score_chunk(chunk: tuple[Array, Array], head: Array, temperature: float) -> tuple[Array, Array]:
    hidden, targets = chunk  # [B, C, D], [B, C]
    logits = jnp.einsum("bcd,vd->bcv", hidden, head, preferred_element_type=jnp.float32) / temperature
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)  # [B, C]
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    frozen_logits = jax.lax.stop_gradient(logits)
    probs = jax.nn.softmax(frozen_logits, axis=-1)
    entropy = jax.lax.stop_gradient(log_normaliser) - jnp.sum(probs * frozen_logits, axis=-1)
    return chosen - log_normaliser, entropy
