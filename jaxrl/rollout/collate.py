"""Trajectories to the arrays of an update: packed rows, cut into microbatches; and results cut back.

Axes: M microbatches, B rows of each, T tokens of a row, n tokens of one trajectory.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np

from jaxrl.data.packing import assign_rows, lay_out, segments
from jaxrl.errors import InputError
from jaxrl.sample.sets import NOTHING, to_bits
from jaxrl.types import Completion
from jaxrl.update.batch import PolicyBatch, to_microbatches


@dataclass(frozen=True)
class Sample:
    """A row of a trajectory as an update sees it: arrays [n] over its tokens, prompt and completion.

    Names as in `PolicyBatch`.

    excluded: for each token what could not have come in its place, as text (`sample/sets.py`): bits are many,
      and made where they are laid out.
    """

    tokens: np.ndarray
    completion_mask: np.ndarray
    advantages: np.ndarray
    sampler_logprobs: np.ndarray
    old_logprobs: np.ndarray
    ref_logprobs: np.ndarray | None = None
    old_values: np.ndarray | None = None
    returns: np.ndarray | None = None
    replay_mask: np.ndarray | None = None
    excluded: list[str] | None = None


PER_TOKEN = tuple(field.name for field in fields(Sample) if field.name != "excluded")


def make_sample(completion: Completion) -> Sample:
    """What the policy being updated has sampled, without credit yet: advantages 0, old logprobs NaN.

    Args:
      completion: of one turn, or a row of several (`Trajectory.rows`), whose observations are not trained on.
    """
    prompt, completion_ids = completion.prompt_ids, completion.completion_ids
    tokens = prompt + completion_ids
    n = len(tokens)
    return Sample(
        tokens=np.array(tokens, np.int32),
        completion_mask=np.array([False] * len(prompt) + completion.is_emitted, bool),
        advantages=np.zeros(n, np.float32),
        sampler_logprobs=np.array([0.0] * len(prompt) + completion.sampler_logprobs, np.float32),
        old_logprobs=np.full(n, np.nan, np.float32),
        excluded=None if completion.excluded is None else [NOTHING] * len(prompt) + completion.excluded,
    )


def collate(
    samples: Sequence[Sample],
    num_rows: int,
    seq_len: int,
    microbatch: int,
    needed: Collection[str] = (),
    set_bytes: int = 0,
) -> PolicyBatch:
    """Pack samples into rows, one segment each.

    The arrays have room for num_rows rows (the worst packing of as many samples), so that their shape depends
    on settings alone; `num_microbatches` says how many microbatches hold something.

    Args:
      samples: those of one optimiser batch, at most num_rows. A field that only some of them have is 0 in the
        others.
      seq_len: T.  microbatch: B.
      needed: optional fields that the batch has in any case, so that one compiled step serves every mixture
        of samples.
      set_bytes: of each token's excluded ids (`sample/sets.py: set_bytes`); 0: the batch has none.
    Returns:
      PolicyBatch of NumPy arrays, M = ceil(num_rows / B).
    Raises:
      InputError: if a sample is longer than a row.
      ValueError: samples with excluded ids where set_bytes has no room for them: they would be learnt from as
        if all had been kept.
    """
    rows = _assign(samples, seq_len)
    M = -(-num_rows // microbatch)
    arrays = dict(
        zip(("positions", "segment_ids"), segments(rows, [len(s.tokens) for s in samples], seq_len))
    )
    for name in PER_TOKEN:
        given = [getattr(sample, name) for sample in samples]
        present = [x for x in given if x is not None]
        if present or name in needed:
            dtype = present[0].dtype if present else bool if name == "replay_mask" else np.float32
            filled = [np.zeros(len(s.tokens), dtype) if x is None else x for s, x in zip(samples, given)]
            arrays[name] = lay_out(rows, filled, seq_len, dtype)
    if set_bytes or any(sample.excluded for sample in samples):
        arrays["excluded"] = _lay_out_sets(rows, samples, (M * microbatch, seq_len, set_bytes))
    return PolicyBatch(
        num_microbatches=np.int32(-(-len(rows) // microbatch)),
        **{name: to_microbatches(x, M, microbatch) for name, x in arrays.items()},
    )


def uncollate(array: np.ndarray, samples: Sequence[Sample], seq_len: int) -> list[np.ndarray]:
    """What stands in array [M, B, T] where `collate` has put each of the samples: [n] each."""
    flat = np.asarray(array).reshape(-1, seq_len)
    found: list[np.ndarray | None] = [None] * len(samples)
    for r, row in enumerate(_assign(samples, seq_len)):
        at = 0
        for i in row:
            n = len(samples[i].tokens)
            found[i] = flat[r, at : at + n]
            at += n
    return found


def _lay_out_sets(
    rows: Sequence[Sequence[int]], samples: Sequence[Sample], shape: tuple[int, int, int]
) -> np.ndarray:
    """[M * B, T, set_bytes] uint8: the bits of every token's excluded ids; a sample without such sets
    excludes nothing.
    """
    out = np.zeros(shape, np.uint8)
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            for t, text in enumerate(samples[i].excluded or ()):
                if text:
                    out[r, at + t] = to_bits(text, shape[2])
            at += len(samples[i].tokens)
    return out


def _assign(samples: Sequence[Sample], seq_len: int) -> list[list[int]]:
    lengths = [len(sample.tokens) for sample in samples]
    if max(lengths) > seq_len:
        raise InputError(
            f"a trajectory of {max(lengths)} tokens does not fit a row of {seq_len}; "
            "raise the stage's seq_len, or lower sample.max_prompt_tokens or sample.max_new_tokens"
        )
    return assign_rows(lengths, seq_len)
