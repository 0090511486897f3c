"""The pure steps: (state, frozen, batch) -> (state, metrics); the scorers that fill in logprobs, values.

Each maker closes over static things only and returns one jitted function with pinned shardings and the state
donated. A loss is a sum over tokens with weights fixed for the whole batch, so cutting the batch into
microbatches changes nothing but memory. Axes: M microbatches, B rows, T tokens.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.config.shared import SampleSection
from jaxrl.device.mesh import over_rows, replicated, rows_sharding, shardings_for
from jaxrl.model.policy import Policy
from jaxrl.model.value_head import state_values, value_head
from jaxrl.ops.logprobs import token_logprobs
from jaxrl.ops.masked import masked_sum
from jaxrl.ops.policy_loss import loss_weights
from jaxrl.types import MAX_WEIGHT, Tree
from jaxrl.update.batch import PolicyBatch, SFTBatch
from jaxrl.update.objective import policy_objective, value_objective, weigh
from jaxrl.update.state import TrainState, all_finite, all_within

Metrics = dict[str, Array]
LossWeights = dict[str, Array]
UpdateBatch = SFTBatch | PolicyBatch
# (trainable, frozen, microbatch, weights [B, T] each, key) -> (loss, metrics by how they are put together)
Loss = Callable[[Tree, Tree, Any, LossWeights, Array], tuple[Array, Metrics]]
Weigh = Callable[[Any], LossWeights]  # of a batch, [M, B, T] each


def make_sft_step(
    policy: Policy, tx: optax.GradientTransformation, state: TrainState, mesh: Mesh
) -> jax.stages.Wrapped:
    """Completion-only cross-entropy, the mean over the tokens of the whole batch.

        loss = -sum(loss_mask * logprobs) / sum(loss_mask)

    Returns:
      (state, frozen, SFTBatch) -> (state, metrics); the state given is consumed.
    """

    def loss(
        trainable: Tree, frozen: Tree, batch: SFTBatch, weights: LossWeights, key: Array
    ) -> tuple[Array, Metrics]:
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids, key)
        logprobs, _ = _score_tokens(policy, trainable, frozen, hidden, batch, batch.loss_mask)
        value = -jnp.sum(weights["tokens"] * logprobs)
        return value, {"sum/loss": value, "sum/tokens": masked_sum(jnp.ones_like(logprobs), batch.loss_mask)}

    def weigh_tokens(batch: SFTBatch) -> LossWeights:
        return {"tokens": loss_weights(batch.loss_mask, batch.segment_ids, "token_mean")}

    return jit_step(loss, weigh_tokens, tx, state, mesh)


def make_grpo_step(
    policy: Policy,
    tx: optax.GradientTransformation,
    algo: GRPOSection,
    sample: SampleSection,
    state: TrainState,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """The step of GRPO and its family; `objective.policy_objective` is what is minimised.

    Policy gradients know no dropout: its noise would be taken for a change of the policy.

    Args:
      sample: its temperature divides the logits, as it did when sampling; its max_new_tokens is the constant
        of `aggregate: constant`.
    Returns:
      (state, frozen, PolicyBatch) -> (state, metrics); the state given is consumed.
    """

    def loss(
        trainable: Tree, frozen: Tree, batch: PolicyBatch, weights: LossWeights, key: Array
    ) -> tuple[Array, Metrics]:
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids)
        value, metrics = _policy_loss(policy, algo, sample, trainable, frozen, hidden, batch, weights)
        return value, {**metrics, "sum/loss": value}

    return jit_step(loss, partial(weigh, algo, sample.max_new_tokens), tx, state, mesh)


def make_ppo_step(
    policy: Policy,
    tx: optax.GradientTransformation,
    algo: PPOSection,
    sample: SampleSection,
    state: TrainState,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """The step of PPO: the policy's loss and the critic's, over one forward pass where they share their
    hidden states.

    Args, Returns: as in `make_grpo_step`; the trainable tree holds a critic, the batch old_values and
      returns.
    """

    def loss(
        trainable: Tree, frozen: Tree, batch: PolicyBatch, weights: LossWeights, key: Array
    ) -> tuple[Array, Metrics]:
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids)
        value, metrics = _policy_loss(policy, algo, sample, trainable, frozen, hidden, batch, weights)
        values = state_values(_values_after(policy, trainable, frozen, hidden, batch), batch.segment_ids)
        critic_value, critic_metrics = value_objective(algo, values, batch, weights)
        return value + critic_value, {**metrics, **critic_metrics, "sum/loss": value + critic_value}

    return jit_step(loss, partial(weigh, algo, sample.max_new_tokens), tx, state, mesh)


def make_score_fn(policy: Policy, mesh: Mesh, temperature: float = 1.0) -> jax.stages.Wrapped:
    """(trainable, frozen, batch) -> logprobs [M, B, T] of the tokens under the batch's mask; no gradient.

    The same compiled function serves the policy, the reference and the evaluation loss: only the arrays
    differ.
    """

    def score(trainable: Tree, frozen: Tree, batch: SFTBatch | PolicyBatch) -> Array:
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids)
        mask = batch.loss_mask if isinstance(batch, SFTBatch) else batch.completion_mask
        return _score_tokens(policy, trainable, frozen, hidden, batch, mask, temperature)[0]

    return _jit_score(score, mesh)


def make_critic_fn(policy: Policy, mesh: Mesh, temperature: float = 1.0) -> jax.stages.Wrapped:
    """(trainable, frozen, PolicyBatch) -> (logprobs, values) [M, B, T] in one pass; values are those of the
    states after each token: `state_values` shifts them, and the last one of a trajectory is what would come
    after it.
    """

    def score(trainable: Tree, frozen: Tree, batch: PolicyBatch) -> tuple[Array, Array]:
        hidden = policy.apply(trainable, frozen, batch.tokens, batch.positions, batch.segment_ids)
        logprobs, _ = _score_tokens(
            policy, trainable, frozen, hidden, batch, batch.completion_mask, temperature
        )
        return logprobs, _values_after(policy, trainable, frozen, hidden, batch)

    return _jit_score(score, mesh)


# ---------------------------------------------------------------------------------------- parts of the losses


def _policy_loss(
    policy: Policy,
    algo: PolicyGradientSection,
    sample: SampleSection,
    trainable: Tree,
    frozen: Tree,
    hidden: Array,
    batch: PolicyBatch,
    weights: LossWeights,
) -> tuple[Array, Metrics]:
    mask = batch.completion_mask if batch.replay_mask is None else batch.completion_mask | batch.replay_mask
    logprobs, entropy = _score_tokens(
        policy, trainable, frozen, hidden, batch, mask, sample.temperature, algo.entropy_coef > 0
    )
    return policy_objective(algo, logprobs, entropy, batch, weights)


def _score_tokens(
    policy: Policy,
    trainable: Tree,
    frozen: Tree,
    hidden: Array,
    batch: UpdateBatch,
    mask: Array,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Array, Array]:
    """Logprobs and entropy [B, T]: of a PolicyBatch under the policy that sampling draws from, renormalised
    over the ids that could have come; of an SFTBatch under the model as it is, whose cross-entropy is over
    the whole vocabulary, as everywhere.
    """
    excluded, num_tokens = (
        (batch.excluded, policy.num_tokens) if isinstance(batch, PolicyBatch) else (None, None)
    )
    score = partial(token_logprobs, num_tokens=num_tokens, trains_head="model" in trainable)

    def score_rows(rows: tuple, shared: tuple) -> tuple[Array, Array]:
        (hidden, tokens, segment_ids, mask, excluded), (head, temperature) = rows, shared
        return score(
            hidden,
            head,
            tokens,
            segment_ids,
            temperature,
            mask=mask,
            excluded=excluded,
            entropy_gradient=entropy_gradient,
        )

    rows = (hidden, batch.tokens, batch.segment_ids, mask, excluded)
    shared = (policy.head(trainable, frozen), jnp.float32(temperature))
    return over_rows(score_rows, policy.mesh, hidden.shape[0])(rows, shared)


def _values_after(policy: Policy, trainable: Tree, frozen: Tree, hidden: Array, batch: PolicyBatch) -> Array:
    """The critic's values [B, T] after each token, on the policy's hidden states or on those of its own
    adapters.
    """
    if "critic_lora" in trainable:
        own = {"lora": trainable["critic_lora"]}
        hidden = policy.apply(own, frozen, batch.tokens, batch.positions, batch.segment_ids)
    return value_head(trainable["value_head"], hidden)


def _jit_score(score: Callable[[Tree, Tree, Any], Any], mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted loop of a scorer over the microbatches that hold something."""

    def over_microbatches(trainable: Tree, frozen: Tree, batch: UpdateBatch) -> Any:
        rows = _rows(batch)
        one = jax.eval_shape(score, trainable, frozen, jax.tree.map(lambda x: x[0], rows))
        nothing = jax.tree.map(lambda x: jnp.zeros((batch.tokens.shape[0], *x.shape), x.dtype), one)

        def body(i: Array, out: Any) -> Any:
            scores = score(trainable, frozen, jax.tree.map(lambda x: x[i], rows))
            return jax.tree.map(lambda all, this: all.at[i].set(this), out, scores)

        return jax.lax.fori_loop(0, batch.num_microbatches, body, nothing)

    return jax.jit(over_microbatches, out_shardings=rows_sharding(mesh, axis=1))


