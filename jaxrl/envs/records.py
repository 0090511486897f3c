"""Records of episodes: what was said, as SFT reads it or AgentGym writes it, and the same played again.

    {"messages": [...], "reward": 1.0, "env": "textcraft", "seed": 0, "metadata": {...}}
    {"conversations": [{"from": "human", "loss": null, "value": ...}, ...], "item_id": "textcraft_0",
     "reward": ..., "env": ..., "seed": ..., "metadata": {...}}

`metadata` holds what an episode hangs on, `problem` and `settings` of the world, and what became of it. In
`conversations` a turn with `"loss": false` is no turn of the policy's, as `"train": false` in `messages`: a
system message there is the first human's, which such a turn answers.
"""

import functools
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from jaxrl.envs import make_world
from jaxrl.envs.world import TextWorld, Transcript, replay
from jaxrl.errors import InputError
from jaxrl.tasks.fields import field
from jaxrl.types import Message, Problem, Verdict

Record = dict[str, Any]
SIZES = ("seed", "train", "val", "test")  # of a section: which problems there are, and not how they go on


def to_record(transcript: Transcript, settings: Mapping[str, Any], form: str, index: int) -> Record:
    """The record of an episode in the form `messages` or `agenttraj`; `settings`: the world's section."""
    name = settings["name"]
    if form == "agenttraj":
        said: Record = {"conversations": conversations(transcript.messages), "item_id": f"{name}_{index}"}
    else:
        said = {"messages": transcript.messages}
    return said | {
        "reward": transcript.reward,
        "env": name,
        "seed": settings["seed"],
        "metadata": {
            "problem": transcript.problem.data,
            "settings": {key: value for key, value in settings.items() if key not in SIZES},
            "success": transcript.success,
            "stop_reason": transcript.stop_reason,
        },
    }


def conversations(messages: list[Message]) -> list[Record]:
    """Messages as AgentGym's turns; a system message becomes a human's, which an untrained `OK.` answers."""
    turns = []
    for message in messages:
        is_policy = message["role"] == "assistant"
        loss = message.get("train", True) if is_policy else None
        turns.append({"from": "gpt" if is_policy else "human", "loss": loss, "value": message["content"]})
        if message["role"] == "system":
            turns.append({"from": "gpt", "loss": False, "value": "OK."})
    return turns


class Replay:
    """Judges records by playing their turns again; pickled into verifier processes, where worlds are made.

        reward, correct = the episode's reward, and whether it ended in success

    name: the world. overrides: settings that win over a record's own.
    """

    failure_reward = 0.0

    def __init__(self, name: str, overrides: Mapping[str, Any]):
        self.name, self.overrides = name, dict(overrides)

    def read(self, record: Record) -> tuple[Problem, str]:
        """What is judged of a record: its problem with settings, and the policy's turns, as JSON.

        Raises:
          InputError: a field that is missing or wrong, an episode of another world.
        """
        if record.get("env", self.name) != self.name:
            raise InputError(f"field 'env' is {record['env']!r}; it should hold {self.name!r}")
        metadata = field(
            record, "metadata", "an object with `problem`", lambda value: isinstance(value, dict)
        )
        data = field(metadata, "problem", "the data of a problem", lambda value: isinstance(value, dict))
        from jaxrl.config.file import make_env_section  # pydantic stays out of the verifier processes

        section = make_env_section(self.name, {**(metadata.get("settings") or {}), **self.overrides})
        settings = section.model_dump(mode="json")
        return Problem("", (), {"problem": data, "settings": settings}), json.dumps(turns_of(record))

    def verify(self, problem: Problem, text: str) -> Verdict:
        world = _world(json.dumps(problem.data["settings"], sort_keys=True))
        transcript = replay(world, world.problem(problem.data["problem"]), json.loads(text))
        metrics, unused = transcript.metrics, transcript.unused
        ended = transcript.stop_reason or "not ended"
        detail = f"{len(transcript.turns)} turns, {ended}" + (
            f", {unused} turns not played" if unused else ""
        )
        is_readable = not metrics.get("parse_errors")
        return Verdict(transcript.reward, transcript.success, is_readable, metrics, detail)


def turns_of(record: Record) -> list[str]:
    """The turns that the policy took, in either form.

    Raises:
      InputError: the record holds neither, or a turn is no text.
    """
    key, role, policy, said, loss = (
        ("conversations", "from", "gpt", "value", "loss")
        if "conversations" in record
        else ("messages", "role", "assistant", "content", "train")
    )
    turns = field(record, key, "a list of turns", lambda value: isinstance(value, list))
    if not all(isinstance(turn, dict) and isinstance(turn.get(said), str) for turn in turns):
        raise InputError(f"field {key!r} holds a turn without a text as its {said!r}; mend the record")
    return [turn[said] for turn in turns if turn.get(role) == policy and turn.get(loss) is not False]


@functools.lru_cache(maxsize=32)
def _world(settings: str) -> TextWorld:
    return make_world(SimpleNamespace(**json.loads(settings)))
