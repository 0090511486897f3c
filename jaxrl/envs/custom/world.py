"""A world of the user's own: one Python file with a class `Environment`, named in the config.

    env: {name: custom_env, file: my_world.py, options: {most: 20}}

The class has one of two forms; `examples/guess.py` shows the first, `examples/tools.py` the second.

An environment: `Environment(problem, **options)` is one episode of a problem, which is plain JSON.

    start()        the first observation, a text, or a list of messages
    step(text)     takes a turn of the policy, its whole text: a `StepResult`, or (observation, reward, done)
    progress()     may be there: how much of the way to success is done, 0 to 1, for `shaping`

Tools, as in TRL's `environment_factory`: `Environment(**options)` has

    reset(**problem)   may return a text that is added to the `prompt` of the problem, a text or messages
    public methods     are tools: their schemas come from docstrings and type hints; what they return or
                       raise is the observation
    get_reward()       the episode's reward, asked for once: after a turn without a call, when the attribute
                       `done` is true after one, or after the last turn that there may be

A turn that calls tools calls them as the model's chat template writes calls (`calls.py`); what cannot be
read, an unknown tool and wrong arguments are observations, and are counted.

Both forms may also have

    draw(rng, index, **options)   static: one candidate for a problem, all of whose chance comes from `rng`;
                                  which split it goes to hangs on its content alone. Without it problems are
                                  the records of train_file, val_file and test_file
    policies                      names of methods(rng) that give the text of a scripted policy's next turn
    failure_reward                of an episode that crashed; 0 if it is not said
    close()                       lets go of what the episode holds

What is said in `metrics` of a StepResult is logged; an episode succeeds if `success` is there and positive,
or, where nothing is said, if its rewards add up to more than 0.
"""

import inspect
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jaxrl.data.tables import read_file
from jaxrl.envs.base import StepResult
from jaxrl.envs.custom.calls import read_calls, schema_of, wrong_with
from jaxrl.envs.formats import Unreadable
from jaxrl.envs.world import Answer, Data, Episode
from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS
from jaxrl.tasks.drawing import Claim, Drawn, digest
from jaxrl.tasks.fields import field
from jaxrl.tasks.user_file import errors_named, load
from jaxrl.types import Message, Problem

if TYPE_CHECKING:  # pydantic stays out of the processes that play
    from jaxrl.config.envs import CustomEnvSection

NO_TOOLS = {"reset", "get_reward", "draw", "close", "progress"}
MAX_OBSERVATION = 20_000  # characters of what one tool says


class CustomWorld:
    """The `World`; `section`: see `config/envs.py`.

    Raises:
      InputError: a file that does not run, has no such class, or whose class has neither form; whatever the
        user's code raises, with its line.
    """

    name = "custom_env"

    def __init__(self, section: "CustomEnvSection"):
        self.section = section
        self.file = section.file.partition(":")[0]
        self.make = load(section.file, "Environment")
        options = section.options
        self.options: Data = dict(options) if isinstance(options, dict) else options.model_dump()
        self.has_tools = callable(getattr(self.make, "reset", None))
        if not self.has_tools and not all(callable(getattr(self.make, n, None)) for n in ("start", "step")):
            raise InputError(
                f"the Environment of {section.file} has neither `start` and `step` nor `reset`; define "
                "start(self) and step(self, text), or reset(self) and methods that are tools"
            )
        if self.has_tools and not callable(getattr(self.make, "get_reward", None)):
            raise InputError(
                f"the Environment of {section.file} has no `get_reward`; define get_reward(self)"
            )
        self.failure_reward = float(getattr(self.make, "failure_reward", 0.0))
        self.schemas = {name: schema_of(getattr(self.make, name)) for name in self._tools()}
        self._drawn = Drawn(
            f"{self.name}/{section.file.rpartition('/')[2]}",
            "env.options",
            section.seed,
            {split: getattr(section, split) for split in SPLITS},
            lambda seed: self._draw,
            self.problem,
            "env",
        )

    def __reduce__(self) -> tuple:
        """What a process needs that plays: it runs the file again."""
        return type(self), (SimpleNamespace(**vars(self.section)),)

    def problems(self, split: str) -> list[Problem]:
        """Drawn ones, or the first of the split's file.

        Raises:
          InputError: neither `draw` nor a file; a file that is broken (file, line and field are named).
        """
        if hasattr(self.make, "draw"):
            return self._drawn.problems(split)
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        return list(self._read(split, getattr(self.section, split)))

    def draw(self, count: int, seed: int, split: str | None) -> Iterator[Problem]:
        """`count` fresh problems; of a world with files the first of the split's, whatever the seed."""
        if hasattr(self.make, "draw"):
            return (self.problem(data) for data in self._drawn.generate(count, seed, split))
        return self._read(split or "train", count)

    def problem(self, data: Data) -> Problem:
        game = self._game(data)
        try:
            messages = tuple(game.opening)
        finally:
            game.close()
        return Problem(str(data.get("uid", f"{self.name}-{digest(data)}")), messages, data)

    def environment(self, problem: Problem) -> Episode:
        return Episode(self, self._game(problem.data))

    def policies(self) -> tuple[str, ...]:
        return tuple(getattr(self.make, "policies", ()))

    def act(self, policy: str, environment: Episode, rng: random.Random) -> str:
        if policy not in self.policies():
            known = ", ".join(self.policies()) or "none"
            raise InputError(f"unknown policy {policy!r} of {self.section.file}; it has: {known}")
        with errors_named(self.file):
            return getattr(environment.game.own, policy)(rng)

    def read(self, text: str) -> str:
        """A turn goes to the user's code as it is."""
        return text

    def _messages(self, opening: list[Message]) -> list[Message]:
        return opening

    def _tools(self) -> list[str]:
        if not self.has_tools:
            return []
        members = inspect.getmembers(self.make, inspect.isroutine)
        others = NO_TOOLS | set(self.policies())
        return [name for name, _ in members if not name.startswith("_") and name not in others]

    def _draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        with errors_named(self.file):
            data = self.make.draw(rng, index, **self.options)
        return data if data is not None and claim(data) else None

    def _game(self, data: Data) -> "OwnGame | ToolGame":
        with errors_named(self.file):
            if self.has_tools:
                return ToolGame(self.make(**self.options), data, self)
            return OwnGame(self.make(data, **self.options), self.file)

    def _read(self, split: str, most: int) -> Iterator[Problem]:
        file = getattr(self.section, f"{split}_file")
        if file is None and split == "train":
            raise InputError(
                f"the Environment of {self.section.file} has no `draw`, and no file of records is named; set "
                "env.train_file"
            )
        for count, (place, record) in enumerate(read_file(file) if file else ()):
            if count >= most:
                return
            try:
                yield self.problem(record)
            except InputError as error:
                raise InputError(f"{place}: {error}") from None


