"""Multi-turn environments: worlds that answer what a policy does. Host only, no jax."""

from typing import Any

from jaxrl.envs.agentgym import AgentGym
from jaxrl.envs.alfworld.rules import AlfWorld
from jaxrl.envs.babyai.rules import BabyAI
from jaxrl.envs.base import World
from jaxrl.envs.custom.world import CustomWorld
from jaxrl.envs.gym import Gymnasium
from jaxrl.envs.scienceworld.rules import ScienceWorld
from jaxrl.envs.textcraft.rules import TextCraft
from jaxrl.envs.webshop.rules import WebShop
from jaxrl.envs.world import TextWorld
from jaxrl.errors import InputError

# name in a config -> the world of a section; what needs the extra `envs` is imported when one is made
ENVS = {
    "agentgym": lambda section: TextWorld(section, AgentGym(section)),
    "alfworld": lambda section: TextWorld(section, AlfWorld(section)),
    "babyai": lambda section: TextWorld(section, BabyAI(section)),
    "custom_env": CustomWorld,
    "gymnasium": lambda section: TextWorld(section, Gymnasium(section)),
    "scienceworld": lambda section: TextWorld(section, ScienceWorld(section)),
    "textcraft": lambda section: TextWorld(section, TextCraft(section)),
    "webshop": lambda section: TextWorld(section, WebShop(section)),
}


def make_world(section: Any) -> World:
    """The world that a config section describes.

    Args:
      section: an `env` section; its `name` chooses the world.
    Raises:
      InputError: unknown name, or what the world's own constructor finds wrong (an extra that is missing).
    """
    if section.name not in ENVS:
        raise InputError(f"unknown world {section.name!r}; the worlds are: {', '.join(sorted(ENVS))}")
    return ENVS[section.name](section)
