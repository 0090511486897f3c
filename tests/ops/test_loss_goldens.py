"""Advantages against TRL's own and against naive loops (tests/golden/losses.json), and that each golden is
what it names itself. The losses and gradients of the same file: tests/update/test_objective.py.

PPO's are computed twice: one sequence to a row, and all sequences packed in one row.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl.ops.advantages import batch_normalize, group_center, group_normalize, leave_one_out, whiten
from jaxrl.ops.gae import gae

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
TRL_EPS = 1e-4  # what TRL adds to the standard deviation; ours is 1e-6
LAYOUTS = ("rows", "packed")


def lay_out(x, present: np.ndarray, layout: str) -> np.ndarray:
    """x [N, T], as it is or with the tokens of all sequences in one row, [1, T'], and three places of padding
    after them.
    """
    x = np.asarray(x)
    return x if layout == "rows" else np.pad(x[present], (0, 3))[None]


def segment_ids(present: np.ndarray, layout: str) -> np.ndarray:
    ids = np.arange(1, len(present) + 1)[:, None] if layout == "packed" else 1
    return lay_out((present * ids).astype(np.int32), present, layout)


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
