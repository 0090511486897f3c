"""Schedules and weight decay by hand."""

import jax
import numpy as np
import pytest

from jaxrl.config.shared import OptimSection
from jaxrl.update.state import make_optimizer, make_schedule
from tests.tiny import LORA, policy_and_trees


@pytest.mark.parametrize(
    "schedule, middle, end", [("constant", 1.0, 1.0), ("linear", 0.6, 0.2), ("cosine", 0.6, 0.2)]
)
def test_schedules_by_hand(schedule, middle, end):
    """Every rate is a multiple of the learning rate, the floor too."""
    for rate in (1.0, 0.003):
        f = make_schedule(
            OptimSection(learning_rate=rate, schedule=schedule, warmup_steps=4, min_ratio=0.2), 24
        )
        np.testing.assert_allclose(
            [f(0), f(3), f(14), f(24)], rate * np.array([0.25, 1.0, middle, end]), rtol=1e-5
        )


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_updates_that_are_held_come_before_the_whole_of_the_schedule(schedule):
    optim = OptimSection(learning_rate=0.5, schedule=schedule, warmup_steps=2, min_ratio=0.1)
    held, plain = make_schedule(optim, 12 + 5, held=5), make_schedule(optim, 12)
    assert [float(held(step)) for step in range(5)] == [0.0] * 5
    np.testing.assert_allclose(
        [held(5 + step) for step in range(13)], [plain(step) for step in range(13)], rtol=1e-6
    )
    np.testing.assert_allclose(held(17), 0.5 if schedule == "constant" else 0.05, rtol=1e-5)


def decay(trainable):
    """What an update without any gradient takes off each parameter."""
    tx = make_optimizer(OptimSection(learning_rate=0.1, weight_decay=0.5, clip_norm=0.0), 10)
    zeros = jax.tree.map(np.zeros_like, trainable)
    return tx.update(zeros, tx.init(trainable), trainable)[0]


def test_weight_decay_spares_norms_and_biases():
    _, trainable, _ = policy_and_trees(None)
    updates = decay(trainable)
    layers = updates["model"]["layers"]
    assert np.any(layers["q"]["kernel"]) and np.any(updates["model"]["embed"]["kernel"])
    assert not np.any(layers["attn_norm"]["scale"]) and not np.any(layers["q"]["bias"])


def test_weight_decay_is_on_both_matrices_of_every_adapter():
    _, trainable, _ = policy_and_trees(LORA)
    updates = decay(trainable)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        parameter = next(x for p, x in jax.tree_util.tree_leaves_with_path(trainable) if p == path)
        np.testing.assert_allclose(update, -0.1 * 0.5 * parameter, rtol=1e-5, err_msg=str(path))
