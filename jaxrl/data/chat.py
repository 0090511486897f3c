"""Messages to token ids, the same for both: the prompt that is sampled from, the record that SFT trains on.

The chat template is the only source of special tokens: text is rendered first and then tokenised without the
tokenizer's own additions, so that a BOS which the template writes is never doubled. Parsing replies is the
tasks' business.
"""

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxrl.data.dates import at_fixed_moment
from jaxrl.data.training_templates import Render, check_laws, find_family, keeps_thoughts, render_kept
from jaxrl.errors import InputError
from jaxrl.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class TemplateForgets(InputError):
    """A chat template under which a record is no text whose beginnings are what the sampler sees."""


def render_for_sampling(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """The prompt: the messages, and the words that open the assistant's turn.

    Raises:
      InputError: the template is missing, refuses the messages, or leaves out something that they carry.
    """
    render = functools.partial(_render, tokenizer)
    messages = _without_bos(tokenizer, render, messages)
    text = render(messages, True)
    _refuse_losses(render, messages, text, opens_turn=True)
    return _encode(tokenizer, text)


def render_next_turn(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], read: list[int], said: list[int]
) -> list[int]:
    """The prompt of a later turn: the ids that the policy has read and said as they were, then what came
    since.

    What was said is never tokenised again: a policy may spell a text with other ids than the tokenizer would.
    Where the template does not go on from the text before (it takes earlier thoughts out), the whole is
    rendered anew, and the result does not begin with `read + said`.

    Args:
      messages: the chat; the last assistant's content is `spoken(tokenizer, said)`.
      read, said: prompt_ids and completion_ids of the turn before.
    Raises:
      InputError: as `render_for_sampling`, of what came since.
    """
    render = functools.partial(_render, tokenizer)
    messages = _without_bos(tokenizer, render, messages)
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    text = render(messages, True)
    _refuse_losses(render, messages, text, opens_turn=True, since=last)
    before = render(messages[:last], True) + messages[last]["content"]
    if said[-1] in tokenizer.all_special_ids:
        before += tokenizer.decode(said[-1:])
    if not text.startswith(before):
        return _encode(tokenizer, text)
    return read + said + _encode(tokenizer, text[len(before) :])


def takes_back_thoughts(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the chat template is of a family that takes thoughts out of earlier turns."""
    return find_family(functools.partial(_render, tokenizer)) is not None


def spoken(tokenizer: "PreTrainedTokenizerBase", said: list[int]) -> str:
    """What a policy has said, as a message's content: all of its ids but the one that closes the turn."""
    return tokenizer.decode(said[:-1] if said[-1:] and said[-1] in tokenizer.all_special_ids else said)


def render_for_training(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], training_template: bool = True
) -> tuple[list[int], list[bool]]:
    """A record's ids, and which of them the loss is taken on: each assistant turn with its closing token.

    For each trained message i, the ids before its completion are exactly `render_for_sampling(messages[:i])`:
    what is trained is what will be sampled. What a template writes after the closing token (ChatML: a
    newline) is not trained, and is left out after the last turn. Messages after the last trained one are left
    out too.

    Where the model's template cannot give that (it takes the thoughts of earlier turns out), and its family
    is one of `training_templates.py`, the record is rendered with the template there: the ids before a
    completion are then those of sampling and the thoughts of earlier turns, and the completion is the same.

    Args:
      messages: the record; assistant messages with `train: False` are not trained on.
      training_template: False refuses such records instead.
    Returns:
      (ids, loss_mask), of one length.
    Raises:
      InputError: no assistant message to train on, a template that rewrites earlier text and is of no known
        family, or one that closes turns with no special token, or leaves out something that the messages
        carry.
    """
    turns = [
        i
        for i, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("train", True)
    ]
    if not turns:
        raise InputError(
            f"a record of roles {[m['role'] for m in messages]} has no assistant message to train on"
        )
    if messages[0]["role"] == "assistant":
        raise InputError("a record begins with an assistant message; a prompt must come before it")
    own = functools.partial(_render, tokenizer)
    messages = _without_bos(tokenizer, own, messages[: turns[-1] + 1])
    try:
        return _ids_and_mask(tokenizer, own, messages, turns, as_sampled=True)
    except TemplateForgets:
        family = _family(tokenizer, str(tokenizer.chat_template)) if training_template else None
        if family is None:
            raise
    check_laws(own, family, messages, turns)
    return _ids_and_mask(
        tokenizer, functools.partial(render_kept, own, family), messages, turns, as_sampled=False
    )


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The ids of a text that no template wraps, with what the tokenizer adds, but never a second BOS."""
    ids, bos = list(tokenizer(text)["input_ids"]), tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos] and len(ids) > len(_encode(tokenizer, text)):
        return ids[1:]
    return ids


def end_of_turn_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id with which the template closes an assistant turn. The sampler must stop at it (`eos_ids`)."""
    text = _render(
        tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], False
    )
    return _up_to_end_of_turn(tokenizer, _encode(tokenizer, text), 1)[-1]


