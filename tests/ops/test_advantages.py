"""Every estimator by hand, in float64, jitted and not; what constants, scales and signs of rewards do to
it.
"""

import jax
import numpy as np
import pytest

from jaxrl.ops.advantages import (
    ADVANTAGES,
    batch_normalize,
    group_center,
    group_normalize,
    leave_one_out,
    overlong_penalty,
    part_normalize,
    whiten,
)

REWARDS = [[1.0, 0.0, 5.0], [-0.5, 0.25, 1.0], [2.0, 2.0, 2.0]]
MASK = [[True, True, False], [True, True, True], [True, True, True]]
# Worked by hand, all completions counting: means 2, 0.25, 2; sample deviations sqrt(7), 0.75, 0; over the
# batch 12.75 / 9.
CENTERED = [[-1.0, -2.0, 3.0], [-0.75, 0.0, 0.75], [0.0, 0.0, 0.0]]
DEVIATIONS = [[7.0**0.5], [0.75], [1.0]]
# With the 5 left out: means 0.5, 0.25, 2; sample deviations sqrt(0.5), 0.75, 0.
MASKED = [[0.5, -0.5, 0.0], [-0.75, 0.0, 0.75], [0.0, 0.0, 0.0]]
MASKED_DEVIATIONS = [[0.5**0.5], [0.75], [1.0]]


def batch_table(mask):
    """Mean and sample deviation over all that count, written out."""
    rewards = [r for row, row_mask in zip(REWARDS, mask) for r, m in zip(row, row_mask) if m]
    mean = sum(rewards) / len(rewards)
    deviation = (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) ** 0.5
    return [[(r - mean) / deviation if m else 0.0 for r, m in zip(*rows)] for rows in zip(REWARDS, mask)]


ALL = [[True] * 3] * 3
TABLE = {
    "grpo": (np.divide(CENTERED, DEVIATIONS), np.divide(MASKED, MASKED_DEVIATIONS)),
    "center": (CENTERED, MASKED),
    # G / (G - 1) of those that count
    "rloo": (np.multiply(CENTERED, 1.5), np.multiply(MASKED, [[2.0], [1.5], [1.5]])),
    "reinforce_pp": (batch_table(ALL), batch_table(MASK)),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ADVANTAGES)
def test_hand_table(name, jit):
    with jax.enable_x64(True):
        f = jax.jit(ADVANTAGES[name]) if jit else ADVANTAGES[name]
        rewards, mask = np.array(REWARDS), np.array(MASK)
        for found, expected in zip(
            (f(rewards), f(rewards, mask), f(rewards, np.array(ALL))), (*TABLE[name], TABLE[name][0])
        ):
            assert found.dtype == np.float64
            # the eps beside the deviation is 1e-6
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


def test_the_small_number_stands_beside_the_deviation():
    """Rewards 0 and 1e-4 deviate by 7.07e-5, which 1e-6 hardly changes; inside of the root it would be all
    there is.
    """
    deviation = 5e-5 * 2**0.5
    with jax.enable_x64(True):
        for name in ("grpo", "reinforce_pp"):
            found = ADVANTAGES[name](np.array([[0.0, 1e-4]]))
            np.testing.assert_allclose(
                found, [[-5e-5 / (deviation + 1e-6), 5e-5 / (deviation + 1e-6)]], rtol=1e-9
            )


def test_leave_one_out_is_what_it_says():
    rewards = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    others = (rewards.sum(1, keepdims=True) - rewards) / 4
    np.testing.assert_allclose(leave_one_out(rewards), rewards - others, atol=1e-6)


@pytest.mark.parametrize("name, scale", [("grpo", 1), ("center", 3), ("rloo", 3), ("reinforce_pp", 1)])
def test_a_constant_changes_nothing_and_a_scale_what_the_formula_says(name, scale):
    rewards = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    f = ADVANTAGES[name]
    np.testing.assert_allclose(f(3 * rewards + 7), scale * np.asarray(f(rewards)), atol=1e-4)
    np.testing.assert_allclose(f(-rewards), -f(rewards), atol=1e-6)


