"""Using a model directory without an experiment: drawing completions, scoring tokens, evaluating on a task.
One JSONL in, one out.
"""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrl.config.experiment import EvalStage
from jaxrl.config.file import make_section
from jaxrl.config.shared import ModelSection, SampleSection, VerifySection
from jaxrl.data.chat import encode_text, render_for_sampling
from jaxrl.data.dates import asks_for_date, fix_moment
from jaxrl.data.jsonl import check_out, read_objects, write_rows
from jaxrl.data.records import parse_messages, parse_text, with_context
from jaxrl.data.tokenizer import eos_ids, find_tokenizer, num_tokens
from jaxrl.device.mesh import num_row_shards, shard_batch
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import baseline_rows, choose_problems, evaluate
from jaxrl.model.policy import Policy
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.policy.load import load_base, model_folder
from jaxrl.rollout.collect import open_pool
from jaxrl.sample.buckets import length_bucket
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.tasks import make_task
from jaxrl.track.evaluations import Row
from jaxrl.types import Completion
from jaxrl.update.batch import SFTBatch
from jaxrl.update.step import make_score_fn

log = logging.getLogger("jaxrl")

SCORE_ROWS, SCORE_TOKENS = 16, 8192  # of one batch, at most
# Keys of the requests that inference servers take. A line keeps whatever else it holds; of these, leaving
# them out would be a lie.
OF_A_REQUEST = (
    "documents",
    "functions",
    "function_call",
    "tool_choice",
    "chat_template",
    "chat_template_kwargs",
    "enable_thinking",
    "add_generation_prompt",
    "continue_final_message",
    "response_format",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_new_tokens",
    "max_completion_tokens",
    "stop",
)


def load_policy(
    model: str | Path, adapter: str | Path | None, dtype: str, mesh: Mesh, vocab_size: int = 0
) -> PolicyWeights:
    """The policy of a model directory (or hub name), with an adapter folder laid over it if one is given.

    Args:
      dtype: of the arithmetic and of what is not trained, `float32` or `bfloat16`.
      vocab_size: ids from here on are never drawn: `num_tokens` of the tokenizer; 0 for all ids of the model.
    Raises:
      InputError: files that are missing or broken, or that do not belong to each other.
    """
    section = make_section(
        ModelSection, "model", path=str(model), adapter=adapter and str(adapter), dtype=dtype
    )
    return load_base(section, vocab_size, mesh, seed=0)


def sample_file(
    weights: PolicyWeights,
    model: str,
    prompts: Path,
    out: Path,
    sample: SampleSection,
    seed: int,
    mesh: Mesh,
    moment: datetime | None = None,
) -> int:
    """Complete every line of `prompts`.

    A line has `prompt` (text, taken as it is, with the BOS that the tokenizer puts before it unless it has
    one), `messages` (rendered with the chat template, with the line's `system` and `tools` if it has any) or
    `prompt_ids` (nothing is added); what it has is kept, and `completion`, `completion_ids`, `logprobs` and
    `stop_reason` are added. A key that asks for another prompt or another way of sampling (`OF_A_REQUEST`) is
    an error. Equal prompts are prefilled once and draw independent samples: the n-th line with a prompt gets
    its n-th sample, whatever else the file holds. `moment` is what a chat template is told that asks for the
    date; None is now.

    `logprobs` are the model's at the temperature (at 1 where it is 0), over its whole vocabulary, also where
    top-k, top-p or min-p drew among fewer ids: at temperature 1 the numbers that `score_file` gives. Ids that
    the tokenizer does not have are never drawn.

    Returns:
      The number of lines written.
    """
    check_out(out)
    records = read_lines(prompts)
    folder = model_folder(model)
    tokenizer = tokenizer_at(moment, folder)
    if tokenizer is None and sample.stop:
        raise InputError(f"a stop text needs a tokenizer, and {folder} has none; leave out --stop")
    vocab_size = weights.policy.config.vocab_size
    prompt_ids = [read_prompt(record, tokenizer, place, vocab_size) for place, record in records]
    ends = eos_ids(tokenizer, folder)
    decode = tokenizer.decode if tokenizer is not None else lambda ids: None
    engine = Engine(_with_tokens_of(tokenizer, weights.policy), sample, ends, decode, mesh)
    lines_of: dict[tuple[int, ...], list[int]] = {}
    for line, ids in enumerate(prompt_ids):
        engine.check(f"{records[line][0]}: the prompt", Request(ids, 0))
        lines_of.setdefault(tuple(ids), []).append(line)
    requests = [
        Request(list(ids), zlib.crc32(np.array(ids, "<i4").tobytes()), len(lines))
        for ids, lines in lines_of.items()
    ]
    places = list(lines_of.values())
    completions: dict[int, Completion] = {}
    for sampled in engine.run(weights.trainable, weights.frozen, requests, jax.random.key(seed)):
        completions[places[sampled.request][sampled.index]] = sampled.completion
    write_rows(
        out, [record | _completion_fields(completions[line]) for line, (_, record) in enumerate(records)]
    )
    return len(records)


def score_file(weights: PolicyWeights, tokens_file: Path, out: Path, mesh: Mesh) -> int:
    """Add `logprobs` to every line of `tokens_file`: one per token of `tokens`, at temperature 1, the first
    0.

    Returns:
      The number of lines written.
    """
    check_out(out)
    records = read_lines(tokens_file)
    vocab_size = weights.policy.config.vocab_size
    rows = [_ids(record, "tokens", place, vocab_size) for place, record in records]
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
        values = jax.device_get(score(weights.trainable, weights.frozen, shard_batch(batch, mesh)))[0]
        for b, i in enumerate(members):
            logprobs[i] = values[b, : len(rows[i])].tolist()
    return [logprobs[i] for i in range(len(rows))]