# ----------------------------------------------------------------------------------------------- ids and mask


def _ids_and_mask(
    tokenizer, render: Render, messages: Sequence[Message], turns: Sequence[int], as_sampled: bool
) -> tuple[list[int], list[bool]]:
    """As `render_for_training`; `as_sampled`: whether the ids before a completion must be those of the
    rendered prompt.
    """
    ids: list[int] = []
    mask: list[bool] = []
    text, text_ids = "", ids
    for i in turns:
        prompt = render(messages[:i], True)
        prompt_ids = _encode(tokenizer, prompt)
        if not prompt.startswith(text):
            raise _broken_prefix(i, "earlier turns are rendered otherwise once more turns follow")
        if prompt_ids[: len(ids)] != ids and as_sampled:
            raise InputError(
                f"an assistant message before message {i} begins with characters that the tokenizer merges "
                "with the template's; strip its leading whitespace"
            )
        if prompt_ids[: len(ids)] != ids:  # an earlier turn stays in the ids in which it was trained
            prompt_ids = text_ids + _encode(tokenizer, prompt[len(text) :])
        mask += [False] * (len(prompt_ids) - len(ids))
        text = render(messages[: i + 1], False)
        if not text.startswith(prompt):
            raise _broken_prefix(
                i, "the prompt with the generation words is not how the rendered message begins"
            )
        if not keeps_thoughts(messages[i], text[len(prompt) :]):
            raise _broken_prefix(i, "it leaves out what the message thinks")
        text_ids = _continued(tokenizer, prompt, prompt_ids, text, i)
        ids = prompt_ids + _up_to_end_of_turn(tokenizer, text_ids[len(prompt_ids) :], i)
        mask += [True] * (len(ids) - len(prompt_ids))
    _refuse_losses(render, messages, text, opens_turn=False)
    return ids, mask


def _continued(tokenizer, prompt: str, prompt_ids: list[int], text: str, i: int) -> list[int]:
    """Ids of `text` that begin with those of `prompt`, which it carries on."""
    text_ids = _encode(tokenizer, text)
    if text_ids[: len(prompt_ids)] == prompt_ids:
        return text_ids
    # The tokenizer merged across the border (a completion that begins with a newline). The sampler could not
    # have: it continues the prompt's ids. So the completion is tokenised by itself.
    apart = prompt_ids + _encode(tokenizer, text[len(prompt) :])
    if tokenizer.decode(apart) != tokenizer.decode(text_ids):
        raise InputError(
            f"message {i}: this tokenizer cannot continue the prompt's ids with the completion; strip the "
            "message's leading whitespace"
        )
    return apart


