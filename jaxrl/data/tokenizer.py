"""Tokenizers: one made on the spot for models without a directory, one loaded from a directory, and the ids
that end a turn.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrl.errors import InputError
from jaxrl.files.disk import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

ROLES = ("system", "user", "assistant")  # the words that the chat template adds
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML. The newline after the end of a turn belongs to the template, not to what the model says.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# What can be one token: a word with the space before it, one digit, one other sign with its space, one
# newline, one blank.
WORDS = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]|\n|\s"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")


def train_tokenizer(texts: Iterable[str], whole: Sequence[str] = ()) -> "PreTrainedTokenizerFast":
    """A byte-level tokenizer in which every word of the texts is one token, with a ChatML template.

    Lossless: decode(encode(s)) == s for any s, because all 256 bytes are tokens. Deterministic: the same
      texts give the same ids, in any order. Digits and punctuation stay single, so that numbers are spelt and
      signs never hide inside words. A word that the texts do not have is spelt in bytes.

    It is a BPE model without merges that takes known words whole (`ignore_merges`): learnt merges would bring
    two or three fragments per word that never occur, and a small model pays for them in its embedding and its
    logits.

    Args:
      texts: what the vocabulary is made of.
      whole: strings that become one token each wherever they occur (a long fixed instruction, say).
    Returns:
      a transformers tokenizer; `<|im_end|>` is EOS, `<|endoftext|>` pads.
    Raises:
      InputError: a string in `whole` is empty or cannot be decoded back.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    _quiet_transformers()
    from transformers import PreTrainedTokenizerFast

    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    special = [PAD, TURN_START, TURN_END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word for text in [*texts, *ROLES] for word, _ in pieces.pre_tokenize_str(text)} - set(alphabet)
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet, *sorted(words)])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    core.pre_tokenizer = pieces
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    core.add_tokens([AddedToken(text, normalized=False, special=False) for text in _checked_whole(whole)])
    for text in whole:
        if core.decode(core.encode(text).ids, skip_special_tokens=False) != text:
            raise InputError(
                f"{text[:40]!r} cannot be one token: it is not decoded back to itself; leave it out of "
                "`whole`"
            )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def load_tokenizer(path: str | Path, chat_template: str | Path | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a directory, or of a hub name, for chats; nothing is downloaded when the directory
    exists.

    A tokenizer without a pad token pads with its EOS token: padding is masked by segment ids, so that any id
    serves, and base models commonly come without one. This is logged once.

    Args:
      path: a Hugging Face directory or hub name.
      chat_template: a file with a Jinja template that replaces the tokenizer's own.
    Raises:
      InputError: nothing there, no tokenizer in it, no EOS and no pad token, no chat template.
    """
    if (is_folder := _check_place(path)) and not _has_tokenizer(path):
        raise InputError(
            f"{str(path)!r} holds no tokenizer (none of {', '.join(TOKENIZER_FILES)}); set model.tokenizer "
            "to a tokenizer directory"
        )
    tokenizer = _load(path, is_folder)
    if chat_template is not None:
        tokenizer.chat_template = _read_template(Path(chat_template))
    if tokenizer.chat_template is None:
        raise InputError(
            f"the tokenizer of {str(path)!r} has no chat template; set model.chat_template to a file with a "
            "Jinja template"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise InputError(
                f"the tokenizer of {str(path)!r} has neither a pad nor an EOS token; name them in its "
                "tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        log.warning(
            "the tokenizer of %s has no pad token; rows are padded with its EOS %r, masked",
            path,
            tokenizer.eos_token,
        )
    return tokenizer


def find_tokenizer(folder: str | Path) -> "PreTrainedTokenizerBase | None":
    """The tokenizer of a directory as it is, chat template or not; None where there is none.

    Raises:
      InputError: no such directory, or tokenizer files that cannot be read.
    """
    if not Path(folder).is_dir():
        raise InputError(f"directory {str(folder)!r} does not exist; check the path")
    return _load(folder, is_folder=True) if _has_tokenizer(folder) else None


def num_tokens(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Ids from here on are no tokens: the padding of a model's vocabulary.

    The highest id counts, for ids may have gaps.
    """
    return max(tokenizer.get_vocab().values()) + 1


def eos_ids(tokenizer: "PreTrainedTokenizerBase | None", folder: str | Path | None) -> tuple[int, ...]:
    """The ids that end a completion: the tokenizer's EOS first, then those that the model's folder names.

    Chat models often stop at another token than their tokenizer's EOS (Llama 3: `<|eot_id|>`); only
    generation_config.json says so. Where that file is absent config.json is asked, as in transformers.
    Without a tokenizer there may be none.

    Raises:
      InputError: a tokenizer and no EOS anywhere, or a file that cannot be read.
    """
    ids = [] if tokenizer is None or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for name in ("generation_config.json", "config.json"):
        if folder is not None and (Path(folder) / name).is_file():
            ids += _eos_of_file(Path(folder) / name)
            break
    if tokenizer is not None and not ids:
        raise InputError(
            "the tokenizer has no EOS token, so no completion would ever end; name one in its "
            "tokenizer_config.json"
        )
    return tuple(dict.fromkeys(ids))


def _eos_of_file(path: Path) -> list[int]:
    found = read_json(path, "repair or remove it").get("eos_token_id")
    found = [] if found is None else found if isinstance(found, list) else [found]
    if not all(type(i) is int for i in found):
        raise InputError(f"{path}: eos_token_id is {found!r}; it must be an id or a list of ids")
    return found


def _load(path: str | Path, is_folder: bool) -> "PreTrainedTokenizerBase":
    _quiet_transformers()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path), local_files_only=is_folder)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the tokenizer of {str(path)!r} cannot be loaded: {first_line}; set model.tokenizer to a "
            "tokenizer directory"
        ) from error


def _quiet_transformers() -> None:
    """transformers warns on import that PyTorch is absent; it is absent on purpose."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _checked_whole(whole: Sequence[str]) -> list[str]:
    for text in whole:
        if not text:
            raise InputError("an empty string cannot be a token; leave it out of `whole`")
    # Of two strings that start alike the tokenizer must meet the longer one first.
    return sorted(dict.fromkeys(whole), key=lambda text: (-len(text), text))


def _has_tokenizer(folder: str | Path) -> bool:
    return any((Path(folder) / name).is_file() for name in TOKENIZER_FILES)


def _check_place(path: str | Path) -> bool:
    """True: a directory. False: may be a hub name. Otherwise an InputError."""
    place = Path(path)
    if place.is_dir():
        return True
    if place.exists():
        raise InputError(f"{str(path)!r} is a file; give the directory that the tokenizer's files are in")
    if place.is_absolute() or str(path).startswith((".", "~")) or len(place.parts) > 2:
        raise InputError(f"tokenizer directory {str(path)!r} does not exist; check the path")
    return False


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"chat template {str(path)!r} cannot be read: {error.strerror}; check model.chat_template"
        ) from None
