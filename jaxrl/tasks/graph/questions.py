"""Questions about walks: the record of one question, its texts and wrong options, and JSONL files of records.

A record is plain JSON: id, split, hop_len, question, options {A..D}, answer_star (a letter), path_star
{entities, edges}, prompt, ref {trace, style_rules}, meta {topic, difficulty, distractor_type}. Format of
multi-hop-reasoning (MIT); the wording of the questions is ours.
"""

import itertools
import json
import random
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.jsonl import read_objects
from jaxrl.tasks.graph.graph import GENERATED, Edge, Graph
from jaxrl.tasks.graph.walks import OPTIONS, Walk, entities_of

LETTERS = "ABCD"
# tries; with four relations, missing one of three other neighbours in all of them is beyond chance
WRONG_TURNS = 200
ENOUGH_ENDS = 12
PROMPT = """You must follow the exact output format.

OUTPUT FORMAT:
TRACE: <one or two sentences explaining your reasoning>
ANSWER: <A|B|C|D>

Question: {question}
{options}
"""
STYLE_RULES = [
    "Name at least two entities of the path.",
    "Leave the list of options out of the trace.",
    "Name no entity more than twice.",
]
# For graphs that are read from files: chosen by the first relation, as in the source. They name no other
# relation, so that beyond one hop they hint at the answer rather than define it; generated graphs ask
# well-posed questions.
QUESTIONS = {
    "caused_by": "{start} has shown up. Which of these lies behind it?",
    "fixed_by": "{start} has to be dealt with. Which of these helps?",
    "diagnosed_by": "{start} is to be looked into. Which of these is part of that?",
    "leads_to": "{start} is left alone. Which of these can come of it?",
}
# Of different lengths, so that a small model cannot learn by heart how far back each relation stands.
CLOSINGS = (
    "Where to?",
    "Where do you arrive?",
    "Which of these do you reach?",
    "Which of these is at the end of it?",
)
OTHER_QUESTION = "Which of these is reached from {start} by way of '{relation}'?"

Record = dict[str, Any]


def make_record(
    graph: Graph,
    walk: Walk,
    split: str,
    seed: str,
    letters: dict[str, str] | None = None,
    wordings: dict[str, list[str]] | None = None,
) -> Record:
    """The question about a walk. Its options depend on the walk and the seed alone, not on other questions.

    letters: entity -> the letter under which it always stands; None shuffles the options.
    wordings: first relation -> question texts with a `{start}`, of which one is drawn; ours where there is
      none.
    """
    path = entities_of(walk)
    rng = random.Random(f"question/{seed}/{'/'.join(part for edge in walk for part in edge)}")
    options = [path[-1], *_wrong_options(graph, walk, rng, letters)]
    if letters is None:
        rng.shuffle(options)
    else:
        options.sort(key=lambda entity: letters[entity])
    named = dict(zip(LETTERS, options))
    question = _question(graph, walk, rng, wordings or {})
    answer = LETTERS[options.index(path[-1])]
    edges = [edge._asdict() for edge in walk]
    digest = blake2b(json.dumps([question, named, edges]).encode(), digest_size=6).hexdigest()
    return {
        "id": f"ex_{split}_{digest}",
        "split": split,
        "hop_len": len(walk),
        "question": question,
        "options": named,
        "answer_star": answer,
        "path_star": {"entities": path, "edges": edges},
        "prompt": prompt_text(question, named),
        "ref": {"trace": reference_text(walk, answer), "style_rules": STYLE_RULES},
        "meta": {
            "topic": walk[0].rel,
            "difficulty": "easy" if len(walk) <= 2 else "medium" if len(walk) == 3 else "hard",
            "distractor_type": "near_miss",
        },
    }


def prompt_text(question: str, options: dict[str, str]) -> str:
    listed = "\n".join(f"{letter}) {options[letter]}" for letter in LETTERS)
    return PROMPT.format(question=question, options=listed)


def phrases(graph: Graph) -> list[str]:
    """What stays the same in all prompts and traces, the relations' labels, and each of the four answers."""
    frame = [PROMPT.split(" {question}")[0], "Start at", " and follow:"]
    marks = [text for letter in LETTERS for text in (f"\n{letter})", f"\nANSWER: {letter}")] + [
        "TRACE:",
        ", and",
    ]
    return frame + marks + [" " + relation.replace("_", " ") for relation in graph.relations]


def reference_text(walk: Iterable[Edge], answer: str) -> str:
    """`TRACE: S is <relation> O, and O is <relation> P` and the answer, two lines."""
    return f"TRACE: {', and '.join(map(edge_text, walk))}\nANSWER: {answer}"