class OwnGame:
    """An episode of a class with `start` and `step`, as a `Game` over whole texts."""

    def __init__(self, own: Any, file: str):
        self.own, self.file = own, file
        first = own.start()
        self.opening = [Message(role="user", content=first)] if isinstance(first, str) else list(first)
        self.total = 0.0

    def act(self, text: str) -> Answer:
        with errors_named(self.file):
            result = self.own.step(text)
            if not isinstance(result, StepResult):
                observation, reward, done = result
                result = StepResult(str(observation), float(reward), bool(done))
        self.total += result.reward
        metrics = dict(result.metrics)
        if result.done:
            metrics = {"success": float(self.total > 0)} | metrics
        return Answer(result.observation, result.reward, result.done, metrics)

    def progress(self) -> float:
        with errors_named(self.file):
            return float(self.own.progress()) if hasattr(self.own, "progress") else 0.0

    def actions(self) -> list[str]:
        return []

    def close(self) -> None:
        _close(self.own)


class ToolGame:
    """An episode of a class with tools, as a `Game` over whole texts."""

    def __init__(self, own: Any, data: Data, world: CustomWorld):
        self.own, self.world = own, world
        self.turns_left = world.section.max_turns
        self.opening = _messages(data, own.reset(**data))
        if world.schemas:
            self.opening[0] = Message(**{**self.opening[0], "tools": list(world.schemas.values())})

    def act(self, text: str) -> Answer:
        self.turns_left -= 1
        metrics = {"parse_errors": 0.0, "tool_calls": 0.0, "tool_errors": 0.0}
        answers: list[str] = []
        try:
            calls = read_calls(text)
            done = not calls
        except Unreadable as error:
            calls, done = [], False
            answers.append(f"Your answer could not be read: {error}.")
            metrics["parse_errors"] = 1.0
        for name, arguments in calls:
            told, is_error = self._call(name, arguments)
            answers.append(told)
            metrics["tool_calls"] += 1
            metrics["tool_errors"] += is_error
        with errors_named(self.world.file):
            done = done or bool(getattr(self.own, "done", False))
            is_last = done or self.turns_left <= 0
            reward = float(self.own.get_reward()) if is_last else 0.0
        if is_last:
            metrics["success"] = float(reward > 0)
        told = "\n".join(f"<tool_response>\n{answer}\n</tool_response>" for answer in answers)
        return Answer(told, reward, done, metrics)

    def progress(self) -> float:
        with errors_named(self.world.file):
            return float(self.own.progress()) if hasattr(self.own, "progress") else 0.0

    def actions(self) -> list[str]:
        return []

    def close(self) -> None:
        _close(self.own)

    def _call(self, name: str, arguments: Data) -> tuple[str, bool]:
        """What a tool says, and whether that is an error."""
        if name not in self.world.schemas:
            return f"Error: there is no tool {name[:80]!r}; there are: {', '.join(self.world.schemas)}", True
        if wrong := wrong_with(arguments, self.world.schemas[name]):
            return f"Error: {wrong}", True
        try:
            return str(getattr(self.own, name)(**arguments))[:MAX_OBSERVATION], False
        except Exception as error:  # tools say by raising what cannot be done: the policy reads it
            return f"Error: {error}"[:MAX_OBSERVATION], True


def _messages(data: Data, told: str | None) -> list[Message]:
    """The problem's prompt, with what `reset` has told at the end of the last user's message."""
    prompt = field(data, "prompt", "a text, or a list of messages", lambda v: isinstance(v, str | list) and v)
    messages = [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
    if told:
        last = messages[-1]
        messages[-1] = Message(**{**last, "content": f"{last['content']}{told}"})
    return messages


def _close(own: Any) -> None:
    if hasattr(own, "close"):
        own.close()
