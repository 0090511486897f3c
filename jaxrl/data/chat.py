"""Messages to token ids: the prompt that the sampler sees, and the record that SFT trains on. The same ids in both.

The chat template is the only source of special tokens: text is rendered first and then tokenised without the tokenizer's
own additions, so that a BOS which the template writes is never doubled. Parsing replies is the tasks' business.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxrl.data.dates import at_fixed_moment
from jaxrl.errors import InputError
from jaxrl.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_for_sampling(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """The prompt: the messages, and the words that open the assistant's turn.

    Raises:
      InputError: the template is missing or refuses the messages.
    """
    return _encode(tokenizer, _render(tokenizer, messages, opens_turn=True))


def render_for_training(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """A record's ids, and which of them the loss is taken on: every assistant turn with the token that closes it.

    For each assistant message i, the ids before its completion are exactly `render_for_sampling(messages[:i])`: what is
    trained is what will be sampled. What a template writes after the closing token (ChatML: a newline) is not trained,
    and is left out after the last turn. Messages after the last assistant message are left out too.

    Returns:
      (ids, loss_mask), of one length.
    Raises:
      InputError: no assistant message, or a template that rewrites earlier text, or one that closes turns with no
        special token.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise InputError(f"a record of roles {[m['role'] for m in messages]} has no assistant message; there is nothing to train on")
    if turns[0] == 0:
        raise InputError("a record begins with an assistant message; a prompt must come before it")
    ids: list[int] = []
    mask: list[bool] = []
    text = ""
    for i in turns:
        prompt = _render(tokenizer, messages[:i], opens_turn=True)
        prompt_ids = _encode(tokenizer, prompt)
        if not prompt.startswith(text):
            raise _broken_prefix(i, "earlier turns are rendered otherwise once more turns follow")
        if prompt_ids[: len(ids)] != ids:
            raise InputError(
                f"an assistant message before message {i} begins with characters that the tokenizer merges with the template's; "
                "strip its leading whitespace"
            )
        mask += [False] * (len(prompt_ids) - len(ids))
        text = _render(tokenizer, messages[: i + 1], opens_turn=False)
        completion_ids = _completion_ids(tokenizer, prompt, prompt_ids, text, i)
        ids = prompt_ids + completion_ids
        mask += [True] * len(completion_ids)
    return ids, mask


def end_of_turn_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id with which the template closes an assistant turn. The sampler must stop at it: it belongs among `eos_ids`."""
    ids, _ = render_for_training(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    return ids[-1]


def _completion_ids(tokenizer, prompt: str, prompt_ids: list[int], text: str, i: int) -> list[int]:
    """Ids of the completion that carries `prompt` on to `text`, up to and including the token that closes the turn."""
    if not text.startswith(prompt):
        raise _broken_prefix(i, "the prompt with the generation words is not how the rendered message begins")
    text_ids = _encode(tokenizer, text)
    if text_ids[: len(prompt_ids)] == prompt_ids:
        completion_ids = text_ids[len(prompt_ids) :]
    else:
        # The tokenizer merged across the border (a completion that begins with a newline). The sampler could not have:
        # it continues the prompt's ids. So the completion is tokenised by itself.
        completion_ids = _encode(tokenizer, text[len(prompt) :])
        if tokenizer.decode(prompt_ids + completion_ids) != tokenizer.decode(text_ids):
            raise InputError(
                f"message {i}: this tokenizer cannot continue the prompt's ids with the completion; strip the message's leading whitespace"
            )
    special = set(tokenizer.all_special_ids) | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    last = max((at for at, token in enumerate(completion_ids) if token in special), default=None)
    if last is None or tokenizer.decode(completion_ids[last + 1 :]).strip():
        raise InputError(
            f"message {i}: the chat template closes assistant messages with no special token, so the model would not learn to stop; "
            "set model.chat_template to a template that writes the EOS token there"
        )
    return completion_ids[: last + 1]


def _render(tokenizer, messages: Sequence[Message], opens_turn: bool) -> str:
    import jinja2

    if not tokenizer.chat_template:
        raise InputError("the tokenizer has no chat template; set model.chat_template to a file with a Jinja template")
    try:
        template = at_fixed_moment(tokenizer, tokenizer.get_chat_template())
        return tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, add_generation_prompt=opens_turn)
    except jinja2.TemplateError as error:
        roles = [message["role"] for message in messages]
        raise InputError(
            f"the chat template refuses messages of roles {roles}: {error}; change the messages or model.chat_template"
        ) from None


def _encode(tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _broken_prefix(i: int, why: str) -> InputError:
    return InputError(
        f"message {i}: the chat template breaks the prefix property ({why}), so training would not see the ids that sampling uses; "
        "give each assistant turn a record of its own, or set model.chat_template to a template that keeps what it has written"
    )
