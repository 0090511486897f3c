"""What an environment is: one episode that answers the policy's turns, and a world that makes such episodes.

    environment = world.environment(problem)
    messages = environment.start()               # system and user messages: what the policy reads first
    result = environment.step("Action: go north")
    while not result.done:
        result = environment.step(policy(result.observation))

An environment is used once and has no reset: whoever wants the episode again asks the world for a new one,
which is equal to the first (problems are plain JSON, and all chance comes from their seed).
"""

import random
from dataclasses import dataclass, field
from typing import Protocol

from jaxrl.types import Message, Problem


class WorldError(RuntimeError):
    """A world failed, and the policy has no part in it: a server that answers no more, a process that died.

    It costs the episode, which gets the world's `failure_reward`, and nothing else.
    """


@dataclass(frozen=True)
class StepResult:
    """What the world answers to one turn of the policy.

    observation: what the policy reads next, as the content of a message; it is never trained on.
    reward: of this turn, in the world's own units; the episode's is the sum over its turns.
    done: whether the episode ended with this turn. stop_reason: why, where it has (`env_done`, `max_turns`,
      `parse_error`); None while it goes on.
    metrics: numbers of this turn that are logged and pay nothing, such as `parse_errors`: summed over turns.
    """

    observation: str
    reward: float = 0.0
    done: bool = False
    stop_reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class Environment(Protocol):
    """One episode. Single use: `start` once, then `step` until it is done."""

    def start(self) -> list[Message]:
        """What the policy reads first."""

    def step(self, text: str) -> StepResult:
        """Take one turn of the policy, its whole text, and answer it.

        What cannot be read as an action is no error: the observation says so, and `parse_errors` counts it.
        """


class World(Protocol):
    """A family of episodes. Host code: no jax, no state that changes, the same problems on every machine."""

    failure_reward: float  # of an episode whose environment crashed or overran its deadline

    def problems(self, split: str) -> list[Problem]:
        """The problems of `train`, `val` or `test`, in a fixed order; no two splits share one. `messages` are
        those of `start`.
        """

    def environment(self, problem: Problem) -> Environment:
        """A fresh episode of a problem."""

    def policies(self) -> tuple[str, ...]:
        """The scripted policies that the world has: `expert`, `random`, and perhaps `heuristic`."""

    def act(self, policy: str, environment: Environment, rng: random.Random) -> str:
        """The text with which a scripted policy takes its next turn in an episode that has begun. The expert
        sees the world's state, the others what the policy sees.
        """
