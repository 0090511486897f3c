"""Where the golden models lie (scripts/make_goldens.py wrote them), and a model config of every family."""

from pathlib import Path

import numpy as np
from safetensors import safe_open

from jaxrl.model.config import ModelConfig, RopeScaling

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MODELS = ["llama2", "llama3", "llama_linear", "smollm", "qwen2", "qwen3"]
DTYPES = {name: "bfloat16" if name == "smollm" else "float32" for name in MODELS}
ADAPTERS = ["smollm", "qwen3"]

_SIZES = {
    "vocab_size": 40,
    "d_model": 16,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 4,
    "d_ff": 24,
}
CONFIGS = {
    "llama": ModelConfig("llama", **_SIZES),
    "llama_biases": ModelConfig("llama", **_SIZES, qkv_bias=True, o_bias=True, mlp_bias=True, rms_eps=1e-5),
    "llama3": ModelConfig(
        "llama",
        **_SIZES,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32),
        max_positions=256,
    ),
    "linear": ModelConfig("llama", **_SIZES, rope_scaling=RopeScaling("linear", 2.5), tie_embeddings=True),
    "qwen2": ModelConfig("qwen2", **_SIZES, qkv_bias=True, rope_theta=1e6, tie_embeddings=True),
    "qwen3": ModelConfig("qwen3", **{**_SIZES, "head_dim": 8}, qk_norm=True),
    "qwen3_biases": ModelConfig(
        "qwen3", **{**_SIZES, "head_dim": 8}, qk_norm=True, qkv_bias=True, o_bias=True
    ),
}


def read_tensors(folder: Path, pattern: str = "*.safetensors") -> dict[str, np.ndarray]:
    """All tensors of a folder's safetensors files, by the safetensors library."""
    tensors = {}
    for path in sorted(folder.glob(pattern)):
        with safe_open(path, framework="numpy") as file:
            assert file.metadata()["format"] == "pt"
            names = file.keys()  # all that this file has of a dict
            tensors |= {name: file.get_tensor(name) for name in names}
    return tensors


def assert_same_tensors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same names, types, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name
