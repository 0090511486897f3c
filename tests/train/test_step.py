"""Laws of the update: the same gradient however the batch is cut, ordered and spread; rewards decide its sign."""

import dataclasses

import jax
import jax.monitoring
import numpy as np
import optax
import pytest

from jaxrl.config import GRPOSection, LoraSection, MeshSection, OptimSection
from jaxrl.sharding import make_mesh, shard_batch
from jaxrl.train.state import make_optimizer, make_schedule, place_state
from jaxrl.train.step import make_grpo_step, make_score_fn, make_sft_step
from tests.tiny import LORA, max_difference, one_device, policy_and_trees, policy_batch, sft_batch

SGD = optax.sgd(1.0)  # with it the change of the parameters is the gradient


def update(kind, batch, mesh=None, lora=LORA, tx=SGD, algo=GRPOSection(kl_coef=0.1)):
    """(change of the trainable tree, metrics) of one step."""
    mesh = mesh or one_device()
    policy, trainable, frozen = policy_and_trees(lora)
    state = place_state(trainable, tx, jax.random.key(0), mesh)
    if kind == "sft":
        step, batch = make_sft_step(policy, tx, state, mesh), sft_batch(batch)
    else:
        step = make_grpo_step(policy, tx, algo, 1.0, state, mesh)
    after, metrics = step(state, frozen, shard_batch(batch, mesh))
    change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), after.trainable, trainable)
    return change, jax.device_get(metrics)


def relative_difference(a, b) -> float:
    size = max(float(np.abs(x).max()) for x in jax.tree.leaves(b))
    return max_difference(a, b) / size


