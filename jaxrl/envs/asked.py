"""What a config's `task` may name: a task, or a world, of which stages ask problems as of a task."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxrl.envs import ENVS, make_world
from jaxrl.envs.base import World
from jaxrl.envs.world import Transcript, play
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.base import Baseline, Record, Task
from jaxrl.types import Problem, Verdict

SPOKEN = 64  # episodes whose words a fresh tokenizer learns


def make_asked(section: Any) -> Task:
    """The task of a config section, or the world as a task.

    Raises:
      InputError: as `make_task` and `make_world`.
    """
    return WorldTask(make_world(section)) if section.name in ENVS else make_task(section)


class WorldTask:
    """A world where stages expect a task. Its episodes are played in an `EnvironmentPool`; `verify` judges
    what the scripted policies do, which are its baselines: the text is the policy's name and a seed.
    """

    def __init__(self, world: World):
        self.world = world
        self.failure_reward = world.failure_reward
        self.verify: Callable[[Problem, str], Verdict] = Scripted(world)

    def problems(self, split: str) -> list[Problem]:
        return self.world.problems(split)

    def demonstration(self, problem: Problem) -> str | None:
        """See `Task`.

        Raises:
          InputError: always; an episode is no text.
        """
        raise InputError(
            "a world's demonstrations are episodes of several turns, not texts; write records of them with "
            "`jaxrl generate`, and name the file in the sft stage's data.file"
        )

    def texts(self) -> Iterable[str]:
        for number, problem in enumerate(self.world.problems("train")):
            yield from (message["content"] for message in problem.messages)
            for policy in self.world.policies() if number < SPOKEN else ():
                transcript = play(self.world, problem, policy, random.Random(number))
                yield from (message["content"] for message in transcript.messages)

    def phrases(self) -> list[str]:
        return []

    def baselines(self) -> dict[str, Baseline]:
        def baseline(policy: str) -> Baseline:
            return lambda problem, rng: f"{policy}/{rng.random()}"

        return {policy: baseline(policy) for policy in self.world.policies()}

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        raise InputError("a world's records are episodes; `jaxrl generate` of the world writes them")

    def problem(self, record: Record) -> Problem:
        raise InputError("a world's records are episodes; `jaxrl verify` of the world reads them")


class Scripted:
    """Plays an episode with one of a world's scripted policies; pickled into verifier processes."""

    def __init__(self, world: World):
        self.world = world

    def __call__(self, problem: Problem, text: str) -> Verdict:
        policy, _, seed = text.partition("/")
        transcript: Transcript = play(self.world, problem, policy, random.Random(seed))
        is_read = not transcript.metrics.get("parse_errors")
        return Verdict(transcript.reward, correct=transcript.success, format_ok=is_read)
