"""From logits to a token, and to what else could have come. Axes: B rows, V vocabulary."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes

BLOCK = 128  # tokens of the vocabulary whose probabilities are added up together
LEAST_TEMPERATURE = 1e-30  # logits apart by more than 1e-27 are as good as infinitely far apart here


def uniforms(keys: Array, counts: Array) -> Array:
    """u [B], uniform in [0, 1): what draws row b's token that comes after counts[b] others.

    Each depends on its row's key and count alone, and not on the rows beside it.
    """
    return jax.vmap(lambda key, count: jax.random.uniform(jax.random.fold_in(key, count), dtype=jnp.float32))(
        keys, counts
    )


def scaled_logits(
    logits: Array, temperature: Array | float, keep: Array | None = None
) -> tuple[Array, Array]:
    """(logits - the largest that is kept) / temperature, along the last axis; and the same with -inf for what
    is not kept.

    The difference comes first: divided by 1e-9 and only then subtracted, two logits leave inf - inf, or
    nothing of what set them apart. A temperature below LEAST_TEMPERATURE is taken for that one: float32
    cannot tell their distributions apart.

    Args:
      logits: [..., V] float32.  temperature: broadcasts against them, above 0.
      keep: [..., V] bool, at least one; None: all.
    """
    kept = logits if keep is None else jnp.where(keep, logits, -jnp.inf)
    scaled = (logits - jnp.max(kept, axis=-1, keepdims=True)) / jnp.maximum(temperature, LEAST_TEMPERATURE)
    return scaled, scaled if keep is None else jnp.where(keep, scaled, -jnp.inf)


def sample_tokens(
    logits: Array,
    u: Array,
    temperature: Array,
    filters: tuple[Array, Array, Array] | None = None,
    num_tokens: int | None = None,
    parts: int = 1,
) -> tuple[Array, Array]:
    """Draw one token per row, and say how likely the model finds it.

        p = softmax(kept);   token = the first with p_0 + ... + p_token > u,  u uniform in [0, 1)
        logprob = log softmax(logits / temperature)[token]

    One uniform number per row, where Gumbel noise would be one per row and token: V times fewer, and the sum
    over the vocabulary is there anyway for the logprob. The sum is taken in blocks, so that float32 rounds
    little.

    The logprob is that of the whole vocabulary, whatever was left out of the draw: the number that scoring
    gives for the token. With temperature 0 the likeliest token is taken (of several the first) and its
    logprob is given at temperature 1.

    Args:
      logits: [B, V] float32.
      u: [B] float32, of `uniforms`.
      temperature: [B] float32.
      filters: top_k [B] int32, top_p [B] and min_p [B] float32, as `keep_likely` takes them; None where no
        row has any (they cost a sort of the vocabulary).
      num_tokens: ids from here on are never drawn: no tokenizer knows them. None: all may be.
      parts: over how many devices the vocabulary is cut, evenly. What they tell one another are maxima and
        sums; with filters, which sort, all of the logits.
    Returns:
      tokens [B] int32 and logprobs [B] float32.
    """
    scaled, kept = _keep(logits, u, temperature, filters, num_tokens)
    tokens = draw(kept, _if_random(u, temperature), parts)
    return tokens, _logprobs(scaled, tokens)


def sample_with_sets(
    logits: Array,
    u: Array,
    temperature: Array,
    filters: tuple[Array, Array, Array] | None = None,
    num_tokens: int | None = None,
    parts: int = 1,
) -> tuple[Array, Array, Array | None]:
    """`sample_tokens` for tokens to learn from: each with its logprob in the distribution it came from.

        logprob = log softmax(kept)[token],   kept = logits / temperature, -inf for what is left out

    Returns:
      tokens [B] int32, logprobs [B] float32, and with filters the ids that were left out, [B, ceil(V / 8)]
      uint8: bit v of a row, the highest bit of a byte first, is 1 where id v could not have come. Without
      filters None: `num_tokens` says all.
    """
    _, kept = _keep(logits, u, temperature, filters, num_tokens)
    tokens = draw(kept, _if_random(u, temperature), parts)
    return (
        tokens,
        _logprobs(kept, tokens),
        None if filters is None else jnp.packbits(jnp.isneginf(kept), axis=-1),
    )


def _keep(
    logits: Array,
    u: Array,
    temperature: Array,
    filters: tuple[Array, Array, Array] | None,
    num_tokens: int | None,
) -> tuple[Array, Array]:
    """[B, V] twice: the scaled logits, and the same with -inf for what may not be drawn."""
    check_shapes(logits=(logits, "B V"), u=(u, "B"), temperature=(temperature, "B"))
    is_greedy = (temperature == 0)[:, None]
    divisor = jnp.where(is_greedy, 1.0, temperature[:, None])
    V = logits.shape[1]
    could_come = None if num_tokens is None or num_tokens >= V else jnp.arange(V) < num_tokens
    scaled, kept = scaled_logits(logits, divisor, could_come)
    if filters is not None:
        kept = keep_likely(kept, *filters)
    return scaled, jnp.where(is_greedy & (kept < 0), -jnp.inf, kept)


def _if_random(u: Array, temperature: Array) -> Array:
    return jnp.where(temperature == 0, 0.0, u)


def _logprobs(scaled: Array, tokens: Array) -> Array:
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(scaled, axis=-1)


def draw(logits: Array, u: Array, parts: int = 1) -> Array:
    """Indices [B] drawn from softmax(logits [B, V]) by uniform numbers [B]: the block, then the place.

    The largest logit of a row is 0. exp is taken of the whole only inside the sums, so that no second [B, V]
    is written. No block lies across the border of two of the `parts`, which are on different devices.
    """
    B, V = logits.shape
    size = V // parts
    own = jnp.pad(
        logits.reshape(B, parts, size), ((0, 0), (0, 0), (0, -size % BLOCK)), constant_values=-jnp.inf
    )
    blocks = own.reshape(B, -1, BLOCK)
    sums = jnp.sum(jnp.exp(blocks), axis=-1)  # [B, blocks of all parts]
    target = u * jnp.sum(sums, axis=-1)
    block = _first_above(sums, target)
    before = jnp.sum(jnp.where(jnp.arange(sums.shape[1]) < block[:, None], sums, 0.0), axis=-1)
    inside = jnp.exp(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0])  # [B, BLOCK]
    part, block = jnp.divmod(block, sums.shape[1] // parts)
    token = part * size + block * BLOCK + _first_above(inside, target - before)
    # logits that are not finite must not lead beyond the vocabulary
    return jnp.minimum(token, V - 1).astype(jnp.int32)


def _first_above(weights: Array, target: Array) -> Array:
    """The first index whose running sum is above the target and whose weight is not 0; the last such where
    rounding left none.
    """
    n = weights.shape[1]
    is_above = (jnp.cumsum(weights, axis=-1) > target[:, None]) & (weights > 0)
    last = n - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1)
    return jnp.where(jnp.any(is_above, axis=-1), jnp.argmax(is_above, axis=-1), last)


def keep_likely(logits: Array, top_k: Array, top_p: Array, min_p: Array) -> Array:
    """-inf for what top-k, then top-p among what is left, or min-p leaves out; the likeliest token stays.

        top-k: the k likeliest (0 keeps all; ties with the last stay)
        top-p: the smallest set of likeliest tokens whose probabilities add up to top_p (1 keeps all)
        min-p: tokens at least min_p times as probable as the likeliest (0 keeps all)

    Args:
      logits: [B, V] float32.  top_k: [B] int32.  top_p, min_p: [B] float32.
    Returns:
      [B, V].
    Source: Holtzman et al. 2020 (nucleus sampling), section 3.1; Nguyen et al. 2024 (min-p), section 3.
    """
    check_shapes(logits=(logits, "B V"), top_k=(top_k, "B"), top_p=(top_p, "B"), min_p=(min_p, "B"))
    V = logits.shape[1]
    descending = -jnp.sort(-logits, axis=-1)
    last = jnp.where((top_k == 0) | (top_k > V), V, top_k) - 1
    kth = jnp.take_along_axis(descending, last[:, None], axis=-1)  # [B, 1]
    probs = jax.nn.softmax(jnp.where(descending >= kth, descending, -jnp.inf), axis=-1)
    mass_before = jnp.cumsum(probs, axis=-1) - probs
    in_nucleus = (mass_before < top_p[:, None]) & (probs > 0)
    nucleus = jnp.min(jnp.where(in_nucleus, descending, jnp.inf), axis=-1, keepdims=True)
    nucleus = jnp.where(top_p[:, None] < 1, nucleus, -jnp.inf)
    floor = descending[:, :1] + jnp.log(min_p)[:, None]
    return jnp.where(logits >= jnp.maximum(jnp.maximum(kth, nucleus), floor), logits, -jnp.inf)
