"""The config of each task: what its `task` section may say, and every default. The tasks themselves are in `tasks/`."""

from typing import Annotated, Literal

from pydantic import Field

from jaxrl.config_base import NonNegativeInt, PositiveInt, Section

Hops = Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]


class KnowledgeGraphSection(Section):
    """Multi-hop questions over a graph of typed entities; see `tasks/knowledge_graph.py`.

    graph: a `kg.json`, or null for a generated graph of `entities` entities with `relations` outgoing edges each, seeded
      by `graph_seed`.
    eval_file: a JSONL of questions on `graph` that becomes the whole test split (`test` is then not read); its paths are
      kept out of the other splits.
    examples_file: a JSONL of questions on `graph` whose wordings the generated questions take over.
    hops: lengths of the paths asked about. eval_hops: those of the val and test splits; null means those of `hops`
      above 1 (paths of one hop are the facts themselves, and are in the train split alone).
    train, val, test: numbers of problems in each split; questions are drawn with `question_seed`. Which split a path
      belongs to depends on the path alone, so that stages with other numbers, hops or seeds never mix the splits.
    variants: how often each path of the train split is asked, every time with wrong options and an order drawn anew.
    letters: `shuffled` options, or `fixed`: every entity always stands under the same letter, so that a model of a few
      hundred thousand parameters, which is slow to learn to read a list, can answer from what it knows.
    entity_match: how entities are found in a trace, as whole words or, like the original program, as substrings.
    """

    name: Literal["knowledge_graph"]
    graph: str | None = None
    eval_file: str | None = None
    examples_file: str | None = None
    entities: Annotated[int, Field(ge=8, le=3000)] = 48
    relations: Annotated[int, Field(ge=2, le=16)] = 4
    graph_seed: NonNegativeInt = 0
    question_seed: NonNegativeInt = 0
    hops: Hops = (1, 2, 3)
    eval_hops: Hops | None = None
    train: NonNegativeInt = 1000
    variants: PositiveInt = 1
    val: NonNegativeInt = 100
    test: NonNegativeInt = 100
    letters: Literal["shuffled", "fixed"] = "shuffled"
    entity_match: Literal["word", "substring"] = "word"


class TinySection(Section):
    """Three games with a known optimum, for models of tens of thousands of parameters; see `tasks/tiny.py`.

    game: `letter`, `echo` or `count`. train, val, test: numbers of problems in each split; a multiple of 8 asks each
    of a game's questions equally often. `letter` has at most 768 problems per split, the others 6144.
    """

    name: Literal["tiny"]
    game: Literal["letter", "echo", "count"] = "echo"
    train: NonNegativeInt = 768
    val: NonNegativeInt = 32
    test: NonNegativeInt = 128


TaskSection = Annotated[KnowledgeGraphSection | TinySection, Field(discriminator="name")]
