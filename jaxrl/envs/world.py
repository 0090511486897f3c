"""From the rules of a text world to a `World` with episodes: turns read, errors counted, turns bounded.

A world's own file says its `Rules`: what problems there are and what an action of one line does. All that
worlds share is here, and nothing of it is in them:

    rules = TextCraft(section)          # or webshop.WebShop, ...
    world = TextWorld(section, rules)
    transcript = play(world, problem, "expert", random.Random(0))
    assert replay(world, problem, transcript.turns).reward == transcript.reward
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from jaxrl.envs.base import Environment, StepResult, World
from jaxrl.envs.formats import MAX_ACTION, Function, Unreadable, instructions, read_action, write_turn
from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS
from jaxrl.tasks.drawing import Claim, Drawn, digest
from jaxrl.types import Message, Problem

if TYPE_CHECKING:  # pydantic stays out of the processes that play
    from jaxrl.config.envs import AnyEnvSection

Data = dict[str, Any]  # plain JSON: all that an episode hangs on


@dataclass(frozen=True)
class Answer:
    """What a game answers to one action. `metrics` are numbers that are logged and pay nothing; a game that
    ends says `success`, 1 or 0, there.
    """

    observation: str
    reward: float = 0.0
    done: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


class Game(Protocol):
    """One episode under the words: an action is one line of text, of any content.

    opening: the first observation.
    """

    opening: str

    def act(self, action: str) -> Answer:
        """Do something; what cannot be done is answered like everything else."""

    def progress(self) -> float:
        """How much of the way to success is done, 0 to 1: what `shaping` pays for."""

    def actions(self) -> list[str]:
        """Actions that make sense now, where the world can list them, else none."""

    def close(self) -> None:
        """Let go of what the episode holds outside this process; again is no error."""


class Rules(Protocol):
    """What is particular about a world.

    name: in configs and records. task: what the policy is told of it. functions: what can be done.
    failure_reward: of an episode that crashed. policies: the names of the scripted ones.
    read_agentgym: how AgentGym's client finds the action in a ReAct turn: of `formats.py`.
    """

    name: str
    task: str
    functions: tuple[Function, ...]
    failure_reward: float
    policies: tuple[str, ...]
    read_agentgym: Callable[[str], str]

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        """One candidate for a problem, or None to be asked again; see `tasks/drawing.py`."""

    def game(self, data: Data) -> Game:
        """A fresh game of a problem.

        Raises:
          InputError: the data are no problem of this world; the field is named.
        """

    def choose(self, policy: str, game: Game, rng: random.Random) -> tuple[str, str]:
        """(thought, action) with which a scripted policy goes on."""


class TextWorld:
    """The `World` of some rules. `section`: of `config/envs.py`."""

    def __init__(self, section: "AnyEnvSection", rules: Rules):
        self.section, self.rules, self.name = section, rules, rules.name
        self.failure_reward = rules.failure_reward
        sizes = {split: getattr(section, split) for split in SPLITS}
        settings = "env.max_turns or the world's own settings"
        self._drawn = Drawn(
            rules.name, settings, section.seed, sizes, lambda seed: rules.draw, self.problem, "env"
        )

    def __reduce__(self) -> tuple:
        """What a process needs that plays: no problems, and no pydantic."""
        return type(self), (SimpleNamespace(**vars(self.section)), self.rules)

    def problems(self, split: str) -> list[Problem]:
        return self._drawn.problems(split)

    def draw(self, count: int, seed: int, split: str | None) -> Iterator[Problem]:
        """`count` fresh problems of a split, or of any; equal arguments give equal problems."""
        return (self.problem(data) for data in self._drawn.generate(count, seed, split))

    def problem(self, data: Data) -> Problem:
        """The problem with these data, as records of episodes carry them.

        Raises:
          InputError: they are no problem of this world.
        """
        game = self.rules.game(data)
        try:
            messages = self._messages(game.opening)
        finally:
            game.close()
        return Problem(f"{self.name}-{digest(data)}", messages, data)

    def environment(self, problem: Problem) -> "Episode":
        return Episode(self, self.rules.game(problem.data))

    def policies(self) -> tuple[str, ...]:
        return self.rules.policies

    def act(self, policy: str, environment: "Episode", rng: random.Random) -> str:
        """See `World`.

        Raises:
          InputError: the world has no such policy.
        """
        if policy not in self.rules.policies:
            known = ", ".join(self.rules.policies) or "none"
            raise InputError(f"unknown policy {policy!r} of {self.name}; it has: {known}")
        thought, action = self.rules.choose(policy, environment.game, rng)
        return write_turn(self.section.action_format, thought, action, self.rules.functions)

    def read(self, text: str) -> str:
        """The action of a turn; raises `Unreadable`."""
        if self.section.compat == "agentgym" and self.section.action_format == "react":
            action = self.rules.read_agentgym(text)
            if len(action) > MAX_ACTION:  # there it would be answered, at length
                raise Unreadable(f"your action is longer than {MAX_ACTION} characters")
            return action
        return read_action(self.section.action_format, text, self.rules.functions)

    def _messages(self, opening: str) -> tuple[Message, ...]:
        rules = f"{self.rules.task}\n\n{instructions(self.section.action_format, self.rules.functions)}"
        if self.section.compat == "agentgym":
            return (
                Message(role="user", content=rules),
                Message(role="assistant", content="OK.", train=False),
                Message(role="user", content=opening),
            )
        return (Message(role="system", content=rules), Message(role="user", content=opening))


class Episode:
    """One episode of a text world; an `Environment`.

        reward of a turn = the world's own + shaping * (progress after it - progress before it)

    Metrics, of every turn: `parse_errors` (1 for a turn that could not be read); of the last one `success`,
    and `score`, the episode's reward without shaping; with shaping, `shaping`, what it paid.
    """

    def __init__(self, world: TextWorld, game: Game):
        self.world, self.game = world, game
        self.turns, self.score, self.done, self.begun = 0, 0.0, False, False

    def start(self) -> list[Message]:
        """What the policy reads first.

        Raises:
          InputError: the episode has begun before.
        """
        if self.begun:
            raise InputError(
                f"this episode of {self.world.name} has begun before; ask the world for a new one"
            )
        self.begun = True
        return list(self.world._messages(self.game.opening))

    def step(self, text: str) -> StepResult:
        """Take one turn.

        Raises:
          InputError: the episode has not begun, or is over.
        """
        if not self.begun or self.done:
            state = "is over" if self.done else "has not begun"
            remedy = "ask the world for a new one" if self.done else "call start first"
            raise InputError(f"this episode of {self.world.name} {state}; {remedy}")
        shaping = self.world.section.shaping
        before = self.game.progress() if shaping else 0.0
        answer = self._answer(text)
        self.turns += 1
        self.score += answer.reward
        is_last = self.turns >= self.world.section.max_turns
        self.done = answer.done or is_last
        reward, metrics = answer.reward, {"parse_errors": 0.0} | answer.metrics
        if shaping:
            metrics["shaping"] = shaping * (self.game.progress() - before)
            reward += metrics["shaping"]
        if self.done:
            metrics = {"success": 0.0} | metrics | {"score": self.score}
            self.game.close()
        reason = "env_done" if answer.done else "max_turns" if is_last else None
        return StepResult(answer.observation, reward, self.done, reason, metrics)

    def close(self) -> None:
        """Give the episode up, if it is not over."""
        self.done = True
        self.game.close()

    def _answer(self, text: str) -> Answer:
        try:
            action = self.world.read(text)
        except Unreadable as error:
            told = str(error)
            if not told.startswith("Error: "):  # AgentGym's own
                told = f"Your answer could not be read: {told}."
            return Answer(told, metrics={"parse_errors": 1.0})
        answer = self.game.act(action)
        if action:
            return answer
        # AgentGym's clients pass on what they cannot read as no action at all
        return replace(answer, metrics=answer.metrics | {"parse_errors": 1.0})


# --------------------------------------------------------------------------------------------------- episodes


@dataclass(frozen=True)
class Transcript:
    """An episode that was played.

    messages: all that was said, from the start to the policy's last turn. turns: the policy's, in order.
    results: the world's answers to them. unused: turns that were left when the world had ended it.
    """

    problem: Problem
    messages: list[Message]
    turns: list[str]
    results: list[StepResult]
    unused: int = 0

    @property
    def reward(self) -> float:
        return sum(result.reward for result in self.results)

    @property
    def stop_reason(self) -> str | None:
        return self.results[-1].stop_reason if self.results else None

    @property
    def metrics(self) -> dict[str, float]:
        """Summed over the turns, by name."""
        names = sorted({name for result in self.results for name in result.metrics})
        return {name: sum(result.metrics.get(name, 0.0) for result in self.results) for name in names}

    @property
    def success(self) -> bool:
        return self.metrics.get("success", 0.0) > 0


def play(world: World, problem: Problem, policy: str, rng: random.Random) -> Transcript:
    """A whole episode with one of the world's scripted policies."""
    return _play(world, problem, lambda environment: world.act(policy, environment, rng))


def replay(world: World, problem: Problem, turns: Sequence[str]) -> Transcript:
    """The episode with these turns of the policy; it ends where the world ends it, or with the last turn."""
    left = iter(turns)
    transcript = _play(world, problem, lambda environment: next(left, None))
    return Transcript(**{**vars(transcript), "unused": len(turns) - len(transcript.turns)})


def _play(world: World, problem: Problem, policy: Callable[[Environment], str | None]) -> Transcript:
    environment = world.environment(problem)
    try:
        messages, turns, results = environment.start(), [], []
        while not (results and results[-1].done) and (text := policy(environment)) is not None:
            if results:
                messages.append(Message(role="user", content=results[-1].observation))
            messages.append(Message(role="assistant", content=text))
            turns.append(text)
            results.append(environment.step(text))
    finally:
        if isinstance(environment, Episode):  # one's own need no `close`
            environment.close()
    return Transcript(problem, messages, turns, results)