def edge_text(edge: Edge) -> str:
    return f"{edge.src} is {edge.rel.replace('_', ' ')} {edge.dst}"


def walk_of(record: Record) -> Walk:
    return tuple(Edge(edge["src"], edge["rel"], edge["dst"]) for edge in record["path_star"]["edges"])


def wordings_of(records: Iterable[Record]) -> dict[str, list[str]]:
    """The question texts of records by their first relation, with `{start}` for the entity they begin at."""
    found: dict[str, set[str]] = {}
    for record in records:
        first = walk_of(record)[0]
        if first.src in record["question"]:
            found.setdefault(first.rel, set()).add(record["question"].replace(first.src, "{start}"))
    return {relation: sorted(texts) for relation, texts in found.items()}


def _question(graph: Graph, walk: Walk, rng: random.Random, wordings: dict[str, list[str]]) -> str:
    start, relation = walk[0].src, walk[0].rel
    if relation in wordings:
        return rng.choice(wordings[relation]).replace("{start}", start)
    if graph.domain == GENERATED:
        route = ", ".join(edge.rel.replace("_", " ") for edge in walk)
        return f"Start at {start} and follow: {route}. {rng.choice(CLOSINGS)}"
    return QUESTIONS.get(relation, OTHER_QUESTION).format(start=start, relation=relation.replace("_", " "))


# ---------------------------------------------------------------------------------------------- wrong options


def _wrong_options(graph: Graph, walk: Walk, rng: random.Random, letters: dict[str, str] | None) -> list[str]:
    """Three entities that are not on the path, the most misleading kinds first; within a kind at random."""
    path = entities_of(walk)
    kinds = _wrong_turns(graph, walk, rng) if graph.domain == GENERATED else _near_answer(graph, walk)
    # Not in the source: whatever the same relations also lead to from the same start would be a second right
    # answer.
    barred = set(path) | graph.ends(path[0], tuple(edge.rel for edge in walk))
    chosen: list[str] = []
    taken = {letters[path[-1]]} if letters else set()
    for kind in (*(set(kind) - barred for kind in kinds), set(graph.entities) - set(path)):
        for entity in rng.sample(sorted(kind), len(kind)):
            is_free = entity not in chosen and (letters is None or letters[entity] not in taken)
            if is_free and len(chosen) < OPTIONS - 1:
                chosen.append(entity)
                taken |= {letters[entity]} if letters else set()
    return chosen


def fixed_letters(graph: Graph) -> dict[str, str]:
    """A letter for every entity, spread evenly over the entities of each type."""
    by_type = (
        sorted(entity for entity in graph.entities if graph.types[entity] == kind)
        for kind in sorted(set(graph.types.values()))
    )
    return {entity: LETTERS[i % OPTIONS] for members in by_type for i, entity in enumerate(members)}


