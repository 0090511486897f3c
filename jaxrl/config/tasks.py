"""The config of each task: what its `task` section may say, and every default. The tasks themselves are in
`tasks/`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jaxrl.config.section import NonNegativeInt, Positive, PositiveInt, Section, Share, span
from jaxrl.types import MAX_REWARD

Hops = Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]


Operators = Annotated[tuple[Literal["+", "-", "*", "//"], ...], Field(strict=False, min_length=1)]


class AnyTaskSection(Section):
    """What every task's section may say.

    reward: a Python file whose function `reward(problem, text, verdict)` has the last word on a reward
      (`FILE.py:NAME` for a function of another name); see `tasks/rewards.py`. Paths are taken from the folder
      that the command runs in.
    failure_reward: of a sample whose verification timed out, crashed or raised; null is the task's own. Set
      it where a reward function has units of its own: it should be what an unreadable answer gets, so that
      breaking the verifier never pays.
    """

    reward: str | None = None
    failure_reward: Annotated[float, Field(ge=-MAX_REWARD, le=MAX_REWARD)] | None = None


class Options(BaseModel):
    """Values of any names; what they mean is for the user's task to say."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class CustomSection(AnyTaskSection):
    """A task of the user's own; see `tasks/custom.py`.

    file: a Python file with a class `Task` (`FILE.py:NAME` for a class of another name).
    options: what it is made with, `Task(**options)`.
    train, val, test: a file of records, JSONL or parquet, for each split; read where the class has no
      `problems` of its own.
    """

    name: Literal["custom"]
    file: str
    options: Options = Options()
    train: str | None = None
    val: str | None = None
    test: str | None = None