# --------------------------------------------------------------------------------------- shared by all losses


def jit_step(
    loss: Loss, weigh: Weigh, tx: optax.GradientTransformation, state: TrainState, mesh: Mesh
) -> jax.stages.Wrapped:
    """The jitted step around a loss.

    Shardings are pinned: left open, the first call and the second compile apart.
    """
    return jax.jit(
        partial(_step, loss, weigh, tx),
        donate_argnums=0,
        out_shardings=(shardings_for(jax.eval_shape(lambda s: s, state), mesh), replicated(mesh)),
    )


def _step(
    loss: Loss,
    weigh: Weigh,
    tx: optax.GradientTransformation,
    state: TrainState,
    frozen: Tree,
    batch: UpdateBatch,
) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(state.key, state.step)
    grads, metrics = _accumulate(loss, state.trainable, frozen, batch, weigh(batch), key)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    # An update whose loss, gradient or result is not sound changes nothing but the count of steps; the host
    # counts and gives up.
    is_sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
    is_sound &= all_within(trainable, MAX_WEIGHT) & all_finite(opt_state)
    keep = partial(jnp.where, is_sound)
    after = TrainState(
        step=state.step + 1,
        trainable=jax.tree.map(keep, trainable, state.trainable),
        opt_state=jax.tree.map(keep, opt_state, state.opt_state),
        key=state.key,
        reference=state.reference,
    )
    return after, {**metrics, "grad_norm": grad_norm, "skipped": 1 - is_sound.astype(jnp.int32)}