def _wrong_turns(graph: Graph, walk: Walk, rng: random.Random) -> list[Iterable[str]]:
    """Generated graphs: ends of other walks of the same length from the same start; then any entity of the
    answer's type.

    So each option is the answer to another question with the same start and length. Whoever has not followed
    the relations sees four options of the same type, popularity and distance. (Walks with exactly one wrong
    turn would be nearer misses, but they give the answer away as the middle of the four.)
    """
    path = entities_of(walk)
    ends: set[str] = set()
    known = graph.known_ends(path[0], len(walk))
    draw, count = rng.random, len(graph.relations)
    for _ in range(WRONG_TURNS):  # a million of these are drawn before a run begins: `rng.choices` by hand
        number = 0
        for _ in walk:
            number = number * count + int(draw() * count)
        if number not in known:
            places = [number // count**i % count for i in reversed(range(len(walk)))]
            known[number] = graph.end_of_walk(path[0], [graph.relations[place] for place in places])
        end = known[number]
        if end is not None and end not in path:
            ends.add(end)
            if len(ends) == ENOUGH_ENDS:
                break
    return [ends, graph.entities_of_type[graph.types[path[-1]]]]


def _near_answer(graph: Graph, walk: Walk) -> list[Iterable[str]]:
    """Read graphs, as in the source: neighbours of the answer (two edges) of its type, its type, neighbours,
    anything.
    """
    answer = walk[-1].dst
    near = set(graph.neighbours[answer])
    near |= {further for entity in near for further in graph.neighbours[entity]}
    same_type = graph.entities_of_type[graph.types[answer]]
    return [near & set(same_type), same_type, near, graph.entities]


# ------------------------------------------------------------------------------------------------------ files


def read_records(path: str | Path, graph: Graph) -> list[Record]:
    """Records from a JSONL file; `prompt`, `ref`, `split` and `meta` are made where missing.

    Raises:
      InputError: naming file, line and column: unreadable, not JSON, missing column, wrong type, entity or
        relation that the graph does not have, path that does not hang together or does not end in the answer,
        repeated id.
    """
    records: list[Record] = []
    ids: set[str] = set()
    for where, record in read_objects(path):
        try:
            record = complete_record(record, graph)
        except InputError as error:
            raise InputError(f"{where}, {error}") from None
        if record["id"] in ids:
            raise InputError(
                f"{where}, column 'id': {record['id']!r} occurs twice; give each question its own id"
            )
        ids.add(record["id"])
        records.append(record)
    if not records:
        raise InputError(f"question file {path} holds no questions; it needs one JSON object per line")
    return records


def complete_record(record: Record, graph: Graph) -> Record:
    """The record, checked against the graph; `prompt`, `ref`, `split` and `meta` are made where missing.

    Raises:
      InputError: naming the column that is missing or wrong.
    """
    _check_record(record, graph)
    reference = {"trace": reference_text(walk_of(record), record["answer_star"]), "style_rules": STYLE_RULES}
    prompt = prompt_text(record["question"], record["options"])
    return {"split": "test", "prompt": prompt, "ref": reference, "meta": {}} | record


def _check_record(record: Record, graph: Graph) -> None:
    _check_columns(record)
    _check_options(record["options"], graph)
    _check_path(record["path_star"], graph)
    options, edges = record["options"], record["path_star"]["edges"]
    hops, letter = record["hop_len"], record["answer_star"]
    _need(hops == len(edges), "hop_len", f"is {hops}, but the path has {len(edges)} edges")
    _need(letter in options, "answer_star", f"must be A, B, C or D, but is {letter!r}")
    right, end = options[letter], record["path_star"]["entities"][-1]
    _need(right == end, "answer_star", f"names {right!r}, but the path ends in {end!r}")


def _need(holds: bool, column: str, reason: str) -> None:
    if not holds:
        raise InputError(f"column {column!r}: {reason}")


def _check_columns(record: Record) -> None:
    """Whether all columns are there, each of its type."""
    columns = {
        "id": str,
        "question": str,
        "hop_len": int,
        "options": dict,
        "answer_star": str,
        "path_star": dict,
    }
    for column, kind in columns.items():
        _need(column in record, column, f"is missing; the file must have {', '.join(columns)}")
        value = record[column]
        _need(isinstance(value, kind), column, f"must be {kind.__name__}, but is {value!r}")
    for column, kind in {"split": str, "prompt": str, "meta": dict}.items():
        value = record.get(column, kind())
        _need(isinstance(value, kind), column, f"must be {kind.__name__}, but is {value!r}")
    reference = record.get("ref", {"trace": ""})
    has_trace = isinstance(reference, dict) and isinstance(reference.get("trace"), str)
    _need(has_trace, "ref", "must be an object with a text `trace`")


def _check_options(options: dict, graph: Graph) -> None:
    keys = sorted(options)
    _need(keys == list(LETTERS), "options", f"must have the keys A, B, C and D, but has {keys}")
    for letter, entity in options.items():
        is_known = isinstance(entity, str) and entity in graph.types
        _need(is_known, "options", f"{letter} is {entity!r}, which is not in the graph")
    entities = list(options.values())
    _need(len(set(entities)) == OPTIONS, "options", f"must be four different entities, but are {entities}")


def _check_path(path: dict, graph: Graph) -> None:
    """Whether it leads along edges of the graph, over the entities that it lists."""
    entities, edges = path.get("entities"), path.get("edges")
    has_lists = isinstance(entities, list) and isinstance(edges, list)
    _need(has_lists, "path_star", "must have the lists `entities` and `edges`")
    known = {
        tuple(edge)
        for entity in entities
        if isinstance(entity, str)
        for edge in graph.edges_from.get(entity, ())
    }
    for edge in edges:
        triple = tuple(edge.get(key) for key in ("src", "rel", "dst")) if isinstance(edge, dict) else ()
        _need(
            triple in known,
            "path_star",
            f"{edge!r} is not an edge of the graph that leaves an entity of the path",
        )
    joined = [edge["src"] for edge in edges] + [edge["dst"] for edge in edges[-1:]]
    _need(
        bool(edges) and joined == entities,
        "path_star",
        f"the edges lead over {joined}, but `entities` lists {entities}",
    )
    hangs_together = all(a["dst"] == b["src"] for a, b in itertools.pairwise(edges))
    _need(hangs_together, "path_star", "an edge does not begin where the last ended")
