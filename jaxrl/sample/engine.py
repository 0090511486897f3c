"""Sampling as the rest of the project sees it: requests in, completions out as they end. Knows token ids,
owns no weights: of those it is given it keeps the form that decoding reads (`sample/resident.py`), until
others are given or it is asked to let go.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.file import make_section
from jaxrl.config.shared import SampleSection
from jaxrl.device.memory import free_memory
from jaxrl.device.mesh import num_row_shards
from jaxrl.errors import InputError
from jaxrl.model.decoding import decode_weights
from jaxrl.model.policy import Policy
from jaxrl.sample.buckets import next_power_of_two
from jaxrl.sample.decode import Decoder
from jaxrl.sample.resident import Resident
from jaxrl.sample.rows import Request, Sampled
from jaxrl.sample.session import Session
from jaxrl.sample.sets import set_bytes
from jaxrl.types import Tree

MOST_ROWS = 1024  # decoded together where neither `slots` nor memory asks for fewer
CACHE_SHARE = 0.45  # of the memory that is free at first; the rest is for rows that move, prefill and updates


class Engine:
    """Draws completions with given weights. Runs with the same arrays share what decoding makes of them.

    Args:
      decode_text: turns ids into text, for stop texts and for the result.
      usual_prompts, usual_samples: a smaller call is padded up to so many prompts with so many samples each,
        and runs the program of the usual one.
      records: what is drawn will be learnt from, see `Completion`.

    times: seconds of the last run: `prefill_s` (first tokens included), `decode_s`, and `idle_s`, in which
      the device waited for the host. counts: what it did, see `Session`.
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
        records: bool = False,
    ):
        self.policy, self.sample, self.eos_ids, self.decode_text, self.mesh = (
            policy,
            sample,
            tuple(eos_ids),
            decode_text,
            mesh,
        )
        self.shards = num_row_shards(mesh)
        most = sample.slots or MOST_ROWS
        self.fewest_rows = min(most, next_power_of_two(usual_prompts * usual_samples))
        self.fewest_prompts = next_power_of_two(min(usual_prompts, -(-most // usual_samples)))
        self.decoder = Decoder(policy, mesh, sample.kv_dtype == "int8", records)
        self.resident = Resident(
            partial(
                decode_weights, policy, mesh=mesh, merge=sample.merge_lora, int8=sample.weight_dtype == "int8"
            )
        )
        self.times: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self._not_taken: list[dict[str, float]] = []
        self._cache_bytes: float | None = None

    def run(
        self, trainable: Tree, frozen: Tree, requests: Sequence[Request], key: Array
    ) -> Iterator[Sampled]:
        """Yield every completion of every request as its row ends.

        A completion depends on the weights, its prompt, and (key, uid, index): not on the other requests, the
        number of slots, windows or devices.

        Raises:
          InputError: a prompt that cannot be completed (see `check`); memory that does not hold one row, or
            runs out.
        """
        session = self.session(trainable, frozen, key)
        for request in requests:
            session.add(request)
        yield from session.run()

    def session(self, trainable: Tree, frozen: Tree, key: Array) -> Session:
        """A run that requests can be added to while it goes on: turns of a conversation, for example."""
        session = Session(self, trainable, frozen, key)
        self.times, self.counts = session.times, session.counts
        self._not_taken.append(session.times)
        return session

    def take_times(self) -> dict[str, float]:
        """The times of all runs since the last call, as metrics."""
        total = {
            f"time/{name}": sum(times[name] for times in self._not_taken)
            for name in ("prefill_s", "decode_s", "idle_s")
        }
        self._not_taken = []
        return total

    def release(self) -> None:
        """Let go of the weights in the form of decoding, before work that needs the memory, as updates do.
        They are made by the first run with some arrays, and kept for the next ones with the same.
        """
        self.resident.release()

    def capacity(self, size: int) -> int:
        """How many rows of `size` cache positions are decoded together at most, over all devices.

        A row takes its keys and values, 2 * L * K * H numbers per position (and a scale for every H of them
        in int8), three float32 rows of logits, and of what is recorded of two windows the ids that filters
        left out, as bits. Heads and logits are cut over `tensor`.

        Raises:
          InputError: if not one row fits on each device.
        """
        c, tensor = self.policy.config, self.mesh.shape["tensor"]
        heads = c.num_kv_heads // tensor if c.num_kv_heads % tensor == 0 else c.num_kv_heads
        per_head = (
            c.head_dim + 4
            if self.sample.kv_dtype == "int8"
            else c.head_dim * (2 if self.policy.dtype == "bfloat16" else 4)
        )
        recorded = (
            2 * self.sample.window * set_bytes(self.sample, c.vocab_size) if self.decoder.records else 0
        )
        row_bytes = 2 * c.num_layers * heads * per_head * size + 12 * c.vocab_size // tensor + recorded
        per_device = int(self._budget() // row_bytes)
        if per_device == 0:
            raise InputError(
                f"a row of {size} tokens needs {row_bytes / 2**30:.3g} GiB of cache, and"
                f" {self._budget() / 2**30:.3g} GiB per device are there for all; raise sample.kv_gib, or"
                " lower sample.max_new_tokens or the length of the prompts"
            )
        most = max(1, (self.sample.slots or MOST_ROWS) // self.shards)
        return self.shards * min(most, per_device)

    def _budget(self) -> float:
        """Bytes per device that the caches may take: as configured, or a share of what is free now."""
        if self.sample.kv_gib is not None:
            return self.sample.kv_gib * 2**30
        if self._cache_bytes is None:
            c, itemsize = self.policy.config, 2 if self.policy.dtype == "bfloat16" else 4
            # the weights in the form of decoding; embedding and head are read where they lie, if whole
            copied = c.num_layers * sum(d_in * d_out for d_in, d_out in c.linear_sizes.values())
            if self.mesh.shape["fsdp"] > 1:
                copied += c.vocab_size * c.d_model * (1 if c.tie_embeddings else 2)
            copy = copied * itemsize / self.mesh.shape["tensor"]
            self._cache_bytes = max(0.0, CACHE_SHARE * (free_memory(self.mesh) - copy))
        return self._cache_bytes

    def check(self, name: str, request: Request) -> SampleSection:
        """How the samples of a request are drawn. `name` is what errors call its prompt.

        Raises:
          InputError: a prompt without tokens, with more than `max_prompt_tokens`, with unknown ones, or with
            no room behind it; settings of its own that no config may have; numbers that are none of a sample.
        """
        first, after = request.first_index, request.first_index + request.num_samples
        if not (0 <= request.uid < 2**32 and 0 <= first < after <= 2**32):
            raise InputError(
                f"{name}: {request.num_samples} samples of uid {request.uid} from index {first}; "
                "give at least 1, and a uid and indices of 32 bits"
            )
        sample = (
            self.sample
            if request.sample is None
            else make_section(SampleSection, name, **request.sample.model_dump())
        )
        config, length = self.policy.config, len(request.prompt_ids)
        check_stop_ids(name, sample, self.policy.num_tokens or config.vocab_size)
        check_prompt_length(name, length, self.sample.max_prompt_tokens)
        if length + sample.max_new_tokens > config.max_positions:
            raise InputError(
                f"{name} has {length} tokens and {sample.max_new_tokens} are to be added, more than the "
                f"model's {config.max_positions} positions; shorten the prompt or lower max_new_tokens"
            )
        if not all(
            isinstance(i, (int, np.integer)) and 0 <= i < config.vocab_size for i in request.prompt_ids
        ):
            raise InputError(
                f"{name} holds a token id outside 0..{config.vocab_size - 1}, or something that is none; was"
                " it made by another tokenizer?"
            )
        return sample


def check_prompt_length(name: str, length: int, limit: int) -> None:
    """InputError for a prompt without tokens or with more than the limit; prompts are never cut."""
    if length == 0:
        raise InputError(f"{name} has no tokens; give at least one")
    if length > limit:
        raise InputError(
            f"{name} has {length} tokens and sample.max_prompt_tokens is {limit}; raise it or shorten the"
            " prompt"
        )


def check_stop_ids(name: str, sample: SampleSection, num_tokens: int) -> None:
    """InputError for a stop id that no token has: it stops nothing. num_tokens: ids that may be drawn."""
    if unknown := [i for i in sample.stop_ids if i >= num_tokens]:
        raise InputError(
            f"{name}: sample.stop_ids {unknown} are outside the model's vocabulary, 0..{num_tokens - 1}; take"
            " the ids from its tokenizer"
        )
