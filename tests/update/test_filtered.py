"""Filtered sampling in RL: the policy that is trained is the one that drew, whatever top-k, top-p or min-p
left out.

First on a vocabulary of 8 and completions of two tokens, of which all are enumerated: the expectation of the
step's gradient over what can be drawn is the gradient of the expected reward, by formulas of this file's own.
Then from the sampler to the step.
"""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection, ReplaySection
from jaxrl.config.shared import SampleSection
from jaxrl.device.mesh import shard_batch
from jaxrl.rollout.collate import collate, make_sample
from jaxrl.rollout.curriculum import SuccessRates
from jaxrl.rollout.replay import ReplayBuffer
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.sample.sets import set_bytes, to_bits, to_text
from jaxrl.train.experience import Scorers, give_credit, minibatches
from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Verdict
from jaxrl.update.state import place_state
from jaxrl.update.step import make_critic_fn, make_grpo_step, make_score_fn
from tests.ops.plain_filters import kept_ids
from tests.rollout.episodes import with_completion
from tests.tiny import CONFIG, fresh_value_head, noisy, one_device, policy_and_trees, relative_difference

KEEP_GRADIENT = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params), lambda grads, *_: (grads, grads)
)
TEMPERATURE, NUM_TOKENS = 0.7, 7  # id 7 is no token
FILTERS = {
    "top-k": {"top_k": 3},
    "top-p": {"top_p": 0.7},
    "min-p": {"min_p": 0.4},
    "all of them": {"top_k": 6, "top_p": 0.9, "min_p": 0.1},
    "none": {},
}


def state_of(trainable, reference=None):
    return place_state(trainable, KEEP_GRADIENT, jax.random.key(0), one_device(), reference)


# ------------------------------------------------------------------------------- the gradient, by enumeration

V, PROMPT, COEF = 8, [1, 5, 2], 0.3
PAIRS = np.array(list(itertools.product(range(V), repeat=2)))
REWARDS = np.random.default_rng(0).normal(size=len(PAIRS))
POLICY, START, FROZEN = policy_and_trees(config=dataclasses.replace(CONFIG, vocab_size=V))
POLICY, START, FROZEN = (
    dataclasses.replace(POLICY, num_tokens=NUM_TOKENS),
    noisy(START, 8, 0.1),
    noisy(FROZEN, 9, 0.15),
)
MOVED = noisy(START, 10, 0.02)
ALGO = GRPOSection(aggregate="constant", clip_low=50.0, clip_high=50.0, kl_coef=COEF, entropy_coef=COEF)


@jax.jit
def scaled_logits_of_pairs(trainable):
    """[64, 2, V], before each token of each completion."""
    tokens = jnp.array([PROMPT + pair.tolist() for pair in PAIRS])
    hidden = POLICY.apply(
        trainable, FROZEN, tokens, jnp.broadcast_to(jnp.arange(5), tokens.shape), jnp.ones_like(tokens)
    )
    return POLICY.logits(trainable, FROZEN, hidden)[:, 2:4] / TEMPERATURE


def logprobs_over(kept, scaled):
    """(of every id [64, 2, V], of each completion's tokens [64, 2]), renormalised over the ids that were
    kept; 0 for the others.
    """
    log_p = jnp.where(kept, jax.nn.log_softmax(jnp.where(kept, scaled, -1e9), axis=-1), 0)
    return log_p, jnp.take_along_axis(log_p, jnp.array(PAIRS)[..., None], axis=-1)[..., 0]


@jax.jit
@jax.grad
def gradient_by_enumeration(trainable, kept, could_come, at_first, ref):
    """Of - sum_y mu(y) R(y), the expected reward when y is drawn by mu, the filtered policy of the trainable
    tree, estimated with what the one at first drew, and of the mean of COEF * (k3 - entropy) over what could
    come; halved, as `constant` does.
    """
    log_p, said = logprobs_over(kept, scaled_logits_of_pairs(trainable))
    ratios = jnp.exp(said - at_first)
    expected_reward = jnp.sum(could_come * jnp.exp(at_first.sum(-1)) * REWARDS * ratios.sum(-1))
    k3 = jnp.exp(ref - said) - (ref - said) - 1
    entropy = -jnp.sum(jnp.where(kept, jnp.exp(log_p) * log_p, 0), axis=-1)
    return (-expected_reward + COEF * jnp.sum(could_come[:, None] * (k3 - entropy)) / could_come.sum()) / 2