class KnowledgeGraphSection(AnyTaskSection):
    """Multi-hop questions over a graph of typed entities; see `tasks/graph/task.py`.

    graph: a `kg.json`, or null for a generated graph.
    eval_file: a JSONL of questions on `graph` that becomes the whole test split (`test` is then not read);
      its paths are kept out of the other splits.
    examples_file: a JSONL of questions on `graph` whose wordings the generated questions take over.
    entities, relations, graph_seed: a generated graph has so many entities, with so many outgoing edges each,
      drawn with this seed.
    question_seed: questions are drawn with it.
    hops: lengths of the paths asked about.
    eval_hops: those of the val and test splits; null means those of `hops` above 1 (paths of one hop are the
      facts themselves, and are in the train split alone).
    train, val, test: numbers of problems in each split. Which split a path belongs to depends on the path
      alone, so that stages with other numbers, hops or seeds never mix the splits.
    variants: how often each path of the train split is asked, every time with wrong options and an order
      drawn anew.
    letters: `shuffled` options, or `fixed`: every entity always stands under the same letter, so that a model
      of a few hundred thousand parameters, which is slow to learn to read a list, can answer from what it
      knows.
    answer_pays: whether the right option earns its point `alone`, as in the original program, or only
      `with_path`, where the trace names the entities of the path, no others, and the last one last: one
      option in four is right by luck.
    entity_match: how entities are found in a trace, as whole words or, like the original program, as
      substrings.
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
    answer_pays: Literal["alone", "with_path"] = "alone"
    entity_match: Literal["word", "substring"] = "word"


class TinySection(AnyTaskSection):
    """Three games with a known optimum, for models of tens of thousands of parameters; see `tasks/tiny.py`.

    game: `letter`, `echo` or `count`.
    train, val, test: numbers of problems in each split; a multiple of 8 asks each of a game's questions
      equally often. `letter` has at most 768 problems per split, the others 6144.
    """

    name: Literal["tiny"]
    game: Literal["letter", "echo", "count"] = "echo"
    train: NonNegativeInt = 768
    val: NonNegativeInt = 32
    test: NonNegativeInt = 128


class SatSection(AnyTaskSection):
    """Random k-SAT near the threshold; see `tasks/sat/task.py`.

    variables: fewest and most variables of a formula.
    clause_sizes: literals of a clause; each formula has one of these. (20 variables are 85 clauses of 3, 199
      of 4 or 422 of 5: prompts of about 2, 5 and 14 thousand characters.)
    ratio: clauses per variable; null means the threshold: 4.26 for clauses of 3, 9.93 of 4, 21.12 of 5, 2^k
      ln 2 above.
    planting: how formulas with a solution are made. `quiet`: each clause drawn among those that a hidden
      assignment satisfies. `none`: formulas drawn freely, and kept if a solver finds a solution. `affine`: as
      the Affine environment makes them, problem for problem (its task ids are 0, 1, ... for seed 0), with a
      ratio of 4.26 for all clause sizes; these can be guessed.
    unsatisfiable: share of formulas without a solution, which a solver has refuted; null means 0.15, and 0
      for `affine`.
    seed: problems are drawn with it.
    train, val, test: numbers of problems in each split; a problem's split hangs on its content alone.
    """

    name: Literal["sat"]
    variables: span(2, 10_000) = (10, 20)  # type: ignore[valid-type]
    clause_sizes: Annotated[
        tuple[Annotated[int, Field(ge=2, le=20)], ...], Field(strict=False, min_length=1)
    ] = (3,)
    ratio: Positive | None = None
    planting: Literal["quiet", "none", "affine"] = "quiet"
    unsatisfiable: Share | None = None
    seed: NonNegativeInt = 0
    train: NonNegativeInt = 1000
    val: NonNegativeInt = 100
    test: NonNegativeInt = 100

    @model_validator(mode="after")
    def _check_sizes(self) -> "SatSection":
        if max(self.clause_sizes) > self.variables[0]:
            raise ValueError(
                f"a clause of {max(self.clause_sizes)} different variables does not fit a formula of "
                f"{self.variables[0]}; raise variables or lower clause_sizes"
            )
        if self.planting == "affine" and self.unsatisfiable:
            raise ValueError(
                "planting: affine always has a solution; leave unsatisfiable out, or set planting to quiet "
                "or none"
            )
        return self


class MathSection(AnyTaskSection):
    """Questions with a number or an expression as their answer, from files or the hub (`tasks/math/task.py`).

    train_file, test_file: records in JSONL (.gz too) or parquet, with the fields of GSM8K (`question`,
      `answer`), MATH (`problem`, `solution`) or MATH-500 (`problem`, `answer`).
    hub: a dataset of the hub, or a folder that it was saved to, for what no file is named for.
    hub_config: its configuration (`main` for openai/gsm8k).
    train, val, test: at most so many problems, the first ones; null means all. The val split is taken out of
      the train file: a twentieth of it, chosen by content alone.
    answer_format: how the prompt asks for the answer, and demonstrations end: `hashes` (#### 42) or `boxed`.
      Both are read.
    symbolic: compare what exact arithmetic cannot, roots and functions (2\\sqrt{3} and \\sqrt{12}), with
      mpmath, the extra `math`.
    """

    name: Literal["math"]
    train_file: str | None = None
    test_file: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    train: NonNegativeInt | None = None
    val: NonNegativeInt | None = 100
    test: NonNegativeInt | None = None
    answer_format: Literal["hashes", "boxed"] = "hashes"
    symbolic: bool = False


class ArithmeticSection(AnyTaskSection):
    """Expressions of whole numbers to work out, as hard as wished; see `tasks/numbers/arithmetic.py`.

    terms: fewest and most operands.
    digits: fewest and most digits of an operand.
    operators: what they are joined by; `//` is division rounded down.
    train, val, test, seed: as those of `sat`.
    """

    name: Literal["arithmetic"]
    terms: span(2, 20) = (2, 3)  # type: ignore[valid-type]
    digits: span(1, 12) = (1, 2)  # type: ignore[valid-type]
    operators: Operators = ("+", "-", "*", "//")
    seed: NonNegativeInt = 0
    train: NonNegativeInt = 1000
    val: NonNegativeInt = 100
    test: NonNegativeInt = 100


class CountdownSection(AnyTaskSection):
    """Reach a target from given numbers with + - * /, each used at most once (`tasks/numbers/countdown.py`).

    numbers: fewest and most numbers given.
    largest: the largest that is drawn.
    targets: smallest and largest target.
    train, val, test, seed: as those of `sat`.
    """

    name: Literal["countdown"]
    numbers: span(2, 6) = (3, 4)  # type: ignore[valid-type]
    largest: Annotated[int, Field(ge=2, le=10_000)] = 99
    targets: span(1, 1_000_000) = (10, 99)  # type: ignore[valid-type]
    seed: NonNegativeInt = 0
    train: NonNegativeInt = 1000
    val: NonNegativeInt = 100
    test: NonNegativeInt = 100


class ProgramSection(AnyTaskSection):
    """What the tasks that run programs have in common; see `tasks/code/sandbox.py` and `sandbox/sandbox.py`.

    train_file, test_file: records in JSONL (.gz too) or parquet. A twentieth of the train source, chosen by
      content alone, is the val split; where test has no source of its own, another twentieth is the test
      split.
    hub: a dataset of the hub, or a folder that it was saved to, for what no file is named for.
    hub_config: its configuration.
    hub_split, hub_test_split: its splits for train and test.
    train, val, test: at most so many problems, the first ones; null means all.
    wall_s, cpu_s: seconds of one program on one case, or in all calls of HumanEval's or MBPP's tests.
    total_s: after so many seconds no further case of a completion is begun. wall_s + total_s should stay
      below verify.timeout_s. Where wall_s or total_s ran out because the machine was busy, there is no
      verdict.
    memory_mb: address space.
    output_kb: of what is printed.
    min_level: how well programs must be shut in, or they are not run.
    packages: names of packages, installed beside jaxrl, that programs and tests may import besides the
      standard library; HumanEval+ needs [numpy]. They take address space.
    """

    train_file: str | None = None
    test_file: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    hub_split: str = "train"
    hub_test_split: str | None = None
    train: NonNegativeInt | None = None
    val: NonNegativeInt | None = 100
    test: NonNegativeInt | None = None
    wall_s: Positive = 5.0
    cpu_s: Positive = 3.0
    total_s: Positive = 4.0
    memory_mb: Annotated[int, Field(ge=64)] = 512
    output_kb: PositiveInt = 1024
    min_level: Literal["process", "kernel", "namespaces"] = "kernel"
    packages: Annotated[tuple[str, ...], Field(strict=False)] = ()


class BundledSection(ProgramSection):
    """Where no source is named, the problems are made here (`tasks/programs/programs.py`).

    seed: they are drawn with it.
    train, val, test: at most so many problems, the first ones; null means all of a file, and 1000, 100, 100
      of those that are made.
    """

    seed: NonNegativeInt = 0

    @property
    def has_files(self) -> bool:
        return any((self.train_file, self.test_file, self.hub))

    @property
    def sizes(self) -> dict[str, int]:
        return {
            split: size if (size := getattr(self, split)) is not None else default
            for split, default in (("train", 1000), ("val", 100), ("test", 100))
        }


class AbductionSection(BundledSection):
    """A program and its output, and an input that gives it; see `tasks/programs/abduction.py`.

    check_programs: run the programs of a file on their own inputs first, and ask for what they print then;
      those that fail are left out. False takes the file's outputs as they are.
    """

    name: Literal["abduction"]
    check_programs: bool = True


class DeductionSection(BundledSection):
    """A problem in words, and a complete program; see `tasks/programs/deduction.py`.

    partial_credit: the reward's share for the share of cases passed; 0 stops at the first case that fails.
    """

    name: Literal["deduction"]
    partial_credit: Share = 0.0


class CodeSection(ProgramSection):
    """A function that passes tests: HumanEval, MBPP, records with cases; see `tasks/code/task.py`.

    check_programs: leave out the records of a file whose own reference fails their tests; running it takes
      some 20 ms each.
    """

    name: Literal["code"]
    check_programs: bool = True


class ReasoningGymSection(AnyTaskSection):
    """Data sets of the library reasoning-gym; see `tasks/reasoning_gym.py`. Needs the extra `reasoning_gym`.

    dataset: the name of one set, or several with their weights (`{chain_sum: 2, leg_counting: 1}`).
    options: set -> its parameters (`{chain_sum: {min_terms: 2}}`).
    level: how hard, by the sets' own curricula, from 0; a set with fewer levels gives its last. Null leaves
      the sets' defaults. Stages with rising levels are a curriculum.
    seed, train, val, test: as those of `sat`.
    """

    name: Literal["reasoning_gym"]
    dataset: Annotated[str, Field(min_length=1)] | Annotated[dict[str, Positive], Field(min_length=1)]
    options: Options = Options()
    level: NonNegativeInt | None = None
    seed: NonNegativeInt = 0
    train: NonNegativeInt = 1000
    val: NonNegativeInt = 100
    test: NonNegativeInt = 100


TaskSection = Annotated[
    AbductionSection
    | ArithmeticSection
    | CodeSection
    | CountdownSection
    | CustomSection
    | DeductionSection
    | KnowledgeGraphSection
    | MathSection
    | ReasoningGymSection
    | SatSection
    | TinySection,
    Field(discriminator="name"),
]
