"""The rows that are decoded together, where each lies in the arrays, and what has just been prefilled.

The arrays' rows are spread over `shards` devices, `width` on each, and a row stays on its own: moving never
crosses devices. `slots[shard * width + n]` is the row at that place, None where there is only padding.
"""

from collections import deque
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxrl.device.arrays import everywhere, fetch, put
from jaxrl.device.mesh import num_row_shards, replicated, rows_sharding
from jaxrl.model.cache import KVCache, LayerCache, empty_layer, move_rows, put_rows
from jaxrl.model.decoding import DecodeWeights
from jaxrl.ops.sampling import LEAST_TEMPERATURE
from jaxrl.sample.buckets import length_bucket, next_power_of_two
from jaxrl.sample.decode import Decoder, DecodeState, Draw, Emitted
from jaxrl.sample.rows import Row
from jaxrl.types import Tree


@dataclass
class Filled:
    """Rows whose keys and values have just been computed, and every device has."""

    logits: Array  # [P, V], after each row's last token
    layers: deque[LayerCache]  # [P, K, T, H] and so on
    members: list[tuple[Row, int, int]]  # row, its place p, the position in T at which its tokens end


class Batch:
    """Owns the caches. `cursor` is where all rows write next, `size` the number of positions there are."""

    def __init__(self, mesh: Mesh, shards: int, key: Array):
        self.mesh, self.shards, self.key = mesh, shards, key
        self.slots: list[Row | None] = []
        self.cursor = self.size = 0
        self.cache: KVCache | None = None
        self.rows: DecodeState | None = None
        self.last_tokens = np.zeros(0, np.int32)

    @property
    def width(self) -> int:
        return len(self.slots) // self.shards

    def window(self, decoder: Decoder, weights: DecodeWeights, steps: int) -> Emitted:
        """Let the device start on so many steps for every row."""
        self.cache, self.rows, emitted = decoder.window(weights, self.cache, self.rows, steps)
        self.cursor += steps
        return everywhere(emitted)  # now: the next window is asked for before this one is read

    def wait(self) -> None:
        """Wait for the device, and see which rows have ended by what it can know: stop ids and budgets."""
        if self.rows is None:
            return
        is_done, self.last_tokens = fetch((self.rows.is_done, self.rows.last_tokens))
        for row, done in zip(self.slots, is_done, strict=True):
            if row is not None and done:
                row.is_done = True

    def is_ready(self) -> bool:
        """Whether the device has nothing to do any more."""
        if self.rows is None:
            return False
        return self.rows.is_done.is_ready()  # type: ignore[attr-defined]  # not in the type of arrays

    def lay_out(
        self, spread: list[list[Row]], filled: list[Filled], width: int, cursor: int, size: int
    ) -> None:
        """New arrays [shards * width, K, size, H], with each shard's rows of `spread` ending at `cursor`.

        Rows that have no slot yet come from `filled`, the others from where they lie now.
        """
        from_now = _Moves(self.shards, width, fill=0)
        from_filled = {
            id(row): (n, p, end) for n, piece in enumerate(filled) for row, p, end in piece.members
        }
        moves = [_Moves(self.shards, 0, fill=width) for _ in filled]
        slots: list[Row | None] = [None] * (self.shards * width)
        last_tokens, left, is_done = (
            np.zeros(len(slots), np.int32),
            np.zeros(len(slots), np.int32),
            np.ones(len(slots), bool),
        )
        old_width = self.width
        for shard, rows in enumerate(spread):
            for place, row in enumerate(rows):
                slot = shard * width + place
                if row.slot is None:
                    piece, p, end = from_filled[id(row)]
                    moves[piece].add(shard, p, cursor - end, place)
                    row.start, left[slot] = cursor - len(row.prompt_ids), row.left(cursor)
                else:
                    end = self.cursor if row.end is None else row.end
                    from_now.add(shard, row.slot % old_width, cursor - end, place)
                    last_tokens[slot] = self.last_tokens[row.slot]
                    row.start, row.end = row.start + cursor - end, None if row.end is None else cursor
                    left[slot] = row.left(cursor)
                slots[slot], row.slot, is_done[slot] = row, slot, not row.is_live
        layers = self._move(from_now, filled, moves, size)
        self.slots, self.cursor, self.size, self.last_tokens = slots, cursor, size, last_tokens
        by_row, whole = rows_sharding(self.mesh), replicated(self.mesh)
        starts = np.array([row.start if row else cursor for row in slots], np.int32)
        self.cache = KVCache(layers, put(starts, by_row), put(np.int32(cursor), whole))
        arrays = put((last_tokens, left, is_done), by_row)
        self.rows = DecodeState(arrays[0], arrays[1], arrays[2], self._draw())

    def begin(self, decoder: Decoder, filled: list[Filled]) -> list[Emitted]:
        """Draw the first tokens of rows that have come in."""
        lengths = np.array([self.cursor - row.start if row else 0 for row in self.slots], np.int32)
        drawn = []
        for piece in filled:
            source = np.full(len(self.slots), -1, np.int32)
            for row, p, _ in piece.members:
                source[row.slot] = p
            arrays = put((lengths, source), rows_sharding(self.mesh))
            self.rows, emitted = decoder.begin(self.rows, arrays[0], piece.logits, arrays[1])
            drawn.append(everywhere(emitted))
        self.wait()
        return drawn

    def _move(
        self, from_now: "_Moves", filled: list[Filled], moves: list["_Moves"], size: int
    ) -> tuple[LayerCache, ...]:
        """The layers one by one, each freed when it has been copied, so that no second cache is ever
        alive.
        """
        by_row, width = rows_sharding(self.mesh), from_now.width
        from_now_arrays = put(from_now.arrays(), by_row)[:2]
        moves_arrays = [put(move.arrays(), by_row) for move in moves]
        old = deque(self.cache.layers) if self.cache is not None and from_now.count else None
        self.cache = None
        layers = []
        while old or any(piece.layers for piece in filled):
            if old is None:
                layer = empty_layer(filled[0].layers[0], self.shards * width, size, by_row)
            else:
                layer = move_rows(old.popleft(), *from_now_arrays, size=size, shards=self.shards)
            for piece, arrays in zip(filled, moves_arrays):
                layer = put_rows(layer, piece.layers.popleft(), *arrays, shards=self.shards)
            layers.append(layer)
        return tuple(layers)

    def _draw(self) -> Draw:
        """How the rows are drawn, as arrays."""
        B, E = len(self.slots), next_power_of_two(max([1, *(len(row.stop_ids) for row in self.slots if row)]))
        uids, indices = np.zeros(B, np.uint32), np.zeros(B, np.uint32)
        temperature, top_p, min_p = (np.ones(B, np.float32) for _ in range(3))
        top_k, stop_ids = np.zeros(B, np.int32), np.full((B, E), -1, np.int32)
        for b, row in enumerate(self.slots):
            if row is not None:
                s = row.sample
                uids[b], indices[b] = row.identity
                # float32 rounds 1e-50 to 0: greedy
                temperature[b] = max(s.temperature, LEAST_TEMPERATURE) if s.temperature else 0.0
                top_k[b], top_p[b], min_p[b] = s.top_k, s.top_p, s.min_p
                stop_ids[b, : len(row.stop_ids)] = row.stop_ids
        arrays = put((uids, indices, temperature, top_k, top_p, min_p, stop_ids), rows_sharding(self.mesh))
        return Draw(_row_keys(self.key, *arrays[:2]), *arrays[2:])


