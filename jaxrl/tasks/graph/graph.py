"""Graphs of typed entities: the data type, the `kg.json` format, the generator. Paths: `walks.py`."""

import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.errors import InputError
from jaxrl.files.disk import read_json

# the `domain` of a generated graph; every (entity, relation) of it has exactly one destination
GENERATED = "generated"

# Passive, because reference traces put "is" before the relation: "Kalo is fed by Miru".
RELATIONS = tuple(
    "fed_by guarded_by taught_by followed_by praised_by feared_by named_by carried_by hidden_by "
    "painted_by watched_by healed_by called_by found_by raised_by led_by".split()
)
TYPES = ("animal", "plant", "river", "tool")
CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aiou"
MIN_PER_TYPE = 12

MOST_REMEMBERED = 1 << 17  # ends of walks of one length; some 20 MB


class Edge(NamedTuple):
    """`src` is `rel` `dst`; all three are ids."""

    src: str
    rel: str
    dst: str


@dataclass(frozen=True)
class Graph:
    """Typed entities and directed, labelled edges. `types`: of entities; `labels`: of entities, relations."""

    domain: str
    types: dict[str, str]
    labels: dict[str, str]
    relations: tuple[str, ...]
    edges: tuple[Edge, ...]

    @property
    def entities(self) -> tuple[str, ...]:
        return tuple(self.types)

    @cached_property
    def edges_from(self) -> dict[str, tuple[Edge, ...]]:
        """Entity -> its outgoing edges, in sorted order."""
        found: dict[str, list[Edge]] = {entity: [] for entity in self.types}
        for edge in sorted(self.edges):
            found[edge.src].append(edge)
        return {entity: tuple(edges) for entity, edges in found.items()}

    @cached_property
    def entities_of_type(self) -> dict[str, tuple[str, ...]]:
        """Type -> its entities, sorted."""
        found: dict[str, list[str]] = {}
        for entity in sorted(self.types):
            found.setdefault(self.types[entity], []).append(entity)
        return {kind: tuple(entities) for kind, entities in found.items()}

    @cached_property
    def neighbours(self) -> dict[str, tuple[str, ...]]:
        """Entity -> the entities one edge away in either direction, sorted."""
        found: dict[str, set[str]] = {entity: set() for entity in self.types}
        for edge in self.edges:
            found[edge.src].add(edge.dst)
            found[edge.dst].add(edge.src)
        return {entity: tuple(sorted(others - {entity})) for entity, others in found.items()}

    def ends(self, start: str, relations: tuple[str, ...]) -> set[str]:
        """Every entity at which one can arrive from `start` by following `relations` in order."""
        reached = {start}
        for relation in relations:
            reached = {
                edge.dst for entity in reached for edge in self.edges_from[entity] if edge.rel == relation
            }
        return reached

    def end_of_walk(self, start: str, relations: Iterable[str]) -> str | None:
        """Where one arrives by following `relations`, where every entity has one edge of each or none, which
        is then passed over; None where an entity comes twice.
        """
        turns = [start]
        for relation in relations:
            turns += self.ends(turns[-1], (relation,))
        return turns[-1] if len(set(turns)) == len(turns) else None

    @cached_property
    def _known_ends(self) -> dict[tuple[str, int], dict[int, str | None]]:
        return {}

    def known_ends(self, start: str, length: int) -> dict[int, str | None]:
        """Where walks of a length from `start` end, by their number, as far as it was put there; empty every
        time in a graph that has too many walks to remember.
        """
        if len(self.types) * len(self.relations) ** length > MOST_REMEMBERED:
            return {}
        return self._known_ends.setdefault((start, length), {})

    def distances(self, start: str) -> dict[str, int]:
        """Number of edges, in either direction, from `start` to every entity that can be reached."""
        distance = {start: 0}
        queue = deque([start])
        while queue:
            entity = queue.popleft()
            for other in self.neighbours[entity]:
                if other not in distance:
                    distance[other] = distance[entity] + 1
                    queue.append(other)
        return distance


# ---------------------------------------------------------------------------------------------------- kg.json


def read_graph(path: str | Path) -> Graph:
    """Graph from a `kg.json`.

        {version, domain, entities: [{id, label, type}], relations: [{id, label}], edges: [{src, rel, dst}]}

    `label` may be missing (the id is used). Edges given twice are one edge.

    Raises:
      InputError: unreadable file, not JSON, missing key, repeated id, edge to an entity or relation that is
        not listed.
    """
    values = read_json(path, "check task.graph")
    entities = _rows(path, values, "entities", ("id", "type"))
    relations = _rows(path, values, "relations", ("id",))
    edges = _rows(path, values, "edges", ("src", "rel", "dst"))
    types = {row["id"]: row["type"] for row in entities}
    names = tuple(row["id"] for row in relations)
    for kind, rows in (("entities", entities), ("relations", relations)):
        if repeated := [
            identity for identity, count in Counter(row["id"] for row in rows).items() if count > 1
        ]:
            raise InputError(
                f"graph file {path}: {kind} lists the id {repeated[0]!r} more than once; give each its own id"
            )
    for index, edge in enumerate(edges):
        for key, known in (("src", types), ("rel", names), ("dst", types)):
            if edge[key] not in known:
                kind = "relations" if key == "rel" else "entities"
                place = f"graph file {path}: edges[{index}].{key} {edge[key]!r}"
                raise InputError(f"{place} is not in {kind}; add it there or remove the edge")
    labels = {row["id"]: str(row.get("label", row["id"])) for row in entities + relations}
    unique = dict.fromkeys(Edge(edge["src"], edge["rel"], edge["dst"]) for edge in edges)
    return Graph(str(values.get("domain", "")), types, labels, names, tuple(unique))


