"""Chat templates to train with, for models whose own takes text back that it has written.

A model that thinks is sampled without the thoughts of its earlier turns: its template strips them as soon as
another turn follows. A record of several turns is then no single text whose beginnings are what the sampler
saw. The templates here write the same turns and keep the thoughts of all of them, so that one pass trains
every turn. They write turns only: up to the first assistant turn (system prompt, tools, date) the text is the
model's own template's.

For each trained turn two laws hold, and are checked for every record:

    the completion   is the one that the model's own template writes for that turn as the last one of the
                     chat; where the own one strips the thoughts even there, it is that and the thoughts
    its prompt       is the model's own prompt for that turn, and the thoughts of the earlier turns: the one
                     departure

A template's family is known by that behaviour, not by its name or digest: both laws on `PROBE`.
"""

import functools
import logging
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from jaxrl.errors import InputError
from jaxrl.types import Message

log = logging.getLogger(__name__)

# (messages, opens_turn, chat_template: str | None, **variables) -> text; None is the model's own
Render = Callable[..., str]

# name -> (file, whether the words that open a turn open its thoughts too)
FAMILIES = {
    "Qwen3": ("qwen3.jinja", False),
    "Qwen3-Thinking or QwQ": ("qwen3.jinja", True),
    "DeepSeek-R1-Distill": ("deepseek_r1.jinja", True),
    "DeepSeek-R1-0528": ("deepseek_r1.jinja", False),
}
PROBE: list[Message] = [
    {"role": "user", "content": "question 1"},
    {"role": "assistant", "content": "<think>\nthought 1\n</think>\n\nanswer 1"},
    {"role": "user", "content": "question 2"},
    {"role": "assistant", "content": "answer 2"},
    {"role": "user", "content": "question 3"},
    {"role": "assistant", "content": "<think>\nthought 3\n</think>\n\nanswer 3"},
]
# at the beginning of a message's content
THOUGHTS = re.compile(r"\s*(?:<think>)?\n?(.*?)</think>\n*", re.DOTALL)
# anywhere in a text, as the templates here write them
CLOSED_THOUGHTS = re.compile(r"<think>\n.*?</think>\n\n", re.DOTALL)


def find_family(render: Render) -> str | None:
    """The family of the model's own template, which takes thoughts back: the one that keeps both laws on
    `PROBE`. Or None.
    """
    return next((family for family in FAMILIES if _is_of(render, family)), None)


def _is_of(render: Render, family: str) -> bool:
    turns = [i for i, message in enumerate(PROBE) if message["role"] == "assistant"]
    try:
        check_laws(render, family, PROBE, turns)
        return not keeps_thoughts(PROBE[turns[0]], render(PROBE, True))
    except InputError:
        return False


def render_kept(render: Render, family: str, messages: Sequence[Message], opens_turn: bool) -> str:
    """The messages with a family's training template: a beginning of what it gives for more messages."""
    first = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    if first == len(messages):
        return render(messages, opens_turn)
    name, opens_thoughts = FAMILIES[family]
    turns = [_split(message) if message["role"] == "assistant" else message for message in messages[first:]]
    return render(messages[:first], False) + render(
        turns, opens_turn, _template(name), opens_thoughts=opens_thoughts
    )


def check_laws(render: Render, family: str, messages: Sequence[Message], turns: Sequence[int]) -> None:
    """InputError unless both laws hold for the assistant turns at `turns`."""
    # as a client sends them back
    bare = [{**m, "content": _split(m)["content"]} if m["role"] == "assistant" else m for m in messages]
    forget = functools.partial(CLOSED_THOUGHTS.sub, "")
    for i in turns:
        prompt, own_prompt = render_kept(render, family, messages[:i], True), render(messages[:i], True)
        if forget(prompt) != forget(render(bare[:i], True)):
            raise _departs(i, family, "prompt")
        text, own_text = (
            render_kept(render, family, messages[: i + 1], False),
            render(messages[: i + 1], False),
        )
        if own_text.startswith(own_prompt) and keeps_thoughts(messages[i], own_text[len(own_prompt) :]):
            holds = text[len(prompt) :] == own_text[len(own_prompt) :]
        else:
            holds = forget(text) == forget(render(bare[: i + 1], False))
        if not holds:
            raise _departs(i, family, "completion")


def keeps_thoughts(message: Message, completion: str) -> bool:
    """Whether a completion's text has what its message thinks, and then what it answers."""
    if not _thinks(message):
        return True
    at = 0
    for part in (part.strip() for part in re.split("</?think>", message["content"])):
        at = completion.find(part, at) + len(part)
        if at < len(part):
            return False
    return True


def _thinks(message: Message) -> bool:
    return message["role"] == "assistant" and THOUGHTS.match(message["content"]) is not None


def _split(message: Message) -> dict[str, Any]:
    """An assistant message with its thinking beside its content, without the newlines between the two."""
    found = THOUGHTS.match(message["content"])
    if found is None:
        return {**message, "thinking": "", "content": message["content"].lstrip("\n")}
    return {**message, "thinking": found[1].strip("\n"), "content": message["content"][found.end() :]}


@functools.cache
def _template(name: str) -> str:
    return (files("jaxrl.data") / "templates" / name).read_text(encoding="utf-8")


def _departs(i: int, family: str, what: str) -> InputError:
    return InputError(
        f"message {i}: the training template of {family} gives another {what} than the model's own chat "
        "template does; strip the whitespace around what assistant messages think and answer, or give each "
        "assistant turn a record of its own"
    )