def test_a_constant_on_one_group_moves_no_other_group():
    rewards = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    moved = rewards + np.array([[0.0], [5.0], [0.0], [0.0]], np.float32)
    for name in ("grpo", "center", "rloo"):
        np.testing.assert_allclose(ADVANTAGES[name](moved), ADVANTAGES[name](rewards), atol=1e-5)
    # REINFORCE++ has one baseline for all
    assert np.abs(batch_normalize(moved) - batch_normalize(rewards)).max() > 0.1


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_get_exact_zeros_whatever_the_number(name):
    for reward in (0.1, -2.0, 1e-8, 3e7):
        assert not np.any(ADVANTAGES[name](np.full((2, 7), reward, np.float32)))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_what_does_not_count_may_be_anything(name):
    rewards = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    mask = np.ones((3, 4), bool)
    mask[0, 1] = mask[2, :3] = False
    broken = np.where(mask, rewards, np.nan)
    found = ADVANTAGES[name](broken, mask)
    np.testing.assert_array_equal(found, ADVANTAGES[name](rewards, mask))
    assert np.isfinite(found).all() and not np.any(found[~mask])
    if name != "reinforce_pp":
        assert found[2, 3] == 0  # alone in its group
        np.testing.assert_allclose(
            found[0, [0, 2, 3]], ADVANTAGES[name](rewards[:1, [0, 2, 3]])[0], rtol=1e-5
        )
    assert not np.any(ADVANTAGES[name](broken, np.zeros_like(mask)))


@pytest.mark.parametrize("f", [group_normalize, group_center, leave_one_out])
def test_group_of_one_is_refused_where_groups_are_compared(f):
    with pytest.raises(ValueError, match="group_size"):
        f(np.ones((3, 1), np.float32))
    assert np.any(batch_normalize(np.array([[1.0], [0.0]], np.float32)))


def test_whitened_advantages_have_mean_zero_and_variance_one_over_the_mask():
    rng = np.random.default_rng(3)
    mask = rng.random((4, 9)) < 0.5
    x = np.where(mask, rng.normal(3.0, 5.0, (4, 9)), np.nan).astype(np.float32)
    found = np.asarray(whiten(x, mask))
    np.testing.assert_allclose([found[mask].mean(), found[mask].std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(found[mask], (x[mask] - x[mask].mean()) / x[mask].std(), rtol=1e-4, atol=1e-5)
    assert not np.any(found[~mask])
    assert not np.any(whiten(np.full((2, 3), 0.7, np.float32), np.ones((2, 3), bool)))


def test_overlong_penalty_by_hand():
    """Limit 20, buffer 4: nothing up to 16, a quarter for each token more, all of it at the limit."""
    np.testing.assert_allclose(overlong_penalty(np.array([1, 16, 17, 19, 20]), 20, 4), [0, 0, 0.25, 0.75, 1])


def test_parts_are_normalised_one_by_one_by_hand():
    """Luck (0 or 3) and a path (0 or 0.1), a penalty that nobody has: G = 2, so that each part is +-1 / sqrt
    2 where it differs.

    Group 1: the two agree, 1.5 / sqrt 2. Group 2: they disagree, 0.5 / sqrt 2. Group 3: no spread. Over the
    batch of six the squares add up to 2 * 1.125 + 2 * 0.125 = 2.5, divided by 5.
    """
    luck = [[3.0, 0.0], [3.0, 0.0], [3.0, 3.0]]
    path = [[0.1, 0.0], [0.0, 0.1], [0.1, 0.1]]
    penalty = [[0.0, 0.0]] * 3
    sums = np.array([[1.5, -1.5], [0.5, -0.5], [0.0, 0.0]]) / 2**0.5
    with jax.enable_x64(True):
        found = part_normalize(np.array([luck, path, penalty]), np.array([1.0, 0.5, -1.0]))
        np.testing.assert_allclose(found, sums / 0.5**0.5, rtol=1e-4)


def test_parts_with_a_mask_scales_and_signs():
    rng = np.random.default_rng(4)
    parts, weights = rng.normal(size=(3, 5, 6)), np.array([1.0, 0.3, -2.0])
    mask = rng.random((5, 6)) < 0.8
    with jax.enable_x64(True):
        f = lambda parts, weights: np.asarray(part_normalize(np.where(mask, parts, np.nan), weights, mask))
        found = f(parts, weights)
        expected = sum(w * np.asarray(group_normalize(part, mask)) for w, part in zip(weights, parts))
        np.testing.assert_allclose(found, expected / expected[mask].std(ddof=1), rtol=1e-4, atol=1e-12)
        assert not found[~mask].any()
        scales = np.array([10.0, 1e3, 0.1])[:, None, None]
        # no part's own scale counts
        np.testing.assert_allclose(f(scales * parts - 7, weights), found, rtol=1e-3, atol=1e-5)
        # and of the weights only their proportions
        np.testing.assert_allclose(f(parts, 4 * weights), found, rtol=1e-4)
        np.testing.assert_allclose(
            f(parts * np.sign(weights)[:, None, None], np.abs(weights)), found, rtol=1e-6
        )
        assert not np.any(part_normalize(np.full((2, 3, 4), 0.1), np.ones(2)))
