import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.gae import GAE, gae, turn_gae

NAN = np.nan  # stands wherever nothing may be read


def naive(rewards, values, end_values, mask, segment_ids, gamma, gae_lambda, level):
    """The sum over later errors as the paper writes it (equation 16), one segment at a time."""
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    for b in range(len(mask)):
        for segment in set(segment_ids[b]) - {0}:
            tokens = np.flatnonzero(segment_ids[b] == segment)
            actions = []
            for t in tokens[mask[b, tokens]]:
                if level == "turn" and actions and actions[-1][-1] == t - 1:
                    actions[-1].append(t)
                else:
                    actions.append([t])
            states = [values[b, action[0]] for action in actions] + [end_values[b, tokens[-1]]]
            deltas = [
                rewards[b, action].sum() + gamma * states[i + 1] - states[i]
                for i, action in enumerate(actions)
            ]
            for i, action in enumerate(actions):
                advantages[b, action] = sum(
                    (gamma * gae_lambda) ** k * delta for k, delta in enumerate(deltas[i:])
                )
                returns[b, action] = advantages[b, action[0]] + states[i]
    return advantages, returns


def packed_rows(seed, B=6, T=40):
    """Rows of segments with holes in their masks, some cut and some ended, NaN where nothing is to be read;
    padded but the last one.
    """
    rng = np.random.default_rng(seed)
    segment_ids = np.zeros((B, T), np.int32)
    for b in range(B):
        ends = np.sort(rng.choice(np.arange(1, T), size=4, replace=False))
        for segment, (start, end) in enumerate(zip([0, *ends], [*ends, T] if b == B - 1 else ends), start=1):
            segment_ids[b, start:end] = segment
    mask = (rng.random((B, T)) < 0.6) & (segment_ids > 0)
    is_last = np.diff(segment_ids, axis=1, append=-1) != 0
    was_cut = rng.random((B, T)) < 0.5
    rewards, values = (np.where(mask, rng.normal(size=(B, T)), NAN) for _ in range(2))
    end_values = np.where(is_last, np.where(was_cut, rng.normal(size=(B, T)), 0.0), NAN)
    return rewards, values, end_values, mask, segment_ids


def test_token_hand_table():
    """gamma = lambda = 1/2. An episode that ended (its prompt and its observation are skipped) and one that
    was cut after two more tokens.
    """
    segment_ids = np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)
    mask = np.array([[0, 1, 0, 1, 0, 1, 0, 0]], bool)
    rewards = np.array([[NAN, 0, NAN, 1, NAN, 1, NAN, NAN]], np.float32)
    values = np.array([[NAN, 1, NAN, 2, NAN, 4, NAN, NAN]], np.float32)
    end_values = np.array([[NAN, NAN, NAN, 0, NAN, NAN, 2, NAN]], np.float32)
    # t = 5: 1 + 2/2 - 4 = -2.   t = 3: 1 + 0 - 2 = -1.   t = 1: 0 + 2/2 - 1 = 0, and 0 + 1/4 * -1 = -1/4.
    advantages, returns = gae(rewards, values, end_values, mask, segment_ids, 0.5, 0.5)
    assert advantages.tolist() == [[0, -0.25, 0, -1, 0, -2, 0, 0]]
    assert returns.tolist() == [[0, 0.75, 0, 1, 0, 2, 0, 0]]


def test_turn_hand_table():
    """gamma = lambda = 1/2. Two turns of an episode that ended, then one turn of an episode that was cut,
    with no prompt between them.
    """
    segment_ids = np.array([[1, 1, 1, 1, 1, 2, 2, 0]], np.int32)
    mask = np.array([[0, 1, 1, 0, 1, 1, 1, 0]], bool)
    rewards = np.array([[NAN, 1, 2, NAN, 4, 0, 1, NAN]], np.float32)
    values = np.array([[NAN, 1, NAN, NAN, 2, 3, NAN, NAN]], np.float32)
    end_values = np.array([[NAN, NAN, NAN, NAN, 0, NAN, 6, NAN]], np.float32)
    # third turn: 1 + 6/2 - 3 = 1.   second: 4 + 0 - 2 = 2.   first: 3 + 2/2 - 1 = 3, and 3 + 1/4 * 2 = 3.5.
    advantages, returns = turn_gae(rewards, values, end_values, mask, segment_ids, 0.5, 0.5)
    assert advantages.tolist() == [[0, 3.5, 3.5, 0, 2, 1, 1, 0]]
    assert returns.tolist() == [[0, 4.5, 4.5, 0, 4, 4, 4, 0]]


