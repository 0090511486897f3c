"""Text environments of gymnasium's: spaces of texts, or of numbers that are said in digits.

A problem is a seed for `reset`. An action is the line that the policy says: itself where the action space is
`Text`; where it is `Discrete`, a number. Rewards and the end are the environment's; an episode succeeds if it
says so in `info["success"]`, or, where it says nothing, if its rewards add up to more than 0.
"""

import importlib
import random
from typing import TYPE_CHECKING, Any

from jaxrl.envs.formats import Function, read_behind_last
from jaxrl.envs.world import Answer, Data
from jaxrl.errors import InputError
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field, is_int

if TYPE_CHECKING:  # pydantic stays out of the processes that play
    from jaxrl.config.envs import GymnasiumSection

MAX_SEED = 2**31 - 1
WRONG = "That is no action here."


class Gymnasium:
    """The rules; `section`: see `config/envs.py`.

    Raises:
      InputError: gymnasium is not installed; no such environment; options that it does not take; spaces that
        are neither texts nor numbers.
    """

    name = "gymnasium"
    failure_reward = 0.0
    policies = ("random",)
    read_agentgym = staticmethod(read_behind_last)

    def __init__(self, section: "GymnasiumSection"):
        options = section.options
        self.id, self.options = (
            section.id,
            dict(options if isinstance(options, dict) else options.model_dump()),
        )
        environment = self._make()
        self.task = (
            section.instruction
            or (type(environment.unwrapped).__doc__ or self.id).strip().partition("\n\n")[0]
        )
        space = environment.action_space
        meaning = (
            "do something"
            if _is(space, "Text")
            else f"a number from {space.start} to {space.start + space.n - 1}"
        )
        self.functions = (Function("act", "{action}", meaning, {"action": meaning}),)
        environment.close()

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        data = {"seed": rng.randint(0, MAX_SEED)}
        return data if claim(data) else None

    def game(self, data: Data) -> "GymGame":
        seed = field(data, "seed", "a whole number from 0 on", lambda v: is_int(v) and 0 <= v <= MAX_SEED)
        return GymGame(self._make(), seed)

    def choose(self, policy: str, game: "GymGame", rng: random.Random) -> tuple[str, str]:
        space = game.environment.action_space
        space.seed(rng.randint(0, MAX_SEED))
        return "I try something.", str(space.sample())

    def _make(self) -> Any:
        try:
            import gymnasium
        except ImportError:
            raise InputError(
                "the world 'gymnasium' needs the package gymnasium, which is not installed; install it with "
                'pip install "jaxrl[envs]"'
            ) from None
        module, _, name = self.id.rpartition(":")
        try:
            if module:
                importlib.import_module(module)
            environment = gymnasium.make(name, disable_env_checker=True, **self.options)
        except (ImportError, gymnasium.error.Error, TypeError) as error:
            raise InputError(
                f"gymnasium makes no {self.id!r} with {self.options}: {error}; check env.id and env.options"
            ) from None
        for what in ("observation_space", "action_space"):
            space = getattr(environment, what)
            if not _is(space, "Text") and not _is(space, "Discrete"):
                raise InputError(f"the {what} of {self.id} is {space}; only Text and Discrete can be said")
        return environment


class GymGame:
    """One game: gymnasium's environment after `reset(seed)`."""

    def __init__(self, environment: Any, seed: int):
        self.environment = environment
        observation, _ = environment.reset(seed=seed)
        self.opening = str(observation)
        self.total = 0.0

    def act(self, action: str) -> Answer:
        space = self.environment.action_space
        chosen: Any = action
        if _is(space, "Discrete"):
            digits = action.strip()
            is_number = digits.isascii() and digits.removeprefix("-").isdecimal() and len(digits) < 18
            chosen = int(digits) if is_number else None
        if chosen is None or not space.contains(chosen):
            return Answer(WRONG, metrics={"wrong_actions": 1.0})
        observation, reward, terminated, truncated, info = self.environment.step(chosen)
        self.total += float(reward)
        done = bool(terminated or truncated)
        metrics = {"success": float(info.get("success", self.total > 0))} if done else {}
        return Answer(str(observation), float(reward), done, metrics)

    def progress(self) -> float:
        """Unknown."""
        return 0.0

    def actions(self) -> list[str]:
        space = self.environment.action_space
        return [str(space.start + i) for i in range(space.n)] if _is(space, "Discrete") else []

    def close(self) -> None:
        self.environment.close()


def _is(space: Any, kind: str) -> bool:
    return type(space).__name__ == kind
