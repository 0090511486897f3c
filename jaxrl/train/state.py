"""The state that training changes, the optimiser that changes it, and how both are laid out over the mesh."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jaxrl.config import OptimSection
from jaxrl.sharding import path_name, shardings_for

Tree = dict


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that one update reads and writes. Exists for what is trained only: with adapters it is megabytes."""

    step: Array  # [] int32, updates done
    trainable: Tree  # {"lora": ...} or {"model": ...}, float32
    opt_state: optax.OptState
    key: Array  # PRNG key; folded with step, never split away


def make_schedule(optim: OptimSection, total_steps: int) -> optax.Schedule:
    """Learning rate by update number.

    Linear warm-up from 0 over `warmup_steps`, then constant, or linear or cosine down to min_ratio * learning_rate at
    `total_steps`.
    """
    peak, floor = optim.learning_rate, optim.min_ratio * optim.learning_rate
    decay_steps = max(1, total_steps - optim.warmup_steps)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, floor, decay_steps),
        "cosine": optax.cosine_decay_schedule(peak, decay_steps, alpha=optim.min_ratio),
    }[optim.schedule]
    if optim.warmup_steps == 0:
        return after
    # Update 0 already moves: the ramp reaches the peak after warmup_steps updates, and no update is wasted at zero.
    warmup = optax.linear_schedule(peak / optim.warmup_steps, peak, max(1, optim.warmup_steps - 1))
    return optax.join_schedules([warmup, after], [optim.warmup_steps])


def make_optimizer(optim: OptimSection, total_steps: int) -> optax.GradientTransformation:
    """AdamW behind a clip of the global norm. Weight decay is on matrices only, not on norms and biases."""
    adamw = optax.adamw(
        make_schedule(optim, total_steps),
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=_is_matrix,
    )
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw) if optim.clip_norm > 0 else adamw


def init_state(trainable: Tree, tx: optax.GradientTransformation, key: Array) -> TrainState:
    """State before the first update."""
    return TrainState(
        step=jnp.int32(0), trainable=trainable, opt_state=tx.init(trainable), key=key
    )


def place_state(trainable: Tree, tx: optax.GradientTransformation, key: Array, mesh: Mesh) -> TrainState:
    """State before the first update, made directly in its shardings. `trainable` is left alive."""
    init: Callable[[Tree], TrainState] = lambda params: init_state(jax.tree.map(jnp.copy, params), tx, key)  # noqa: E731
    return jax.jit(init, out_shardings=shardings_for(jax.eval_shape(init, trainable), mesh))(trainable)


def _is_matrix(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).rsplit("/", 1)[-1] in ("kernel", "lora_a", "lora_b"), params
    )