@pytest.mark.parametrize("level", GAE)
@pytest.mark.parametrize("gamma, gae_lambda", [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.9, 0.0)])
def test_like_the_loop_jitted_or_not(level, gamma, gae_lambda):
    for seed in range(3):
        arrays = packed_rows(seed)
        expected = naive(*arrays, gamma, gae_lambda, level)
        for f in (GAE[level], jax.jit(GAE[level])):
            with jax.enable_x64(True):
                found = f(*arrays, gamma, gae_lambda)
                assert [x.dtype for x in found] == [jnp.float64, jnp.float64]
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
            single = f(
                *(x.astype(np.float32) if x.dtype == np.float64 else x for x in arrays), gamma, gae_lambda
            )
            assert [x.dtype for x in single] == [jnp.float32, jnp.float32]
            np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)


def test_without_discount_the_advantage_is_what_comes_after_all_less_the_value():
    rewards, values, end_values, mask, segment_ids = arrays = packed_rows(3)
    with jax.enable_x64(True):
        advantages, returns = np.stack(gae(*arrays, 1.0, 1.0))
    for b, t in np.argwhere(mask):
        own = segment_ids[b] == segment_ids[b, t]
        rewards_to_go = rewards[b, own & mask[b] & (np.arange(mask.shape[1]) >= t)].sum()
        to_come = rewards_to_go + end_values[b, np.flatnonzero(own)[-1]]
        np.testing.assert_allclose(
            (advantages[b, t], returns[b, t]), (to_come - values[b, t], to_come), atol=1e-12
        )


def test_lambda_zero_gives_the_error_of_one_step():
    rewards, values, end_values, mask, segment_ids = arrays = packed_rows(4)
    with jax.enable_x64(True):
        advantages, _ = np.stack(gae(*arrays, 0.9, 0.0))
    for b, t in np.argwhere(mask):
        own = np.flatnonzero(segment_ids[b] == segment_ids[b, t])
        later = own[(own > t) & mask[b, own]]
        next_value = values[b, later[0]] if later.size else end_values[b, own[-1]]
        np.testing.assert_allclose(
            advantages[b, t], rewards[b, t] + 0.9 * next_value - values[b, t], atol=1e-12
        )


@pytest.mark.parametrize("level", GAE)
def test_a_packed_neighbour_changes_nothing(level):
    """Every segment once more, at the start of a row of its own."""
    arrays = packed_rows(5)
    segment_ids = arrays[-1]
    pieces = [
        (b, segment_ids[b] == segment)
        for b in range(len(segment_ids))
        for segment in sorted(set(segment_ids[b]) - {0})
    ]
    alone = [np.full((len(pieces), x.shape[1]), NAN if x.dtype == np.float64 else 0, x.dtype) for x in arrays]
    for row, (b, own) in enumerate(pieces):
        for x, y in zip(arrays, alone):
            y[row, : own.sum()] = x[b, own]
    together, apart = (np.stack(GAE[level](*x, 0.9, 0.8)) for x in (arrays, alone))
    for row, (b, own) in enumerate(pieces):
        np.testing.assert_array_equal(together[:, b, own], apart[:, row, : own.sum()])


def test_a_turn_of_one_token_is_a_token_and_a_lone_turn_is_a_bandit():
    rewards, values, end_values, _, segment_ids = packed_rows(6)
    rewards, values = np.nan_to_num(rewards, nan=1.0), np.nan_to_num(values, nan=1.0)
    no_neighbours = (segment_ids > 0) & (np.arange(segment_ids.shape[1]) % 2 == 0)
    np.testing.assert_array_equal(
        *(
            np.stack(f(rewards, values, end_values, no_neighbours, segment_ids, 0.9, 0.8))
            for f in (gae, turn_gae)
        )
    )

    one_turn = np.array([[False, True, True, True]])
    arrays = np.array([[9.0, 1, 2, 3]]), np.array([[9.0, 4, 9, 9]]), np.array([[9.0, 9, 9, 10]])
    for gae_lambda in (0.0, 1.0):  # one action has no later errors to mix
        advantages, returns = turn_gae(*arrays, one_turn, np.ones((1, 4), np.int32), 0.5, gae_lambda)
        # 1 + 2 + 3 + 10/2 - 4
        assert advantages.tolist() == [[0, 7, 7, 7]] and returns.tolist() == [[0, 11, 11, 11]]


@pytest.mark.parametrize("level", GAE)
def test_nothing_emitted_gives_zeros(level):
    nothing = np.zeros((2, 3), np.float32)
    for x in GAE[level](
        nothing + 1,
        nothing + 2,
        nothing + 3,
        nothing > 0,
        np.array([[1, 1, 2], [0, 0, 0]], np.int32),
        1.0,
        0.95,
    ):
        assert not np.any(x)
