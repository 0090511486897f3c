"""Rotary position embedding, in the half-split form of the Hugging Face models.

Axes: B rows, T tokens, N heads, H width.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl.model.config import ModelConfig, RopeScaling


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of each pair of features.

        f_i = theta^(-2i / H),  i = 0 .. H/2 - 1

    `linear` scaling divides all f by the factor. `llama3` scaling divides the slow ones (wavelength above
    original / low_freq_factor) by the factor, keeps the fast ones (wavelength below original /
    high_freq_factor), and blends between.

    Returns:
      [H/2] float32.
    Source: Su et al. 2021 (RoFormer), equation 15; llama3: Dubey et al. 2024 and the released models' config.
    """
    H = config.head_dim
    frequencies = config.rope_theta ** (-np.arange(0, H, 2, dtype=np.float64) / H)
    if config.rope_scaling is not None:
        frequencies = _scale(frequencies, config.rope_scaling)
    return frequencies.astype(np.float32)


def rope_angles(config: ModelConfig, positions: Array) -> tuple[Array, Array]:
    """cos and sin of position * frequency.

    Always float32: bfloat16 cannot tell position 256 from 257.

    Args:
      positions: [B, T] int32.
    Returns:
      cos, sin: [B, T, 1, H/2] float32.
    """
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]


def rotate(x: Array, angles: tuple[Array, Array]) -> Array:
    """Turn each pair (x_i, x_{i + H/2}) of x [B, T, N, H] by its angle."""
    cos, sin = angles
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _scale(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "llama3":
        # turns that a pair makes over the original context: many = fast, few = slow
        turns = scaling.original_max_positions * frequencies / (2 * math.pi)
        keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        keep = np.clip(keep, 0.0, 1.0)  # 1: keep the frequency, 0: divide it by the factor
        return keep * frequencies + (1 - keep) * frequencies / scaling.factor
    raise ValueError(f"unknown rope scaling {scaling.kind!r}; the kinds are linear, llama3")