@jax.jit
@jax.grad
def gradient_of_the_expected_reward(trainable, kept, could_come):
    said = logprobs_over(kept, scaled_logits_of_pairs(trainable))[1]
    return -jnp.sum(could_come * jnp.exp(said.sum(-1)) * REWARDS) / 2


@pytest.fixture(scope="module")
def grpo_step():
    """(trainable, batch, with KL and entropy) -> (gradient, metrics)"""
    sample = SampleSection(temperature=TEMPERATURE, max_new_tokens=2)
    algos = {True: ALGO, False: ALGO.model_copy(update={"kl_coef": 0.0, "entropy_coef": 0.0})}
    steps = {
        extras: make_grpo_step(POLICY, KEEP_GRADIENT, algo, sample, state_of(START), one_device())
        for extras, algo in algos.items()
    }

    def step(trainable, batch, extras):
        after, metrics = steps[extras](state_of(trainable), FROZEN, shard_batch(batch, one_device()))
        return jax.device_get(after.opt_state), metrics

    return step


def drawn(name):
    """(kept [64, 2, V], could_come [64], logprobs at first [64, 2]) of a filter, by this file's own means."""
    scaled = np.asarray(scaled_logits_of_pairs(START), np.float64)
    kept = np.array(
        [[kept_ids(row, **FILTERS[name], num_tokens=NUM_TOKENS) for row in rows] for rows in scaled]
    )
    could_come = np.take_along_axis(kept, PAIRS[..., None], -1).all((1, 2))
    assert kept.sum(-1).min() >= 1 < kept.sum(-1).max() and (
        name == "none" or kept.sum(-1).max() < NUM_TOKENS
    )
    at_first = np.where(could_come[:, None], np.asarray(logprobs_over(kept, scaled)[1]), 0)
    np.testing.assert_allclose(np.exp(at_first.sum(-1))[could_come].sum(), 1, rtol=1e-5)
    return kept, could_come, at_first


def batch_of(name, kept, could_come, at_first, ref, is_on_policy):
    """What can be drawn, each once; its advantage is the reward, as often as it would be drawn."""
    samples, N = [], could_come.sum()
    for i in np.flatnonzero(could_come):
        sets = None if name == "none" else [to_text(np.packbits(~row)) for row in kept[i]]
        sample = make_sample(
            Completion(PROMPT, PAIRS[i].tolist(), at_first[i].tolist(), StopReason.EOS, excluded=sets)
        )
        advantage = REWARDS[i] * np.exp(at_first[i].sum()) * N
        samples.append(
            dataclasses.replace(
                sample,
                advantages=np.where(sample.completion_mask, advantage, 0).astype(np.float32),
                old_logprobs=sample.old_logprobs if is_on_policy else sample.sampler_logprobs,
                ref_logprobs=np.pad(ref[i], (3, 0)).astype(np.float32),
            )
        )
    return collate(samples, 64, seq_len=12, microbatch=16, set_bytes=1)


@pytest.mark.parametrize("trainable", [START, MOVED], ids=["on policy", "moved"])
@pytest.mark.parametrize("name", FILTERS)
def test_gradient_is_that_of_the_policy_that_draws(name, trainable, grpo_step):
    """KL and entropy included. Once the policy has moved, what is kept is still what was kept when it was
    sampled.
    """
    kept, could_come, at_first = drawn(name)
    ref = at_first - 0.2 * np.sin(np.arange(128).reshape(64, 2))
    batch = batch_of(name, kept, could_come, at_first, ref, is_on_policy=trainable is START)
    gradient, metrics = grpo_step(trainable, batch, extras=True)
    assert (
        relative_difference(gradient, gradient_by_enumeration(trainable, kept, could_come, at_first, ref))
        < 1e-4
    )
    everything = gradient_by_enumeration(trainable, np.ones_like(kept), could_come, at_first, ref)
    assert relative_difference(everything, gradient) > 0.05, "the filter makes a difference here"
    if trainable is START:
        assert metrics["ratio/max"] == metrics["ratio/mean"] == 1
        gradient, _ = grpo_step(START, dataclasses.replace(batch, ref_logprobs=None), extras=False)
        assert relative_difference(gradient, gradient_of_the_expected_reward(START, kept, could_come)) < 1e-4


