"""Knowledge-graph questions: follow two or more edges, say which ones, and name the option at their end.

Files and reward are those of multi-hop-reasoning (MIT). Departures: entities are found as whole words
(`reward.py`), no wrong option is a second right answer, and the graph that is generated when none is
given (`graph.py`) asks questions that have one answer.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrl.errors import InputError
from jaxrl.files.jsonl import write_rows
from jaxrl.tasks.base import SPLITS, Baseline
from jaxrl.tasks.graph.graph import GENERATED, Edge, Graph, generate_graph, graph_values, read_graph
from jaxrl.tasks.graph.questions import (
    LETTERS,
    Record,
    complete_record,
    edge_text,
    fixed_letters,
    make_record,
    phrases,
    read_records,
    walk_of,
    wordings_of,
)
from jaxrl.tasks.graph.reward import FORMAT_FAILURE, TraceReward
from jaxrl.tasks.graph.walks import WalkRules, choose_walks, reserve
from jaxrl.types import Message, Problem

if TYPE_CHECKING:  # pydantic and yaml stay out of the verifier processes, which import this file
    from jaxrl.config.tasks import KnowledgeGraphSection

START_TYPES = ("symptom", "cause")
PREFERRED = ("caused_by", "fixed_by", "diagnosed_by", "leads_to")


class KnowledgeGraph:
    """The task; `section` is documented in `config/tasks.py`. Questions are made once and kept.

    Raises:
      InputError: files that cannot be read or are not what they should be.
    """

    failure_reward = FORMAT_FAILURE

    def __init__(self, section: "KnowledgeGraphSection"):
        for key in ("eval_file", "examples_file"):
            if section.graph is None and (path := getattr(section, key)) is not None:
                raise InputError(
                    f"task.{key} {path!r} asks about a graph that is not given; set task.graph too"
                )
        self.section = section
        self.graph = _make_graph(section)
        self.verify = TraceReward(self.graph.entities, section.entity_match, section.answer_pays)
        self._eval_records = read_records(section.eval_file, self.graph) if section.eval_file else None
        self._wordings = (
            wordings_of(read_records(section.examples_file, self.graph)) if section.examples_file else {}
        )
        self._rules = _make_rules(self.graph, self._eval_records)
        self._problems: dict[str, list[Problem]] = {}

    def problems(self, split: str) -> list[Problem]:
        """The split's questions, each as one user message.

        Raises:
          InputError: more questions asked for than there are walks, or a split that does not exist.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        if split not in self._problems:
            self._problems[split] = [_problem(record) for record in self._records(split)]
        return list(self._problems[split])

    def demonstration(self, problem: Problem) -> str:
        return problem.data["ref"]["trace"]

    def texts(self) -> list[str]:
        facts = [edge_text(edge) for edge in self.graph.edges]
        return facts + [
            text for p in self.problems("train") for text in (p.data["prompt"], self.demonstration(p))
        ]

    def phrases(self) -> list[str]:
        return phrases(self.graph)

    def baselines(self) -> dict[str, Baseline]:
        return {"chance": self._chance, "first_option": self._first_option, "nearest": self._nearest}

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        """Questions on paths of the train split, with a seed of their own; `problem` knows no others."""
        return iter(self._questions("train", self.section.hops, count, [str(seed)]))

    def problem(self, record: Record) -> Problem:
        """A record of `generate`, or of a file of questions on this graph."""
        return _problem(complete_record(record, self.graph))

    def write(self, folder: str | Path) -> None:
        """kg.json and {train,val,test}.jsonl, which `graph` and `eval_file` of another config can name."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kg.json").write_text(
            json.dumps(graph_values(self.graph), indent=2) + "\n", encoding="utf-8"
        )
        for split in SPLITS:
            write_rows(folder / f"{split}.jsonl", (problem.data for problem in self.problems(split)))

    def _records(self, split: str) -> list[Record]:
        if split == "test" and self._eval_records is not None:
            return self._eval_records
        hops, count = self.section.hops, getattr(self.section, split)
        if split != "train":
            hops = self.section.eval_hops or tuple(length for length in hops if length > 1)
        if count and not hops:
            raise InputError(
                f"task.{split} is {count}, but hops {self.section.hops} leave no length to evaluate on: paths"
                f" of one hop are for training only; add longer hops, set task.eval_hops, or set task.{split}"
                " to 0"
            )
        seed = str(self.section.question_seed)
        variants = self.section.variants if split == "train" else 1
        return self._questions(split, hops, count, [f"{seed}/{v}" if v else seed for v in range(variants)])

    def _questions(self, split: str, hops: tuple[int, ...], count: int, seeds: list[str]) -> list[Record]:
        """`count` paths, drawn with the first seed, each asked once with every seed."""
        walks = choose_walks(self._rules, split, hops, count, seeds[0]) if count else []
        letters = fixed_letters(self.graph) if self.section.letters == "fixed" else None
        return [
            make_record(self.graph, walk, split, seed, letters, self._wordings)
            for seed in seeds
            for walk in walks
        ]

    # The baselines know the format and the question's words, not the answer.

    def _chance(self, problem: Problem, rng: random.Random) -> str:
        return self._guess(problem, rng.choice(LETTERS), rng)

    def _first_option(self, problem: Problem, rng: random.Random) -> str:
        return self._guess(problem, LETTERS[0], rng)

    def _nearest(self, problem: Problem, rng: random.Random) -> str:
        """The option with the fewest edges, in either direction, to the start: knows the graph, ignores the
        relations.
        """
        distance = self.graph.distances(problem.data["path_star"]["entities"][0])
        far = len(self.graph.entities)
        options = problem.data["options"]
        nearest = min(distance.get(entity, far) for entity in options.values())
        return self._guess(
            problem, rng.choice([x for x in LETTERS if distance.get(options[x], far) == nearest]), rng
        )

    def _guess(self, problem: Problem, letter: str, rng: random.Random) -> str:
        start = problem.data["path_star"]["entities"][0]  # which the question names
        claim = edge_text(Edge(start, rng.choice(self.graph.relations), problem.data["options"][letter]))
        return f"TRACE: {claim}\nANSWER: {letter}"


def _make_graph(section: "KnowledgeGraphSection") -> Graph:
    if section.graph is not None:
        return read_graph(section.graph)
    return generate_graph(section.entities, section.relations, section.graph_seed)


def _make_rules(graph: Graph, eval_records: list[Record] | None) -> WalkRules:
    """Where walks start and which edges they prefer: anywhere and none in a generated graph, else as in the
    source.
    """
    reserved = reserve([walk_of(record) for record in eval_records or ()])
    entities = tuple(sorted(graph.entities))
    starts, preferred = entities, frozenset()
    if graph.domain != GENERATED:
        starts = tuple(entity for entity in entities if graph.types[entity] in START_TYPES) or entities
        preferred = frozenset(PREFERRED)
    return WalkRules(graph, starts, preferred, reserved, test_is_file=eval_records is not None)


def _problem(record: Record) -> Problem:
    message = Message(role="user", content=record["prompt"])
    return Problem(uid=record["id"], messages=(message,), data=record)
