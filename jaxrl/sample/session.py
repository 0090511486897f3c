"""One call of the sampler while it lasts: which rows wait, which are decoded together, and when the batch is laid out anew.

Between two windows the host sees which rows have ended. If it pays, rows that have ended leave, waiting ones take their
places, and the caches get as long as the longest row needs. While a window runs, the tokens of the one before are read and
handed on, so that the device waits for nothing but one look at `is_done`.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import jax
from jax import Array

from jaxrl.sample.batch import Batch, Filled, feed, prefill
from jaxrl.sample.buckets import length_bucket, next_power_of_two
from jaxrl.sample.decode import Emitted
from jaxrl.sample.rows import Request, Row, Sampled

Tree = dict
PREFILL_TOKENS = 4096  # of one prefill program, padding included; more costs memory and gains no speed
REFILL = 4  # waiting rows come in when a quarter of the places is free: each time costs a copy of the caches


class Session:
    """Made by `Engine.session`. `Engine.run` is what callers need whose requests are all there at the start.

    times: seconds, as `Engine` tells them. counts: `prefilled` prompts, rows `continued` from their caches, decode `steps`,
    and `row_steps`, their sum over the rows of the arrays.
    """

    def __init__(self, engine, trainable: Tree, frozen: Tree, key: Array):
        self.engine, self.trainable, self.frozen = engine, trainable, frozen
        self.decoder, self.weights = engine.decoder, None
        self.batch = Batch(engine.mesh, engine.shards, key)
        self.waiting: deque[Row] = deque()
        self.held: dict[tuple[int, int], Row] = {}  # rows that have ended and keep their caches, by identity
        self.unread: deque[tuple[Emitted, list[Row | None]]] = deque()
        self.num_requests = self.longest = 0
        self.times = {"prefill_s": 0.0, "decode_s": 0.0, "idle_s": 0.0}
        self.counts = {"prefilled": 0, "continued": 0, "steps": 0, "row_steps": 0}
        self._free_since = self._busy_since = 0.0  # the device

    def add(self, request: Request) -> int:
        """Let the samples of a request wait for their turn; returns the request's number, by which results name it.

        Raises:
          InputError: a prompt that cannot be completed, or memory that does not hold one row.
        """
        number, self.num_requests = self.num_requests, self.num_requests + 1
        sample = self.engine.check(number, request)
        self.longest = max(self.longest, len(request.prompt_ids) + sample.max_new_tokens)
        self.capacity()
        if sample.top_k or sample.top_p < 1 or sample.min_p:
            self.decoder = replace(self.decoder, filters=True)
        stop_ids = (*self.engine.eos_ids, *sample.stop_ids)
        for i in range(request.num_samples):
            identity = (request.uid, request.first_index + i)
            self.waiting.append(Row(number, i, list(request.prompt_ids), identity, sample, stop_ids, request.keep))
        return number

    def drop(self, uid: int, index: int) -> None:
        """Let go of a row that was kept."""
        self.held.pop((uid, index), None)

    def run(self) -> Iterator[Sampled]:
        """Yield every completion as its row ends, until nothing waits; what is added meanwhile is completed too."""
        self._free_since = time.perf_counter()
        self.weights = self.engine.make_weights(self.trainable, self.frozen)
        while True:
            self._arrange()
            steps = self._steps([row for row in self.batch.slots if row is not None and row.is_live])
            if steps:
                self._decode(steps)
            yield from self._read(keep_last=steps > 0)
            if steps:
                self.batch.wait()
                self._free("decode_s")
            elif not self.waiting and not self.unread:
                return

    # ---------------------------------------------------------------------------------------------------- while it runs

    def _steps(self, live: list[Row]) -> int:
        """Steps of the next window: what is configured, or a smaller power of two if no row can use as many."""
        if not live:
            return 0
        return min(self.engine.sample.window, next_power_of_two(max(row.left(self.batch.cursor) for row in live)))

    def _decode(self, steps: int) -> None:
        self._busy()
        emitted = self.batch.window(self.decoder, self.weights, steps)
        self.counts["steps"] += steps
        self.counts["row_steps"] += steps * len(self.batch.slots)
        self.unread.append((emitted, self.batch.slots))

    def _read(self, keep_last: bool) -> Iterator[Sampled]:
        """Take in what has been drawn, but for the window that is running, and yield the rows that ended with it."""
        while len(self.unread) > keep_last:
            emitted, rows = self.unread.popleft()
            tokens, logprobs, is_live = jax.device_get((emitted.tokens, emitted.logprobs, emitted.is_live))
            counts = is_live.sum(axis=0)
            for b, row in enumerate(rows):
                if row is None or row.stop_reason or not counts[b]:
                    continue
                row.take(tokens[: counts[b], b].tolist(), logprobs[: counts[b], b].tolist(), self.engine.decode_text)
                if row.stop_reason:
                    row.end = row.start + len(row.cached)
                    if row.keep:
                        self.held[row.identity] = row
                    yield Sampled(row.request, row.index, row.completion(self.engine.decode_text))

    def _busy(self) -> None:
        if self._busy_since <= self._free_since:
            self._busy_since = time.perf_counter()
            self.times["idle_s"] += self._busy_since - self._free_since

    def _free(self, what: str) -> None:
        self._free_since = time.perf_counter()
        self.times[what] += self._free_since - self._busy_since

    # ---------------------------------------------------------------------------------------------------- between windows

    def _arrange(self) -> None:
        """Lay the batch out for the next window: fill free places, shrink or grow the arrays, or leave all as it is."""
        batch, sample, shards = self.batch, self.engine.sample, self.engine.shards
        fresh = self._admit()
        going_on = [(row, before) for row in fresh if (before := self._continued_by(row)) is not None]
        for row in fresh:
            self.held.pop(row.identity, None)  # it goes on from there, or begins again
        spread = [[row for row in batch.slots[i : i + batch.width] if self._stays(row)] for i in range(0, len(batch.slots), batch.width or 1)]
        spread = spread or [[] for _ in range(shards)]
        is_empty = not any(spread)
        for row in fresh:
            min(spread, key=len).append(row)  # to the emptiest shard
        rows = [row for shard in spread for row in shard]
        steps = self._steps([row for row in rows if row.is_live])
        if not steps:
            return

        most = max(map(len, spread))
        width = max(most, min(next_power_of_two(most), self.capacity() // shards))
        if is_empty:
            width = max(width, self.engine.fewest_rows // shards)
        longest = max(row.length(batch.cursor) for row in rows)
        size = length_bucket(longest + steps)
        if not sample.compact:
            width, size = max(width, batch.width), max(size, length_bucket(self.longest + sample.window))
        if not fresh and batch.cursor + steps <= batch.size and not (sample.compact and 2 * width <= batch.width):
            return
        self._busy()
        filled = self._fill(fresh, going_on)
        batch.lay_out(spread, filled, width, cursor=longest, size=size)
        if fresh:
            self.unread += [(emitted, batch.slots) for emitted in batch.begin(self.decoder, filled)]
            self._free("prefill_s")

    def _stays(self, row: Row | None) -> bool:
        """Whether a row keeps its place: it goes on, or is kept for later, or will be when its end has been read."""
        return row is not None and (row.is_live or self.held.get(row.identity) is row or (row.keep and row.stop_reason is None))

    def capacity(self) -> int:
        """Rows that may be decoded together, if all were as long as the longest."""
        return self.engine.capacity(length_bucket(self.longest + self.engine.sample.window))

    def _admit(self) -> list[Row]:
        """The waiting rows that get in now: as many as fit, once enough places are free for a prefill to be worth it."""
        if not self.waiting:
            return []
        capacity = self.capacity()
        staying = [row for row in self.batch.slots if self._stays(row)]
        free = capacity - len(staying) + sum(self._continued_by(row) is not None for row in self.waiting)
        if any(row.is_live for row in staying):
            if free < min(len(self.waiting), max(1, capacity // REFILL)):
                return []
        elif free <= 0:
            self.held.clear()  # rows kept for later give way to those that are wanted now
            free = capacity
        return [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]

    def _continued_by(self, row: Row) -> Row | None:
        """The kept row that this one goes on from, if its prompt begins with all tokens of that one."""
        before = self.held.get(row.identity)
        if before is None:
            return None
        tokens = before.prompt_ids + before.ids
        return before if row.prompt_ids[: len(tokens)] == tokens else None

    def _fill(self, fresh: list[Row], going_on: list[tuple[Row, Row]]) -> list[Filled]:
        """Compute keys and values of rows that come in: what goes on from a cache at once, the others prompt by prompt."""
        filled = [feed(self.decoder, self.weights, self.batch, going_on)] if going_on else []
        continued = {id(row) for row, _ in going_on}
        by_prompt: dict[tuple[int, ...], list[Row]] = {}
        for row in fresh:
            if id(row) not in continued:
                by_prompt.setdefault(tuple(row.prompt_ids), []).append(row)
        self.counts["continued"] += len(going_on)
        self.counts["prefilled"] += len(by_prompt)
        prompts = sorted(by_prompt.values(), key=lambda rows: len(rows[0].prompt_ids))  # like lengths together
        if prompts:
            most = max(1, PREFILL_TOKENS // length_bucket(len(prompts[-1][0].prompt_ids)))
            P = min(1 << (most.bit_length() - 1), max(next_power_of_two(len(prompts)), self.engine.fewest_prompts))
            filled += [prefill(self.decoder, self.trainable, self.frozen, prompts[i : i + P], P) for i in range(0, len(prompts), P)]
        return filled
