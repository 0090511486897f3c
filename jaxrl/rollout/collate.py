"""Trajectories to the arrays of an update: packed rows, cut into microbatches. Host only.

Axes: M microbatches, B rows of each, T tokens of a row.
"""

from collections.abc import Sequence

import numpy as np

from jaxrl.batch import PolicyBatch
from jaxrl.data.packing import assign_rows, lay_out, segments
from jaxrl.errors import InputError
from jaxrl.types import Trajectory


def collate(trajectories: Sequence[Trajectory], advantages: Sequence[float], seq_len: int, microbatch: int) -> PolicyBatch:
    """Pack trajectories into rows, one segment each, with one advantage for all tokens of a completion.

    The arrays have room for one row per trajectory (the worst packing), so that their shape depends on the number of
    trajectories alone; `num_microbatches` says how many microbatches hold something.

    Args:
      trajectories: those of one optimiser batch.  advantages: one per trajectory.
      seq_len: T.  microbatch: B.
    Returns:
      PolicyBatch of NumPy arrays, M = ceil(len(trajectories) / B).
    Raises:
      InputError: if a trajectory is longer than a row.
    """
    prompts = [t.completion.prompt_ids for t in trajectories]
    completions = [t.completion.completion_ids for t in trajectories]
    logprobs = [t.completion.sampler_logprobs for t in trajectories]
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions)]
    if max(lengths) > seq_len:
        raise InputError(
            f"a trajectory of {max(lengths)} tokens does not fit a row of {seq_len}; "
            "raise the stage's seq_len, or lower sample.max_prompt_tokens or sample.max_new_tokens"
        )
    rows = assign_rows(lengths, seq_len)
    M = -(-len(trajectories) // microbatch)
    positions, segment_ids = segments(rows, lengths, seq_len)
    per_token = {  # the field of each trajectory, prompt and completion
        "tokens": ([p + c for p, c in zip(prompts, completions)], np.int32),
        "completion_mask": ([[False] * len(p) + [True] * len(c) for p, c in zip(prompts, completions)], bool),
        "advantages": ([[0.0] * len(p) + [a] * len(c) for p, c, a in zip(prompts, completions, advantages)], np.float32),
        "sampler_logprobs": ([[0.0] * len(p) + l for p, l in zip(prompts, logprobs)], np.float32),
    }
    arrays = {name: lay_out(rows, sequences, seq_len, dtype) for name, (sequences, dtype) in per_token.items()}
    arrays |= {"positions": positions, "segment_ids": segment_ids}
    return PolicyBatch(
        num_microbatches=np.int32(-(-len(rows) // microbatch)),
        **{name: to_microbatches(x, M, microbatch) for name, x in arrays.items()},
    )


def to_microbatches(x: np.ndarray, M: int, B: int) -> np.ndarray:
    """[R, T] -> [M, B, T], empty rows added at the end; R <= M * B."""
    return np.pad(x, ((0, M * B - len(x)), (0, 0))).reshape(M, B, -1)