# ----------------------------------------------------------------------------- from the sampler to the update

WIDE, ADAPTERS, MODEL = policy_and_trees(config=dataclasses.replace(CONFIG, vocab_size=20))
WIDE = dataclasses.replace(WIDE, num_tokens=18)
SAMPLE = SampleSection(
    temperature=TEMPERATURE,
    top_k=12,
    top_p=0.9,
    min_p=0.02,
    max_new_tokens=6,
    max_prompt_tokens=8,
    window=4,
    slots=8,
)
E, SEQ_LEN = set_bytes(SAMPLE, 20), 24
SCORE = make_score_fn(WIDE, one_device(), TEMPERATURE)
GRPO = GRPOSection(problems_per_batch=4, group_size=2, updates_per_batch=2)


@pytest.fixture(scope="module")
def groups():
    engine = Engine(WIDE, SAMPLE, (3,), lambda ids: "", one_device(), records=True)
    prompts = [[1, 2, 4], [9], [5, 6, 7, 8, 9], [10, 11]]
    completions = {}
    for sampled in engine.run(
        ADAPTERS, MODEL, [Request(ids, i, 2) for i, ids in enumerate(prompts)], jax.random.key(1)
    ):
        completions[sampled.request, sampled.index] = sampled.completion
    trajectory = lambda p, g: Trajectory.one_turn(
        Problem(f"p{p}", (), {}), completions[p, g], Verdict(float(g), g == 1, True), 0
    )
    return [Group(Problem(f"p{p}", (), {}), (trajectory(p, 0), trajectory(p, 1))) for p in range(4)]


def scorers_of(algo, score=SCORE):
    return Scorers(one_device(), SEQ_LEN, algo, MODEL, score, SCORE, set_bytes=E)


def samples_of(groups):
    return [make_sample(t.rows[0]) for group in groups for t in group.trajectories]


def test_the_sampler_tells_what_it_left_out_and_the_logprob_among_the_rest(groups):
    sizes = set()
    for completion in (t.rows[0] for group in groups for t in group.trajectories):
        ids = completion.prompt_ids + completion.completion_ids
        tokens = np.array([ids + [0] * (SEQ_LEN - len(ids))])
        hidden = WIDE.apply(ADAPTERS, MODEL, tokens, np.arange(SEQ_LEN)[None], np.ones_like(tokens))
        scaled = (
            np.asarray(WIDE.logits(ADAPTERS, MODEL, hidden), np.float64)[
                0, len(completion.prompt_ids) - 1 : len(ids) - 1
            ]
            / TEMPERATURE
        )
        assert len(completion.excluded) == len(completion.completion_ids)
        for row, token, logprob, text in zip(
            scaled, completion.completion_ids, completion.sampler_logprobs, completion.excluded
        ):
            kept = np.unpackbits(to_bits(text, E), count=20) == 0
            np.testing.assert_array_equal(kept, kept_ids(row, 12, 0.9, 0.02, num_tokens=18))
            np.testing.assert_allclose(logprob, row[token] - np.log(np.exp(row[kept]).sum()), atol=1e-4)
            sizes.add(int(kept.sum()))
    assert len(sizes) > 3 and max(sizes) <= 12


def test_scores_are_those_of_the_sampler(groups):
    """By the trainer in one piece or in as many as there are updates, beside the critic's values, and not
    without the sets.
    """
    samples = samples_of(groups)
    said = np.concatenate([s.sampler_logprobs for s in samples])
    for algo in (GRPO, GRPO.model_copy(update={"updates_per_batch": 1})):
        np.testing.assert_allclose(
            np.concatenate(scorers_of(algo).run(SCORE, ADAPTERS, samples)), said, atol=1e-4
        )
    with_critic = ADAPTERS | {"value_head": fresh_value_head(32)}
    ppo = PPOSection(problems_per_batch=4, group_size=2)
    logprobs, _ = scorers_of(ppo).run(make_critic_fn(WIDE, one_device(), TEMPERATURE), with_critic, samples)
    np.testing.assert_allclose(np.concatenate(logprobs), said, atol=1e-4)
    unfiltered = [dataclasses.replace(s, excluded=None) for s in samples]
    assert np.abs(np.concatenate(scorers_of(GRPO).run(SCORE, ADAPTERS, unfiltered)) - said).max() > 0.05
    with pytest.raises(ValueError, match="sampled from another model"):
        collate(samples, 8, SEQ_LEN, 8)


