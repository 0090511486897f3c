"""What whole compiled updates hold at the vocabulary of Qwen: compiled for their shapes, never run."""

import dataclasses
import math
import re

import jax
import optax
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection
from jaxrl.config.shared import SampleSection
from jaxrl.model.policy import Policy
from jaxrl.model.value_head import init_value_head
from jaxrl.ops.logprobs import CHUNK_ELEMENTS
from jaxrl.update.batch import PolicyBatch
from jaxrl.update.state import init_state
from jaxrl.update.step import make_grpo_step, make_ppo_step, make_score_fn
from tests.tiny import CONFIG, LORA, one_device

B, T, V = 8, 1_024, 151_936
MODEL = dataclasses.replace(CONFIG, vocab_size=V, num_layers=1, num_heads=2, num_kv_heads=1, max_positions=T)
SAMPLE = SampleSection(temperature=0.7)
TX = optax.adam(1e-3)


def program(algo, lora, is_filtered=False):
    """The compiled step, its arguments being shapes alone. is_filtered: with the ids that a filter of the
    sampler left out.
    """
    policy = Policy(MODEL, lora)

    def trees(key):
        model = {"model": policy.init_model(key)}
        trainable, frozen = ({"lora": policy.init_lora(key)}, model) if lora else (model, {})
        critic = {"value_head": init_value_head(key, MODEL.d_model)} if isinstance(algo, PPOSection) else {}
        return init_state(trainable | critic, TX, key, {}), frozen

    state, frozen = jax.eval_shape(trees, jax.random.key(0))
    floats, integers, flags = (
        jax.ShapeDtypeStruct((2, B, T), dtype) for dtype in ("float32", "int32", "bool")
    )
    batch = PolicyBatch(
        jax.ShapeDtypeStruct((), "int32"), integers, integers, integers, flags, floats, floats, floats, floats
    )
    if isinstance(algo, PPOSection):
        batch = dataclasses.replace(batch, old_values=floats, returns=floats)
    if is_filtered:
        batch = dataclasses.replace(batch, excluded=jax.ShapeDtypeStruct((2, B, T, V // 8), "uint8"))
    if algo is None:
        return make_score_fn(policy, one_device()).lower(state.trainable, frozen, batch).compile()
    make_step = make_ppo_step if isinstance(algo, PPOSection) else make_grpo_step
    return make_step(policy, TX, algo, SAMPLE, state, one_device()).lower(state, frozen, batch).compile()


@pytest.mark.parametrize(
    "algo, lora, is_filtered",
    [
        (GRPOSection(kl_coef=0.1), LORA, False),
        (GRPOSection(entropy_coef=0.01), LORA, False),
        (GRPOSection(entropy_coef=0.01), LORA, True),
        (GRPOSection(), None, False),
        (PPOSection(), LORA, False),
        (None, LORA, False),
        (None, LORA, True),
    ],
    ids=[
        "grpo",
        "entropy bonus",
        "filtered entropy bonus",
        "everything trained",
        "ppo",
        "scorer",
        "filtered scorer",
    ],
)
def test_no_array_of_rows_tokens_and_vocabulary_is_live(algo, lora, is_filtered):
    compiled = program(algo, lora, is_filtered)
    arrays = [
        (dtype, math.prod(map(int, shape.split(","))))
        for dtype, shape in re.findall(r"\b([a-z]+\d+)\[([\d,]+)\]", compiled.as_text())
    ]
    bits = 2 * B * T * V // 8  # a thirty-second of the logits of the whole batch, as bytes
    assert max(size for dtype, size in arrays if dtype != "u8") <= CHUNK_ELEMENTS < B * T * V / 30
    assert (
        max(size for dtype, size in arrays if dtype == "u8") == bits
        if is_filtered
        else all(dtype != "u8" for dtype, _ in arrays)
    )
    # Two to four float32 arrays of a chunk of logits, the attention scores of 8 x 2 x 1024 x 1024, and what
    # is as large as the embedding (its gradient and moments where everything is trained). All logits at once
    # would be 4.98 GB.
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * B * T * V / 4
