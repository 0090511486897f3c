"""The host's side of sampling: which rows are decoded together, and when a row has ended. Knows token ids, owns no weights."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxrl.config import SampleSection
from jaxrl.errors import InputError
from jaxrl.model.policy import Policy
from jaxrl.sample.decode import Decoder, Emitted, next_power_of_two
from jaxrl.sharding import num_row_shards, replicated, rows_sharding
from jaxrl.types import Completion, StopReason

Tree = dict


@dataclass(frozen=True)
class Request:
    """num_samples completions of one prompt. Sample i is drawn from (the run's key, uid, first_index + i) and from nothing else."""

    prompt_ids: list[int]
    uid: int
    num_samples: int = 1
    first_index: int = 0


@dataclass(frozen=True)
class Sampled:
    """One finished completion and where it belongs."""

    request: int
    index: int
    completion: Completion


@dataclass
class _Row:
    """A row of the decode batch while it runs."""

    request: int
    index: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None
    text: str | None = None


class Engine:
    """Draws completions with given weights.

    Args:
      decode_text: turns ids into text, for stop strings and for the result.
      usual_prompts, usual_samples: a smaller call is padded up to so many prompts with so many samples each, and runs the
        program of the usual one.
    """

    def __init__(
        self,
        policy: Policy,
        sample: SampleSection,
        eos_ids: Sequence[int],
        decode_text: Callable[[list[int]], str],
        mesh: Mesh,
        usual_prompts: int = 1,
        usual_samples: int = 1,
    ):
        self.fewest_rows = min(sample.slots, next_power_of_two(usual_prompts * usual_samples))
        self.fewest_prompts = next_power_of_two(min(usual_prompts, -(-sample.slots // usual_samples)))
        self.sample = sample
        self.mesh = mesh
        self.decode_text = decode_text
        self.decoder = Decoder(policy, sample, tuple(eos_ids), mesh)

    def run(self, trainable: Tree, frozen: Tree, requests: Sequence[Request], key: Array) -> Iterator[Sampled]:
        """Yield every completion of every request as its row ends; completions of one batch come together.

        Raises:
          InputError: if a prompt is empty or longer than `sample.max_prompt_tokens`.
        """
        for number, request in enumerate(requests):
            self._check_prompt(number, request)
        rows = [_Row(number, i) for number, request in enumerate(requests) for i in range(request.num_samples)]
        for first in range(0, len(rows), self.sample.slots):
            yield from self._run_batch(trainable, frozen, requests, rows[first : first + self.sample.slots], key)

    def _run_batch(self, trainable, frozen, requests, rows: list[_Row], key: Array) -> Iterator[Sampled]:
        state, emitted = self.decoder.start(trainable, frozen, *self._lay_out(requests, rows, key))
        yield from self._take_in(emitted, requests, rows)
        for _ in range(self.decoder.num_windows):
            if all(row.stop_reason for row in rows):
                return
            state, emitted = self.decoder.window(trainable, frozen, state)
            yield from self._take_in(emitted, requests, rows)

    def _lay_out(self, requests: Sequence[Request], rows: list[_Row], key: Array) -> tuple[Array, ...]:
        """The arrays that `Decoder.start` takes, their sizes rounded up so that few programs are compiled."""
        numbers = sorted({row.request for row in rows})
        P = max(self.fewest_prompts, next_power_of_two(len(numbers)))
        T = length_bucket(max(len(requests[n].prompt_ids) for n in numbers))
        shards = num_row_shards(self.mesh)
        B = -(-max(self.fewest_rows, min(self.sample.slots, next_power_of_two(len(rows)))) // shards) * shards
        prompts, lengths = np.zeros((P, T), np.int32), np.ones(P, np.int32)
        for place, n in enumerate(numbers):
            ids = requests[n].prompt_ids
            prompts[place, : len(ids)] = ids
            lengths[place] = len(ids)
        sources, uids, indices = (np.zeros(B, np.int32), np.zeros(B, np.uint32), np.zeros(B, np.uint32))
        for b, row in enumerate(rows):
            sources[b] = numbers.index(row.request)
            request = requests[row.request]
            uids[b], indices[b] = request.uid, request.first_index + row.index
        is_done = np.arange(B) >= len(rows)
        by_row = rows_sharding(self.mesh)
        keys = _row_keys(key, jnp.asarray(uids), jnp.asarray(indices))
        whole = jax.device_put((prompts, lengths), replicated(self.mesh))
        return *whole, *jax.device_put((sources, keys, is_done), by_row)

    def _take_in(self, emitted: Emitted, requests: Sequence[Request], rows: list[_Row]) -> Iterator[Sampled]:
        """Append what the rows emitted, and yield those that ended with it."""
        tokens, logprobs, is_live = jax.device_get((emitted.tokens, emitted.logprobs, emitted.is_live))
        for b, row in enumerate(rows):
            if row.stop_reason:
                continue
            before = len(row.ids)
            live = int(is_live[:, b].sum())  # a row's live steps are the first ones
            row.ids += tokens[:live, b].tolist()
            row.logprobs += logprobs[:live, b].tolist()
            self._find_end(row, before)
            if row.stop_reason:
                yield Sampled(row.request, row.index, self._completion(requests[row.request], row))

    def _find_end(self, row: _Row, before: int) -> None:
        """Set the row's stop reason if it has one; a stop string cuts what was sampled after it."""
        if self.sample.stop and self._find_stop_string(row, before):
            return
        if row.ids[-1] in self.decoder.eos_ids:
            row.stop_reason = StopReason.EOS
        elif len(row.ids) >= self.sample.max_new_tokens:
            row.stop_reason = StopReason.MAX_TOKENS

    def _find_stop_string(self, row: _Row, before: int) -> bool:
        if not any(stop in self.decode_text(row.ids) for stop in self.sample.stop):
            return False
        for count in range(before + 1, len(row.ids) + 1):  # the shortest prefix that holds a stop string
            text = self.decode_text(row.ids[:count])
            places = [place for stop in self.sample.stop if (place := text.find(stop)) >= 0]
            if places:
                del row.ids[count:], row.logprobs[count:]
                row.stop_reason, row.text = StopReason.STOP_STRING, text[: min(places)]
                return True
        return False

    def _completion(self, request: Request, row: _Row) -> Completion:
        if row.text is None:
            spoken = row.ids[:-1] if row.stop_reason is StopReason.EOS else row.ids
            row.text = self.decode_text(spoken)
        return Completion(request.prompt_ids, row.ids, row.logprobs, row.stop_reason, row.text)

    def _check_prompt(self, number: int, request: Request) -> None:
        length = len(request.prompt_ids)
        check_prompt_length(number, length, self.sample.max_prompt_tokens)
        config = self.decoder.policy.config
        if length + self.sample.max_new_tokens > config.max_positions:
            raise InputError(
                f"prompt {number} has {length} tokens and {self.sample.max_new_tokens} are to be added, more than the "
                f"model's {config.max_positions} positions; shorten the prompt or lower max_new_tokens"
            )
        vocab_size = config.vocab_size
        if not all(0 <= i < vocab_size for i in request.prompt_ids):
            raise InputError(f"prompt {number} holds a token id outside 0..{vocab_size - 1}; was it made by another tokenizer?")


def check_prompt_length(number: int, length: int, limit: int) -> None:
    """InputError for a prompt without tokens or with more than the limit; prompts are never cut."""
    if length == 0:
        raise InputError(f"prompt {number} has no tokens; give at least one")
    if length > limit:
        raise InputError(f"prompt {number} has {length} tokens and sample.max_prompt_tokens is {limit}; raise it or shorten the prompt")


@jax.jit
def _row_keys(key: Array, uids: Array, indices: Array) -> Array:
    """[B] keys: fold_in(fold_in(key, uid), index)."""
    return jax.vmap(lambda uid, index: jax.random.fold_in(jax.random.fold_in(key, uid), index))(uids, indices)


def length_bucket(n: int) -> int:
    """n rounded up to one of four lengths per doubling, and at least to a multiple of 16."""
    step = max(16, (1 << int(math.log2(n))) // 4)
    return -(-n // step) * step
