"""Generalised advantage estimation over the tokens or the turns of packed rows. Axes: B rows, T tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes
from jaxrl.ops.segments import segment_ends, segment_starts, segment_sum, shift_right


def gae(
    rewards: Array,
    values: Array,
    end_values: Array,
    mask: Array,
    segment_ids: Array,
    gamma: float,
    gae_lambda: float,
) -> tuple[Array, Array]:
    """Advantages and returns with every emitted token as an action.

        delta_t  = r_t + gamma * V_next - V_t
        A_t      = delta_t + gamma * gae_lambda * A_next
        return_t = A_t + V_t

    `next` is the next emitted token of the same segment: prompts and observations are part of the state, and
    passing them costs no discount. After the last emitted token V_next is the end value of its segment and
    A_next is 0. What stands outside the mask is not read, but for the end values.

    Args:
      rewards: [B, T] float32, earned by emitting token t.
      values: [B, T] float32, the critic's value of the state before token t.
      end_values: [B, T] float32, read at the last token of each segment (emitted or not): the value of what
        would have come after it where the episode was cut, 0 where it ended.
      mask: [B, T] bool, tokens that the policy emitted.
      segment_ids: [B, T] int32, one segment per episode, 0 = padding.
      gamma, gae_lambda: discount and mixing per emitted token.
    Returns:
      advantages and returns, both [B, T] float32, 0 outside mask.
    Source: Schulman et al. 2016 (High-dimensional continuous control using generalized advantage estimation),
      equations 11-16.
    """
    check_shapes(
        rewards=(rewards, "B T"),
        values=(values, "B T"),
        end_values=(end_values, "B T"),
        mask=(mask, "B T"),
        segment_ids=(segment_ids, "B T"),
    )

    def step(after: tuple[Array, Array], token: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        reward, value, end_value, emitted, is_end = token  # each [B]
        next_value, next_advantage = jnp.where(is_end, end_value, after[0]), jnp.where(is_end, 0.0, after[1])
        advantage = reward + gamma * next_value - value + gamma * gae_lambda * next_advantage
        return (
            jnp.where(emitted, value, next_value),
            jnp.where(emitted, advantage, next_advantage),
        ), advantage

    nothing = jnp.zeros(rewards.shape[0], jnp.result_type(rewards, values, end_values))
    tokens = tuple(x.T for x in (rewards, values, end_values, mask, segment_ends(segment_ids)))
    _, advantages = jax.lax.scan(step, (nothing, nothing), tokens, reverse=True)  # [T, B]
    return jnp.where(mask, advantages.T, 0.0), jnp.where(mask, advantages.T + values, 0.0)


def turn_gae(
    rewards: Array,
    values: Array,
    end_values: Array,
    mask: Array,
    segment_ids: Array,
    gamma: float,
    gae_lambda: float,
) -> tuple[Array, Array]:
    """Advantages and returns with every turn as one action: `gae` on the first tokens of the turns.

    A turn is an unbroken run of emitted tokens in a segment. It earns the sum of their rewards, its state is
    the one before its first token (no other value is read), and all its tokens get its advantage and its
    return.

    Args:
      rewards, values, end_values, mask, segment_ids: as in `gae`.
      gamma, gae_lambda: discount and mixing per turn.
    Returns:
      advantages and returns, both [B, T] float32, 0 outside mask.
    Source: the recursion of `gae` in the turn-level decision process of Li et al. 2025 (Turn-PPO); the
      turn-level half of the bi-level GAE of Wang et al. 2025 (VAGEN).
    """
    check_shapes(rewards=(rewards, "B T"), mask=(mask, "B T"), segment_ids=(segment_ids, "B T"))
    first = mask & (segment_starts(segment_ids) | ~shift_right(mask))
    # [B, T], from 1 in each row; 0 where nothing was emitted
    turn_ids = jnp.where(mask, jnp.cumsum(first, axis=1), 0)
    turn_rewards = segment_sum(rewards, turn_ids)
    advantages, returns = gae(turn_rewards, values, end_values, first, segment_ids, gamma, gae_lambda)
    # They are 0 but at the first tokens, so the sum over a turn copies them to the rest of it.
    return segment_sum(advantages, turn_ids), segment_sum(returns, turn_ids)


GAE: dict[str, Callable[..., tuple[Array, Array]]] = {"token": gae, "turn": turn_gae}
