"""One layer of the transformer, written with Flax NNX as notation: modules say which parameters exist and how
they are used.

Not here: the stack of layers, embeddings, caches (see `policy.py`). Axes: B rows, T tokens, D width, F
feed-forward width, N query heads, K key/value heads, H head width, R adapter rank.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from jaxrl.config.shared import LoraSection
from jaxrl.model.config import ModelConfig
from jaxrl.model.rope import rotate
from jaxrl.ops.low_rank import low_rank

# (q [B, T, N, H], k [B, T, K, H], v [B, T, K, H]) -> (out [B, T, N, H], what the caller wants kept of this
# layer)
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]
Project = Callable[..., list[Array]]
Norm = Callable[[Array, str], Array]
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


class Linear(nnx.Module):
    """y = x W + b, and + scale * dropout(x) A B where the layer is adapted.

    W [in, out], A [in, R], B [R, out].
    """

    def __init__(
        self, d_in: int, d_out: int, bias: bool, lora: LoraSection | None, rngs: nnx.Rngs, gain: float = 1.0
    ):
        std = gain * d_in**-0.5
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (d_in, d_out)))
        self.bias = nnx.Param(jnp.zeros(d_out)) if bias else None
        self.scale = 0.0
        if lora is not None:
            # the uniform distribution that PEFT starts A from; B = 0, so training starts at the base
            bound = d_in**-0.5
            self.lora_a = nnx.LoRAParam(
                jax.random.uniform(rngs.params(), (d_in, lora.rank), minval=-bound, maxval=bound)
            )
            self.lora_b = nnx.LoRAParam(jnp.zeros((lora.rank, d_out)))
            self.scale = lora_scale(lora)
            self.dropout = lora.dropout

    def __call__(self, x: Array, dropout_key: Array | None = None) -> Array:
        y = x @ self.kernel.get_value().astype(x.dtype)
        if self.bias is not None:
            y = y + self.bias.get_value().astype(x.dtype)
        if self.scale:
            if dropout_key is not None and self.dropout > 0:
                kept = jax.random.bernoulli(dropout_key, 1 - self.dropout, x.shape)
                x = jnp.where(kept, x / (1 - self.dropout), 0)
            a, b = (p.get_value().astype(x.dtype) for p in (self.lora_a, self.lora_b))
            y = y + low_rank(x, a, b, self.scale)
        return y


class RMSNorm(nnx.Module):
    """y = x / sqrt(mean(x^2) + eps) * scale, computed in float32."""

    def __init__(self, size: int, eps: float):
        self.scale = nnx.Param(jnp.ones(size))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        return rms_norm(x, self.scale.get_value(), self.eps)


class Block(nnx.Module):
    """A layer: x + attention(norm(x)), then x + mlp(norm(x)).

    The attention itself is the caller's (`attend`).
    """

    def __init__(self, config: ModelConfig, lora: LoraSection | None, rngs: nnx.Rngs):
        D, F, H = config.d_model, config.d_ff, config.head_dim
        N, K = config.num_heads, config.num_kv_heads
        # keeps the sum of 2L branches at unit size at the start
        residual_gain = (2 * config.num_layers) ** -0.5

        def linear(name: str, d_in: int, d_out: int, bias: bool, gain: float = 1.0) -> Linear:
            return Linear(d_in, d_out, bias, lora if lora and name in lora.targets else None, rngs, gain)

        self.head_dim = H
        self.attn_norm = RMSNorm(D, config.rms_eps)
        self.q = linear("q", D, N * H, config.qkv_bias)
        self.k = linear("k", D, K * H, config.qkv_bias)
        self.v = linear("v", D, K * H, config.qkv_bias)
        self.o = linear("o", N * H, D, config.o_bias, residual_gain)
        self.q_norm = RMSNorm(H, config.rms_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(H, config.rms_eps) if config.qk_norm else None
        self.mlp_norm = RMSNorm(D, config.rms_eps)
        self.gate = linear("gate", D, F, config.mlp_bias)
        self.up = linear("up", D, F, config.mlp_bias)
        self.down = linear("down", F, D, config.mlp_bias, residual_gain)

    def __call__(
        self, x: Array, angles: tuple[Array, Array], attend: Attend, dropout_key: Array | None = None
    ) -> tuple[Array, Any]:
        """x [B, T, D], angles from `rope_angles` -> x [B, T, D] and what `attend` wants kept."""
        keys = dict(zip(LINEARS, [None] * 7 if dropout_key is None else jax.random.split(dropout_key, 7)))

        def project(x: Array, *names: str) -> list[Array]:
            return [getattr(self, name)(x, keys[name]) for name in names]

        def norm(x: Array, name: str) -> Array:
            layer = getattr(self, name)
            return x if layer is None else layer(x)

        return layer_forward(x, angles, attend, project, norm, self.head_dim)


def layer_forward(
    x: Array, angles: tuple[Array, Array], attend: Attend, project: Project, norm: Norm, head_dim: int
) -> tuple[Array, Any]:
    """The arithmetic of a layer, whatever form its weights are in: those of `Block`, or those that decoding
    reads.

    Args:
      x: [B, T, D].
      project: (x, names of linear layers) -> one output per name.
      norm: (x, name) -> x normed, or x itself where the model has no such norm.
    """
    B, T, _ = x.shape
    q, k, v = (
        checkpoint_name(y, "qkv").reshape(B, T, -1, head_dim)
        for y in project(norm(x, "attn_norm"), "q", "k", "v")
    )
    q, k = norm(q, "q_norm"), norm(k, "k_norm")
    out, kept = attend(rotate(q, angles), rotate(k, angles), v)
    (out,) = project(out.reshape(B, T, -1), "o")
    x = checkpoint_name(x + out, "middle")
    gate, up = (checkpoint_name(y, "mlp") for y in project(norm(x, "mlp_norm"), "gate", "up"))
    (out,) = project(jax.nn.silu(gate) * up, "down")
    return x + out, kept


def rms_norm(x: Array, scale: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * scale along the last axis, in float32, returned in x's dtype.

    Source: Zhang and Sennrich 2019, equation 4.
    """
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (normed * scale.astype(jnp.float32)).astype(x.dtype)


def lora_scale(lora: LoraSection) -> float:
    """alpha / rank (Hu et al. 2021, section 4.1), or alpha / sqrt(rank) with rslora (Kalajdzievski 2023)."""
    return lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
