"""From groups to minibatches: what is scored, who gets old logprobs, how replayed samples come in."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection, ReplaySection
from jaxrl.config.shared import SampleSection
from jaxrl.device.mesh import shard_batch
from jaxrl.rollout.collate import collate
from jaxrl.rollout.replay import Entry
from jaxrl.train.experience import Scorers, fields_of, give_credit, minibatches
from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Turn, Verdict
from jaxrl.update.microbatch import policy_microbatch
from jaxrl.update.state import place_state
from jaxrl.update.step import make_critic_fn, make_grpo_step, make_ppo_step, make_score_fn
from tests.rollout.episodes import group, trajectory, with_completion
from tests.tiny import fresh_value_head, noisy, one_device, policy_and_trees

POLICY, TRAINABLE, FROZEN = policy_and_trees()
MESH = one_device()
SCORE, SCORE_WITH_VALUES = make_score_fn(POLICY, MESH), make_critic_fn(POLICY, MESH)
ENTRY = Entry("easy", [9, 8], [7, 6], [-0.25, -0.5], 1.0, True, 1.5, 3)
SEQ_LEN = 16


def groups(rewards=((1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0))):
    rng = np.random.default_rng(0)
    return [
        group(
            *(
                trajectory(
                    r,
                    uid=f"p{p}",
                    prompt=rng.integers(1, 60, 3),
                    said=rng.integers(1, 60, rng.integers(2, 6)),
                )
                for r in rewards_G
            )
        )
        for p, rewards_G in enumerate(rewards)
    ]


def credit(algo, given=None, entries=(), reference=None, kl_coef=None):
    is_ppo = isinstance(algo, PPOSection)
    trainable = TRAINABLE | ({"value_head": noisy(fresh_value_head(32), 1)} if is_ppo else {})
    state = place_state(trainable, optax.sgd(1.0), jax.random.key(0), MESH, reference)
    scorers = Scorers(MESH, SEQ_LEN, algo, FROZEN, SCORE_WITH_VALUES if is_ppo else SCORE, SCORE)
    return give_credit(
        groups() if given is None else given,
        entries,
        scorers,
        state,
        algo.kl_coef if kl_coef is None else kl_coef,
        max_new_tokens=8,
    )


def scored(samples, trainable=TRAINABLE):
    scorers = Scorers(MESH, SEQ_LEN, GRPOSection(problems_per_batch=4, group_size=2), FROZEN, SCORE, SCORE)
    return scorers.run(SCORE, trainable, samples)


def test_one_update_needs_no_old_logprobs_and_more_have_the_trainers():
    one = credit(GRPOSection(problems_per_batch=4, group_size=2))
    assert all(np.isnan(s.old_logprobs).all() and s.ref_logprobs is None for s in one.fresh)
    algo = GRPOSection(problems_per_batch=4, group_size=2, updates_per_batch=2)
    two = credit(algo)
    for sample, expected in zip(two.fresh, scored(two.fresh), strict=True):
        np.testing.assert_allclose(sample.old_logprobs, expected, atol=1e-5)
        assert sample.old_logprobs[sample.completion_mask].max() < 0
    first, second = minibatches(two, algo, (0, 0, 1))
    assert all(np.isnan(s.old_logprobs).all() for s in first), (
        "the policy has not moved: its ratio is exactly 1"
    )
    assert not any(np.isnan(s.old_logprobs).any() for s in second)


def no_pass(*args):
    raise AssertionError("a scoring pass")


@pytest.mark.parametrize(
    "settings", [{"updates_per_batch": 2}, {"kl_in": "reward", "kl_estimator": "k1", "kl_coef": 0.1}]
)
def test_the_samplers_logprobs_take_the_place_of_a_pass_where_they_are_asked_for(settings):
    algo = GRPOSection(problems_per_batch=4, group_size=2, old_logprobs="sampler", **settings)
    reference = {"lora": noisy(TRAINABLE["lora"], 9)}
    state = place_state(TRAINABLE, optax.sgd(1.0), jax.random.key(0), MESH, reference)
    experience = give_credit(
        groups(),
        (),
        Scorers(MESH, SEQ_LEN, algo, FROZEN, no_pass, SCORE),
        state,
        algo.kl_coef,
        max_new_tokens=8,
    )
    for sample in experience.fresh:
        assert sample.old_logprobs is sample.sampler_logprobs
    if algo.kl_coef:
        masks, old, ref = zip(
            *((s.completion_mask, s.sampler_logprobs, s.ref_logprobs) for s in experience.fresh)
        )
        k1 = np.concatenate([(o - r)[m] for m, o, r in zip(masks, old, ref)])
        assert experience.metrics["kl/ref"] == pytest.approx(k1.mean(), rel=1e-4)
    first, *later = minibatches(experience, algo, (0, 0, 1))
    assert all(np.isnan(s.old_logprobs).all() for s in first), (
        "no pass is needed for the first update, and its ratio is 1"
    )
    assert all(s.old_logprobs is s.sampler_logprobs for part in later for s in part)


def test_where_sampler_and_trainer_agree_it_does_not_matter_whose_logprobs_are_the_old_ones():
    by_trainer = credit(GRPOSection(problems_per_batch=4, group_size=2, updates_per_batch=2))
    agreeing = [
        group(
            *(
                with_completion(t, sampler_logprobs=s.old_logprobs[s.completion_mask].tolist())
                for t, s in zip(g.trajectories, samples, strict=True)
            )
        )
        for g, samples in zip(groups(), np.reshape(np.array(by_trainer.fresh, object), (4, 2)))
    ]
    by_sampler = credit(
        GRPOSection(problems_per_batch=4, group_size=2, updates_per_batch=2, old_logprobs="sampler"), agreeing
    )
    for a, b in zip(by_trainer.fresh, by_sampler.fresh, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.old_logprobs[a.completion_mask], b.old_logprobs[b.completion_mask])
        np.testing.assert_array_equal(a.advantages, b.advantages)


def test_every_sample_comes_once_in_every_epoch_and_orders_differ():
    algo = PPOSection(problems_per_batch=4, group_size=2, updates_per_batch=4, ppo_epochs=2)
    experience = credit(algo)
    parts = list(minibatches(experience, algo, (0, 0, 1)))
    assert [len(part) for part in parts] == [2] * 8 and max(map(len, parts)) <= algo.rows_per_update
    epochs = [[s.tokens.tolist() for part in parts[i : i + 4] for s in part] for i in (0, 4)]
    everything = sorted(s.tokens.tolist() for s in experience.fresh)
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything and epochs[0] != epochs[1]
    again = [[s.tokens.tolist() for s in part] for part in minibatches(experience, algo, (0, 0, 1))]
    assert again == [[s.tokens.tolist() for s in part] for part in parts]


def test_the_reference_is_scored_where_there_is_a_kl_term():
    reference = {"lora": noisy(TRAINABLE["lora"], 9)}
    experience = credit(GRPOSection(problems_per_batch=4, group_size=2, kl_coef=0.1), reference=reference)
    for sample, expected in zip(experience.fresh, scored(experience.fresh, reference), strict=True):
        np.testing.assert_allclose(sample.ref_logprobs, expected, atol=1e-5)


def test_rewards_that_are_no_numbers_leave_their_sample_out():
    nan = float("nan")
    for algo in (
        GRPOSection(problems_per_batch=4, group_size=2),
        PPOSection(problems_per_batch=4, group_size=2),
    ):
        experience = credit(algo, groups(((1.0, 0.0), (nan, 1.0), (nan, nan), (0.0, 1.0))))
        assert len(experience.fresh) == 5 and experience.metrics["sample/left_out"] == 3
        assert all(np.isfinite(s.advantages).all() for s in experience.fresh)
        assert experience.advantages_P_G.shape == (4, 2) and not experience.advantages_P_G[2].any()


def test_by_parts_the_reward_itself_is_not_learnt_from_and_a_part_that_is_no_number_leaves_its_sample_out():
    nan = float("nan")
    judged = [[(9.0, 0.0), (0.0, 0.5)], [(1.0, 0.5), (1.0, nan)]]  # (reward, its part `path`)
    parts = [
        group(*(trajectory(r, prompt=[5, 6], said=[7, 8], parts={"path": part}) for r, part in pairs))
        for pairs in judged
    ]
    algo = GRPOSection(problems_per_batch=4, group_size=2, advantage="gdpo", part_weights={"path": 1.0})
    experience = credit(algo, parts)
    assert (np.sign(experience.advantages_P_G) == [[-1, 1], [0, 0]]).all()
    assert len(experience.fresh) == 3 and experience.metrics["sample/left_out"] == 1


def test_nothing_kept_is_no_update():
    algo = GRPOSection(problems_per_batch=4, group_size=2)
    experience = credit(algo, [])
    assert experience.advantages_P_G.shape == (0, 2)
    assert list(minibatches(experience, algo, (0, 0, 1))) == []


def test_replayed_samples_to_imitate_take_no_part_in_the_policy_loss():
    algo = GRPOSection(problems_per_batch=4, group_size=2, replay=ReplaySection(ratio=0.2))
    experience = credit(algo, entries=[ENTRY])
    (replayed,) = experience.replayed
    assert replayed.tokens.tolist() == [9, 8, 7, 6] and not replayed.completion_mask.any()
    assert replayed.replay_mask.tolist() == [False, False, True, True] and "replay_mask" in fields_of(algo)


@pytest.mark.parametrize("section", [GRPOSection, PPOSection])
def test_a_minibatch_of_replayed_samples_alone_is_a_batch_like_any_other(section):
    """Where all rewards are no numbers, say: the run goes on, with what there is to imitate."""
    algo = section(
        problems_per_batch=4,
        group_size=2,
        updates_per_batch=1,
        kl_coef=0.1,
        kl_in="loss",
        replay=ReplaySection(ratio=0.2),
    )
    nan = float("nan")
    trainable = TRAINABLE | ({"value_head": fresh_value_head(32)} if section is PPOSection else {})
    experience = credit(algo, groups(((nan, nan),) * 4), [ENTRY], reference=TRAINABLE)
    (samples,) = list(minibatches(experience, algo, (0, 0, 1)))[:1]
    assert not experience.fresh and len(samples) == 1
    state = place_state(trainable, optax.sgd(1.0), jax.random.key(0), MESH, TRAINABLE)
    make_step = make_ppo_step if section is PPOSection else make_grpo_step
    step = make_step(POLICY, optax.sgd(1.0), algo, SampleSection(max_new_tokens=8), state, MESH)
    batch = collate(
        samples, algo.rows_per_update, SEQ_LEN, policy_microbatch(algo, SEQ_LEN, MESH), fields_of(algo)
    )
    _, metrics = step(state, FROZEN, shard_batch(batch, MESH))
    assert (
        metrics["skipped"] == 0
        and metrics["tokens"] == 0
        and metrics["grad_norm"] > 0
        and metrics["loss/imitation"] > 0
    )
    full = collate(
        credit(algo, entries=[ENTRY], reference=TRAINABLE).fresh,
        algo.rows_per_update,
        SEQ_LEN,
        policy_microbatch(algo, SEQ_LEN, MESH),
        fields_of(algo),
    )
    assert jax.tree.map(np.shape, full) == jax.tree.map(np.shape, batch), "one compiled step serves both"


@pytest.mark.parametrize("section", [GRPOSection, PPOSection])
def test_off_policy_samples_keep_the_logprobs_of_their_time(section):
    algo = section(
        problems_per_batch=4,
        group_size=2,
        updates_per_batch=1,
        replay=ReplaySection(ratio=0.2, use="off_policy"),
    )
    experience = credit(algo, entries=[ENTRY])
    (replayed,) = experience.replayed
    assert replayed.old_logprobs.tolist() == [0, 0, -0.25, -0.5] and replayed.completion_mask.tolist() == [
        False,
        False,
        True,
        True,
    ]
    if section is GRPOSection:
        assert replayed.advantages.tolist() == [0, 0, 1.5, 1.5]
    else:  # its credit is the critic's of today
        assert replayed.returns[2:].any() and np.abs(replayed.returns[2:]).max() <= 1.0 + 1e-5
    first = next(minibatches(experience, algo, (0, 0, 1)))
    (there,) = [s for s in first if len(s.tokens) == 4 and s.tokens[0] == 9]
    assert there.old_logprobs.tolist() == [0, 0, -0.25, -0.5], "it was not the policy of now that said it"


def test_a_critic_gives_returns_and_old_values():
    experience = credit(PPOSection(problems_per_batch=4, group_size=2, gae_lambda=1.0, whiten=False))
    for sample, reward in zip(experience.fresh, (1, 0, 0, 1, 1, 0, 0, 1), strict=True):
        # gamma 1: what is still to come
        np.testing.assert_allclose(sample.returns[sample.completion_mask], reward, atol=1e-5)
        np.testing.assert_allclose(
            (sample.advantages + sample.old_values)[sample.completion_mask], reward, atol=1e-5
        )
    assert "value/explained_variance" in experience.metrics


def test_kl_in_the_reward_is_measured_with_the_coefficient_in_force():
    algo = PPOSection(problems_per_batch=4, group_size=2, kl_coef=0.1, gae_lambda=1.0, whiten=False)
    reference = {"lora": noisy(TRAINABLE["lora"], 9)}
    weak, strong = (credit(algo, reference=reference, kl_coef=k) for k in (0.1, 1.0))
    for a, b in zip(weak.fresh, strong.fresh, strict=True):
        k1 = np.where(a.completion_mask, a.old_logprobs - a.ref_logprobs, 0)
        to_come = np.cumsum(k1[::-1])[::-1] * a.completion_mask
        np.testing.assert_allclose(a.returns - b.returns, 0.9 * to_come, atol=1e-4)
    assert weak.metrics["kl/coef"] == 0.1 and weak.metrics["kl/ref"] == strong.metrics["kl/ref"] != 0


def test_entries_are_not_changed_by_being_replayed():
    before = dataclasses.asdict(ENTRY)
    credit(GRPOSection(problems_per_batch=4, group_size=2, replay=ReplaySection(ratio=0.2)), entries=[ENTRY])
    assert dataclasses.asdict(ENTRY) == before


def test_an_episode_of_two_turns_is_the_row_built_by_hand():
    """What reaches the loss: tokens, what is trained of them, and their advantages, observations without."""
    first = Completion([1, 2], [3, 4], [-1.5, -2.0], StopReason.EOS)
    second = Completion([1, 2, 3, 4, 9, 8], [5, 6, 7], [-2.5, -3.0, -3.5], StopReason.EOS)
    problem = Problem("p", (), {})

    def episode(*rewards):
        turns = (Turn(first, rewards[0]), Turn(second, rewards[1]))
        return Trajectory(problem, turns, Verdict(sum(rewards), True, True), 0, StopReason.ENV_DONE)

    algo = GRPOSection(problems_per_batch=1, group_size=2, advantage="center")
    given = [Group(problem, (episode(0.5, 0.75), episode(0.25, 0.0)))]
    samples = credit(algo, given).fresh
    batch = collate(samples, 2, SEQ_LEN, 1)
    mask = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1] + [0] * 7, bool)
    logprobs = np.float32([0, 0, -1.5, -2, 0, 0, -2.5, -3, -3.5] + [0] * 7)
    for row, advantage in enumerate((0.5, -0.5)):
        assert batch.tokens[row, 0].tolist() == [1, 2, 3, 4, 9, 8, 5, 6, 7] + [0] * 7
        assert batch.positions[row, 0].tolist() == [*range(9)] + [0] * 7
        assert batch.segment_ids[row, 0].tolist() == [1] * 9 + [0] * 7
        np.testing.assert_array_equal(batch.completion_mask[row, 0], mask)
        np.testing.assert_array_equal(batch.sampler_logprobs[row, 0], logprobs)
        np.testing.assert_array_equal(batch.advantages[row, 0], np.where(mask, np.float32(advantage), 0))
