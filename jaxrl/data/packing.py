"""Ragged examples to rows of one length, and rows to batches. Numpy only; nothing is ever cut off or dropped.

Axes: R rows, B rows of a batch, T tokens. The state of an iteration is one number: what step s sees is a
function of (seed, s).
"""

import bisect
import functools
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from jaxrl.errors import InputError


@dataclass(frozen=True)
class PackedRows:
    """Packed rows; the fields are those of `SFTBatch`, on the host."""

    tokens: np.ndarray  # [R, T] int32, 0 where there is padding
    positions: np.ndarray  # [R, T] int32, restarting at 0 in each segment
    segment_ids: np.ndarray  # [R, T] int32, counted from 1 in each row; 0 = padding
    loss_mask: np.ndarray  # [R, T] bool

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, indices: np.ndarray) -> "PackedRows":
        """The rows at `indices`, in that order."""
        return PackedRows(
            self.tokens[indices], self.positions[indices], self.segment_ids[indices], self.loss_mask[indices]
        )


def assign_rows(lengths: Sequence[int], seq_len: int, packing: bool = True) -> list[list[int]]:
    """Which examples share a row: best fit, longest first; deterministic.

    Args:
      lengths: tokens of each example.
      seq_len: tokens of a row.
      packing: False gives every example a row of its own, in the order given.
    Returns:
      for each row the indices of its examples, ascending; every index exactly once.
    Raises:
      InputError: an example that is empty or longer than a row, by index.
    """
    for i, length in enumerate(lengths):
        if length > seq_len:
            raise InputError(
                f"example {i} has {length} tokens and does not fit into a row of seq_len={seq_len}; "
                f"set seq_len to at least {max(lengths)} (the longest example) or shorten the example"
            )
        if length < 1:
            raise InputError(f"example {i} has no tokens; remove it")
    if not packing:
        return [[i] for i in range(len(lengths))]
    rows: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # free tokens -> heap of rows
    spaces: list[int] = []  # its keys, sorted
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect.bisect_left(spaces, lengths[i])
        if at == len(spaces):
            row, space = len(rows), seq_len
            rows.append([])
        else:
            space = spaces[at]
            row = heapq.heappop(by_space[space])
            if not by_space[space]:
                del by_space[space], spaces[at]
        rows[row].append(i)
        left = space - lengths[i]
        if left not in by_space:
            by_space[left] = []
            bisect.insort(spaces, left)
        heapq.heappush(by_space[left], row)
    return [sorted(row) for row in rows]


def lay_out(
    assignment: Sequence[Sequence[int]],
    sequences: Sequence[Sequence | np.ndarray],
    seq_len: int,
    dtype: DTypeLike,
) -> np.ndarray:
    """[R, T]: each row's sequences one after another, zeros after them. One call per field of a batch."""
    out = np.zeros((len(assignment), seq_len), dtype)
    for r, row in enumerate(assignment):
        at = 0
        for i in row:
            out[r, at : at + len(sequences[i])] = sequences[i]
            at += len(sequences[i])
    return out


def segments(
    assignment: Sequence[Sequence[int]], lengths: Sequence[int], seq_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """(positions, segment_ids), both [R, T] int32, for rows filled by `lay_out`."""
    positions = np.zeros((len(assignment), seq_len), np.int32)
    segment_ids = np.zeros((len(assignment), seq_len), np.int32)
    for r, row in enumerate(assignment):
        at = 0
        for segment, i in enumerate(row, start=1):
            positions[r, at : at + lengths[i]] = np.arange(lengths[i])
            segment_ids[r, at : at + lengths[i]] = segment
            at += lengths[i]
    return positions, segment_ids


def pack(
    examples: Sequence[tuple[Sequence[int], Sequence[bool]]], seq_len: int, packing: bool = True
) -> PackedRows:
    """Rows of the examples, each example whole in one row.

    Args:
      examples: (ids, loss_mask) of `render_for_training`.
      seq_len: tokens of a row.
      packing: whether a row may hold more than one example.
    Raises:
      InputError: no examples, or one that does not fit.
    """
    if not examples:
        raise InputError("there are no examples to pack; check the data section")
    lengths = [len(ids) for ids, _ in examples]
    assignment = assign_rows(lengths, seq_len, packing)
    positions, segment_ids = segments(assignment, lengths, seq_len)
    return PackedRows(
        tokens=lay_out(assignment, [ids for ids, _ in examples], seq_len, np.int32),
        positions=positions,
        segment_ids=segment_ids,
        loss_mask=lay_out(assignment, [mask for _, mask in examples], seq_len, bool),
    )


def indices_at(count: int, batch: int, seed: int, step: int) -> np.ndarray:
    """The indices [batch] of step `step` (from 0), from the arguments alone: `stream_at` in equal steps."""
    return stream_at(count, step * batch, batch, seed)


def stream_at(count: int, start: int, length: int, seed: int) -> np.ndarray:
    """Places start .. start + length of an endless stream of indices below `count`, permuted each epoch.

    A piece that the epoch's end cuts goes on into the next epoch: no item is dropped, every epoch sees each
    item once, all pieces are full. A piece longer than `count` therefore repeats items.
    """
    epochs, offsets = np.divmod(np.arange(start, start + length), count)
    return np.array(
        [_permutation(count, seed, int(e))[o] for e, o in zip(epochs, offsets, strict=True)], np.int64
    )


def batch_at(rows: PackedRows, batch_rows: int, seed: int, step: int) -> PackedRows:
    """The batch of step `step` (from 0): [B, T] rows. Resuming needs the step alone."""
    return rows.take(indices_at(len(rows), batch_rows, seed, step))


def num_steps(count: int, batch: int, epochs: int) -> int:
    """Steps of `batch` items until each of `count` items was seen `epochs` times."""
    return -(-count * epochs // batch)


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
