"""`jaxrl sample`: completions of prompts. One JSONL in, one out."""

import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrl.commands.model import read_lines, token_ids, tokenizer_at, with_tokens_of
from jaxrl.config.shared import SampleSection
from jaxrl.data.chat import encode_text, render_for_sampling
from jaxrl.data.records import parse_messages, parse_text, with_context
from jaxrl.data.tokenizer import eos_ids
from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, write_rows
from jaxrl.policy.folder import model_folder
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.types import Completion

# Keys of the requests that inference servers take. A line keeps whatever else it holds; of these, leaving
# them out would be a lie.
OF_A_REQUEST = tuple(
    "documents functions function_call tool_choice chat_template chat_template_kwargs enable_thinking "
    "add_generation_prompt continue_final_message response_format temperature top_p top_k min_p "
    "max_tokens max_new_tokens max_completion_tokens stop".split()
)


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
    engine = Engine(with_tokens_of(tokenizer, weights.policy), sample, ends, decode, mesh)
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
        return token_ids(record, "prompt_ids", place, vocab_size)
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


def _completion_fields(completion: Completion) -> dict[str, Any]:
    return {
        "completion": completion.text,
        "completion_ids": completion.completion_ids,
        "logprobs": completion.sampler_logprobs,
        "stop_reason": str(completion.stop_reason),
    }
