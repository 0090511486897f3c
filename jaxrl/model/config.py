"""The static description of a decoder-only transformer.

Not the experiment's config: that is `jaxrl/config/experiment.py`.

One shape of model covers Llama 2/3, Qwen2/2.5, Qwen3 and SmolLM: grouped-query attention with rotary
positions, rms norm before attention and MLP, SwiGLU. What differs between the families is a field here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """Rotary frequency scaling. kind `linear`: f / factor. kind `llama3`: see `model/rope.py`."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches; hashable, so that it can be a static argument of a jitted function.

    `family` (`llama`, `qwen2`, `qwen3`) says only under which Hugging Face model type the model is written to
    disk.
    """

    family: str
    vocab_size: int  # V
    d_model: int  # D
    num_layers: int  # L
    num_heads: int  # N
    num_kv_heads: int  # K
    head_dim: int  # H
    d_ff: int  # F
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_eps: float = 1e-6
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False
    max_positions: int = 4096

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each of the seven linear layers."""
        D, F = self.d_model, self.d_ff
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return {
            "q": (D, q),
            "k": (D, kv),
            "v": (D, kv),
            "o": (q, D),
            "gate": (D, F),
            "up": (D, F),
            "down": (F, D),
        }
