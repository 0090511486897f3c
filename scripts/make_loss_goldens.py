"""Write tests/golden/losses.json: policy losses, gradients and advantages from TRL's own code, and a PPO step
in naive loops.

Run by hand, once, in an environment of its own (torch is no dependency of jaxrl); the file is kept in the
repository:

    pip install torch trl numpy
    python scripts/make_loss_goldens.py --out tests/golden/losses.json

Two unbound methods of TRL's trainers run on a stand-in for the trainer: `_generate_and_score_completions`
(masks, advantages, sampler weights) and `GRPOTrainer._compute_loss`. Only sampling, rewards and the model's
log-probabilities are replaced, by fixed arrays; the log-probabilities are a leaf, so the gradient is d loss /
d logprobs. All in float64, with fixed seeds.

The PPO reference is written here in Python loops over single tokens, to be unlike any array code; its
gradients are checked against finite differences.
"""

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

# sequences, completions of one problem, tokens of the longest, tokens allowed
N, G, T, MAX_LEN = 8, 4, 12, 16
EOS, PAD, TOKEN = 2, 0, 5
LENGTHS = [12, 7, 9, 1, 5, 12, 3, 10]
TRUNCATED = 4  # the sequence that does not end with EOS; it matters only to `mask_truncated_completions`
REWARDS = {
    "plain": [1.0, 0.0, 0.25, -0.5, 0.0, 1.0, 1.0, 0.5],
    # one that cannot be scored; a group without spread
    "flat": [math.nan, 1.0, 0.0, 0.25, 0.1, 0.1, 0.1, 0.1],
    "lone": [math.nan, math.nan, math.nan, 0.7, 1.0, 0.0, math.nan, -0.5],  # a group with one score only
}
# How far each sequence has moved since it was sampled: with the advantages of `plain` (+ - + - - + + -), both
# kinds of sequence go beyond both ends of the clipping range, and some stay within.
SHIFTS = [0.4, -0.4, -0.35, 0.4, -0.05, 0.1, -0.3, 0.3]

SETTINGS = {
    "loss_type": "grpo",
    "importance_sampling_level": "token",
    "epsilon": 0.2,
    "epsilon_high": 0.2,
    "delta": None,
    "beta": 0.0,
    "use_bias_correction_kl": False,
    "scale_rewards": "group",
    "mask_truncated_completions": False,
    "use_vllm": False,
}
SEQUENCE = {"importance_sampling_level": "sequence"}
TIS = {
    "loss_type": "dapo",
    "beta": 0.04,
    "use_vllm": True,
    "vllm_importance_sampling_correction": True,
    "vllm_importance_sampling_clip_max": 2.0,
    "vllm_importance_sampling_clip_min": None,
}
# Each case says in `kl` which variant of the KL term it has: none, `plain` (beta * k3), or `unbiased` (beta *
# k3 * ratio).
CASES = {
    "grpo": {"beta": 0.04},
    "grpo_no_kl": {},
    "grpo_kl_times_ratio": {"beta": 0.04, "use_bias_correction_kl": True},
    "grpo_truncated_masked": {"mask_truncated_completions": True},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "bnpo": {"loss_type": "bnpo", "beta": 0.04},
    "gspo": {**SEQUENCE, "epsilon": 3e-4, "epsilon_high": 4e-4},
    "gspo_wide": {**SEQUENCE},
    "gspo_kl": {**SEQUENCE, "beta": 0.04},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0, "scale_rewards": "batch"},
    "cispo_low_cap": {"loss_type": "cispo", "epsilon_high": 1.2, "scale_rewards": "batch"},
    "two_sided": {"delta": 1.5},
    "tis_token_truncate": {**TIS, "vllm_importance_sampling_mode": "token_truncate"},
    "tis_token_mask": {**TIS, "vllm_importance_sampling_mode": "token_mask"},
    "tis_sequence_truncate": {**TIS, "vllm_importance_sampling_mode": "sequence_truncate"},
    "tis_sequence_mask": {**TIS, "vllm_importance_sampling_mode": "sequence_mask"},
}
NOTES = {
    "grpo": (
        "mean over sequences of the mean over tokens of -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) "
        "+ beta k3"
    ),
    "grpo_kl_times_ratio": (
        "TRL 1.16's default, `kl_unbiased` of jaxrl: the KL term is k3 * r, and r is differentiated too"
    ),
    "grpo_truncated_masked": (
        "a sequence whose mask is empty still counts in the mean over sequences (8 of them)"
    ),
    "dr_grpo": "sum over tokens / (number of sequences * max_completion_length)",
    "dapo": "sum over tokens / number of tokens in the generation batch",
    "bnpo": "sum over tokens / number of tokens in this microbatch",
    "gspo": "r = exp(mean over the sequence's tokens of the log ratio), one for the sequence; then as grpo",
    "gspo_kl": "the KL term stays one per token",
    "cispo": (
        "-min(r, epsilon_high) A logprob, the weight a constant; epsilon_high is the cap itself, epsilon is "
        "unused; token mean"
    ),
    "two_sided": (
        "-min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A): with delta > 1 + epsilon_high "
        "nothing changes for A > 0, and for A < 0 the loss is at most delta |A|"
    ),
    "tis_token_truncate": "the policy term, not the KL term, times w = min(exp(old - sampler), 2)",
    "tis_token_mask": "w = exp(old - sampler), and 0 where it is above 2",
    "tis_sequence_truncate": "w = min(exp(sum over the sequence of old - sampler), 2): the sum, not the mean",
    "tis_sequence_mask": "w = exp(sum over the sequence of old - sampler), and 0 where it is above 2",
}
ADVANTAGES_NOTES = {
    "group": "scale_rewards group: (r - mean) / (std + 1e-4), std with the divisor G - 1",
    "none": "scale_rewards none: r - mean of the group",
    "batch": "scale_rewards batch: (r - mean of the group) / (std of all rewards + 1e-4), divisor N - 1",
    "one_group": (
        "scale_rewards group with num_generations = N: (r - mean of all) / (std of all + 1e-4), divisor N - 1"
    ),
    "rloo": "RLOOTrainer without normalize_advantages: r - mean of the others of the group",
}