@pytest.mark.parametrize("kind", ["sft", "grpo"])
@pytest.mark.parametrize("lora", [LORA, None])
def test_microbatches_order_and_mesh_change_nothing(kind, lora):
    whole, metrics = update(kind, policy_batch(1), lora=lora)
    eight = make_mesh(MeshSection(data=2, fsdp=2, tensor=2))
    variants = {
        "4 microbatches": (policy_batch(4), None),
        "rows reversed": (policy_batch(2, order=np.arange(8)[::-1]), None),
        "8 devices": (policy_batch(2), eight),
    }
    for name, (batch, mesh) in variants.items():
        change, other = update(kind, batch, mesh, lora)
        assert relative_difference(change, whole) < 1e-5, name
        np.testing.assert_allclose(other["loss"], metrics["loss"], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(other["grad_norm"], metrics["grad_norm"], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean"])
def test_padding_changes_nothing(aggregate):
    algo = GRPOSection(aggregate=aggregate)
    short, _ = update("grpo", policy_batch(2, T=20), algo=algo)
    batch = policy_batch(2, T=20)
    wider = jax.tree.map(lambda x: np.pad(x, ((0, 1), (0, 0), (0, 7))) if np.ndim(x) == 3 else x, batch)
    wider = dataclasses.replace(wider, num_microbatches=np.int32(3))  # an empty microbatch is run, too
    padded, _ = update("grpo", wider, algo=algo)
    assert relative_difference(padded, short) < 1e-5


def test_microbatches_beyond_the_count_are_not_run():
    batch = policy_batch(4)
    filled = jax.tree.map(lambda x: np.concatenate([x, x]) if np.ndim(x) == 3 else x, batch)
    blank = np.zeros_like(batch.completion_mask)
    filled = dataclasses.replace(filled, completion_mask=np.concatenate([batch.completion_mask, blank]))
    assert relative_difference(update("grpo", filled)[0], update("grpo", batch)[0]) < 1e-6


def test_gradient_flips_with_the_rewards():
    batch = dataclasses.replace(policy_batch(2), old_logprobs=None, ref_logprobs=None)
    flipped = dataclasses.replace(batch, advantages=-batch.advantages)
    algo = GRPOSection()
    there, back = update("grpo", batch, algo=algo)[0], update("grpo", flipped, algo=algo)[0]
    assert relative_difference(jax.tree.map(np.negative, back), there) < 1e-5
    nothing, metrics = update("grpo", dataclasses.replace(batch, advantages=0 * batch.advantages), algo=algo)
    assert all(not np.any(x) for x in jax.tree.leaves(nothing)) and metrics["grad_norm"] == 0


def test_ratio_is_exactly_one_when_the_policy_has_not_moved():
    mesh = one_device()
    policy, trainable, frozen = policy_and_trees()
    batch = dataclasses.replace(policy_batch(2), old_logprobs=None, ref_logprobs=None)
    _, metrics = update("grpo", batch)
    assert metrics["ratio/max"] == metrics["ratio/mean"] == 1 and metrics["clip_fraction"] == 0
    scored = make_score_fn(policy, mesh)(trainable, frozen, shard_batch(batch, mesh))
    with_old = dataclasses.replace(batch, old_logprobs=np.asarray(scored), ref_logprobs=np.asarray(scored))
    change, metrics = update("grpo", with_old)
    np.testing.assert_allclose(metrics["ratio/max"], 1, atol=1e-5)
    np.testing.assert_allclose(metrics["kl/ref"], 0, atol=1e-9)
    assert relative_difference(change, update("grpo", batch)[0]) < 1e-4


def test_gradient_agrees_with_finite_differences():
    """The direction of the gradient, against the loss itself: an end-to-end check of forward, mask and weights."""
    batch = dataclasses.replace(policy_batch(1), ref_logprobs=None)
    change, metrics = update("sft", batch)
    policy, trainable, frozen = policy_and_trees()
    length = float(metrics["grad_norm"])
    losses = []
    for sign in (1, -1):
        moved = jax.tree.map(lambda p, c: p + sign * 1e-2 * c / length, trainable, change)
        logprobs = make_score_fn(policy, one_device())(moved, frozen, sft_batch(batch))
        losses.append(-np.asarray(logprobs, np.float64)[batch.completion_mask].mean())
    np.testing.assert_allclose((losses[1] - losses[0]) / 2e-2, length, rtol=1e-2)


def test_not_finite_updates_are_skipped_and_counted():
    batch = policy_batch(2)
    broken = dataclasses.replace(batch, advantages=np.where(batch.completion_mask, np.nan, 0).astype(np.float32))
    change, metrics = update("grpo", broken)
    assert metrics["skipped"] == 1 and all(not np.any(x) for x in jax.tree.leaves(change))


def test_step_compiles_once_and_consumes_its_state():
    mesh = make_mesh(MeshSection(data=2, fsdp=2, tensor=2))
    policy, trainable, frozen = policy_and_trees()
    tx = make_optimizer(OptimSection(), 10)
    state = place_state(trainable, tx, jax.random.key(0), mesh)
    step = make_sft_step(policy, tx, state, mesh)
    given, batch, compiled = state, shard_batch(sft_batch(policy_batch(2)), mesh), []
    listen = lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    for _ in range(3):
        state, _ = step(state, frozen, batch)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 1 and int(state.step) == 3
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.trainable))


def test_optimizer_state_exists_for_adapters_only():
    policy, trainable, frozen = policy_and_trees(LoraSection(rank=2))
    state = place_state(trainable, make_optimizer(OptimSection(), 10), jax.random.key(0), one_device())
    trained = sum(x.size for x in jax.tree.leaves(trainable))
    moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim > 0)
    assert moments == 2 * trained


@pytest.mark.parametrize("schedule, middle, end", [("constant", 1.0, 1.0), ("linear", 0.6, 0.2), ("cosine", 0.6, 0.2)])
def test_schedules_by_hand(schedule, middle, end):
    optim = OptimSection(learning_rate=1.0, schedule=schedule, warmup_steps=4, min_ratio=0.2)
    f = make_schedule(optim, 24)
    np.testing.assert_allclose([f(0), f(3), f(14), f(24)], [0.25, 1.0, middle, end], rtol=1e-5)


def test_weight_decay_spares_norms_and_biases():
    policy, trainable, frozen = policy_and_trees(None)
    tx = make_optimizer(OptimSection(learning_rate=0.1, weight_decay=0.5, clip_norm=0.0), 10)
    zeros = jax.tree.map(np.zeros_like, trainable)
    updates, _ = tx.update(zeros, tx.init(trainable), trainable)
    layers = updates["model"]["layers"]
    assert np.any(layers["q"]["kernel"]) and np.any(updates["model"]["embed"]["kernel"])
    assert not np.any(layers["attn_norm"]["scale"]) and not np.any(layers["q"]["bias"])