def evaluate_model(
    weights: PolicyWeights,
    model: str,
    stage: EvalStage,
    verify: VerifySection,
    seed: int,
    mesh: Mesh,
    moment: datetime | None = None,
) -> list[Row]:
    """The baselines' rows and the policy's, on the task and split of an eval stage; `moment` as in
    `sample_file`.
    """
    task = make_task(stage.task)
    problems = choose_problems(task, stage)
    folder = model_folder(model)
    tokenizer = tokenizer_at(moment, folder)
    if tokenizer is None:
        raise InputError(f"{folder} has no tokenizer; an evaluation needs the one that belongs to the model")
    engine = Engine(
        _with_tokens_of(tokenizer, weights.policy),
        stage.sample,
        eos_ids(tokenizer, folder),
        tokenizer.decode,
        mesh,
    )
    with open_pool(task, verify) as pool:
        row, _ = evaluate(
            engine,
            pool,
            tokenizer,
            problems,
            weights.trainable,
            weights.frozen,
            jax.random.key(seed),
            stage.name,
        )
        return [*baseline_rows(task, pool, problems, seed), row]


def _with_tokens_of(tokenizer, policy: Policy) -> Policy:
    """The policy that draws no ids that its tokenizer does not have; without a tokenizer as it is."""
    return policy if tokenizer is None else replace(policy, num_tokens=num_tokens(tokenizer))


# ------------------------------------------------------------------------------------------------------ files


def read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file and line, object) of every line that is not blank.

    Raises:
      InputError: unreadable file, a line that is not a JSON object, no lines.
    """
    records = list(read_objects(path))
    if not records:
        raise InputError(f"{path} has no lines; give one JSON object per line")
    return records


def tokenizer_at(moment: datetime | None, folder: Path):
    """The folder's tokenizer, if it has one, whose templates are told this moment when they ask for the
    date.
    """
    tokenizer = find_tokenizer(folder)
    if tokenizer is not None:
        moment = moment or datetime.now()
        fix_moment(tokenizer, moment)
        if asks_for_date(tokenizer):
            log.warning("the chat template asks for the date, and is told %s (--date)", moment.date())
    return tokenizer


def read_prompt(record: dict[str, Any], tokenizer, place: str, vocab_size: int) -> list[int]:
    """The ids of a line's prompt, whichever of its forms it has; `place` (file and line) begins every error.

    Raises:
      InputError: none of the forms or more than one, what they hold is not what it should be, or a key that
        would not be heeded.
    """
    given = [name for name in ("prompt", "messages", "prompt_ids") if name in record]
    if len(given) != 1:
        raise InputError(
            f"{place}: needs exactly one of `prompt`, `messages`, `prompt_ids`, and has"
            f" {given or 'none of them'}"
        )
    unheeded = [name for name in OF_A_REQUEST if record.get(name) is not None]
    if given != ["messages"]:  # no chat template, so no place for these
        unheeded += [name for name in ("system", "tools") if record.get(name)]
    if unheeded:
        raise InputError(
            f"{place}: `{unheeded[0]}` beside `{given[0]}` would not be heeded; sampling is set for all lines"
            " by the command's flags, and `system` and `tools` go with `messages`; remove it"
        )
    if given == ["prompt_ids"]:
        return _ids(record, "prompt_ids", place, vocab_size)
    if tokenizer is None:
        raise InputError(
            f"{place}: `{given[0]}` is text, and the model directory has no tokenizer; give `prompt_ids`"
        )
    if given == ["messages"]:
        messages = with_context(parse_messages(record["messages"], place, "messages"), record, place)
        try:
            return render_for_sampling(tokenizer, messages)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    if isinstance(record["prompt"], list):  # TRL's conversational form
        raise InputError(f"{place}: `prompt` is text as it is, and here a list; give messages as `messages`")
    return encode_text(tokenizer, parse_text(record["prompt"], place, "prompt"))


def _ids(record: dict[str, Any], column: str, place: str, vocab_size: int) -> list[int]:
    if column not in record:
        raise InputError(
            f"{place}: has no column {column!r}, a list of token ids; the keys found are"
            f" {', '.join(map(repr, record)) or 'none'}"
        )
    ids = record[column]
    if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
        raise InputError(
            f"{place}, column {column!r}: must be a list of token ids with at least one, and is"
            f" {str(ids)[:60]}"
        )
    if not all(0 <= i < vocab_size for i in ids):
        raise InputError(f"{place}, column {column!r}: holds a token id outside 0..{vocab_size - 1}")
    return ids


def _completion_fields(completion: Completion) -> dict[str, Any]:
    return {
        "completion": completion.text,
        "completion_ids": completion.completion_ids,
        "logprobs": completion.sampler_logprobs,
        "stop_reason": str(completion.stop_reason),
    }


def _score_batch(rows: Sequence[Sequence[int]], B: int) -> SFTBatch:
    T = length_bucket(max(map(len, rows)))
    tokens, segment_ids = np.zeros((1, B, T), np.int32), np.zeros((1, B, T), np.int32)
    for b, row in enumerate(rows):
        tokens[0, b, : len(row)] = row
        segment_ids[0, b, : len(row)] = 1
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    return SFTBatch(np.int32(1), tokens, positions, segment_ids, segment_ids > 0)
