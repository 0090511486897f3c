"""The objectives as they are put together, sign by sign: against TRL's losses (tests/golden/losses.json), and
by hand.

The goldens go through the settings of a config, `weigh`, and the two objectives. The golden holds TRL's
settings by TRL's names; `from_settings` says what they are in ours, and the tests where the two differ.
Everything is computed twice: one sequence to a row, and all sequences packed in one row. Whatever stands
outside of the completions is made to be wrong, so that nothing of it may be read. By hand, one sequence: a
prompt token, `N` completion tokens, one place of padding.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from jaxrl.config.algo import CorrectionSection, GRPOSection, PPOSection, ReplaySection
from jaxrl.update.batch import PolicyBatch
from jaxrl.update.objective import policy_objective, value_objective, weigh
from tests.ops.test_loss_goldens import GOLDEN, lay_out, ppo, segment_ids

AGGREGATE = {
    "grpo": "sequence_mean",
    "dr_grpo": "constant",
    "dapo": "token_mean",
    "bnpo": "token_mean",
    "cispo": "token_mean",
}
MAX_LEN = GOLDEN["max_completion_length"]
# (layout, microbatches, dtype, rtol, atol); the weights are float32 whatever the rest is.
NEAR = [
    ("rows", 2, np.float64, 1e-6, 1e-8),
    ("packed", 1, np.float64, 1e-6, 1e-8),
    ("packed", 1, np.float32, 1e-5, 1e-7),
]
JUNK = -100.0  # logprobs of what is not part of a completion; its ratio to anything has no float32
close = lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- goldens


@functools.cache
def arrays(layout: str) -> dict[str, np.ndarray]:
    inputs = {name: np.array(x) for name, x in GOLDEN["inputs"].items()}
    present = inputs["mask"]
    return {name: lay_out(x, present, layout) for name, x in inputs.items()} | {
        "segment_ids": segment_ids(present, layout)
    }


def from_settings(settings: dict) -> GRPOSection:
    """TRL's settings in ours. TRL bounds the weight of CISPO by the number itself, ours by a distance
    from 1.
    """
    is_cispo, correction = settings["loss_type"] == "cispo", None
    if settings["use_vllm"]:
        level, how = settings["vllm_importance_sampling_mode"].split("_")
        correction = CorrectionSection(
            level=level, how=how, cap=settings["vllm_importance_sampling_clip_max"]
        )
    return GRPOSection(
        loss="cispo" if is_cispo else "clip",
        aggregate=AGGREGATE[settings["loss_type"]],
        ratio_level=settings["importance_sampling_level"],
        clip_low=1.0 if is_cispo else settings["epsilon"],
        clip_high=settings["epsilon_high"] - 1.0 if is_cispo else settings["epsilon_high"],
        dual_clip=settings["delta"],
        kl_coef=settings["beta"],
        kl_estimator="k3",
        kl_unbiased=settings["use_bias_correction_kl"],
        sampler_correction=correction,
    )


def cut(x: np.ndarray, M: int, dtype) -> np.ndarray:
    """[R, T] to [M, B, T]."""
    x = np.asarray(x)
    return x.reshape(M, -1, x.shape[-1]).astype(dtype if x.dtype == np.float64 else x.dtype)


def policy_batch(mask, segment_ids, **fields) -> PolicyBatch:
    zeros = np.zeros(mask.shape, np.int32)
    return PolicyBatch(np.int32(len(mask)), zeros, zeros, segment_ids, mask, **fields)


def piece(batch: PolicyBatch, m: int) -> PolicyBatch:
    """One microbatch."""
    fields = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return PolicyBatch(
        **{name: x if x is None or name == "num_microbatches" else x[m] for name, x in fields.items()}
    )


def over_pieces(objective, algo, batch: PolicyBatch, *inputs):
    """(loss, gradients with regard to the inputs, metric sums) of all microbatches, added up as the update
    does.
    """
    weights = weigh(algo, MAX_LEN, batch)

    def loss(*inputs):
        parts = [
            objective(
                algo, *(x[m] for x in inputs), piece(batch, m), {name: w[m] for name, w in weights.items()}
            )
            for m in range(len(batch.tokens))
        ]
        return sum(part for part, _ in parts), {
            name: sum(metrics[name] for _, metrics in parts) for name in parts[0][1]
        }

    (total, metrics), grads = jax.jit(
        jax.value_and_grad(loss, argnums=tuple(range(len(inputs))), has_aux=True)
    )(*inputs)
    return total, grads, metrics


@pytest.mark.parametrize("layout, M, dtype, rtol, atol", NEAR)
@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_loss_and_gradient_of_the_settings_are_those_of_trl(name, layout, M, dtype, rtol, atol):
    case, present = GOLDEN["cases"][name], np.array(GOLDEN["inputs"]["mask"])
    counts, share = present, 1.0
    if case["settings"]["mask_truncated_completions"]:
        counts = present & ~np.array(GOLDEN["truncated"])[:, None]
        # TRL divides by all sequences, ours by those that have a token that counts
        share = counts.any(axis=1).mean()
    algo = from_settings(case["settings"])
    mask = lay_out(counts, present, layout)
    x = {key: cut(value, M, dtype) for key, value in arrays(layout).items()}
    advantages = lay_out(
        np.broadcast_to(np.array(case["advantages"])[:, None], present.shape), present, layout
    )
    outside = {"logprobs": JUNK, "old_logprobs": np.nan, "sampler_logprobs": 0.0, "ref_logprobs": JUNK + 5}
    said = {
        key: np.where(cut(mask, M, bool), x[key], np.asarray(value, dtype)) for key, value in outside.items()
    }
    logprobs = said.pop("logprobs")
    with jax.enable_x64(dtype == np.float64):
        batch = policy_batch(
            cut(mask, M, bool), x["segment_ids"], advantages=cut(advantages, M, dtype), **said
        )
        loss, (grad, by_entropy), metrics = over_pieces(
            policy_objective, algo, batch, logprobs, np.ones_like(logprobs)
        )
    assert loss.dtype == grad.dtype == dtype
    np.testing.assert_allclose(share * np.asarray(loss), case["loss"], rtol=rtol, atol=10 * atol)
    golden_grad = cut(lay_out(case["grad"], present, layout), M, np.float64)
    np.testing.assert_allclose(share * np.asarray(grad), golden_grad, rtol=rtol, atol=atol)
    assert not np.any(by_entropy), "no entropy bonus, no gradient"
    assert metrics["sum/tokens"] == mask.sum()
    if not algo.kl_coef:
        close(metrics["sum/loss/policy"], loss)


@pytest.mark.parametrize("layout, M, dtype, rtol, atol", NEAR)
def test_losses_and_gradients_of_ppo_are_those_of_the_naive_loops(layout, M, dtype, rtol, atol):
    (x, golden), section, vf_coef = ppo(layout), GOLDEN["ppo"], 0.3
    algo = PPOSection(
        **{key: section["settings"][key] for key in ("clip_low", "clip_high", "value_clip")}, vf_coef=vf_coef
    )
    x = {key: cut(value, M, dtype) for key, value in x.items()}
    mask = x["mask"]
    wrong = {
        key: np.where(mask, x[key], np.asarray(JUNK, dtype)) for key in ("logprobs", "values", "old_values")
    }
    returns = np.where(mask, cut(golden["returns"], M, dtype), np.asarray(-JUNK, dtype))
    with jax.enable_x64(dtype == np.float64):
        batch = policy_batch(
            mask,
            x["segment_ids"],
            advantages=cut(golden["whitened"], M, dtype),
            sampler_logprobs=x["old_logprobs"],
            old_logprobs=x["old_logprobs"],
            old_values=wrong["old_values"],
            returns=returns,
        )
        policy_loss, (policy_grad, _), _ = over_pieces(
            policy_objective, algo, batch, wrong["logprobs"], np.ones_like(returns)
        )
        value_loss, (value_grad,), metrics = over_pieces(value_objective, algo, batch, wrong["values"])
    near = dict(rtol=rtol, atol=atol)
    np.testing.assert_allclose(policy_loss, section["policy_loss"], rtol=rtol, atol=10 * atol)
    np.testing.assert_allclose(value_loss, vf_coef * section["value_loss"], **near)
    np.testing.assert_allclose(metrics["sum/loss/value"], section["value_loss"], **near)
    np.testing.assert_allclose(policy_grad, cut(golden["grad_logprobs"], M, np.float64), **near)
    np.testing.assert_allclose(value_grad, vf_coef * cut(golden["grad_values"], M, np.float64), **near)


# ---------------------------------------------------------------------------------------------------- by hand


def padded(x, fill) -> np.ndarray:
    """[1, 1, 1 + N + 1]: the completion's values between those of a prompt token and of a place of
    padding.
    """
    return np.array([fill, *x, fill], np.asarray(x).dtype)[None, None]


def by_hand(advantages, replayed=None, in_loss=None, **fields) -> PolicyBatch:
    """One sequence; `fields` are lists of N floats. in_loss: the completion tokens that the policy loss is
    taken on.
    """
    count = len(advantages)
    mask = padded(np.ones(count, bool) if in_loss is None else np.array(in_loss, bool), False)
    segment_ids = np.array([[[1] * (count + 1) + [0]]], np.int32)
    fields = {
        "sampler_logprobs": [0.0] * count,
        "old_logprobs": [math.nan] * count,
        "advantages": advantages,
    } | fields
    fields = {
        name: padded(np.array(x, np.float32), np.nan if name == "old_logprobs" else 0.0)
        for name, x in fields.items()
    }
    return policy_batch(
        mask,
        segment_ids,
        replay_mask=None if replayed is None else padded(np.array(replayed, bool), False),
        **fields,
    )


def policy(algo, batch: PolicyBatch, logprobs, entropy=None):
    """(loss, gradient by logprobs [N], gradient by entropy [N], metrics)."""
    logprobs = np.array(logprobs, np.float32)
    entropy = np.ones_like(logprobs) if entropy is None else np.array(entropy, np.float32)
    loss, grads, metrics = over_pieces(
        policy_objective, algo, batch, padded(logprobs, JUNK), padded(entropy, 9.0)
    )
    for grad in grads:
        assert not np.any(grad[0, 0, [0, -1]]), "prompts and padding have no gradient"
    return (loss, *(grad[0, 0, 1:-1] for grad in grads), metrics)


PLAIN = dict(problems_per_batch=4, group_size=2)


def test_without_old_logprobs_the_ratio_is_one_and_the_gradient_that_of_reinforce():
    """NaN stands for a policy that has not moved: descent raises what was good, lowers what was bad."""
    advantages = np.array([2.0, -1.0, 0.5, 0.0])
    loss, grad, _, metrics = policy(GRPOSection(**PLAIN), by_hand(advantages), [-1.0, -2.0, -3.0, -0.5])
    close(loss, -advantages.mean())
    close(grad, -advantages / 4)
    assert metrics["max/ratio/max"] == 1.0 and metrics["mean/ratio/mean"] == 4 and metrics["mean/kl/old"] == 0


def test_where_some_tokens_have_old_logprobs_the_others_still_have_ratio_one():
    batch = by_hand([1.0, 1.0], old_logprobs=[math.nan, -2.0 - math.log(1.1)])
    loss, grad, _, _ = policy(GRPOSection(**PLAIN), batch, [-1.0, -2.0])
    close(loss, -(1 + 1.1) / 2)
    close(grad, [-0.5, -1.1 / 2])


# Bounds 0.9 and 1.5: had they been taken for each other, every other number here would differ.
RATIOS = np.array([0.7, 0.8, 0.8, 0.95, 1.4, 1.4, 1.6, 1.6])
SIGNS = np.array([-1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
CLIP = dict(clip_low=0.1, clip_high=0.5)


def moved(advantages=SIGNS, **fields) -> tuple[PolicyBatch, np.ndarray]:
    """(batch, logprobs) of tokens that have moved by RATIOS."""
    old = np.linspace(-3, -2, len(RATIOS))
    return by_hand(advantages, old_logprobs=old, **fields), old + np.log(RATIOS)


def test_bad_tokens_are_clipped_below_and_good_ones_above():
    loss, grad, _, metrics = policy(GRPOSection(**PLAIN, **CLIP), *moved())
    close(loss, -np.mean(SIGNS * [0.9, 0.9, 0.8, 0.95, 1.4, 1.4, 1.5, 1.6]))
    close(grad, -SIGNS * RATIOS * [0, 0, 1, 1, 1, 1, 0, 1] / 8)
    assert [metrics[f"mean/clip_fraction{which}"] for which in ("", "/low", "/high")] == [3, 2, 1]
    close(metrics["mean/ratio/mean"], RATIOS.sum())
    close(metrics["max/ratio/max"], 1.6)


def test_dual_clip_bounds_the_loss_of_bad_tokens_that_became_likelier():
    loss, grad, _, metrics = policy(GRPOSection(**PLAIN, **CLIP, dual_clip=1.55), *moved())
    close(loss, -np.mean(SIGNS * [0.9, 0.9, 0.8, 0.95, 1.4, 1.4, 1.5, 1.55]))
    close(grad, -SIGNS * RATIOS * [0, 0, 1, 1, 1, 1, 0, 0] / 8)
    assert [metrics[f"mean/clip_fraction{which}"] for which in ("", "/low", "/high")] == [4, 2, 2]


def test_dual_clip_has_no_say_over_good_tokens():
    """Good tokens above it and below 1 + clip_high have all of their gradient, and are not told as
    clipped.
    """
    loss, grad, _, metrics = policy(GRPOSection(**PLAIN, **CLIP, dual_clip=1.2), *moved(np.ones(8)))
    close(loss, -np.mean([0.7, 0.8, 0.8, 0.95, 1.4, 1.4, 1.5, 1.5]))
    close(grad, -RATIOS * [1, 1, 1, 1, 1, 1, 0, 0] / 8)
    assert [metrics[f"mean/clip_fraction{which}"] for which in ("", "/low", "/high")] == [2, 0, 2]


def test_cispo_bounds_the_weight_of_every_token_and_leaves_its_gradient():
    batch, logprobs = moved()
    loss, grad, _, metrics = policy(GRPOSection(**PLAIN, **CLIP, loss="cispo"), batch, logprobs)
    weights = SIGNS * [0.9, 0.9, 0.9, 0.95, 1.4, 1.4, 1.5, 1.5]
    close(loss, -np.mean(weights * logprobs))
    close(grad, -weights / 8)
    assert [metrics[f"mean/clip_fraction{which}"] for which in ("", "/low", "/high")] == [5, 3, 2]


def test_the_kl_from_the_policy_that_sampled_is_a_mean_over_what_it_sampled():
    """KL(old || new), estimated from tokens of old: r - 1 - log r."""
    batch, logprobs = moved()
    close(
        policy(GRPOSection(**PLAIN), batch, logprobs)[-1]["mean/kl/old"], np.sum(RATIOS - 1 - np.log(RATIOS))
    )


@pytest.mark.parametrize("how, above_the_cap", [("truncate", 2.0), ("mask", 0.0)])
def test_a_token_that_the_sampler_found_less_likely_than_the_trainer_counts_more(how, above_the_cap):
    """The weight is trainer over sampler: what the sampler says too seldom is made up for."""
    gaps = np.array([0.3, -0.3, 1.5])
    old = np.array([-2.0, -2.0, -2.0])
    algo = GRPOSection(**PLAIN, sampler_correction=CorrectionSection(level="token", how=how, cap=2.0))
    expected = np.array([math.exp(0.3), math.exp(-0.3), above_the_cap])
    # The policy as it stands takes the place of old logprobs that there are not; elsewhere its moving on
    # changes no weight.
    for old_logprobs, ratio in ((old, 1.1), ([math.nan] * 3, 1.0)):
        batch = by_hand([1.0, 1.0, 1.0], old_logprobs=old_logprobs, sampler_logprobs=old - gaps)
        loss, grad, _, metrics = policy(algo, batch, old + math.log(ratio))
        close(loss, -ratio * expected.mean())
        close(grad, -ratio * expected / 3)  # the weight itself has no gradient
        close(metrics["mean/sampler_mismatch/mean"], np.abs(gaps).sum())
        close(metrics["max/sampler_mismatch/max"], 1.5)
    sequence = GRPOSection(**PLAIN, sampler_correction=CorrectionSection(level="sequence", cap=9.0))
    close(policy(sequence, batch, old)[0], -math.exp(gaps.sum()))


def test_the_gap_to_the_sampler_is_left_alone_unless_it_is_to_be_corrected():
    batch = by_hand([1.0, 1.0], sampler_logprobs=[-1.0, -3.0])
    loss, grad, _, metrics = policy(GRPOSection(**PLAIN), batch, [-2.0, -2.0])
    close(loss, -1.0)
    close(grad, [-0.5, -0.5])
    np.testing.assert_allclose(metrics["p99/sampler_mismatch/p99"], padded([1.0, 1.0], np.nan)[0])


@pytest.mark.parametrize(
    "aggregate, share", [("token_mean", 1 / 4), ("sequence_mean", 1 / 4), ("constant", 1 / MAX_LEN)]
)
def test_the_entropy_bonus_lowers_the_loss(aggregate, share):
    entropy, logprobs = np.array([0.5, 1.0, 2.0, 4.0]), [-1.0, -2.0, -3.0, -0.5]
    batch = by_hand([1.0, -2.0, 0.5, 0.0])
    without, grad_without, _, _ = policy(GRPOSection(**PLAIN, aggregate=aggregate), batch, logprobs, entropy)
    loss, grad, by_entropy, metrics = policy(
        GRPOSection(**PLAIN, aggregate=aggregate, entropy_coef=0.1), batch, logprobs, entropy
    )
    close(loss, without - 0.1 * share * entropy.sum())
    close(by_entropy, [-0.1 * share] * 4)
    close(grad, grad_without)
    close(metrics["mean/entropy"], entropy.sum())
    close(metrics["sum/loss/policy"], without)


@pytest.mark.parametrize(
    "estimator, value, slope",
    [
        ("k1", lambda d: d, lambda d: np.ones_like(d)),
        ("k2", lambda d: d**2 / 2, lambda d: d),
        ("k3", lambda d: np.exp(-d) - 1 + d, lambda d: 1 - np.exp(-d)),
    ],
)
def test_the_kl_term_draws_the_policy_to_its_reference(estimator, value, slope):
    """d = logprobs - ref_logprobs; descent on k2 and k3 makes less likely what is likelier than under the
    reference.
    """
    logprobs, reference = np.array([-1.0, -2.0, -3.0, -0.5]), np.array([-1.5, -1.0, -3.0, -2.5])
    batch, d = by_hand([1.0, -2.0, 0.5, 0.0], ref_logprobs=reference), logprobs - reference
    without, grad_without, _, said = policy(GRPOSection(**PLAIN), batch, logprobs)
    assert "mean/kl/ref" not in said
    for aggregate, share in (("token_mean", 1 / 4), ("constant", 1 / MAX_LEN)):
        plain, grad_plain, _, _ = policy(GRPOSection(**PLAIN, aggregate=aggregate), batch, logprobs)
        algo = GRPOSection(**PLAIN, aggregate=aggregate, kl_coef=0.2, kl_estimator=estimator)
        loss, grad, _, metrics = policy(algo, batch, logprobs)
        close(loss, plain + 0.2 * share * value(d).sum())
        close(grad, grad_plain + 0.2 * share * slope(d))
        close(metrics["mean/kl/ref"], value(d).sum())
    in_reward = PPOSection(kl_coef=0.2)  # where it is taken off the reward, it is no term of the loss
    found, grad, _, _ = policy(in_reward, batch, logprobs)
    close(found, without)
    close(grad, grad_without)


def test_the_unbiased_kl_term_is_the_plain_one_times_the_token_s_ratio_which_is_differentiated_too():
    """Where nothing moved yet (no old logprobs) the ratio is 1, and has a gradient all the same."""
    logprobs, reference = np.array([-1.0, -2.0, -3.0, -0.5]), np.array([-1.5, -1.0, -3.0, -2.5])
    d = logprobs - reference
    k3, slope = np.exp(-d) - 1 + d, 1 - np.exp(-d)
    for level in ("token", "sequence"):  # of the policy's ratio; the KL's is the token's
        for moved in (np.zeros(4), np.array([0.3, -0.2, 0.0, -1.0])):
            fields = {"old_logprobs": logprobs - moved} if moved.any() else {}
            batch = by_hand([0.0] * 4, ref_logprobs=reference, **fields)
            algo = GRPOSection(**PLAIN, kl_coef=0.2, kl_unbiased=True, ratio_level=level)
            loss, grad, _, metrics = policy(algo, batch, logprobs)
            ratio = np.exp(moved)
            close(loss, 0.2 * (ratio * k3).mean())
            close(grad, 0.2 * ratio * (k3 + slope) / 4)
            close(metrics["mean/kl/ref"], (ratio * k3).sum())


def test_a_kl_term_without_reference_logprobs_is_refused():
    with pytest.raises(ValueError, match="no ref_logprobs"):
        policy(GRPOSection(**PLAIN, kl_coef=0.1), by_hand([1.0]), [-1.0])


def test_sampler_correction_leaves_the_kl_term_alone():
    batch = by_hand([0.0, 0.0], sampler_logprobs=[-1.5, -2.5], ref_logprobs=[-1.2, -1.8])
    settings = dict(**PLAIN, kl_coef=0.2)
    corrected = GRPOSection(**settings, sampler_correction=CorrectionSection())
    close(policy(corrected, batch, [-1.0, -2.0])[0], policy(GRPOSection(**settings), batch, [-1.0, -2.0])[0])


# ----------------------------------------------------------------------------------------------------- replay


REPLAYED, LOGPROBS = np.array([False, False, True, True]), np.array([-1.0, -2.0, -3.0, -0.5])
FRESH_ALONE = by_hand([1.0, -2.0])
METRICS_OF_TOKENS = ("tokens", "entropy", "clip_fraction", "ratio/mean", "kl/old", "sampler_mismatch/mean")


def replay(use: str) -> GRPOSection:
    return GRPOSection(
        problems_per_batch=4,
        group_size=4,
        entropy_coef=0.1,
        replay=ReplaySection(ratio=0.5, use=use, coef=0.25),
    )


def same_metrics_of_tokens(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        if name.split("/", 1)[1] in METRICS_OF_TOKENS or name.startswith("max/"):
            close(found[name], value)


def test_imitation_raises_the_logprobs_of_replayed_tokens_and_nothing_else():
    batch = by_hand([1.0, -2.0, 0.0, 0.0], replayed=REPLAYED, in_loss=~REPLAYED)
    loss, grad, by_entropy, metrics = policy(replay("sft"), batch, LOGPROBS)
    plain = GRPOSection(**PLAIN, entropy_coef=0.1)
    alone, grad_alone, by_entropy_alone, metrics_alone = policy(plain, FRESH_ALONE, LOGPROBS[:2])
    cross_entropy = -LOGPROBS[2:].mean()
    close(metrics["sum/loss/imitation"], cross_entropy)
    close(loss, alone + 0.25 * cross_entropy)
    close(grad, [*grad_alone, -0.25 / 2, -0.25 / 2])
    close(by_entropy, [*by_entropy_alone, 0, 0])
    same_metrics_of_tokens(metrics, metrics_alone)


def test_what_is_replayed_off_policy_goes_through_the_policy_loss_and_is_left_out_of_the_metrics():
    advantages, old = np.array([1.0, -2.0, 3.0, 0.5]), LOGPROBS - np.log([1.0, 1.0, 1.1, 1.9])
    batch = by_hand(advantages, replayed=REPLAYED, old_logprobs=old, sampler_logprobs=old)
    loss, grad, _, metrics = policy(replay("off_policy"), batch, LOGPROBS, [1.0, 1.0, 5.0, 5.0])
    # the last is clipped: an old, good token that is already much likelier
    held = np.array([1.0, 1.0, 1.1, 1.2])
    close(loss, -np.mean(advantages * held) - 0.1 * 3.0)
    close(grad, -advantages * held * [1, 1, 1, 0] / 4)
    assert "sum/loss/imitation" not in metrics
    fresh = by_hand(advantages[:2], old_logprobs=old[:2], sampler_logprobs=old[:2])
    same_metrics_of_tokens(metrics, policy(GRPOSection(**PLAIN, entropy_coef=0.1), fresh, LOGPROBS[:2])[-1])
    np.testing.assert_array_equal(
        np.isnan(metrics["p99/sampler_mismatch/p99"])[0], [True, False, False, True, True, True]
    )


# ------------------------------------------------------------------------------------------------------ value


def value(algo: PPOSection, batch: PolicyBatch, values):
    loss, (grad,), metrics = over_pieces(
        value_objective, algo, batch, padded(np.array(values, np.float32), JUNK)
    )
    assert not np.any(grad[0, 0, [0, -1]]), "prompts and padding have no gradient"
    return loss, grad[0, 0, 1:-1], metrics


@pytest.mark.parametrize("vf_coef", [0.5, 2.0])
def test_the_value_loss_draws_values_to_returns_with_the_weight_asked_for(vf_coef):
    values, returns = np.array([0.5, -0.2, 0.1, 0.0]), np.array([0.3, 0.4, 0.1, -1.0])
    batch = by_hand([0.0] * 4, old_values=values, returns=returns)
    loss, grad, metrics = value(PPOSection(vf_coef=vf_coef), batch, values)
    close(loss, vf_coef * np.mean((values - returns) ** 2) / 2)
    close(grad, vf_coef * (values - returns) / 4)
    close(metrics["sum/loss/value"], loss / vf_coef)
    close(metrics["mean/value/mean"], values.sum())
    assert metrics["mean/value/clip_fraction"] == 0


def test_a_value_that_has_moved_far_enough_towards_its_return_rests():
    """Clipped: moved by more than 0.2, and the value held at 0.2 errs more. Moved far away from its return,
    it is drawn back.
    """
    old, moved_by, returns = np.zeros(4), np.array([0.5, 0.5, 0.1, -0.5]), np.array([1.0, -1.0, 1.0, -1.0])
    batch = by_hand([0.0] * 4, old_values=old, returns=returns)
    loss, grad, metrics = value(PPOSection(vf_coef=1.0, value_clip=0.2), batch, moved_by)
    close(loss, np.mean(np.array([0.8, 1.5, 0.9, 0.8]) ** 2) / 2)
    close(grad, np.array([0, 1.5, -0.9, 0]) / 4)
    assert metrics["mean/value/clip_fraction"] == 2


def test_values_of_what_is_replayed_are_learned_and_left_out_of_the_metrics():
    batch = by_hand([0.0] * 4, replayed=REPLAYED, old_values=np.zeros(4), returns=np.ones(4))
    algo = PPOSection(vf_coef=1.0, value_clip=0.2, replay=ReplaySection(use="off_policy"))
    _, grad, metrics = value(algo, batch, [0.1, 0.5, 0.0, 0.5])
    close(grad, np.array([-0.9, 0, -1, 0]) / 4)
    close(metrics["mean/value/mean"], 0.6)
    assert metrics["mean/value/clip_fraction"] == 1


# ---------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean", "constant"])
def test_each_term_has_the_weights_of_its_own_tokens(aggregate):
    """Lengths 3 and 1, replayed ones 1 and 2, in two microbatches; the critic's and the imitation's terms are
    means over tokens whatever the policy's is.
    """
    mask = np.array([[[1, 1, 1, 0, 0]], [[1, 0, 0, 0, 0]]], bool)
    replayed = np.array([[[0, 0, 0, 0, 1]], [[0, 0, 1, 1, 0]]], bool)
    segment_ids = np.array([[[1, 1, 1, 1, 2]], [[1, 1, 2, 2, 0]]], np.int32)
    zeros = np.zeros(mask.shape, np.float32)
    fields = dict(advantages=zeros, sampler_logprobs=zeros, old_logprobs=zeros, replay_mask=replayed)
    weights = weigh(
        PPOSection(aggregate=aggregate, replay=ReplaySection()),
        10,
        policy_batch(mask, segment_ids, **fields, returns=zeros),
    )
    share = {"token_mean": [1 / 4, 1 / 4], "sequence_mean": [1 / 6, 1 / 2], "constant": [1 / 20, 1 / 20]}[
        aggregate
    ]
    close(weights["policy"], mask * np.array(share)[:, None, None])
    close(weights["value"], mask / 4)
    close(weights["imitation"], replayed / 3)
    off_policy = PPOSection(aggregate=aggregate, replay=ReplaySection(use="off_policy"))
    assert set(weigh(off_policy, 10, policy_batch(mask, segment_ids, **fields))) == {"policy"}
