"""From logits to a token. Axes: B rows, V vocabulary."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes


def sample_tokens(logits: Array, keys: Array, temperature: float, top_k: int, top_p: float) -> tuple[Array, Array]:
    """Draw one token per row, and say how likely it was.

        token = argmax(filtered + Gumbel noise);   logprob = log softmax(logits / temperature)[token]

    The logprob is that of the unfiltered distribution: it is what the trainer recomputes. With temperature 0 the
    likeliest token is taken and its logprob is given at temperature 1.

    Args:
      logits: [B, V] float32.
      keys: [B] PRNG keys, one per row, so that a row's noise does not depend on its neighbours.
      temperature, top_k, top_p: as in `config.SampleSection`; static numbers.
    Returns:
      tokens [B] int32 and logprobs [B] float32.
    """
    check_shapes(logits=(logits, "B V"), keys=(keys, "B"))
    scaled = logits / temperature if temperature > 0 else logits
    if temperature > 0:
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], jnp.float32))(keys)  # [B, V]
        tokens = jnp.argmax(keep_top_p(keep_top_k(scaled, top_k), top_p) + noise, axis=-1)
    else:
        tokens = jnp.argmax(logits, axis=-1)
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - jax.nn.logsumexp(scaled, axis=-1)


def keep_top_k(logits: Array, top_k: int) -> Array:
    """-inf below the k-th largest logit of each row (ties with it stay); 0 keeps all. [B, V] -> [B, V]."""
    if top_k == 0 or top_k >= logits.shape[-1]:
        return logits
    kth = jax.lax.top_k(logits, top_k)[0][:, -1:]  # [B, 1]
    return jnp.where(logits >= kth, logits, -jnp.inf)


def keep_top_p(logits: Array, top_p: float) -> Array:
    """-inf outside the smallest set of likeliest tokens whose probabilities add up to top_p; 1 keeps all.

    The likeliest token always stays. [B, V] -> [B, V].
    Source: Holtzman et al. 2020 (nucleus sampling), section 3.1.
    """
    if top_p >= 1.0:
        return logits
    descending = -jnp.sort(-logits, axis=-1)
    probs = jax.nn.softmax(descending, axis=-1)
    mass_before = jnp.cumsum(probs, axis=-1) - probs
    threshold = jnp.min(jnp.where(mass_before < top_p, descending, jnp.inf), axis=-1, keepdims=True)  # [B, 1]
    return jnp.where(logits >= threshold, logits, -jnp.inf)
