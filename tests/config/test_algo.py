"""The objectives' settings: what cannot work together is refused with the reason; what each algorithm's batch
amounts to.
"""

import pytest
import yaml

from jaxrl.config.algo import GRPOSection, PPOSection, ReplaySection
from jaxrl.config.file import validate_config
from jaxrl.errors import InputError

CONFIG = """
name: tiny
model: {architecture: {d_model: 32}}
lora: {rank: 4}
task: {name: tiny, game: echo}
sample: {max_new_tokens: 8}
stages:
  - {kind: grpo, steps: 10}
  - {kind: ppo, steps: 10}
  - {kind: rsft}
"""
GRPO, PPO, RSFT = range(3)


def config_with(stage, values):
    config = yaml.safe_load(CONFIG)
    config["stages"][stage] |= values
    return validate_config(config, "config")


@pytest.mark.parametrize(
    "stage, values, message",
    [
        (
            GRPO,
            {"algo": {"kl_coef": 0.1, "reference": None}},
            "kl_coef=0.1 needs a reference to measure from; set reference",
        ),
        (
            GRPO,
            {"algo": {"reference_every": 5}},
            "reference_every renews a reference that is in use: it needs kl_coef above 0",
        ),
        (GRPO, {"algo": {"reference_every": 5, "kl_coef": 0.1, "reference": "base"}}, "and reference: start"),
        (
            GRPO,
            {"algo": {"kl_in": "reward", "kl_coef": 0.1}},
            "takes the k1 estimate, not k3; set kl_estimator to k1",
        ),
        (
            GRPO,
            {"algo": {"kl_unbiased": True}},
            "kl_unbiased multiplies the KL term of the loss .* needs kl_coef above 0",
        ),
        (PPO, {"algo": {"kl_unbiased": True, "kl_coef": 0.1}}, "and kl_in: loss"),
        (
            GRPO,
            {"algo": {"kl_unbiased": True, "kl_coef": 0.1, "kl_estimator": "k2"}},
            "set kl_estimator to k3",
        ),
        (
            GRPO,
            {"lora": None, "algo": {"kl_coef": 0.1, "reference": "base"}},
            "the model without its adapters, and lora is null",
        ),
        (
            GRPO,
            {"algo": {"group_size": 1}},
            "group_size 1 leaves nothing to compare a completion with, as advantage: grpo does",
        ),
        (
            GRPO,
            {"algo": {"group_size": 1, "advantage": "rloo"}},
            "as advantage: rloo does; set group_size to 2 or more",
        ),
        (
            GRPO,
            {"algo": {"group_size": 1, "advantage": "reinforce_pp", "dynamic_sampling": 3}},
            "as dynamic_sampling does",
        ),
        (
            GRPO,
            {"algo": {"group_size": 1, "advantage": "reinforce_pp", "problems_per_batch": 1}},
            "the batch, which has one row",
        ),
        (GRPO, {"algo": {"loss": "cispo", "ratio_level": "sequence"}}, "set ratio_level to token"),
        (GRPO, {"algo": {"loss": "cispo", "dual_clip": 3.0}}, "leave dual_clip out"),
        (GRPO, {"algo": {"dual_clip": 1.0}}, "dual_clip"),
        (GRPO, {"algo": {"dynamic_sampling": 1}}, "dynamic_sampling"),
        (GRPO, {"algo": {"overlong": "penalty"}}, "overlong: penalty and overlong_buffer .* go together"),
        (GRPO, {"algo": {"overlong_buffer": 3}}, "overlong: penalty and overlong_buffer .* go together"),
        (
            GRPO,
            {"algo": {"overlong": "penalty", "overlong_buffer": 8}},
            "overlong_buffer=8 must be below sample.max_new_tokens=8",
        ),
        (
            GRPO,
            {"algo": {"advantage": "gdpo"}},
            "advantage: gdpo and part_weights .* go together; set both or neither",
        ),
        (
            GRPO,
            {"algo": {"part_weights": {"path": 1.0}}},
            "advantage: gdpo and part_weights .* go together; set both or neither",
        ),
        (
            GRPO,
            {"algo": {"advantage": "gdpo", "part_weights": {"path": 0.0}}},
            "give no part of the reward a weight",
        ),
        (
            GRPO,
            {"algo": {"advantage": "gdpo", "part_weights": {"path": 1.0}, "group_size": 1}},
            "as advantage: gdpo does",
        ),
        (
            GRPO,
            {
                "algo": {
                    "advantage": "gdpo",
                    "part_weights": {"path": 1.0},
                    "overlong": "penalty",
                    "overlong_buffer": 2,
                }
            },
            "overlong: penalty is taken off the reward, .* set it to keep or mask",
        ),
        (
            GRPO,
            {
                "algo": {
                    "advantage": "gdpo",
                    "part_weights": {"path": 1.0},
                    "kl_in": "reward",
                    "kl_estimator": "k1",
                    "kl_coef": 0.1,
                }
            },
            "kl_in: reward takes the KL off the reward, .* set it to loss",
        ),
        (
            GRPO,
            {"algo": {"updates_per_batch": 3}},
            "a batch of 128 rows cannot be split into updates_per_batch=3 equal parts",
        ),
        (
            GRPO,
            {"algo": {"replay": {"ratio": 1.0}}},
            "ratio 1.0 is the share of an update that is replayed: it must lie between 0 and 1",
        ),
        (GRPO, {"algo": {"replay": {"ratio": 1.5}}}, "so that fresh samples remain"),
        (GRPO, {"algo": {"replay": {"ratio": 0.0}}}, "to replay nothing"),
        (
            GRPO,
            {"algo": {"replay": {"ratio": 0.5, "capacity": 100}}},
            "capacity=100 is less than the 128 sequences that a batch asks for",
        ),
        (
            GRPO,
            {"algo": {"replay": {"ratio": 0.1}, "problems_per_batch": 2, "group_size": 2}},
            "a batch of 4 is less than one sequence",
        ),
        (
            GRPO,
            {"algo": {"reference_every": 10, "kl_coef": 0.1}},
            "reference_every=10 never comes in 10 steps",
        ),
        (GRPO, {"algo": {"sampler_correction": {"cap": 1.0}}}, "sampler_correction.cap"),
        (
            GRPO,
            {"algo": {"old_logprobs": "sampler", "sampler_correction": {}}},
            "set old_logprobs to trainer, or sampler_correction to null",
        ),
        (PPO, {"algo": {"old_logprobs": "sampler"}}, "old_logprobs: sampler saves nothing with a critic"),
        (GRPO, {"algo": {"vf_coef": 0.5}}, "unknown key 'vf_coef' in GRPOSection; it is a key of PPOSection"),
        (GRPO, {"algo": {"gae_lambda": 0.9}}, "it is a key of PPOSection"),
        (GRPO, {"sample": {"temperature": 0}}, "makes all completions of a problem equal"),
        (GRPO, {"sample": {"top_k": 1}}, "keeps the likeliest token alone"),
        (
            PPO,
            {"sample": {"temperature": 1e-9}},
            "temperature 1e-09 divides the rounding of the logits.*; set it to 0.01 or more",
        ),
        (
            PPO,
            {"algo": {"advantage": "grpo"}},
            "unknown key 'advantage' in PPOSection; it is a key of GRPOSection",
        ),
        (
            PPO,
            {"algo": {"kl_target": 0.1}},
            "kl_target adapts the KL penalty in the reward: it needs kl_coef above 0",
        ),
        (PPO, {"algo": {"kl_target": 0.1, "kl_coef": 0.1, "kl_in": "loss"}}, "and kl_in: reward"),
        (
            PPO,
            {"algo": {"kl_target": 0.1, "kl_coef": 0.1, "kl_horizon": 10}},
            "kl_horizon=10 is shorter than one batch of 64 sequences",
        ),
        (PPO, {"algo": {"critic_warmup": 10}}, "critic_warmup=10 leaves none of the 10 steps to the policy"),
        (PPO, {"lora": None, "algo": {"critic": "separate"}}, "a second set of adapters, and lora is null"),
        (PPO, {"algo": {"gamma": 1.5}}, "gamma"),
        (RSFT, {"keep_top": 9}, "keep_top=9 is more than samples_per_problem=8"),
        (RSFT, {"sample": {"temperature": 0}}, "makes all completions of a problem equal"),
        (RSFT, {"sample": {"top_k": 1}}, "keeps the likeliest token alone"),
        (RSFT, {"split": "test"}, "unknown key 'split' in RSFTStage; it is a key of EvalStage"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(stage, values, message):
    with pytest.raises(InputError, match=message) as error:
        config_with(stage, values)
    assert f"stages.{stage}" in str(error.value)


@pytest.mark.parametrize(
    "stage, values",
    [
        (GRPO, {"algo": {"group_size": 1, "advantage": "reinforce_pp"}}),
        (GRPO, {"algo": {"advantage": "gdpo", "part_weights": {"path": 1.0, "spam": -0.5}}}),
        (GRPO, {"algo": {"kl_coef": 0.1, "reference": "base"}}),
        (GRPO, {"algo": {"kl_coef": 0.1, "kl_unbiased": True}}),
        (GRPO, {"algo": {"kl_coef": 0.0, "reference": None}}),
        (GRPO, {"algo": {"kl_in": "reward", "kl_estimator": "k1", "kl_coef": 0.1}}),
        (GRPO, {"lora": None, "algo": {"kl_coef": 0.1, "reference_every": 2}}),
        (GRPO, {"algo": {"old_logprobs": "sampler", "updates_per_batch": 2}}),
        (PPO, {"algo": {"kl_in": "loss", "kl_estimator": "k3", "kl_coef": 0.1}}),
        (PPO, {"algo": {"value_clip": None, "critic_warmup": 9, "critic": "separate"}}),
        (RSFT, {"samples_per_problem": 1, "sample": {"temperature": 0}}),
    ],
)
def test_what_can_work_is_taken(stage, values):
    config_with(stage, values)


def test_no_kl_is_the_default_and_then_there_is_no_reference_pass():
    assert GRPOSection().kl_coef == PPOSection().kl_coef == 0


def test_the_rows_of_an_update():
    """64 fresh sequences and a share of 0.2 replayed: 16 more, over 4 updates; PPO passes over them twice."""
    replay = ReplaySection(ratio=0.2)
    algo = GRPOSection(problems_per_batch=8, group_size=8, updates_per_batch=4, replay=replay)
    assert (algo.replayed_per_batch, algo.rows_per_update, algo.num_updates) == (16, 20, 4)
    ppo = PPOSection(problems_per_batch=32, updates_per_batch=2, ppo_epochs=3, critic_warmup=2)
    assert (ppo.rows_per_update, ppo.num_updates, ppo.num_held) == (16, 6, 12)


def test_a_stage_of_another_task_takes_over_none_of_its_keys():
    config = yaml.safe_load(CONFIG)
    config["stages"][0]["task"] = {"name": "knowledge_graph", "entities": 24}
    config["stages"][1]["task"] = {"game": "count"}
    validated = validate_config(config, "config")
    assert validated.stages[0].task.entities == 24 and validated.stages[1].task.game == "count"
