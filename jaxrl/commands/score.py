"""`jaxrl score`: the logprobs that a model gives to tokens. One JSONL in, one out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from jaxrl.commands.model import read_lines, token_ids
from jaxrl.device.arrays import fetch
from jaxrl.device.mesh import num_row_shards, shard_batch
from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, write_rows
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.sample.buckets import length_bucket
from jaxrl.update.batch import SFTBatch
from jaxrl.update.step import make_score_fn

SCORE_ROWS, SCORE_TOKENS = 16, 8192  # of one batch, at most


def score_file(weights: PolicyWeights, tokens_file: Path, out: Path, mesh: Mesh) -> int:
    """Add `logprobs` to every line of `tokens_file`: one per token of `tokens`, at temperature 1, the first
    0.

    Returns:
      The number of lines written.
    """
    check_out(out)
    records = read_lines(tokens_file)
    vocab_size = weights.policy.config.vocab_size
    rows = [token_ids(record, "tokens", place, vocab_size) for place, record in records]
    logprobs = score_tokens(weights, rows, mesh, [place for place, _ in records])
    write_rows(out, [record | {"logprobs": row} for (_, record), row in zip(records, logprobs)])
    return len(records)


def score_tokens(
    weights: PolicyWeights, rows: Sequence[Sequence[int]], mesh: Mesh, names: Sequence[str] | None = None
) -> list[list[float]]:
    """The logprob of every token of every row of ids, given those before it in the row, at temperature 1.

    Args:
      names: what errors call the rows; None: `row 0`, `row 1` and so on.
    Returns:
      as many numbers for each row as it has tokens; the first is 0.
    Raises:
      InputError: a row without tokens, with ids that the model does not have, or with more than it can hold.
    """
    config = weights.policy.config
    for name, row in zip(names or [f"row {i}" for i in range(len(rows))], rows, strict=True):
        if len(row) == 0 or not all(0 <= i < config.vocab_size for i in row):
            raise InputError(
                f"{name}: must have at least one token id, each in 0..{config.vocab_size - 1}, and is"
                f" {str(row)[:60]}"
            )
        if len(row) > config.max_positions:
            raise InputError(
                f"{name}: {len(row)} tokens are more than the model's {config.max_positions} positions; cut"
                " the line"
            )
    score = make_score_fn(weights.policy, mesh)
    logprobs: dict[int, list[float]] = {}
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of a batch are of like length
    first = 0
    while first < len(rows):
        longest = len(rows[by_length[min(first + SCORE_ROWS, len(rows)) - 1]])
        B = max(1, min(SCORE_ROWS, SCORE_TOKENS // longest))
        B = -(-B // num_row_shards(mesh)) * num_row_shards(mesh)
        members = by_length[first : first + B]
        first += B
        batch = _score_batch([rows[i] for i in members], B)
        values = fetch(score(weights.trainable, weights.frozen, shard_batch(batch, mesh)))[0]
        for b, i in enumerate(members):
            logprobs[i] = values[b, : len(rows[i])].tolist()
    return [logprobs[i] for i in range(len(rows))]


def _score_batch(rows: Sequence[Sequence[int]], B: int) -> SFTBatch:
    T = length_bucket(max(map(len, rows)))
    tokens, segment_ids = np.zeros((1, B, T), np.int32), np.zeros((1, B, T), np.int32)
    for b, row in enumerate(rows):
        tokens[0, b, : len(row)] = row
        segment_ids[0, b, : len(row)] = 1
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    return SFTBatch(np.int32(1), tokens, positions, segment_ids, segment_ids > 0)
