"""The goldens through an independent forward pass: names, transposes and configs are right if the logits
are.
"""

import numpy as np
import pytest

from jaxrl.model.transformer import lora_scale
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.peft import load_adapter
from jaxrl.weights.safetensors import load_model
from tests.weights import numpy_model
from tests.weights.goldens import ADAPTERS, GOLDEN, MODELS


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name):
    config, golden = read_hf_config(GOLDEN / name), np.load(GOLDEN / name / "logits.npz")
    found = numpy_model.logits(load_model(GOLDEN / name, config), config, golden["tokens"])
    np.testing.assert_allclose(found, golden["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_with_an_adapter_are_those_of_peft(name):
    config, golden = read_hf_config(GOLDEN / name), np.load(GOLDEN / name / "adapter_logits.npz")
    model = load_model(GOLDEN / name, config)
    lora, section = load_adapter(GOLDEN / name / "adapter", config)
    found = numpy_model.logits(model, config, golden["tokens"], lora, lora_scale(section))
    np.testing.assert_allclose(found, golden["logits"], rtol=1e-4, atol=1e-4)
    without = numpy_model.logits(model, config, golden["tokens"])
    assert np.abs(without - golden["logits"]).max() > 0.1


@pytest.mark.parametrize("name", ["llama3", "llama_linear"])
def test_rotary_scaling_matters_in_the_goldens(name):
    import dataclasses

    config, golden = read_hf_config(GOLDEN / name), np.load(GOLDEN / name / "logits.npz")
    unscaled = dataclasses.replace(config, rope_scaling=None)
    found = numpy_model.logits(load_model(GOLDEN / name, config), unscaled, golden["tokens"])
    assert np.abs(found - golden["logits"]).max() > 0.1