def _up_to_end_of_turn(tokenizer, ids: list[int], i: int) -> list[int]:
    """The ids up to the last special token, after which only blanks may come: special tokens that the message
    itself holds stay.
    """
    special = set(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    last = max((at for at, token in enumerate(ids) if token in special), default=None)
    if last is None or tokenizer.decode(ids[last + 1 :]).strip():
        raise InputError(
            f"message {i}: the chat template closes assistant messages with no special token, so the model "
            "would not learn to stop; set model.chat_template to a template that writes the EOS token there"
        )
    return ids[: last + 1]


# -------------------------------------------------------------------------------------------------- templates


def _render(
    tokenizer, messages: Sequence[Message], opens_turn: bool, chat_template: str | None = None, **variables
) -> str:
    """The text of the messages, by the model's chat template or by another one."""
    import jinja2

    if not tokenizer.chat_template:
        raise InputError(
            "the tokenizer has no chat template; set model.chat_template to a file with a Jinja template"
        )
    chat = [
        {key: value for key, value in message.items() if key not in ("tools", "train")}
        for message in messages
    ]
    tools = messages[0].get("tools")
    try:
        template = at_fixed_moment(tokenizer, chat_template or tokenizer.get_chat_template(tools=tools))
        return tokenizer.apply_chat_template(
            chat,
            tools=tools,
            tokenize=False,
            add_generation_prompt=opens_turn,
            chat_template=template,
            **variables,
        )
    # the last two: of Python's own, out of a template's expressions
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        roles = [message["role"] for message in messages]
        raise InputError(
            f"the chat template refuses messages of roles {roles}: {error}; change the messages or "
            "model.chat_template"
        ) from None


@functools.lru_cache(maxsize=8)
def _family(tokenizer, chat_template: str) -> str | None:
    """The family of the tokenizer's template, logged once; `chat_template` is there for the cache, which must
    hang on it.
    """
    family = find_family(functools.partial(_render, tokenizer))
    if family is not None:
        log.warning(
            "the model's chat template takes back the thoughts of earlier turns; records that it would break "
            "are rendered with the training template of %s, which keeps them (model.training_template: false "
            "refuses such records)",
            family,
        )
    return family


def _without_bos(tokenizer, render: Render, messages: Sequence[Message]) -> Sequence[Message]:
    """The messages without a BOS of their own, where the template writes one."""
    bos = tokenizer.bos_token
    if (
        not bos
        or not any(message["content"].startswith(bos) for message in messages)
        or not render(messages, False).startswith(bos)
    ):
        return messages
    return [{**message, "content": message["content"].removeprefix(bos)} for message in messages]


def _refuse_losses(
    render: Render, messages: Sequence[Message], text: str, opens_turn: bool, since: int = 0
) -> None:
    """InputError if `text`, the rendered messages, would be the same without something that the messages
    carry; looked for in message `since` and those after it.
    """

    def is_lost(i: int, change: dict[str, Any]) -> bool:
        return render([*messages[:i], {**messages[i], **change}, *messages[i + 1 :]], opens_turn) == text

    for i, message in enumerate(messages):
        if i < since:
            continue
        for key in ("tools", "tool_calls"):
            if message.get(key) and is_lost(i, {key: []}):
                raise InputError(
                    f"message {i}: the chat template does not render `{key}`; leave them out, or set "
                    "model.chat_template to one that does"
                )
        if message["role"] == "assistant" or not (content := message["content"].strip()):
            continue
        # What is long and is there as often as the messages have it is there; so most messages need no
        # rendering of their own.
        is_there = len(content) >= 20 and text.count(content) >= sum(
            other["content"].count(content) for other in messages
        )
        if not is_there and is_lost(i, {"content": content + "."}):
            raise InputError(
                f"message {i}: the chat template leaves out what messages of role {message['role']!r} say; "
                "use a role that it renders"
            )


def _encode(tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _broken_prefix(i: int, why: str) -> TemplateForgets:
    return TemplateForgets(
        f"message {i}: the chat template breaks the prefix property ({why}), so training would not see the "
        "ids that sampling uses; give each assistant turn a record of its own, or set model.chat_template "
        "to a template that keeps what it has written"
    )