def policy_inputs() -> dict[str, np.ndarray]:
    """[N, T] arrays in float64, zero where there is no token; rounded, so that the JSON holds them
    exactly.
    """
    rng = np.random.default_rng(0)
    mask = np.arange(T) < np.array(LENGTHS)[:, None]
    old = -rng.exponential(1.0, (N, T)) - 2.5  # low enough for all the others to stay below 0
    new = old + np.array(SHIFTS)[:, None] + 0.35 * rng.standard_normal((N, T))
    new[5, 3] = old[5, 3] + 1.9  # above the cap of `cispo`
    new[7, 6] = old[7, 6] + 1.9
    gap = 0.25 * rng.standard_normal((N, T))
    gap[[0, 5, 7], [4, 2, 8]] = 0.9  # above the cap of the `tis` cases
    ref = new + 0.4 * rng.standard_normal((N, T))
    arrays = {"logprobs": new, "old_logprobs": old, "ref_logprobs": ref, "sampler_logprobs": old - gap}
    assert max(x[mask].max() for x in arrays.values()) < 0
    return {"mask": mask} | {name: np.where(mask, np.round(x, 6), 0.0) for name, x in arrays.items()}


def check_coverage(inputs: dict[str, np.ndarray], advantages: np.ndarray) -> None:
    """Both signs of the advantage beyond both ends and inside, at both levels; all caps bite; no value near
    an edge.
    """
    mask = inputs["mask"]
    log_ratio = inputs["logprobs"] - inputs["old_logprobs"]
    gap = inputs["old_logprobs"] - inputs["sampler_logprobs"]
    levels = {
        "token": (np.exp(log_ratio)[mask], np.broadcast_to(advantages[:, None], (N, T))[mask], 3),
        "sequence": (np.exp((log_ratio * mask).sum(1) / mask.sum(1)), advantages, 1),
    }
    for level, (ratio, advantage, least) in levels.items():
        for sign in (-1, 1):
            places = ratio[np.sign(advantage) == sign]
            counts = [(places < 0.8).sum(), (places > 1.2).sum(), ((places > 0.8) & (places < 1.2)).sum()]
            assert min(counts) >= least, (level, sign, counts)
        for edge in (0.8, 1 - 3e-4, 1 + 4e-4, 1.2, 1.28, 1.5, 5.0):
            assert np.abs(ratio - edge).min() > 1e-4, (level, edge)
    ratio, advantage, _ = levels["token"]
    assert ((ratio > 1.5) & (advantage < 0)).sum() >= 3
    assert ((ratio > 5) & (advantage > 0)).any() and ((ratio > 5) & (advantage < 0)).any()
    for weights in (np.exp(gap)[mask], np.exp((gap * mask).sum(1))):
        assert (weights > 2).any() and (weights < 2).sum() > 1 and np.abs(weights - 2).min() > 1e-3


