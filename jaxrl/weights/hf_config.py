"""`config.json` of a Hugging Face model directory <-> ModelConfig.

What the model here cannot compute is an error.

Read as plain JSON, without transformers: importing that takes seconds, and it fills in what a file leaves out
without a word. What a file leaves out has transformers' default here too (`DEFAULTS`); what it says is either
represented or refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.disk import read_json
from jaxrl.model.config import ModelConfig, RopeScaling

_ALL = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_dropout": 0.0}
# by model type: what transformers 5 assumes where config.json is silent
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        **_ALL,
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": 2048,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "qwen2": {**_ALL, "num_key_value_heads": 32, "head_dim": None, "max_position_embeddings": 32_768},
    "qwen3": {
        **_ALL,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32_768,
        "attention_bias": False,
    },
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
ROPE_KEYS = {
    "default": {"rope_theta"},
    "linear": {"rope_theta", "factor"},
    "llama3": {
        "rope_theta",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
}
DEFAULT_ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class _Values:
    """The keys of one JSON object; every complaint names the file, the key and the value."""

    place: str
    values: dict[str, Any]

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value, of that kind and, if a number, positive; `default` stands in where it is absent or
        null.
        """
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise InputError(
                f"{self.place}: {key} is required and not set; is this the config.json of a language model?"
            )
        is_number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        if kind is bool and not isinstance(value, bool):
            raise InputError(f"{self.place}: {key} is {value!r}; it must be true or false")
        if kind is not bool and not (is_number and value > 0):
            raise InputError(
                f"{self.place}: {key} is {value!r}; it must be a positive "
                f"{'number' if kind is float else 'integer'}"
            )
        return kind(value)

    def refuse(self, key: str, supported: str) -> None:
        raise InputError(
            f"{self.place}: {key} is {self.values.get(key)!r}, which jaxrl cannot represent; supported: "
            f"{supported}"
        )