def _accumulate(
    loss: Loss, trainable: Tree, frozen: Tree, batch: UpdateBatch, weights: LossWeights, key: Array
) -> tuple[Tree, Metrics]:
    """Gradients and metrics of the microbatches that hold something, added up.

    Weights already divide by the whole.
    """
    rows = _rows(batch)

    def piece(i: Array) -> tuple[Tree, Metrics]:
        microbatch, own_weights = jax.tree.map(lambda x: x[i], (rows, weights))
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (_, metrics), grads = value_and_grad(
            trainable, frozen, microbatch, own_weights, jax.random.fold_in(key, i)
        )
        return grads, metrics

    def body(i: Array, total: tuple[Tree, Metrics]) -> tuple[Tree, Metrics]:
        grads, metrics = piece(i)
        return jax.tree.map(jnp.add, total[0], grads), _combine(i, total[1], metrics)

    grads, metrics = jax.eval_shape(piece, jnp.int32(0))
    nothing = (
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), grads),
        _no_metrics(metrics, batch.tokens.shape[0]),
    )
    grads, metrics = jax.lax.fori_loop(0, batch.num_microbatches, body, nothing)
    return grads, _finish(metrics)


def _rows(batch: UpdateBatch) -> UpdateBatch:
    """The batch with all leaves [M, ...], so that indexing gives a microbatch."""
    return dataclasses.replace(batch, num_microbatches=jnp.zeros(batch.tokens.shape[0], jnp.int32))


# A metric's prefix says how microbatches are put together: `sum/` adds, `mean/` adds and divides by the
# number of tokens, `max/` takes the largest, `p99/` keeps one number per token (NaN where there is none) for
# the 99th percentile of them all.


def _no_metrics(shapes: Metrics, M: int) -> Metrics:
    def nothing(name: str, x: Array) -> Array:
        if name.startswith("p99/"):
            return jnp.full((M, *x.shape), jnp.nan, x.dtype)
        return jnp.full(x.shape, -jnp.inf if name.startswith("max/") else 0.0, jnp.float32)

    return {name: nothing(name, x) for name, x in shapes.items()}


def _combine(i: Array, total: Metrics, metrics: Metrics) -> Metrics:
    """The metrics so far, with those of microbatch i."""

    def combine(name: str) -> Array:
        if name.startswith("p99/"):
            return total[name].at[i].set(metrics[name])
        return (
            jnp.maximum(total[name], metrics[name])
            if name.startswith("max/")
            else total[name] + metrics[name]
        )

    return {name: combine(name) for name in total}


def _finish(metrics: Metrics) -> Metrics:
    """Drop the prefixes, and do what they still ask for."""
    tokens = jnp.maximum(metrics["sum/tokens"], 1)
    finished = {}
    for name, value in metrics.items():
        how, short = name.split("/", 1)
        finished[short] = (
            value / tokens if how == "mean" else jnp.nanquantile(value, 0.99) if how == "p99" else value
        )
    return finished
