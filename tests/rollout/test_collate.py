"""Collating: every token once, with what belongs to it; how trajectories share rows changes nothing."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxrl.config.algo import GRPOSection
from jaxrl.config.shared import SampleSection
from jaxrl.device.mesh import shard_batch
from jaxrl.errors import InputError
from jaxrl.rollout.collate import collate as collate_samples
from jaxrl.rollout.collate import make_sample, uncollate
from jaxrl.sample.sets import to_bits, to_text
from jaxrl.types import Completion, Problem, StopReason, Trajectory, Verdict
from jaxrl.update.batch import PolicyBatch, to_microbatches
from jaxrl.update.state import place_state
from jaxrl.update.step import make_grpo_step
from tests.tiny import max_difference, one_device, policy_and_trees


def with_advantage(t, advantage):
    sample = make_sample(t.rows[0])
    return dataclasses.replace(
        sample, advantages=np.where(sample.completion_mask, advantage, 0).astype(np.float32)
    )


def collate(trajectories, advantages, seq_len, microbatch):
    """One advantage for all tokens of a completion, and room for a row each."""
    samples = [with_advantage(t, a) for t, a in zip(trajectories, advantages)]
    return collate_samples(samples, len(samples), seq_len, microbatch)


FIELDS = ("tokens", "positions", "segment_ids", "completion_mask", "advantages", "sampler_logprobs")


def trajectory(prompt, completion, logprobs):
    said = Completion(list(prompt), list(completion), list(logprobs), StopReason.EOS)
    return Trajectory.one_turn(Problem("p", (), {}), said, Verdict(0.0, False, False), 0)


def random_trajectories(count, seed=0, longest=10):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt, completion = (rng.integers(1, 64, rng.integers(1, longest + 1)).tolist() for _ in range(2))
        made.append(
            trajectory(prompt, completion, (-rng.random(len(completion)).astype(np.float32)).tolist())
        )
    return made, rng.normal(size=count).astype(np.float32).tolist()


def segments_of(batch):
    """(tokens, mask, advantages, logprobs) of every segment of the microbatches that are run, sorted."""
    found = []
    for m in range(int(batch.num_microbatches)):
        for b in range(batch.tokens.shape[1]):
            for s in range(1, batch.segment_ids[m, b].max() + 1):
                at = batch.segment_ids[m, b] == s
                place = np.flatnonzero(at)
                assert len(place) and (np.diff(place) == 1).all(), "a segment is contiguous"
                np.testing.assert_array_equal(batch.positions[m, b, at], np.arange(len(place)))
                values = (getattr(batch, name)[m, b, at].tolist() for name in FIELDS[:1] + FIELDS[3:])
                found.append(tuple(map(tuple, values)))
    return sorted(found)


def test_two_trajectories_by_hand():
    first, second = trajectory([5, 6], [7], [-0.5]), trajectory([8], [9, 10], [-0.25, -1.0])
    batch = collate([first, second], [2.0, -3.0], seq_len=8, microbatch=1)
    assert batch.num_microbatches == 1 and batch.tokens.shape == (2, 1, 8)
    rows = {name: getattr(batch, name)[0, 0].tolist() for name in FIELDS}
    assert rows == {
        "tokens": [5, 6, 7, 8, 9, 10, 0, 0],
        "positions": [0, 1, 2, 0, 1, 2, 0, 0],
        "segment_ids": [1, 1, 1, 2, 2, 2, 0, 0],
        "completion_mask": [False, False, True, False, True, True, False, False],
        "advantages": [0, 0, 2, 0, -3, -3, 0, 0],
        "sampler_logprobs": [0, 0, -0.5, 0, -0.25, -1, 0, 0],
    }
    assert not any(np.any(getattr(batch, name)[1]) for name in FIELDS)
    old = batch.old_logprobs[0, 0]
    assert np.isnan(old[:6]).all() and not old[6:].any(), "NaN: as the policy stands"
    assert batch.ref_logprobs is batch.old_values is batch.returns is batch.replay_mask is None


def test_a_field_that_only_some_samples_have_is_zero_in_the_others():
    plain, other = (make_sample(trajectory([5, 6], [7], [-0.5]).rows[0]) for _ in range(2))
    other = dataclasses.replace(
        other, ref_logprobs=np.full(3, -2.0, np.float32), replay_mask=np.array([False, True, True])
    )
    batch = collate_samples([plain, other], 5, seq_len=8, microbatch=1)
    assert batch.tokens.shape == (5, 1, 8)
    assert batch.ref_logprobs[0, 0].tolist() == [0, 0, 0, -2, -2, -2, 0, 0]
    assert batch.replay_mask[0, 0].tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_a_field_that_is_needed_is_there_also_where_no_sample_has_it():
    samples = [make_sample(trajectory([5, 6], [7], [-0.5]).rows[0])]
    without = collate_samples(samples, 1, seq_len=8, microbatch=1)
    assert without.ref_logprobs is None and without.replay_mask is None
    batch = collate_samples(samples, 1, 8, 1, needed=("ref_logprobs", "replay_mask"))
    assert batch.ref_logprobs.dtype == np.float32 and batch.replay_mask.dtype == bool
    for field in (batch.ref_logprobs, batch.replay_mask):
        assert field.shape == batch.tokens.shape and not field.any()
    assert batch.returns is None


def test_excluded_ids_go_to_their_tokens_as_bits():
    """Of a vocabulary of 20; prompts, padding, and samples without such ids exclude nothing."""
    bits = np.packbits(np.random.default_rng(0).random((2, 20)) < 0.5, axis=-1)
    filtered = Completion(
        [5, 6], [7, 8], [-0.5, -0.5], StopReason.EOS, excluded=[to_text(row) for row in bits]
    )
    samples = [make_sample(filtered), make_sample(trajectory([1], [2], [-1.0]).rows[0])]
    batch = collate_samples(samples, 3, seq_len=8, microbatch=2, set_bytes=3)
    assert batch.excluded.shape == (2, 2, 8, 3) and batch.excluded.dtype == np.uint8
    np.testing.assert_array_equal(batch.excluded[0, 0, 2:4], bits)
    assert (
        not batch.excluded[0, 0, :2].any()
        and not batch.excluded[0, 0, 4:].any()
        and not batch.excluded.reshape(-1, 3)[8:].any()
    )
    assert (
        collate_samples(samples[1:], 3, 8, 2, set_bytes=3).excluded.shape == (2, 2, 8, 3)
        and collate_samples(samples[1:], 3, 8, 2).excluded is None
    )
    with pytest.raises(ValueError, match="none of a vocabulary of 0 bytes"):
        collate_samples(samples, 3, seq_len=8, microbatch=2)


@pytest.mark.parametrize("V", [1, 7, 8, 20, 64, 1000, 4099])
def test_sets_are_the_same_after_a_time_as_text(V):
    rng = np.random.default_rng(V)
    for share in (0.0, 0.01, 0.5, 1.0):
        bits = np.packbits(rng.random(V) >= share)
        np.testing.assert_array_equal(to_bits(to_text(bits), len(bits)), bits)
        with pytest.raises(ValueError, match="sampled from another model"):
            to_bits(to_text(bits), len(bits) + 8)
    np.testing.assert_array_equal(to_bits("", 5), np.zeros(5))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("microbatch", [1, 3])
def test_what_is_laid_out_is_found_again(seed, microbatch):
    trajectories, _ = random_trajectories(17, seed)
    samples = [make_sample(t.rows[0]) for t in trajectories]
    batch = collate_samples(samples, 20, seq_len=32, microbatch=microbatch)
    for name in ("tokens", "completion_mask", "sampler_logprobs", "old_logprobs"):
        for found, sample in zip(uncollate(getattr(batch, name), samples, 32), samples, strict=True):
            np.testing.assert_array_equal(found, getattr(sample, name))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("microbatch", [1, 3, 8, 64])
def test_every_token_once_with_what_belongs_to_it(seed, microbatch):
    trajectories, advantages = random_trajectories(17, seed)
    batch = collate(trajectories, advantages, seq_len=32, microbatch=microbatch)
    expected = []
    for t, advantage in zip(trajectories, advantages):
        prompt, completion = t.rows[0].prompt_ids, t.rows[0].completion_ids
        nothing = [0.0] * len(prompt)
        expected.append(
            (
                tuple(prompt + completion),
                tuple([False] * len(prompt) + [True] * len(completion)),
                tuple(nothing + [advantage] * len(completion)),
                tuple(nothing + t.rows[0].sampler_logprobs),
            )
        )
    assert segments_of(batch) == sorted(expected)
    outside = batch.segment_ids == 0
    assert not any(np.any(getattr(batch, name)[outside]) for name in FIELDS)


@pytest.mark.parametrize(
    "lengths, microbatch, used",
    [([(4, 4)] * 6, 2, 3), ([(2, 2)] * 6, 2, 2), ([(2, 2)] * 6, 8, 1), ([(1, 1)], 4, 1)],
)
def test_shapes_depend_on_the_count_alone_and_microbatches_in_use_are_counted(lengths, microbatch, used):
    made = [trajectory([1] * p, [2] * c, [-1.0] * c) for p, c in lengths]
    batch = collate(made, [1.0] * len(made), seq_len=8, microbatch=microbatch)
    assert batch.num_microbatches == used
    assert {getattr(batch, name).shape for name in FIELDS} == {(-(-len(made) // microbatch), microbatch, 8)}
    assert not np.any(batch.segment_ids[used:]) and np.any(batch.segment_ids[used - 1])
    dtypes = {name: getattr(batch, name).dtype for name in FIELDS}
    assert dtypes == dict.fromkeys(FIELDS[:3], np.int32) | {"completion_mask": bool} | dict.fromkeys(
        FIELDS[4:], np.float32
    )


def test_a_row_that_is_just_full():
    batch = collate([trajectory([1] * 5, [2] * 3, [-1.0] * 3)], [1.0], seq_len=8, microbatch=1)
    assert np.all(batch.segment_ids == 1)


def test_what_does_not_fit_a_row_is_refused():
    with pytest.raises(
        InputError, match="a trajectory of 9 tokens does not fit a row of 8; raise the stage's seq_len"
    ):
        collate([trajectory([1] * 5, [2] * 4, [-1.0] * 4)], [1.0], seq_len=8, microbatch=1)


def test_rows_are_cut_into_microbatches_in_order():
    cut = to_microbatches(np.arange(10).reshape(5, 2), 3, 2)
    np.testing.assert_array_equal(cut, [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [0, 0]]])


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean"])
def test_packing_changes_nothing_in_the_gradient(aggregate):
    trajectories, advantages = random_trajectories(8, seed=9, longest=6)
    packed = collate(trajectories, advantages, seq_len=24, microbatch=2)
    alone = [collate([t], [a], seq_len=24, microbatch=1) for t, a in zip(trajectories, advantages)]
    apart = PolicyBatch(
        np.int32(4),
        *(
            np.stack([getattr(batch, name) for batch in alone]).reshape(4, 2, 24)
            for name in (*FIELDS, "old_logprobs")
        ),
    )
    assert packed.num_microbatches < 4 and np.max(packed.segment_ids) > 1
    policy, trainable, frozen = policy_and_trees()
    tx, mesh = optax.sgd(1.0), one_device()
    algo, sample = GRPOSection(aggregate=aggregate), SampleSection(temperature=0.7)
    step = make_grpo_step(policy, tx, algo, sample, place_state(trainable, tx, jax.random.key(0), mesh), mesh)
    changes, losses = [], []
    for batch in (packed, apart):
        after, metrics = step(
            place_state(trainable, tx, jax.random.key(0), mesh), frozen, shard_batch(batch, mesh)
        )
        changes.append(jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), after.trainable, trainable))
        losses.append(float(metrics["loss"]))
    size = max(float(np.abs(x).max()) for x in jax.tree.leaves(changes[1]))
    assert size > 0 and max_difference(*changes) < 1e-5 * size
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