def stand_in(args, rewards: list[float], inputs: dict[str, np.ndarray], generated: tuple) -> SimpleNamespace:
    """What the two methods read of a trainer; what comes from `args` is set as the trainers' constructors set
    it.
    """
    tensors = {name: torch.from_numpy(x) for name, x in inputs.items()}
    entropies = torch.ones(N, T)  # only logged
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )
    same_in_args = [
        "loss_type",
        "importance_sampling_level",
        "beta",
        "scale_rewards",
        "mask_truncated_completions",
        "use_vllm",
        "multi_objective_aggregation",
        "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode",
        "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_clip_min",
        "num_iterations",
        "num_generations",
        "max_completion_length",
        "top_entropy_quantile",
        "off_policy_mask_threshold",
        "pad_to_multiple_of",
        "normalize_advantages",
        "reward_clip_range",
    ]
    return SimpleNamespace(
        **{name: getattr(args, name) for name in same_in_args if hasattr(args, name)},
        args=args,
        accelerator=accelerator,
        epsilon_low=args.epsilon,
        epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
        current_gradient_accumulation_steps=args.gradient_accumulation_steps,
        model=SimpleNamespace(
            training=True, is_gradient_checkpointing=False, logprobs=tensors["old_logprobs"]
        ),
        ref_model=SimpleNamespace(logprobs=tensors["ref_logprobs"]),
        _get_per_token_logps_and_entropies=lambda model, *_, **__: (model.logprobs, entropies, None),
        _generate=lambda prompts: generated,
        _calculate_rewards=lambda *_: torch.tensor(rewards)[:, None],
        reward_funcs=[None],
        reward_func_names=["reward"],
        reward_weights=torch.ones(1),
        _tokenizer=SimpleNamespace(pad_token_id=PAD),
        eos_token_ids=[EOS],
        tools=[],
        environments=None,
        environment_factories=None,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        log_multimodal=False,
        _pending_extra_logs={},
        _pending_metrics={},
        _metrics=defaultdict(lambda: defaultdict(list)),
        _logs={
            "prompt": [],
            "completion": [],
            "advantages": [],
            "rewards": defaultdict(list),
            "extra": defaultdict(list),
        },
    )


def experience(
    trainer_class, config_class, settings: dict, rewards: list[float], inputs: dict[str, np.ndarray]
) -> tuple[SimpleNamespace, dict]:
    """A stand-in and what TRL's `_generate_and_score_completions` makes of the fixed completions and
    rewards.
    """
    # Two iterations over a batch make TRL score and keep the logprobs of the policy that sampled.
    args = config_class(
        output_dir="unused",
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=N,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_iterations=2,
        max_completion_length=MAX_LEN,
        **{"num_generations": G, **settings},
    )
    prompts = [[TOKEN]] * N
    completions = [[TOKEN] * (n - 1) + [TOKEN if i == TRUNCATED else EOS] for i, n in enumerate(LENGTHS)]
    sampler = [row[:n].tolist() for row, n in zip(inputs["sampler_logprobs"], LENGTHS)]
    if trainer_class is RLOOTrainer:
        generated = (prompts, completions, ["text"] * N)
    else:
        generated = (
            prompts,
            completions,
            None,
            ["text"] * N,
            sampler if args.use_vllm else None,
            {},
            None,
            None,
        )
    trainer = stand_in(args, rewards, inputs, generated)
    return trainer, trainer_class._generate_and_score_completions(trainer, [{"prompt": "text"}] * N)


def trl_advantages(rewards: list[float], inputs: dict[str, np.ndarray]) -> dict[str, list[float]]:
    def grpo(**settings):
        return experience(GRPOTrainer, GRPOConfig, settings, rewards, inputs)[1]["advantages"].tolist()

    rloo = experience(RLOOTrainer, RLOOConfig, {"normalize_advantages": False, "beta": 0.0}, rewards, inputs)[
        1
    ]
    scaled = {how: grpo(scale_rewards=how) for how in ("group", "none", "batch")}
    return scaled | {
        "one_group": grpo(scale_rewards="group", num_generations=N),
        "rloo": rloo["advantages"].tolist(),
    }


