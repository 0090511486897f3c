"""Walks in a graph: which there are, which split each belongs to, a seeded choice. Questions: `questions.py`.

A walk is a tuple of edges that visits no entity twice. Its split depends on its edges alone, through a stable
hash, so that no seed, count or choice of hops can bring one walk into two splits. The rule, on which
comparisons of train and test rest:

- a piece (two or three consecutive edges) is *held out* if its hash falls below `HELD_OUT`;
- a walk is for training if none of its pieces is held out; a single edge always is, since a model that has
  not seen every fact cannot be asked to combine them;
- a walk of three or more edges is for evaluation if all its pieces of three are held out, a walk of two if it
  is itself; val or test is decided by the hash of the whole walk;
- every other walk is never asked.

What follows: no training walk equals or contains an evaluation walk, and no training walk of three or more
edges is part of one. An evaluation walk may contain single edges and pairs that were trained on: putting
those together is the task. A val walk and a test walk always differ, but may overlap.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

from jaxrl.errors import InputError
from jaxrl.tasks.graph.graph import GENERATED, Edge, Graph

HELD_OUT = 0.25
VAL = 1 / 3  # of the evaluation walks; the rest is test
OPTIONS = 4
# Walks of one length are listed and sampled from up to this many (and three times the number asked for);
# where there are more, walks are drawn at random until enough differ, which then does not take long.
MAX_LISTED = 10_000

Walk = tuple[Edge, ...]


@dataclass(frozen=True)
class WalkRules:
    """Where walks may go.

    starts: entities to start at. preferred: relations that are followed where an entity has any of them; the
      others only where it has none. reserved: pieces of an evaluation file's walks, see `reserve`.
      test_is_file: the test split comes from that file, so that all held-out walks are val.
    """

    graph: Graph
    starts: tuple[str, ...]
    preferred: frozenset[str] = frozenset()
    reserved: frozenset[Walk] = frozenset()
    test_is_file: bool = False

    def steps(self, start: str, walk: Walk) -> list[Edge]:
        """The edges that may follow `walk`, which began at `start`."""
        visited = {start} | {edge.dst for edge in walk}
        edges = [
            edge for edge in self.graph.edges_from[walk[-1].dst if walk else start] if edge.dst not in visited
        ]
        return [edge for edge in edges if edge.rel in self.preferred] or edges


def entities_of(walk: Walk) -> list[str]:
    return [walk[0].src] + [edge.dst for edge in walk]


def pieces(walk: Walk, length: int) -> list[Walk]:
    """All runs of `length` consecutive edges."""
    return [walk[first : first + length] for first in range(len(walk) - length + 1)]


def reserve(walks: Sequence[Walk]) -> frozenset[Walk]:
    """What train and val walks must not contain, given the walks of an evaluation file.

    Of a walk of three or more edges every piece of three (which covers walks that equal, contain, or, from
    three edges on, lie inside it); a shorter one as a whole.
    """
    return frozenset(piece for walk in walks for piece in pieces(walk, min(3, len(walk))))


def split_of(walk: Walk, rules: WalkRules) -> str | None:
    """`train`, `val`, `test`, or None for a walk that is never asked. The rule is at the top of this file."""
    for length in (1, 2, 3):
        if any(piece in rules.reserved for piece in pieces(walk, length)):
            return None
    held_out = [is_held_out(piece) for length in (2, 3) for piece in pieces(walk, length)]
    if not any(held_out):
        return "train"
    if not all(is_held_out(piece) for piece in pieces(walk, min(3, len(walk)))):
        return None
    return "val" if rules.test_is_file or stable_fraction("val", walk) < VAL else "test"


@lru_cache(maxsize=1 << 18)
def is_held_out(piece: Walk) -> bool:
    return stable_fraction("held out", piece) < HELD_OUT


def stable_fraction(purpose: str, walk: Walk) -> float:
    """A number in [0, 1) from the walk's text: the same on every machine, independent for each purpose."""
    text = "\x1f".join((purpose, *(part for edge in walk for part in edge)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64


# --------------------------------------------------------------------------------------------------- choosing


def choose_walks(rules: WalkRules, split: str, hops: Sequence[int], count: int, seed: str) -> list[Walk]:
    """`count` different walks of a split, as many of each length as there are, shuffled.

    Lengths that have too few walks give all they have, and the others fill up.

    Raises:
      InputError: the split has fewer walks of these lengths; the text says how many there are.
    """
    rng = random.Random(f"walks/{split}/{seed}")
    limit = max(MAX_LISTED, 3 * count)
    listed = {
        length: list(islice(_list_walks(rules, split, length), limit + 1)) for length in sorted(set(hops))
    }
    total = sum(len(walks) for walks in listed.values())
    if total < count:
        by_length = ", ".join(f"{len(walks)} of {length}" for length, walks in listed.items())
        raise InputError(
            f"{count} different {split} questions were asked for, but the graph has only {total} walks for "
            f"them (hops: {by_length}); set task.{split} to at most {total}, or raise task.entities or the "
            "hops"
        )
    chosen: list[Walk] = []
    for length, share in _fair_shares(
        {length: len(walks) for length, walks in listed.items()}, count
    ).items():
        if len(listed[length]) > limit:
            chosen += _draw_walks(rules, split, length, share, rng)
        else:
            chosen += rng.sample(listed[length], share)
    rng.shuffle(chosen)
    return chosen


def _fair_shares(sizes: dict[int, int], count: int) -> dict[int, int]:
    """Split `count` over the lengths, as evenly as their sizes allow; the longer ones take what does not
    divide.
    """
    shares = {}
    by_size = sorted(sizes, key=lambda length: (sizes[length], length))
    for index, length in enumerate(by_size):
        shares[length] = min(sizes[length], (count - sum(shares.values())) // (len(by_size) - index))
    return shares


def _list_walks(rules: WalkRules, split: str, hops: int) -> Iterator[Walk]:
    """Every walk of a split, in a fixed order; branches that cannot lead to one are cut as soon as that
    shows.
    """
    for start in rules.starts:
        pending: list[Walk] = [()]
        while pending:
            walk = pending.pop()
            if len(walk) == hops:
                if _is_askable(walk, rules) and split_of(walk, rules) == split:
                    yield walk
                continue
            longer = [(*walk, edge) for edge in rules.steps(start, walk)]
            pending += [walk for walk in reversed(longer) if _may_lead_to(walk, split)]


def _draw_walks(rules: WalkRules, split: str, hops: int, count: int, rng: random.Random) -> list[Walk]:
    """`count` different walks at random. There must be more than that."""
    drawn: dict[Walk, None] = {}
    while len(drawn) < count:
        start = rng.choice(rules.starts)
        walk: Walk = ()
        while len(walk) < hops:
            longer = [(*walk, edge) for edge in rules.steps(start, walk)]
            longer = [walk for walk in longer if _may_lead_to(walk, split)]
            if not longer:
                break
            walk = rng.choice(longer)
        if len(walk) == hops and _is_askable(walk, rules) and split_of(walk, rules) == split:
            drawn[walk] = None
    return list(drawn)


def _may_lead_to(walk: Walk, split: str) -> bool:
    """False if no walk that begins like this one can belong to the split: its newest pieces decide."""
    if split == "train":
        return not any(len(walk) >= length and is_held_out(walk[-length:]) for length in (2, 3))
    return len(walk) < 3 or is_held_out(walk[-3:])


def _is_askable(walk: Walk, rules: WalkRules) -> bool:
    """Are there entities enough off the path for the wrong options?

    In a generated graph they must share the answer's type.
    """
    types = rules.graph.types
    path = entities_of(walk)
    if rules.graph.domain != GENERATED:
        return len(types) - len(path) >= OPTIONS - 1
    free = [entity for entity in rules.graph.entities_of_type[types[path[-1]]] if entity not in path]
    return len(free) >= OPTIONS - 1
