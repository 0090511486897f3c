"""The state that training changes, the optimiser that changes it, and how both are laid out over the mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.algo import PPOSection
from jaxrl.config.shared import OptimSection
from jaxrl.device.mesh import path_name, with_shardings
from jaxrl.types import Tree

CRITIC_PARTS = ("value_head", "critic_lora")  # the parts of the trainable tree that the policy does without


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that one update reads and writes. Only of what is trained: with adapters it is megabytes."""

    step: Array  # [] int32, updates done
    # {"lora": ...} or {"model": ...}, with a critic also {"value_head": ..., "critic_lora": ...}; float32
    trainable: Tree
    opt_state: optax.OptState
    key: Array  # PRNG key; folded with step, never split away
    # what the KL term measures from, like the policy's part of `trainable`; {} without a KL term
    reference: Tree


def policy_part(trainable: Tree) -> Tree:
    """What the sampler needs of a trainable tree: all but the critic."""
    return {name: tree for name, tree in trainable.items() if name not in CRITIC_PARTS}


def make_schedule(optim: OptimSection, total_steps: int, held: int = 0) -> optax.Schedule:
    """Learning rate by update number.

    Linear warm-up from 0 over `warmup_steps`, then constant, or linear or cosine down to min_ratio *
    learning_rate at `total_steps`. The first `held` updates have rate 0; the rest begins after them.
    """
    if held:
        return optax.join_schedules(
            [optax.constant_schedule(0.0), make_schedule(optim, total_steps - held)], [held]
        )
    peak, floor = optim.learning_rate, optim.min_ratio * optim.learning_rate
    decay_steps = max(1, total_steps - optim.warmup_steps)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, floor, decay_steps),
        "cosine": optax.cosine_decay_schedule(peak, decay_steps, alpha=optim.min_ratio),
    }[optim.schedule]
    if optim.warmup_steps == 0:
        return after
    # Update 0 already moves: the ramp reaches the peak after warmup_steps updates, and no update is wasted at
    # zero.
    warmup = optax.linear_schedule(peak / optim.warmup_steps, peak, max(1, optim.warmup_steps - 1))
    return optax.join_schedules([warmup, after], [optim.warmup_steps])


def make_optimizer(optim: OptimSection, total_steps: int, held: int = 0) -> optax.GradientTransformation:
    """AdamW behind a clip of the global norm. Weight decay is on matrices only, not on norms and biases."""
    adamw = optax.adamw(
        make_schedule(optim, total_steps, held),
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=_is_matrix,
    )
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw) if optim.clip_norm > 0 else adamw


def make_actor_critic_optimizer(
    optim: OptimSection, algo: PPOSection, total_steps: int
) -> optax.GradientTransformation:
    """Two optimisers side by side: the critic's, and the policy's, which holds still in the critic's warm-up.

    Each clips by the norm of its own gradients, so that a critic far off does not shrink the policy's step.
    """
    critic = optim.model_copy(update={"learning_rate": algo.critic_learning_rate or optim.learning_rate})
    optimizers = {
        "policy": make_optimizer(optim, total_steps, algo.num_held),
        "critic": make_optimizer(critic, total_steps),
    }
    return optax.partition(
        optimizers, lambda tree: {name: "critic" if name in CRITIC_PARTS else "policy" for name in tree}
    )


def init_state(
    trainable: Tree, tx: optax.GradientTransformation, key: Array, reference: Tree | None = None
) -> TrainState:
    """State before the first update."""
    return TrainState(
        step=jnp.int32(0),
        trainable=trainable,
        opt_state=tx.init(trainable),
        key=key,
        reference=reference or {},
    )


def abstract_state(
    trainable: Tree, tx: optax.GradientTransformation, key: Array, mesh: Mesh, reference: Tree | None = None
) -> TrainState:
    """Shapes, dtypes and shardings of the state that `place_state` makes of the same arguments.

    They follow from what the state is made of and from the mesh alone. A state itself is never asked: it
    knows where it came from, and one that was read from disk has other shardings than one that was made here.
    """
    abstract = jax.eval_shape(
        lambda trees, key: init_state(trees[0], tx, key, trees[1]), (trainable, reference or {}), key
    )
    return with_shardings(abstract, mesh)


def place_state(
    trainable: Tree, tx: optax.GradientTransformation, key: Array, mesh: Mesh, reference: Tree | None = None
) -> TrainState:
    """State before the first update, made in its shardings. `trainable` and `reference` are left alive."""

    def init(trees: tuple[Tree, Tree]) -> TrainState:
        trainable, reference = jax.tree.map(jnp.copy, trees)
        return init_state(trainable, tx, key, reference)

    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(trainable, tx, key, mesh, reference))
    return jax.jit(init, out_shardings=shardings)((trainable, reference or {}))


def all_finite(tree: Any) -> Array:
    """Whether no floating-point number of a tree is NaN or infinite; a boolean []."""
    return _all(jnp.isfinite, tree)


def all_within(tree: Any, limit: float) -> Array:
    """Whether every floating-point number of a tree is between -limit and limit, which NaN is not; a boolean
    [].
    """
    return _all(lambda x: jnp.abs(x) <= limit, tree)


def _all(test: Callable[[Array], Array], tree: Any) -> Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.all(test(leaf)) for leaf in floats], bool))


def _is_matrix(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).rsplit("/", 1)[-1] in ("kernel", "lora_a", "lora_b"), params
    )