class _Moves:
    """Which row goes to which place, shard by shard, as arrays of one length."""

    def __init__(self, shards: int, width: int, fill: int):
        self.width, self.fill, self.count = width, fill, 0
        self.of_shard: list[list[tuple[int, int, int]]] = [[] for _ in range(shards)]

    def add(self, shard: int, source: int, shift: int, place: int) -> None:
        self.of_shard[shard].append((source, shift, place))
        self.count += 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sources, shifts and places [shards, n], n being `width`, or the next power of two if that is 0."""
        n = self.width or next_power_of_two(max(map(len, self.of_shard)))
        padded = np.array(
            [moves + [(0, 0, self.fill)] * (n - len(moves)) for moves in self.of_shard], np.int32
        )
        return padded[..., 0], padded[..., 1], padded[..., 2]


@jax.jit
def _row_keys(key: Array, uids: Array, indices: Array) -> Array:
    """[B] keys: fold_in(fold_in(key, uid), index)."""
    return jax.vmap(lambda uid, index: jax.random.fold_in(jax.random.fold_in(key, uid), index))(uids, indices)


# ---------------------------------------------------------------------------------------------------- filling


def prefill(decoder: Decoder, trainable: Tree, frozen: Tree, prompts: list[list[Row]], P: int) -> Filled:
    """Run prompts, each for all rows that it belongs to, in arrays of P rows."""
    lists = [rows[0].prompt_ids for rows in prompts]
    tokens, lengths = np.zeros((P, length_bucket(max(map(len, lists)))), np.int32), np.ones(P, np.int32)
    for p, ids in enumerate(lists):
        tokens[p, : len(ids)], lengths[p] = ids, len(ids)
    sharding = (
        rows_sharding(decoder.mesh) if P % num_row_shards(decoder.mesh) == 0 else replicated(decoder.mesh)
    )
    logits, layers = decoder.prefill(trainable, frozen, *put((tokens, lengths), sharding))
    return Filled(
        logits, deque(layers), [(row, p, len(ids)) for p, ids in enumerate(lists) for row in prompts[p]]
    )


def feed(
    decoder: Decoder, weights: DecodeWeights, batch: Batch, going_on: list[tuple[Row, Row]], E: int
) -> Filled:
    """Let rows go on from the caches of those before them in the batch, in arrays of E rows: only new tokens
    are computed.
    """
    news = [row.prompt_ids[len(before.cached) :] for row, before in going_on]
    T = length_bucket(max(map(len, news)))
    end = max(T, *(len(row.prompt_ids) for row, _ in going_on))
    tokens, (rows, shift, start, num_new) = np.zeros((E, T), np.int32), np.zeros((4, E), np.int32)
    assert batch.cache is not None, "rows are kept, and no cache"
    for e, ((row, before), new) in enumerate(zip(going_on, news)):
        assert before.slot is not None and before.end is not None, "the row before has not ended"
        tokens[e, T - len(new) :], num_new[e] = new, len(new)
        rows[e], shift[e], start[e] = before.slot, end - len(new) - before.end, end - len(row.prompt_ids)
    layers = tuple(
        move_rows(layer, rows[None], shift[None], size=length_bucket(end), shards=1)
        for layer in batch.cache.layers
    )
    logits, layers = decoder.feed(weights, layers, start, np.int32(end - T), tokens, num_new)
    return Filled(logits, deque(layers), [(row, e, end) for e, (row, _) in enumerate(going_on)])
