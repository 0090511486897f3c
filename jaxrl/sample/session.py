"""One call of the sampler while it lasts: which rows wait, which are decoded together, and when the batch is
laid out anew.

Between two windows the host sees which rows have ended. If it pays, rows that have ended leave, waiting ones
take their places, and the caches get as long as the longest row needs. While a window runs, the tokens of the
one before are read and handed on, so that the device waits for nothing but one look at `is_done`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jax import Array

from jaxrl.device.arrays import fetch
from jaxrl.device.memory import explain_out_of_memory
from jaxrl.errors import InputError
from jaxrl.model.decoding import DecodeWeights
from jaxrl.sample.buckets import length_bucket, next_power_of_two
from jaxrl.sample.decode import Emitted
from jaxrl.sample.rows import Request, Row, Sampled
from jaxrl.sample.sets import NOTHING, to_text
from jaxrl.sample.slots import Batch, Filled, feed, prefill
from jaxrl.types import Tree

if TYPE_CHECKING:
    from jaxrl.sample.engine import Engine

PREFILL_TOKENS = 4096  # of one prefill program, padding included; more costs memory and gains no speed
FEED_ROWS = 16  # that go on in one program: as worlds answer there is any number, and each would compile one
REFILL = 4  # waiting rows come in when a quarter of the places is free: each time costs a copy of the caches


class Session:
    """Made by `Engine.session`. `Engine.run` is what callers need whose requests are all there at the start.

    times: seconds, as `Engine` tells them. counts: `prefilled` prompts, rows `continued` from their caches,
      tokens `reused` in these, decode `steps`, and `row_steps`, their sum over the rows of the arrays.
    """

    def __init__(self, engine: "Engine", trainable: Tree, frozen: Tree, key: Array):
        self.engine, self.trainable, self.frozen = engine, trainable, frozen
        self.decoder = engine.decoder
        self.weights: DecodeWeights | None = None  # while it runs
        self.batch = Batch(engine.mesh, engine.shards, key)
        self.waiting: deque[Row] = deque()
        self.held: dict[tuple[int, int], Row] = {}  # rows that have ended and keep their caches, by identity
        self.unread: deque[tuple[Emitted, list[Row | None]]] = deque()
        self.ended: deque[Sampled] = deque()
        self.num_requests = self.longest = 0
        self.times = {"prefill_s": 0.0, "decode_s": 0.0, "idle_s": 0.0}
        self.counts = {"prefilled": 0, "continued": 0, "reused": 0, "steps": 0, "row_steps": 0}
        self._free_since = self._busy_since = 0.0  # the device

    def add(self, request: Request) -> int:
        """Let the samples of a request wait for their turn; returns the request's number, by which results
        name it.

        Raises:
          InputError: a prompt that cannot be completed, or memory that does not hold one row.
        """
        number = self.num_requests
        sample = self.engine.check(f"prompt {number}", request)
        longest = max(self.longest, len(request.prompt_ids) + sample.max_new_tokens)
        self.capacity(longest)  # a request that is refused leaves no trace
        self.num_requests, self.longest = number + 1, longest
        if sample.is_filtered:
            self.decoder = replace(self.decoder, filters=True)
        stop_ids = (*self.engine.eos_ids, *sample.stop_ids)
        for i in range(request.num_samples):
            identity = (request.uid, request.first_index + i)
            self.waiting.append(
                Row(number, i, list(request.prompt_ids), identity, sample, stop_ids, request.keep)
            )
        return number

    def drop(self, uid: int, index: int) -> None:
        """Let go of a row that is kept, or would be when it has ended."""
        self.held.pop((uid, index), None)
        for row in (*self.waiting, *self.batch.slots):
            if row is not None and row.identity == (uid, index):
                row.keep = False

    def run(self, between: Callable[[], object] = lambda: None) -> Iterator[Sampled]:
        """Yield every completion as its row ends, until nothing waits; what is added meanwhile is completed
        too.

        A caller that has left early may call it again: nothing is lost.

        Args:
          between: called between two windows; it may add requests.
        Raises:
          InputError: memory that runs out; logits that are not finite.
        """
        with explain_out_of_memory("sampling", self._smaller):
            self._free_since = time.perf_counter()
            self._device_busy()
            self.weights = self.engine.resident.get(self.trainable, self.frozen)
            try:
                self.batch.wait()
                while True:
                    between()
                    self._arrange()
                    steps = self._steps([row for row in self.batch.slots if row is not None and row.is_live])
                    if steps:
                        self._decode(steps)
                    self._read(keep_last=steps > 0)
                    while self.ended:
                        yield self.ended.popleft()
                        if self.batch.is_ready():
                            self._device_free("decode_s")  # while the caller was busy
                    if steps:
                        self.batch.wait()
                        self._device_free("decode_s")
                    elif not self.waiting and not self.unread:
                        break
            finally:  # left early, too: the engine alone decides how long they stay
                self.weights = None

    def _smaller(self) -> str:
        rows = len(self.batch.slots)
        if rows > self.engine.shards:
            return f"{rows} rows were decoded together: set sample.slots to {rows // 2}"
        return "lower sample.max_new_tokens or the length of the prompts, or hold the weights in bfloat16"

    # ------------------------------------------------------------------------------------------ while it runs

    def _steps(self, live: list[Row]) -> int:
        """Steps of the next window: what is configured, or a smaller power of two if no row can use as
        many.
        """
        if not live:
            return 0
        return min(
            self.engine.sample.window, next_power_of_two(max(row.left(self.batch.cursor) for row in live))
        )

    def _decode(self, steps: int) -> None:
        assert self.weights is not None, "the session does not run"
        self._device_busy()
        emitted = self.batch.window(self.decoder, self.weights, steps)
        self.counts["steps"] += steps
        self.counts["row_steps"] += steps * len(self.batch.slots)
        self.unread.append((emitted, self.batch.slots))

    def _read(self, keep_last: bool) -> None:
        """Take in what has been drawn, but for the window that is running; rows that ended with it are in
        `ended` then.
        """
        while len(self.unread) > keep_last:
            emitted, rows = self.unread.popleft()
            tokens, logprobs, is_live, excluded = fetch(
                (emitted.tokens, emitted.logprobs, emitted.is_live, emitted.excluded)
            )
            if not np.isfinite(logprobs[is_live]).all():
                raise InputError(
                    "the policy's logits are not finite, so nothing can be sampled; look at the updates"
                    " before (loss, grad_norm)"
                )
            counts = is_live.sum(axis=0)
            for b, row in enumerate(rows):
                if row is None or row.stop_reason or not counts[b]:
                    continue
                sets = (
                    [NOTHING] * counts[b]
                    if excluded is None
                    else [to_text(bits) for bits in excluded[: counts[b], b]]
                )
                row.take(
                    tokens[: counts[b], b].tolist(),
                    logprobs[: counts[b], b].tolist(),
                    sets,
                    self.engine.decode_text,
                )
                if row.stop_reason:
                    row.end = row.start + len(row.cached)
                    if row.keep:
                        self.held[row.identity] = row
                    self.ended.append(
                        Sampled(row.request, row.index, row.completion(self.engine.decode_text))
                    )

    def _device_busy(self) -> None:
        if self._busy_since <= self._free_since:
            self._busy_since = time.perf_counter()
            self.times["idle_s"] += self._busy_since - self._free_since

    def _device_free(self, what: str) -> None:
        if self._busy_since > self._free_since:
            self._free_since = time.perf_counter()
            self.times[what] += self._free_since - self._busy_since

    # ---------------------------------------------------------------------------------------- between windows

    def _arrange(self) -> None:
        """Lay the batch out for the next window: fill free places, shrink or grow the arrays, or leave all as
        it is.
        """
        batch, sample, shards = self.batch, self.engine.sample, self.engine.shards
        fresh, going_on = self._admit()
        spread = [
            [row for row in batch.slots[i : i + batch.width] if row is not None and self._stays(row)]
            for i in range(0, len(batch.slots), batch.width or 1)
        ]
        spread = spread or [[] for _ in range(shards)]
        is_empty = not any(spread)
        for row in fresh:
            min(spread, key=len).append(row)  # to the emptiest shard
        rows = [row for shard in spread for row in shard]
        steps = self._steps([row for row in rows if row.is_live])
        if not steps:
            return

        most = max(map(len, spread))
        usual = self.engine.fewest_rows // shards if is_empty else 0
        width = max(most, min(max(next_power_of_two(most), usual), self.capacity(self.longest) // shards))
        longest = max(row.length(batch.cursor) for row in rows)
        size = length_bucket(longest + steps)
        if not sample.compact:
            width, size = max(width, batch.width), max(size, length_bucket(self.longest + sample.window))
        if (
            not fresh
            and batch.cursor + steps <= batch.size
            and not (sample.compact and 2 * width <= batch.width)
        ):
            return
        self._device_busy()
        filled = self._fill(fresh, going_on)
        batch.lay_out(spread, filled, width, cursor=longest, size=size)
        if fresh:
            self.unread += [(emitted, batch.slots) for emitted in batch.begin(self.decoder, filled)]
            self._device_free("prefill_s")

    def _stays(self, row: Row) -> bool:
        """Whether a row keeps its place: it goes on, or is kept for later, or will be when its end has been
        read.
        """
        return row.is_live or self.held.get(row.identity) is row or (row.keep and row.stop_reason is None)

    def capacity(self, longest: int) -> int:
        """Rows that may be decoded together, if all were as long as the longest."""
        return self.engine.capacity(length_bucket(longest + self.engine.sample.window))

    def _admit(self) -> tuple[list[Row], list[tuple[Row, Row]]]:
        """The waiting rows that get in now, and those of them that go on from a kept one, with that one.

        A row that goes on takes the place of the one before it, and overtakes. The others need free places;
        for these, rows that are kept and that nobody waits for give way, the oldest first. While rows are
        being decoded, others come in when enough of them can for a prefill to be worth it.
        """
        going_on: dict[tuple[int, int], tuple[Row, Row]] = {}
        others: deque[Row] = deque()
        for row in self.waiting:
            before = self._continued_by(row)
            if before is not None and row.identity not in going_on:
                going_on[row.identity] = (row, before)
            else:
                others.append(row)
        capacity = self.capacity(self.longest)
        staying = [row for row in self.batch.slots if row is not None and self._stays(row)]
        idle = [identity for identity in self.held if identity not in going_on]
        free = capacity - len(staying)
        count = max(0, min(len(others), free + len(idle)))
        enough = min(len(self.waiting), max(1, capacity // REFILL))
        if len(going_on) + count < (enough if any(row.is_live for row in staying) else 1):
            return [], []
        for identity in idle[: max(0, count - free)]:
            del self.held[identity]
        fresh = [row for row, _ in going_on.values()] + [others.popleft() for _ in range(count)]
        self.waiting = others
        for row in fresh:
            self.held.pop(row.identity, None)  # it goes on from there, or begins again
        return fresh, list(going_on.values())

    def _continued_by(self, row: Row) -> Row | None:
        """The kept row that this one goes on from, if its prompt begins with all tokens of that one."""
        before = self.held.get(row.identity)
        if before is None:
            return None
        tokens = before.prompt_ids + before.ids
        return before if row.prompt_ids[: len(tokens)] == tokens else None

    def _fill(self, fresh: list[Row], going_on: list[tuple[Row, Row]]) -> list[Filled]:
        """Compute keys and values of rows that come in: what goes on from a cache at once, the others prompt
        by prompt.
        """
        assert self.weights is not None, "the session does not run"
        longest = length_bucket(
            max([1, *(len(row.prompt_ids) - len(before.cached) for row, before in going_on)])
        )
        E = max(1, min(FEED_ROWS, PREFILL_TOKENS // longest))
        filled = [
            feed(self.decoder, self.weights, self.batch, going_on[i : i + E], E)
            for i in range(0, len(going_on), E)
        ]
        continued = {id(row) for row, _ in going_on}
        by_prompt: dict[tuple[int, ...], list[Row]] = {}
        for row in fresh:
            if id(row) not in continued:
                by_prompt.setdefault(tuple(row.prompt_ids), []).append(row)
        self.counts["continued"] += len(going_on)
        self.counts["reused"] += sum(len(before.cached) for _, before in going_on)
        self.counts["prefilled"] += len(by_prompt)
        # like lengths together
        prompts = sorted(by_prompt.values(), key=lambda rows: len(rows[0].prompt_ids))
        if prompts:
            most = max(1, PREFILL_TOKENS // length_bucket(len(prompts[-1][0].prompt_ids)))
            P = min(
                1 << (most.bit_length() - 1), max(next_power_of_two(len(prompts)), self.engine.fewest_prompts)
            )
            filled += [
                prefill(self.decoder, self.trainable, self.frozen, prompts[i : i + P], P)
                for i in range(0, len(prompts), P)
            ]
        return filled