def _rows(
    path: str | Path, values: dict[str, Any], key: str, fields: tuple[str, ...]
) -> list[dict[str, Any]]:
    rows = values.get(key)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"graph file {path}: {key!r} must be a list with at least one item")
    for index, row in enumerate(rows):
        for name in fields:
            if not isinstance(row, dict) or not isinstance(row.get(name), str) or not row[name]:
                raise InputError(f"graph file {path}: {key}[{index}].{name} must be a text that is not empty")
    return rows


def graph_values(graph: Graph) -> dict[str, Any]:
    """The graph as the plain values of a `kg.json`; `read_graph` gives the same graph back."""
    return {
        "version": "1.0",
        "domain": graph.domain,
        "entities": [
            {"id": entity, "label": graph.labels[entity], "type": kind}
            for entity, kind in graph.types.items()
        ],
        "relations": [{"id": relation, "label": graph.labels[relation]} for relation in graph.relations],
        "edges": [edge._asdict() for edge in graph.edges],
    }


# -------------------------------------------------------------------------------------------------- generator


def generate_graph(entities: int, relations: int, seed: int) -> Graph:
    """A graph in which "start at X, follow r1, ..., rk: where do you arrive?" has exactly one answer.

    The types form a ring: every relation leads from each type to the next one. So all walks of k edges from X
    end in the same type, and wrong turns make distractors that no rule about types can tell from the answer.
    Each relation is, between two types, a random one-to-one map (as nearly as sizes allow), and an entity's
    destinations by different relations all differ: no entity is the destination of more edges than others, so
    that popularity tells nothing either.

    Args:
      entities: number of entities; they have invented names of four letters, none part of another.
      relations: outgoing edges per entity; below 4, short paths have too few wrong turns to fill four options
        with them.
      seed: the same seed gives the same graph on every machine.
    Raises:
      InputError: fewer than relations + 4 entities, more relations than there are words for, more entities
        than names.
    """
    names_available = (len(CONSONANTS) * len(VOWELS)) ** 2
    if relations > len(RELATIONS) or entities > names_available:
        raise InputError(
            f"a graph of {entities} entities and {relations} relations cannot be named; "
            f"set task.entities to at most {names_available} and task.relations to at most {len(RELATIONS)}"
        )
    if entities < relations + 4:
        raise InputError(
            f"{entities} entities are too few for {relations} relations; set task.entities to at least "
            f"{relations + 4}"
        )
    rng = random.Random(f"graph/{entities}/{relations}/{seed}")
    names = _names(entities, rng)
    rings = max(1, min(len(TYPES), entities // max(MIN_PER_TYPE, relations + 4)))
    layers = [names[first::rings] for first in range(rings)]
    edges = []
    for index, sources in enumerate(layers):
        for relation, targets in zip(RELATIONS, _maps(sources, layers[(index + 1) % rings], relations, rng)):
            edges += [Edge(source, relation, target) for source, target in zip(sources, targets)]
    types = {name: TYPES[index % rings] for index, name in enumerate(names)}
    used = RELATIONS[:relations]
    labels = {name: name for name in names} | {relation: relation.replace("_", " ") for relation in used}
    return Graph(GENERATED, types, labels, used, tuple(sorted(edges)))


def _names(count: int, rng: random.Random) -> list[str]:
    """Distinct names of equal length, which is why none is part of another."""
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    return [
        (first + second).capitalize()
        for first, second in rng.sample([(a, b) for a in syllables for b in syllables], count)
    ]


def _maps(sources: list[str], targets: list[str], count: int, rng: random.Random) -> list[list[str]]:
    """`count` random maps sources -> targets: balanced, never to itself, and different from each other at
    every source.
    """
    taken: list[set[str]] = [{source} for source in sources]
    maps: list[list[str]] = []
    while len(maps) < count:
        # A layer may be one larger than the next: then one target, another each time, serves twice.
        image = [
            target
            for _ in range(-(-len(sources) // len(targets)))
            for target in rng.sample(targets, len(targets))
        ]
        image = image[: len(sources)]
        rng.shuffle(image)
        if _untangle(image, taken, rng):
            maps.append(image)
            for source_taken, target in zip(taken, image):
                source_taken.add(target)
    return maps


def _untangle(image: list[str], taken: list[set[str]], rng: random.Random) -> bool:
    """Swap images until none is already taken at its source.

    False if some clash has no swap (the caller draws again).
    """
    order = list(range(len(image)))
    for index in order:
        if image[index] in taken[index]:
            others = [o for o in order if image[o] not in taken[index] and image[index] not in taken[o]]
            if not others:
                return False
            other = rng.choice(others)
            image[index], image[other] = image[other], image[index]
    return True