@functools.cache
def step_of(algo):
    return make_grpo_step(WIDE, KEEP_GRADIENT, algo, SAMPLE, state_of(ADAPTERS), one_device())


def gradient_of(algo, samples, num_rows=8, microbatch=8, seq_len=SEQ_LEN, needed=()):
    after, metrics = step_of(algo)(
        state_of(ADAPTERS),
        MODEL,
        shard_batch(collate(samples, num_rows, seq_len, microbatch, needed, E), one_device()),
    )
    return jax.device_get((after.opt_state, metrics))


def test_cutting_order_and_packing_change_nothing(groups):
    algo = GRPO.model_copy(update={"entropy_coef": 0.1, "aggregate": "sequence_mean"})
    samples = give_credit(groups, (), scorers_of(algo), state_of(ADAPTERS), 0.0, 6).fresh
    whole, metrics = gradient_of(algo, samples)
    gradient, other = gradient_of(algo, samples[::-1], microbatch=2, seq_len=11)
    assert relative_difference(gradient, whole) < 2e-6
    np.testing.assert_allclose(other["entropy"], metrics["entropy"], rtol=1e-5)


def entries_of(groups):
    """What a replay buffer draws after a stay in a checkpoint."""
    ended = lambda t: with_completion(t, stop_reason=StopReason.EOS)
    buffer = ReplayBuffer(2, 8)
    buffer.add(
        [Group(g.problem, tuple(map(ended, g.trajectories))) for g in groups],
        [[-1.0, 1.0]] * 4,
        SuccessRates(),
    )
    entries = ReplayBuffer(2, 8, json.loads(json.dumps(buffer.state()))).draw(4, SuccessRates(), (0,))
    assert len(entries) == 4 and all(entry.excluded for entry in entries)
    return entries


@pytest.mark.parametrize("old_logprobs", ["trainer", "sampler"])
def test_a_policy_that_has_not_moved_has_a_ratio_of_one_in_later_updates_and_in_replay(old_logprobs, groups):
    algo = GRPO.model_copy(
        update={"old_logprobs": old_logprobs, "replay": ReplaySection(use="off_policy", ratio=0.34)}
    )
    experience = give_credit(groups, entries_of(groups), scorers_of(algo), state_of(ADAPTERS), 0.0, 6)
    _, later = minibatches(experience, algo, (0,))
    replayed = [sample for sample in later if sample.replay_mask is not None]
    assert replayed and all(sample.excluded for sample in later)
    # so that metrics tell of all
    _, metrics = gradient_of(GRPO, [dataclasses.replace(s, replay_mask=None) for s in later])
    np.testing.assert_allclose([metrics["ratio/mean"], metrics["ratio/max"]], 1, atol=2e-4)
    assert metrics["sampler_mismatch/max"] < 1e-4


def test_what_is_imitated_is_likelier_among_all_ids(groups):
    """Replay that is used for SFT: the cross-entropy is over the tokenizer's ids, whatever the sampler's
    filter kept.
    """
    algo = GRPO.model_copy(
        update={"updates_per_batch": 1, "replay": ReplaySection(use="sft", ratio=0.34, coef=1.0)}
    )
    experience = give_credit(groups, entries_of(groups), scorers_of(algo), state_of(ADAPTERS), 0.0, 6)
    assert all(sample.excluded is None for sample in experience.replayed)
    _, metrics = gradient_of(
        algo, experience.fresh + experience.replayed, algo.rows_per_update, needed={"replay_mask"}
    )
    unfiltered = [dataclasses.replace(s, completion_mask=s.replay_mask) for s in experience.replayed]
    said = np.concatenate(
        [
            x[s.replay_mask]
            for x, s in zip(scorers_of(algo).run(SCORE, ADAPTERS, unfiltered), experience.replayed)
        ]
    )
    np.testing.assert_allclose(metrics["loss/imitation"], -said.mean(), rtol=1e-5)
