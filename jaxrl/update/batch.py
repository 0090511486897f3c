"""What the update steps eat: frozen pytrees of arrays of shape [M, B, T], and one of [M, B, T, E].

M microbatches, B rows of a microbatch, T tokens of a row. Rows are left-aligned and packed; index t describes
token t. Only the first `num_microbatches` of the M are run: the arrays have room for the worst packing, so
that the shapes, and with them the compiled program, never change.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SFTBatch:
    num_microbatches: Array  # [] int32
    tokens: Array  # [M, B, T] int32
    positions: Array  # [M, B, T] int32, restarting at 0 in each segment
    segment_ids: Array  # [M, B, T] int32, 0 = padding
    loss_mask: Array  # [M, B, T] bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PolicyBatch:
    num_microbatches: Array  # [] int32
    tokens: Array  # [M, B, T] int32
    positions: Array  # [M, B, T] int32
    segment_ids: Array  # [M, B, T] int32, one segment per trajectory, 0 = padding
    completion_mask: Array  # [M, B, T] bool, emitted tokens that the policy loss is taken on
    advantages: Array  # [M, B, T] float32
    sampler_logprobs: Array  # [M, B, T] float32, 0 outside completion_mask
    # [M, B, T] float32; NaN where the policy being updated is the one that sampled: ratio exactly 1
    old_logprobs: Array
    ref_logprobs: Array | None = None  # [M, B, T] float32; with a KL term in the loss
    old_values: Array | None = None  # [M, B, T] float32, of the state before token t; with a critic
    returns: Array | None = None  # [M, B, T] float32, what the critic is to learn; with a critic
    # [M, B, T] bool, completions from the replay buffer; with a replay buffer
    replay_mask: Array | None = None
    # [M, B, T, E] uint8, ids that could not have come, E bytes of bits; with a filter in sampling
    excluded: Array | None = None


def to_microbatches(x: np.ndarray, M: int, B: int) -> np.ndarray:
    """[R, T, ...] -> [M, B, T, ...], empty rows added at the end; R <= M * B."""
    missing = np.zeros((M * B - len(x), *x.shape[1:]), x.dtype)
    return (np.concatenate([x, missing]) if len(missing) else x).reshape(M, B, *x.shape[1:])
