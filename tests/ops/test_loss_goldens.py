"""Our losses, gradients and advantages against TRL's own (tests/golden/losses.json), and PPO's against naive
loops.

The golden holds TRL's settings by TRL's names; what they are in ours is said here, in `total` and where the
two differ. Everything is computed twice: one sequence to a row, and all sequences packed in one row.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.advantages import batch_normalize, group_center, group_normalize, leave_one_out, whiten
from jaxrl.ops.gae import gae
from jaxrl.ops.kl import kl_k3, unbiased_kl
from jaxrl.ops.policy_loss import cispo, clipped_surrogate, importance_ratio, loss_weights, sampler_weights
from jaxrl.ops.value_loss import clipped_value_loss

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
AGGREGATE = {
    "grpo": "sequence_mean",
    "dr_grpo": "constant",
    "dapo": "token_mean",
    "bnpo": "token_mean",
    "cispo": "token_mean",
}
TRL_EPS = 1e-4  # what TRL adds to the standard deviation; ours is 1e-6
LAYOUTS = ("rows", "packed")
# How near: the weights are float32 whatever the rest is, and a loss is a sum in which larger terms cancel.
NEAR = [
    ("rows", np.float64, 1e-6, 1e-8),
    ("packed", np.float64, 1e-6, 1e-8),
    ("packed", np.float32, 1e-5, 1e-7),
]


def lay_out(x, present: np.ndarray, layout: str) -> np.ndarray:
    """x [N, T], as it is or with the tokens of all sequences in one row, [1, T'], and three places of padding
    after them.
    """
    x = np.asarray(x)
    return x if layout == "rows" else np.pad(x[present], (0, 3))[None]


def segment_ids(present: np.ndarray, layout: str) -> np.ndarray:
    ids = np.arange(1, len(present) + 1)[:, None] if layout == "packed" else 1
    return lay_out((present * ids).astype(np.int32), present, layout)


@functools.cache
def arrays(layout: str) -> dict[str, np.ndarray]:
    inputs = {name: np.array(x) for name, x in GOLDEN["inputs"].items()}
    present = inputs["mask"]
    return {name: lay_out(x, present, layout) for name, x in inputs.items()} | {
        "segment_ids": segment_ids(present, layout)
    }


def total(logprobs, x: dict, advantages, mask, weights, settings: dict):
    """The loss of TRL's settings from our pieces; x: the arrays of one layout."""
    ratio = importance_ratio(
        logprobs, x["old_logprobs"], mask, x["segment_ids"], settings["importance_sampling_level"]
    )
    # TRL bounds the weight by the number itself, ours by a distance from 1
    if settings["loss_type"] == "cispo":
        per_token = cispo(logprobs, ratio, advantages, 1.0, settings["epsilon_high"] - 1.0)
    else:
        per_token = clipped_surrogate(
            ratio, advantages, settings["epsilon"], settings["epsilon_high"], settings["delta"]
        )
    if settings["use_vllm"]:
        level, how = settings["vllm_importance_sampling_mode"].split("_")
        cap = settings["vllm_importance_sampling_clip_max"]
        per_token = per_token * sampler_weights(
            x["old_logprobs"], x["sampler_logprobs"], mask, x["segment_ids"], level, cap, how
        )
    if settings["beta"]:
        kl = kl_k3(logprobs, x["ref_logprobs"])
        per_token = per_token + settings["beta"] * (
            unbiased_kl(kl, ratio) if settings["use_bias_correction_kl"] else kl
        )
    return jnp.sum(weights * per_token)


@pytest.mark.parametrize("layout, dtype, rtol, atol", NEAR)
@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_loss_and_gradient_are_those_of_trl(name, layout, dtype, rtol, atol):
    case, present = GOLDEN["cases"][name], np.array(GOLDEN["inputs"]["mask"])
    settings, counts, share = case["settings"], present, 1.0
    if settings["mask_truncated_completions"]:
        counts = present & ~np.array(GOLDEN["truncated"])[:, None]
        # TRL divides by all sequences, ours by those that have a token that counts
        share = counts.any(axis=1).mean()
    x = {
        key: value.astype(dtype) if value.dtype == np.float64 else value
        for key, value in arrays(layout).items()
    }
    advantages = lay_out(
        np.broadcast_to(np.array(case["advantages"], dtype)[:, None], present.shape), present, layout
    )
    mask = lay_out(counts, present, layout)
    with jax.enable_x64(dtype == np.float64):
        weights = loss_weights(
            mask[None],
            x["segment_ids"][None],
            AGGREGATE[settings["loss_type"]],
            GOLDEN["max_completion_length"],
        )[0]
        found = jax.jit(
            jax.value_and_grad(lambda logprobs: total(logprobs, x, advantages, mask, weights, settings))
        )
        loss, grad = found(x["logprobs"])
    assert loss.dtype == grad.dtype == dtype
    np.testing.assert_allclose(share * np.asarray(loss), case["loss"], rtol=rtol, atol=10 * atol)
    np.testing.assert_allclose(
        share * np.asarray(grad), lay_out(case["grad"], present, layout), rtol=rtol, atol=atol
    )


def test_each_golden_names_its_variant_of_the_kl_term_and_is_no_other():
    """By algebra, in NumPy: of the two goldens that differ in nothing else, each has the KL term that it
    names.
    """
    cases = GOLDEN["cases"]
    for case in (*cases.values(), GOLDEN["ppo"]):
        settings = case["settings"]
        variant = (
            "none"
            if not settings.get("beta")
            else "unbiased"
            if settings["use_bias_correction_kl"]
            else "plain"
        )
        assert case["kl"] == variant
    assert {case["kl"] for case in cases.values()} == {"none", "plain", "unbiased"}
    x = {name: np.array(value) for name, value in GOLDEN["inputs"].items()}
    mask, beta = x["mask"], cases["grpo"]["settings"]["beta"]
    d, ratio = x["ref_logprobs"] - x["logprobs"], np.exp(x["logprobs"] - x["old_logprobs"])
    k3, slope = np.exp(d) - d - 1, 1 - np.exp(d)
    weights = mask / mask.sum(axis=1, keepdims=True) / len(mask)
    term = {"plain": (k3, slope), "unbiased": (ratio * k3, ratio * (k3 + slope))}
    for name in ("grpo", "grpo_kl_times_ratio"):
        for variant, (value, gradient) in term.items():
            fits_loss = np.isclose(
                cases["grpo_no_kl"]["loss"] + beta * np.sum(weights * value), cases[name]["loss"], rtol=1e-9
            )
            fits_grad = np.allclose(
                cases["grpo_no_kl"]["grad"] + beta * weights * gradient,
                cases[name]["grad"],
                rtol=1e-9,
                atol=1e-12,
            )
            assert fits_loss == fits_grad == (variant == cases[name]["kl"]), (name, variant)


@pytest.mark.parametrize("name", GOLDEN["rewards"])
def test_advantages_are_those_of_trl(name):
    found = GOLDEN["rewards"][name]
    # null becomes NaN: no reward
    rewards = np.array(found["rewards"], float).reshape(-1, GOLDEN["group_size"])
    golden = {how: np.reshape(x, rewards.shape) for how, x in found["advantages"].items()}
    mask = ~np.isnan(rewards)
    with jax.enable_x64(True):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
        close(group_normalize(rewards, mask, eps=TRL_EPS), golden["group"])
        close(group_center(rewards, mask), golden["none"])
        close(leave_one_out(rewards, mask), golden["rloo"])
        close(batch_normalize(rewards, mask, eps=TRL_EPS), golden["one_group"])
        # TRL's `batch` takes off the mean of the group and divides by the spread of the whole batch; we have
        # no name for it.
        close(group_center(rewards, mask) / (np.std(rewards[mask], ddof=1) + TRL_EPS), golden["batch"])


@functools.cache
def ppo(layout: str) -> tuple[dict, dict]:
    """The PPO step's arrays in a layout: inputs, and what should come out."""
    section = GOLDEN["ppo"]
    present = np.array(section["inputs"]["mask"])
    inputs = {name: lay_out(x, present, layout) for name, x in section["inputs"].items()}
    names = ("advantages", "returns", "whitened", "grad_logprobs", "grad_values")
    return inputs | {"segment_ids": segment_ids(present, layout)}, {
        name: lay_out(section[name], present, layout) for name in names
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ppo_advantages_are_those_of_the_naive_loops(layout):
    x, golden = ppo(layout)
    settings = GOLDEN["ppo"]["settings"]
    with jax.enable_x64(True):
        advantages, returns = gae(
            x["rewards"],
            x["old_values"],
            x["end_values"],
            x["mask"],
            x["segment_ids"],
            settings["gamma"],
            settings["gae_lambda"],
        )
        whitened = whiten(advantages, x["mask"])
    for name, found in (("advantages", advantages), ("returns", returns), ("whitened", whitened)):
        np.testing.assert_allclose(found, golden[name], rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ppo_losses_and_gradients_are_those_of_the_naive_loops(layout):
    x, golden = ppo(layout)
    settings = GOLDEN["ppo"]["settings"]
    mask, ids = x["mask"], x["segment_ids"]

    def losses(logprobs, values):
        ratio = importance_ratio(logprobs, x["old_logprobs"], mask, ids, "token")
        policy = clipped_surrogate(ratio, golden["whitened"], settings["clip_low"], settings["clip_high"])
        value = clipped_value_loss(values, x["old_values"], golden["returns"], settings["value_clip"])
        return jnp.sum(weights * policy), jnp.sum(weights * value)

    with jax.enable_x64(True):
        weights = loss_weights(mask[None], ids[None], "token_mean")[0]
        policy_loss, value_loss = losses(x["logprobs"], x["values"])
        jacobian = jax.jit(jax.jacrev(losses, argnums=(0, 1)))(x["logprobs"], x["values"])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    close(policy_loss, GOLDEN["ppo"]["policy_loss"])
    close(value_loss, GOLDEN["ppo"]["value_loss"])
    close(jacobian[0][0], golden["grad_logprobs"])
    close(jacobian[1][1], golden["grad_values"])
    assert not np.any(jacobian[0][1]) and not np.any(jacobian[1][0])
