"""The worlds that the laws of this folder are about, each with a section of its own, made once."""

import functools
import random

from jaxrl.config.file import make_env_section
from jaxrl.envs import make_world
from jaxrl.envs.world import TextWorld, Transcript, play

NAMES = ("alfworld", "textcraft", "webshop")
SIZES = {"train": 40, "val": 20, "test": 20}


@functools.cache
def world_of(name: str, **values) -> TextWorld:
    smaller = {"products": 300} if name == "webshop" else {}
    return make_world(make_env_section(name, SIZES | smaller | values))


def played(world: TextWorld, policy: str, split: str = "val") -> list[Transcript]:
    return [
        play(world, problem, policy, random.Random(index))
        for index, problem in enumerate(world.problems(split))
    ]