def trl_case(name: str, inputs: dict[str, np.ndarray]) -> dict:
    settings = SETTINGS | CASES[name]
    trainer, batch = experience(GRPOTrainer, GRPOConfig, settings, REWARDS["plain"], inputs)
    logprobs = torch.from_numpy(inputs["logprobs"]).requires_grad_()
    trainer.model.logprobs = logprobs
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, batch)
    loss.backward()
    assert loss.dtype == torch.float64 and batch["completion_mask"].shape == (N, T)
    kl = "none" if not settings["beta"] else "unbiased" if settings["use_bias_correction_kl"] else "plain"
    result = {
        "kl": kl,
        "settings": settings,
        "advantages": batch["advantages"].tolist(),
        "loss": loss.item(),
        "grad": logprobs.grad.tolist(),
    }
    return ({"note": NOTES[name]} if name in NOTES else {}) | result


PPO = {"gamma": 0.97, "gae_lambda": 0.9, "clip_low": 0.2, "clip_high": 0.2, "value_clip": 0.2}
# PPO_CUT: the sequence that was cut off
PPO_LENGTHS, PPO_T, PPO_CUT, PPO_END_VALUE = [10, 6, 8, 1], 10, 2, 0.7


def ppo_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shape = (len(PPO_LENGTHS), PPO_T)
    mask = np.arange(PPO_T) < np.array(PPO_LENGTHS)[:, None]
    old = -rng.exponential(1.0, shape) - 1.0
    old_values = 0.5 * rng.standard_normal(shape)
    rewards, end_values = np.zeros(shape), np.zeros(shape)
    for i, (n, reward) in enumerate(zip(PPO_LENGTHS, [1.0, -0.5, 0.0, 0.3])):
        rewards[i, n - 1] = reward
    end_values[PPO_CUT, PPO_LENGTHS[PPO_CUT] - 1] = PPO_END_VALUE
    arrays = {
        "rewards": rewards,
        "end_values": end_values,
        "old_logprobs": old,
        "logprobs": old + 0.3 * rng.standard_normal(shape),
        "old_values": old_values,
        "values": old_values + 0.5 * rng.standard_normal(shape),
    }
    return {"mask": mask} | {name: np.where(mask, np.round(x, 6), 0.0) for name, x in arrays.items()}


def naive_advantages(inputs: dict[str, list], gamma: float, gae_lambda: float) -> tuple[list, list, list]:
    """Advantages, returns and whitened advantages, [B][T], by the definition: a sum over the errors of all
    later tokens.
    """
    advantages, returns = [], []
    for i, n in enumerate(PPO_LENGTHS):
        values = [*inputs["old_values"][i][:n], inputs["end_values"][i][n - 1]]
        errors = [inputs["rewards"][i][t] + gamma * values[t + 1] - values[t] for t in range(n)]
        row = [sum((gamma * gae_lambda) ** (s - t) * errors[s] for s in range(t, n)) for t in range(n)]
        advantages.append(row + [0.0] * (PPO_T - n))
        returns.append([row[t] + values[t] for t in range(n)] + [0.0] * (PPO_T - n))
    all_advantages = [advantages[i][t] for i, n in enumerate(PPO_LENGTHS) for t in range(n)]
    mean = sum(all_advantages) / len(all_advantages)
    variance = sum((a - mean) ** 2 for a in all_advantages) / len(all_advantages)
    whitened = [
        [(row[t] - mean) / math.sqrt(variance + 1e-8) if t < n else 0.0 for t in range(PPO_T)]
        for row, n in zip(advantages, PPO_LENGTHS)
    ]
    return advantages, returns, whitened


def naive_ppo(
    logprobs: list, values: list, inputs: dict[str, list], whitened: list, returns: list
) -> tuple[float, float, list, list, dict]:
    """Policy loss, value loss (token means), their gradients [B][T], and how often each branch was taken."""
    num_tokens = sum(PPO_LENGTHS)
    policy_loss = value_loss = 0.0
    policy_grad, value_grad = ([[0.0] * PPO_T for _ in PPO_LENGTHS] for _ in range(2))
    branches = defaultdict(int)
    for i, n in enumerate(PPO_LENGTHS):
        for t in range(n):
            advantage, ratio = whitened[i][t], math.exp(logprobs[i][t] - inputs["old_logprobs"][i][t])
            held = min(max(ratio, 1 - PPO["clip_low"]), 1 + PPO["clip_high"])
            # the smaller one counts; inside the range they are the same
            if ratio * advantage <= held * advantage:
                policy_loss -= ratio * advantage / num_tokens
                policy_grad[i][t] = -ratio * advantage / num_tokens
                branches["policy inside" if held == ratio else "policy outside, not clipped"] += 1
            else:
                policy_loss -= held * advantage / num_tokens
                branches["policy clipped"] += 1
            value, old = values[i][t], inputs["old_values"][i][t]
            held = min(max(value, old - PPO["value_clip"]), old + PPO["value_clip"])
            error, held_error = value - returns[i][t], held - returns[i][t]
            if error**2 >= held_error**2:
                value_loss += 0.5 * error**2 / num_tokens
                value_grad[i][t] = error / num_tokens
                branches["value inside" if held == value else "value outside, not clipped"] += 1
            else:
                value_loss += 0.5 * held_error**2 / num_tokens
                branches["value clipped"] += 1
    return policy_loss, value_loss, policy_grad, value_grad, branches


