"""Against transformers: the logits of random tiny models of every family, as scripts/make_goldens.py recorded
them.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.model.policy import Policy
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.peft import load_adapter
from jaxrl.weights.safetensors import load_model
from tests.weights.goldens import ADAPTERS, GOLDEN, MODELS


def logits_of(folder, tokens, adapter=None):
    config = read_hf_config(folder)
    frozen = {"model": load_model(folder, config)}
    lora, section = (None, None) if adapter is None else load_adapter(adapter, config)
    policy = Policy(config, section)
    trainable = {} if lora is None else {"lora": lora}
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = policy.apply(trainable, frozen, tokens, positions, jnp.ones(tokens.shape, jnp.int32))
    return policy.logits(trainable, frozen, hidden)


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_the_model(name):
    golden = np.load(GOLDEN / name / "logits.npz")
    np.testing.assert_allclose(
        logits_of(GOLDEN / name, golden["tokens"]), golden["logits"], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_with_a_peft_adapter(name):
    golden = np.load(GOLDEN / name / "adapter_logits.npz")
    ours = logits_of(GOLDEN / name, golden["tokens"], GOLDEN / name / "adapter")
    np.testing.assert_allclose(ours, golden["logits"], rtol=1e-3, atol=1e-3)
    bare = logits_of(GOLDEN / name, golden["tokens"])
    assert np.abs(bare - golden["logits"]).max() > 0.1  # the adapter does something
