"""The pure steps: (state, frozen, batch) -> (state, metrics), and the scorer that fills in logprobs.

Each maker closes over static things only and returns one jitted function with pinned shardings and the state donated.
A loss is a sum over tokens with weights fixed for the whole batch, so cutting the batch into microbatches changes
nothing but memory. Axes: M microbatches, B rows, T tokens.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jaxrl.batch import PolicyBatch, SFTBatch
from jaxrl.config import GRPOSection
from jaxrl.model.policy import Policy
from jaxrl.ops.logprobs import token_logprobs
from jaxrl.ops.masked import masked_max, masked_sum
from jaxrl.ops.policy_loss import clipped_surrogate, importance_ratio, is_clipped, kl_k3, loss_weights
from jaxrl.sharding import replicated, rows_sharding, shardings_for
from jaxrl.train.state import TrainState

Tree = dict
Metrics = dict[str, Array]
# (trainable, frozen, microbatch, weights [B, T], key) -> (loss, sums and maxima)
Loss = Callable[[Tree, Tree, SFTBatch | PolicyBatch, Array, Array], tuple[Array, Metrics]]


def make_sft_step(policy: Policy, tx: optax.GradientTransformation, state: TrainState, mesh: Mesh):
    """Completion-only cross-entropy, the mean over the tokens of the whole batch.

        loss = -sum(loss_mask * logprobs) / sum(loss_mask)

    Returns:
      (state, frozen, SFTBatch) -> (state, metrics); the state given is consumed.
    """

    def loss(trainable, frozen, batch: SFTBatch, weights, key):
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids, key)
        logprobs, _ = token_logprobs(hidden, policy.head(trainable, frozen), batch.tokens, batch.segment_ids)
        value = -jnp.sum(weights * logprobs)
        return value, {"sum/loss": value, "sum/tokens": masked_sum(jnp.ones_like(logprobs), batch.loss_mask)}

    def weigh(batch: SFTBatch) -> Array:
        return loss_weights(batch.loss_mask, batch.segment_ids, "token_mean")

    return _jit_step(loss, weigh, tx, state, mesh)


def make_grpo_step(
    policy: Policy, tx: optax.GradientTransformation, algo: GRPOSection, temperature: float, state: TrainState, mesh: Mesh
):
    """The clipped policy-gradient step with a KL term to the reference.

        loss = sum over tokens of weights * (clipped_surrogate + kl_coef * kl_k3)

    Without `batch.old_logprobs` the policy being updated is the one that sampled, and the ratio is exactly 1.

    Returns:
      (state, frozen, PolicyBatch) -> (state, metrics); the state given is consumed.
    """

    def loss(trainable, frozen, batch: PolicyBatch, weights, key):
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids, key)
        head = policy.head(trainable, frozen)
        logprobs, entropy = token_logprobs(hidden, head, batch.tokens, batch.segment_ids, temperature)
        mask = batch.completion_mask
        old = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
        ratio = importance_ratio(jnp.where(mask, logprobs, 0.0), jnp.where(mask, old, 0.0))
        policy_loss = clipped_surrogate(ratio, batch.advantages, algo.clip_low, algo.clip_high)
        value = jnp.sum(weights * policy_loss)
        clipped = is_clipped(ratio, batch.advantages, algo.clip_low, algo.clip_high)
        mismatch = jnp.abs(jax.lax.stop_gradient(logprobs) - batch.sampler_logprobs)
        metrics = {
            "sum/loss/policy": value,
            "sum/tokens": masked_sum(jnp.ones_like(logprobs), mask),
            "mean/entropy": masked_sum(entropy, mask),
            "mean/clip_fraction": masked_sum(clipped, mask),
            "mean/ratio/mean": masked_sum(ratio, mask),
            "mean/sampler_mismatch/mean": masked_sum(mismatch, mask),
            "max/ratio/max": masked_max(ratio, mask),
            "max/sampler_mismatch/max": masked_max(mismatch, mask),
        }
        if batch.ref_logprobs is not None:
            kl = kl_k3(jnp.where(mask, logprobs, 0.0), jnp.where(mask, batch.ref_logprobs, 0.0))
            value = value + algo.kl_coef * jnp.sum(weights * kl)
            metrics["mean/kl/ref"] = masked_sum(kl, mask)
        return value, {**metrics, "sum/loss": value}

    def weigh(batch: PolicyBatch) -> Array:
        return loss_weights(batch.completion_mask, batch.segment_ids, algo.aggregate)

    return _jit_step(loss, weigh, tx, state, mesh)


def make_score_fn(policy: Policy, mesh: Mesh, temperature: float = 1.0):
    """(trainable, frozen, batch) -> logprobs [M, B, T] of every token, at the sampling temperature; no gradient.

    The same compiled function serves the policy, the reference and the evaluation loss: only the arrays differ.
    """

    def score(trainable: Tree, frozen: Tree, batch: SFTBatch | PolicyBatch) -> Array:
        def body(i: Array, out: Array) -> Array:
            tokens, positions, segment_ids = (x[i] for x in (batch.tokens, batch.positions, batch.segment_ids))
            hidden = policy.apply(trainable, frozen, tokens, positions, segment_ids)
            logprobs, _ = token_logprobs(hidden, policy.head(trainable, frozen), tokens, segment_ids, temperature)
            return out.at[i].set(logprobs)

        return jax.lax.fori_loop(0, batch.num_microbatches, body, jnp.zeros(batch.tokens.shape, jnp.float32))

    return jax.jit(score, out_shardings=rows_sharding(mesh, axis=1))


# ------------------------------------------------------------------------------------------------ shared by all losses


def _jit_step(loss: Loss, weigh, tx: optax.GradientTransformation, state: TrainState, mesh: Mesh):
    """The jitted step around a loss. Shardings are pinned: left open, the first call and the second compile apart."""
    return jax.jit(
        partial(_step, loss, weigh, tx),
        donate_argnums=0,
        out_shardings=(shardings_for(jax.eval_shape(lambda s: s, state), mesh), replicated(mesh)),
    )


def _step(loss: Loss, weigh, tx, state: TrainState, frozen: Tree, batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(state.key, state.step)
    grads, metrics = _accumulate(loss, state.trainable, frozen, batch, weigh(batch), key)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    # A loss or gradient that is not finite changes nothing but the count of steps; the host counts and gives up.
    is_finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
    keep = partial(jnp.where, is_finite)
    after = TrainState(
        step=state.step + 1,
        trainable=jax.tree.map(keep, trainable, state.trainable),
        opt_state=jax.tree.map(keep, opt_state, state.opt_state),
        key=state.key,
    )
    return after, {**metrics, "grad_norm": grad_norm, "skipped": 1 - is_finite.astype(jnp.int32)}


def _accumulate(loss: Loss, trainable: Tree, frozen: Tree, batch, weights: Array, key: Array) -> tuple[Tree, Metrics]:
    """Gradients and metrics of the microbatches that hold something, added up. Weights already divide by the whole."""
    rows = dataclasses.replace(batch, num_microbatches=jnp.zeros(batch.tokens.shape[0], jnp.int32))

    def piece(i: Array):
        microbatch = jax.tree.map(lambda x: x[i], rows)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (_, metrics), grads = value_and_grad(trainable, frozen, microbatch, weights[i], jax.random.fold_in(key, i))
        return grads, metrics

    def body(i: Array, total):
        grads, metrics = piece(i)
        return jax.tree.map(jnp.add, total[0], grads), _combine(total[1], metrics)

    shapes = jax.eval_shape(piece, jnp.int32(0))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    nothing[1].update({name: jnp.float32(-jnp.inf) for name in shapes[1] if name.startswith("max/")})
    grads, metrics = jax.lax.fori_loop(0, batch.num_microbatches, body, nothing)
    return grads, _finish(metrics)


def _combine(a: Metrics, b: Metrics) -> Metrics:
    """Metrics of two microbatches as one: `max/` the larger, the others their sum."""
    return {name: jnp.maximum(a[name], b[name]) if name.startswith("max/") else a[name] + b[name] for name in a}


def _finish(metrics: Metrics) -> Metrics:
    """Drop the prefixes; `mean/` sums are divided by the number of tokens."""
    tokens = jnp.maximum(metrics["sum/tokens"], 1)
    finished = {}
    for name, value in metrics.items():
        how, short = name.split("/", 1)
        finished[short] = value / tokens if how == "mean" else value
    return finished
