"""`jaxrl generate`: fresh problems of a task, or episodes of a world, to a file. No jax, no accelerator."""

import random
from collections.abc import Iterator
from pathlib import Path

from jaxrl.config.envs import EpisodesSection, env_sections
from jaxrl.config.file import make_env_section, make_section, make_task_section, read_overrides
from jaxrl.envs import make_world
from jaxrl.envs.base import WorldError
from jaxrl.envs.records import Record, to_record
from jaxrl.envs.world import play
from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, write_rows
from jaxrl.tasks import make_task


def generate_file(name: str, overrides: list[str], count: int, seed: int, out: Path) -> int:
    """Write `count` fresh records of a task, or episodes of a world that a scripted policy plays; equal
    arguments give equal bytes on every machine.

    Returns:
      The number of records.
    Raises:
      InputError: settings that do not fit; a task without a generator, a world without that policy, or one
        that failed.
    """
    check_out(out)
    if count < 1:
        raise InputError(f"--n {count} problems cannot be made; give at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative; give 0 or more")
    if name in env_sections():
        try:
            return write_rows(out, _episodes(name, overrides, count, seed))
        except WorldError as error:
            raise InputError(f"{name}: {error}") from error
    task = make_task(make_task_section(name, overrides))
    return write_rows(out, task.generate(count, seed))


def _episodes(name: str, overrides: list[str], count: int, seed: int) -> Iterator[Record]:
    values = read_overrides(overrides)
    own = {key: values.pop(key) for key in EpisodesSection.model_fields if key in values}
    episodes = make_section(EpisodesSection, name, **own)
    section = make_env_section(name, values | {"seed": seed})
    world, settings = make_world(section), section.model_dump(mode="json")
    for index, problem in enumerate(world.draw(count, seed, episodes.split)):
        rng = random.Random(f"{name}/{episodes.policy}/{seed}/{index}")
        transcript = play(world, problem, episodes.policy, rng)
        yield to_record(transcript, settings, episodes.format, index)
