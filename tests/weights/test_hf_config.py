import json

import pytest

from jaxrl.errors import InputError
from jaxrl.model.config import ModelConfig, RopeScaling
from jaxrl.weights.hf_config import DEFAULTS, read_hf_config, write_hf_config
from tests.weights.goldens import CONFIGS

SIZES = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def read(folder, **values):
    (folder / "config.json").write_text(json.dumps({**SIZES, **values}))
    return read_hf_config(folder)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_back(name, tmp_path):
    write_hf_config(CONFIGS[name], tmp_path, "bfloat16")
    assert read_hf_config(tmp_path) == CONFIGS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_what_is_written(name, tmp_path):
    from transformers import AutoConfig

    config = CONFIGS[name]
    write_hf_config(config, tmp_path, "bfloat16", bos_id=5, eos_ids=(7, 9))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert theirs.model_type == config.family
    assert (theirs.hidden_size, theirs.num_key_value_heads, theirs.head_dim) == (16, 2, config.head_dim)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (5, [7, 9])
    assert theirs.tie_word_embeddings == config.tie_embeddings
    rope = theirs.rope_parameters
    assert rope["rope_theta"] == config.rope_theta
    if config.rope_scaling is None:
        assert rope["rope_type"] == "default"
    else:
        assert (rope["rope_type"], rope["factor"]) == (config.rope_scaling.kind, config.rope_scaling.factor)
    # and what transformers writes of it, in its own way, is read back as the same model
    theirs.save_pretrained(tmp_path / "theirs")
    assert read_hf_config(tmp_path / "theirs") == config


def test_defaults_are_those_of_transformers():
    from transformers import LlamaConfig, Qwen2Config, Qwen3Config

    for theirs in (LlamaConfig, Qwen2Config, Qwen3Config):
        default = theirs().to_dict()
        for key, value in DEFAULTS[theirs.model_type].items():
            # these two are filled in from the other sizes there
            expected = None if value is None and key in ("num_key_value_heads", "head_dim") else default[key]
            assert value == expected, (theirs.model_type, key)
        assert default["rope_parameters"]["rope_theta"] == 10_000.0


def test_special_ids(tmp_path):
    for eos_ids, written in [((), None), ((3,), 3), ((3, 4), [3, 4])]:
        write_hf_config(CONFIGS["llama"], tmp_path, "float32", eos_ids=eos_ids)
        values = json.loads((tmp_path / "config.json").read_text())
        assert (values["bos_token_id"], values["eos_token_id"]) == (None, written)


def test_both_ways_of_writing_rotary_positions(tmp_path):
    old = read(
        tmp_path,
        rope_theta=5e5,
        rope_scaling={"rope_type": "llama3", "original_max_position_embeddings": 64, **LLAMA3},
    )
    new = {"rope_type": "llama3", "rope_theta": 5e5, "original_max_position_embeddings": 64, **LLAMA3}
    assert read(tmp_path, rope_parameters=new) == old
    assert (old.rope_theta, old.rope_scaling) == (5e5, RopeScaling("llama3", 8.0, 1.0, 4.0, 64))
    oldest = read(tmp_path, rope_scaling={"type": "linear", "factor": 2})
    assert (oldest.rope_theta, oldest.rope_scaling) == (10_000.0, RopeScaling("linear", 2.0))
    plain = read(tmp_path, rope_theta=7e3, rope_scaling=None)
    assert (plain.rope_theta, plain.rope_scaling) == (7e3, None)


def test_llama3_without_an_original_length_takes_the_model_s(tmp_path):
    config = read(tmp_path, max_position_embeddings=640, rope_scaling={"rope_type": "llama3", **LLAMA3})
    assert config.rope_scaling.original_max_positions == 640


def test_sizes_that_follow_from_others(tmp_path):
    config = read(tmp_path)
    assert (config.num_kv_heads, config.head_dim, config.max_positions) == (4, 8, 2048)
    assert read(tmp_path, model_type="qwen3", num_key_value_heads=2).head_dim == 128


def test_biases_of_each_family(tmp_path):
    def biases(**values):
        config = read(tmp_path, num_key_value_heads=2, **values)
        return config.qkv_bias, config.o_bias, config.mlp_bias, config.qk_norm

    assert biases() == (False, False, False, False)
    assert biases(attention_bias=True, mlp_bias=True) == (True, True, True, False)
    assert biases(model_type="qwen2") == (True, False, False, False)
    assert biases(model_type="qwen3") == (False, False, False, True)
    assert biases(model_type="qwen3", attention_bias=True) == (True, True, False, True)


def test_sliding_window_that_is_not_in_use_is_accepted(tmp_path):
    qwen = {"model_type": "qwen2", "num_key_value_heads": 2}
    assert (
        read(tmp_path, **qwen, use_sliding_window=False, sliding_window=16, max_window_layers=0).family
        == "qwen2"
    )
    assert (
        read(tmp_path, **qwen, use_sliding_window=True, sliding_window=16, max_window_layers=2).family
        == "qwen2"
    )
    assert read(tmp_path, **qwen, use_sliding_window=True, sliding_window=None).family == "qwen2"


REFUSED = {
    "model_type": ({"model_type": "mamba"}, "llama, qwen2, qwen3"),
    "hidden_act": ({"hidden_act": "gelu"}, "silu"),
    "use_sliding_window": (
        {
            "model_type": "qwen2",
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 1,
        },
        "false",
    ),
    "layer_types": ({"layer_types": ["full_attention", "sliding_attention"]}, "full_attention"),
    "rope_type": ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "default, linear, llama3"),
    "type": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "default, linear, llama3"),
    "mrope_section": ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, "rope_theta"),
    "rope_parameters": ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "one set"),
    "partial_rotary_factor": ({"partial_rotary_factor": 0.5}, "1.0"),
    "attention_dropout": ({"attention_dropout": 0.1}, "0.0"),
    "quantization_config": ({"quantization_config": {"bits": 4}}, "float weights"),
    "num_key_value_heads": ({"num_key_value_heads": 3}, "divisor"),
    "head_dim": ({"head_dim": 7}, "even"),
    "high_freq_factor": (
        {"rope_scaling": {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}},
        "more than",
    ),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_represented_is_refused(key, tmp_path):
    values, supported = REFUSED[key]
    with pytest.raises(InputError) as error:
        read(tmp_path, **values)
    text = str(error.value)
    assert str(tmp_path / "config.json") in text and key in text and supported in text


@pytest.mark.parametrize(
    "values",
    [
        {"vocab_size": None},
        {"vocab_size": "100"},
        {"num_hidden_layers": 0},
        {"rms_norm_eps": True},
        {"tie_word_embeddings": 1},
    ],
)
def test_sizes_must_be_numbers(values, tmp_path):
    with pytest.raises(InputError, match=next(iter(values))):
        read(tmp_path, **values)


def test_files_that_are_not_configs(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_hf_config(tmp_path)
    for text, reason in [("{", "not valid JSON"), ("[]", "holds a list")]:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=reason):
            read_hf_config(tmp_path)


def test_models_that_no_family_can_say_are_not_written(tmp_path):
    sizes = {
        "vocab_size": 8,
        "d_model": 8,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 2,
        "head_dim": 4,
        "d_ff": 8,
    }
    for family, wrong in [
        ("llama", {"qk_norm": True}),
        ("llama", {"qkv_bias": True}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("gpt", {}),
    ]:
        with pytest.raises(InputError):
            write_hf_config(ModelConfig(family, **sizes, **wrong), tmp_path, "float32")
    assert not list(tmp_path.iterdir())