def check_gradients(inputs: dict[str, list], whitened: list, returns: list) -> None:
    """The analytic gradients of `naive_ppo` against central differences."""
    step = 1e-6
    *_, policy_grad, value_grad, branches = naive_ppo(
        inputs["logprobs"], inputs["values"], inputs, whitened, returns
    )
    assert len(branches) == 6 and min(branches.values()) >= 2, dict(branches)
    for which, name, grad in ((0, "logprobs", policy_grad), (1, "values", value_grad)):
        for i, n in enumerate(PPO_LENGTHS):
            for t in range(n):
                losses = []
                for sign in (1, -1):
                    moved = {key: [row.copy() for row in inputs[key]] for key in ("logprobs", "values")}
                    moved[name][i][t] += sign * step
                    losses.append(
                        naive_ppo(moved["logprobs"], moved["values"], inputs, whitened, returns)[which]
                    )
                assert abs((losses[0] - losses[1]) / (2 * step) - grad[i][t]) < 1e-8, (name, i, t)


def ppo_section() -> dict:
    inputs = {name: x.tolist() for name, x in ppo_inputs().items()}
    advantages, returns, whitened = naive_advantages(inputs, PPO["gamma"], PPO["gae_lambda"])
    check_gradients(inputs, whitened, returns)
    policy_loss, value_loss, policy_grad, value_grad, _ = naive_ppo(
        inputs["logprobs"], inputs["values"], inputs, whitened, returns
    )
    return {
        "note": (
            "GAE from old_values; end_values holds the critic's value after a sequence that was cut, at its "
            "last token; the policy loss takes the whitened advantages, the value loss the returns of the "
            "raw ones; both are token means, each with its own gradient"
        ),
        "kl": "none",
        "settings": PPO,
        "inputs": inputs,
        "advantages": advantages,
        "returns": returns,
        "whitened": whitened,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "grad_logprobs": policy_grad,
        "grad_values": value_grad,
    }


def as_json(x):
    """JSON has no NaN and needs no 17 digits: a reward that is missing is null, the rest has 12 digits."""
    if isinstance(x, dict):
        return {key: as_json(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [as_json(value) for value in x]
    if isinstance(x, float):
        return None if math.isnan(x) else float(f"{x:.12g}") + 0.0  # + 0.0: no minus zero
    return x


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tests/golden/losses.json"),
        help="file to write; default: %(default)s",
    )
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # the sampler's logprobs go through Python lists inside TRL
    inputs = policy_inputs()
    advantages = {name: trl_advantages(rewards, inputs) for name, rewards in REWARDS.items()}
    check_coverage(inputs, np.array(advantages["plain"]["group"]))
    golden = {
        "about": (
            "Written by scripts/make_loss_goldens.py; arrays are [sequences, tokens], rewards and advantages "
            "[sequences]."
        ),
        "versions": {name: version(name) for name in ("trl", "transformers", "torch", "numpy")},
        "inputs": {name: x.tolist() for name, x in inputs.items()},
        "group_size": G,
        "max_completion_length": MAX_LEN,
        "truncated": [i == TRUNCATED for i in range(N)],
        "advantages_source": (
            "TRL's own _generate_and_score_completions (GRPOTrainer, RLOOTrainer), run on a stand-in; null: "
            "a completion without a reward, which gets 0 and has no part in any mean"
        ),
        "advantages_notes": ADVANTAGES_NOTES,
        "rewards": {
            name: {"rewards": rewards, "advantages": advantages[name]} for name, rewards in REWARDS.items()
        },
        "cases": {name: trl_case(name, inputs) for name in CASES},
        "ppo": ppo_section(),
    }
    text = json.dumps(as_json(golden), indent=1)
    # a row of numbers on one line
    text = re.sub(r"\[([^\[\]{}]*)\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    out.write_text(text + "\n")
    print(f"{out}: {len(text) / 1000:.0f} KB, TRL {golden['versions']['trl']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