def read_hf_config(folder: str | Path) -> ModelConfig:
    """The model that a Hugging Face directory describes.

    Both ways of writing rotary positions are read: `rope_parameters` (transformers 5), and `rope_theta` with
    `rope_scaling` (before).

    Raises:
      InputError: no such file, not JSON, a size missing or out of range, or anything that ModelConfig cannot
        represent.
    """
    path = Path(folder) / "config.json"
    values = read_json(path, "check the path, or fetch the file again")
    family = str(values.get("model_type"))
    v = _Values(str(path), values)
    if family not in DEFAULTS:
        v.refuse("model_type", ", ".join(DEFAULTS))
    v = _Values(str(path), {**DEFAULTS[family], **values})
    _refuse_unsupported(v, family)
    heads, d_model = v.get("num_attention_heads", int), v.get("hidden_size", int)
    attention_bias = family != "qwen2" and v.get("attention_bias", bool)
    theta, scaling = _rope(v)
    config = ModelConfig(
        family=family,
        vocab_size=v.get("vocab_size", int),
        d_model=d_model,
        num_layers=v.get("num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=v.get("num_key_value_heads", int, default=heads),
        head_dim=v.get("head_dim", int, default=d_model // heads),
        d_ff=v.get("intermediate_size", int),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_eps=v.get("rms_norm_eps", float),
        qkv_bias=family == "qwen2" or attention_bias,
        o_bias=attention_bias,
        mlp_bias=family == "llama" and v.get("mlp_bias", bool),
        qk_norm=family == "qwen3",
        tie_embeddings=v.get("tie_word_embeddings", bool),
        max_positions=v.get("max_position_embeddings", int),
    )
    if config.num_heads % config.num_kv_heads:
        v.refuse("num_key_value_heads", f"a divisor of num_attention_heads ({config.num_heads})")
    if config.head_dim % 2:
        v.refuse("head_dim", "an even number (rotary positions turn pairs)")
    return config


def write_hf_config(
    config: ModelConfig,
    folder: str | Path,
    dtype: str,
    bos_id: int | None = None,
    eos_ids: tuple[int, ...] = (),
) -> None:
    """Write `config.json`; `read_hf_config` gives the same ModelConfig back.

    Rotary positions are written in both ways. A reader that knows only the older one would otherwise not find
    the frequencies, take its default and compute another model in silence.

    Args:
      dtype: of the weights beside the file: `float32`, `bfloat16` or `float16`.
      bos_id, eos_ids: written as null if not given (left out, a Llama would be taken to have 1 and 2).
    Raises:
      InputError: if no family has this combination of biases and norms.
    """
    _check_family(config)
    rope = _rope_values(config)
    values = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_eps,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else rope,
        "rope_parameters": rope,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": dtype,
        "torch_dtype": dtype,  # the same, as it was called before transformers 5
        "bos_token_id": bos_id,
        "eos_token_id": eos_ids[0] if len(eos_ids) == 1 else list(eos_ids) or None,
    }
    if config.family != "qwen2":
        values["attention_bias"] = config.qkv_bias
    if config.family == "llama":
        values["mlp_bias"] = config.mlp_bias
    else:
        values["use_sliding_window"] = False
    (Path(folder) / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _refuse_unsupported(v: _Values, family: str) -> None:
    """InputError for what would make the model compute something else than ours does."""
    if v.values["hidden_act"] != "silu":
        v.refuse("hidden_act", "silu")
    if v.values["attention_dropout"]:
        v.refuse(
            "attention_dropout", "0.0 (set it to 0 to load the weights; nothing but training depends on it)"
        )
    if v.values.get("quantization_config") is not None:
        v.refuse("quantization_config", "float weights only (load the model that was quantized)")
    kinds = v.values.get("layer_types")
    if kinds is not None and any(kind != "full_attention" for kind in kinds):
        v.refuse("layer_types", "full_attention in every layer")
    if family != "llama" and v.values.get("use_sliding_window", False) and kinds is None:
        # layers below max_window_layers see everything; 28 and 4096 are transformers' defaults
        window, first = v.values.get("sliding_window", 4096), v.values.get("max_window_layers", 28)
        if window is not None and first < v.get("num_hidden_layers", int):
            v.refuse(
                "use_sliding_window", "false, or sliding_window null (every layer sees the whole context)"
            )


def _rope(v: _Values) -> tuple[float, RopeScaling | None]:
    """(theta, scaling) from whichever of the two ways of writing is there; the older one wins, as in
    transformers.
    """
    older = v.values.get("rope_scaling")
    name = "rope_scaling" if older else "rope_parameters"
    values = older or v.values.get("rope_parameters") or {}
    if not isinstance(values, dict) or any(isinstance(value, dict) for value in values.values()):
        v.refuse(name, "one set of rotary parameters for all layers")
    rope = _Values(f"{v.place}: {name}", values)
    kind = values.get("rope_type", values.get("type", "default"))
    if kind not in ROPE_KEYS:
        rope.refuse("rope_type" if "rope_type" in values else "type", ", ".join(ROPE_KEYS))
    for owner in (v, rope):
        if owner.values.get("partial_rotary_factor", 1.0) != 1.0:
            owner.refuse("partial_rotary_factor", "1.0 (every feature of a head is turned)")
    for key in values.keys() - ROPE_KEYS[kind] - {"rope_type", "type", "partial_rotary_factor"}:
        if values[key] is not None:
            rope.refuse(key, f"for rope_type {kind}: {', '.join(sorted(ROPE_KEYS[kind]))}")
    theta = (rope if "rope_theta" in values else v).get("rope_theta", float, default=DEFAULT_ROPE_THETA)
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling("linear", rope.get("factor", float))
    original = v.values.get("original_max_position_embeddings") or v.get("max_position_embeddings", int)
    low, high = rope.get("low_freq_factor", float), rope.get("high_freq_factor", float)
    if high <= low:
        rope.refuse("high_freq_factor", f"more than low_freq_factor ({low})")
    return theta, RopeScaling(
        "llama3",
        rope.get("factor", float),
        low,
        high,
        rope.get("original_max_position_embeddings", int, default=original),
    )


def _rope_values(config: ModelConfig) -> dict[str, Any]:
    """`rope_parameters`, as transformers 5 writes them."""
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    values = {"rope_type": scaling.kind, "rope_theta": config.rope_theta, "factor": scaling.factor}
    if scaling.kind == "llama3":
        values["low_freq_factor"] = scaling.low_freq_factor
        values["high_freq_factor"] = scaling.high_freq_factor
        values["original_max_position_embeddings"] = scaling.original_max_positions
    return values


def _check_family(config: ModelConfig) -> None:
    """InputError unless the family's model type can say which biases and norms there are."""
    wanted = {
        "llama": {"o_bias": config.qkv_bias, "qk_norm": False},
        "qwen2": {"qkv_bias": True, "o_bias": False, "mlp_bias": False, "qk_norm": False},
        "qwen3": {"o_bias": config.qkv_bias, "mlp_bias": False, "qk_norm": True},
    }
    if config.family not in wanted:
        raise InputError(
            f"model family {config.family!r} has no Hugging Face model type; the families are "
            f"{', '.join(wanted)}"
        )
    for name, value in wanted[config.family].items():
        if getattr(config, name) != value:
            raise InputError(
                f"{name}={getattr(config, name)} cannot be written as model type {config.family!r}, which "
                f"needs {name}={value} (with qkv_bias={config.qkv_bias}); choose another family or other "
                "biases"
            )
