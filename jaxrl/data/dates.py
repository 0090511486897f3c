"""The moment that a chat template gets when it asks for the date (`strftime_now`: Llama 3.2, Granite and
others).

A prompt with today's date in it makes a run that goes on tomorrow another run. So one moment is fixed, where
a run or a command begins, and every rendering of the tokenizer's template gets that one. Templates have no
other clock than `strftime_now`.
"""

import functools
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLOCK = "strftime_now"
FLAGS, LETTERS = ("", "-", "_", "0", "^", "#"), "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"


def fix_moment(tokenizer: "PreTrainedTokenizerBase", moment: datetime) -> None:
    """From now on `chat.py` renders the tokenizer's templates as at that moment."""
    tokenizer.jaxrl_moment = moment


def asks_for_date(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a template of the tokenizer can read the clock."""
    return CLOCK in str(tokenizer.chat_template)


def at_fixed_moment(tokenizer: "PreTrainedTokenizerBase", template: str) -> str:
    """The template with a `strftime_now` of its own, which gives the moment fixed; as it is where none is, or
    none is asked for.

    transformers gives templates plain values alone, no functions; so the function is a macro, put before the
    template, with the text of every directive (`%d`, `%-d`, ...) written into it.
    """
    moment = getattr(tokenizer, "jaxrl_moment", None)
    return template if moment is None or CLOCK not in template else _macro(moment) + template


@functools.cache
def _macro(moment: datetime) -> str:
    """One line, whose end the template does not see (`trim_blocks`). `%%` is a percent sign; after any other
    `%` stands a directive.
    """
    texts = {flag + letter: moment.strftime(f"%{flag}{letter}") for flag in FLAGS for letter in LETTERS}
    return (
        f"{{% macro {CLOCK}(format) %}}{{% set texts = {texts!r} %}}{{% for part in format.split('%%') "
        "%}{{ '' if loop.first else '%' }}{% for piece in part.split('%') %}{% if loop.first "
        "%}{{ piece }}{% elif piece[:2] in texts %}{{ texts[piece[:2]] }}{{ piece[2:] }}{% "
        "elif piece[:1] in texts %}{{ texts[piece[:1]] }}{{ piece[1:] }}{% else %}{{ '%' "
        "}}{{ piece }}{% endif %}{% endfor %}{% endfor %}{% endmacro %}\n"
    )
