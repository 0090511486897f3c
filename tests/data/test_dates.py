"""Templates that ask for the date are told one moment, fixed beforehand."""

from datetime import datetime

import pytest

from jaxrl.data.chat import render_for_sampling, render_for_training
from jaxrl.data.dates import FLAGS, LETTERS, asks_for_date, fix_moment
from jaxrl.data.tokenizer import CHATML, train_tokenizer

MOMENT = datetime(2024, 2, 29, 7, 5, 9)
LATER = datetime(2031, 11, 30, 23, 59, 58)
CHAT = [{"role": "user", "content": "when"}, {"role": "assistant", "content": "now"}]
# As Llama 3.2 asks, as Granite does, inside a macro and a loop of the template, and beginning with blanks
# that Jinja trims.
ASKING = [
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string ="
    " strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}{{"
    " date_string }}" + CHATML,
    "\n  {% if true %}\n  Today's Date: {{ strftime_now('%B %d, %Y') }}.\n{% endif %}\n" + CHATML,
    "{% macro day() %}{{ strftime_now('%-d.%-m.%y') | trim }}{% endmacro %}{% for m in messages[:1] %}{{"
    " day() }}{% endfor %}" + CHATML,
    "   \n{{ strftime_now(format='%H:%M:%S 100%% %j') }}{{ strftime_now('%Y') | int + 1 }}" + CHATML,
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["when now 0123456789 Today's Date January:.,%"])


@pytest.fixture
def clock(monkeypatch):
    """clock(moment) sets the clock of transformers."""
    from transformers.utils import chat_template_utils

    class Clock(datetime):
        shown = MOMENT

        @classmethod
        def now(cls):
            return cls.shown

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    return lambda moment: setattr(Clock, "shown", moment)


@pytest.mark.parametrize("template", ASKING)
def test_two_renderings_on_different_days_are_equal_and_are_those_of_the_fixed_day(
    template, tokenizer, clock
):
    tokenizer.chat_template = template
    assert asks_for_date(tokenizer)
    fix_moment(tokenizer, None)
    days = [MOMENT, LATER]
    theirs = [(clock(day), tokenizer.apply_chat_template(CHAT, tokenize=False))[1] for day in days]
    assert theirs[0] != theirs[1]
    for moment, text in zip(days, theirs, strict=True):
        fix_moment(tokenizer, moment)
        for day in days:
            clock(day)
            ids, _ = render_for_training(tokenizer, CHAT)
            # the newline after the turn
            assert text.startswith(tokenizer.decode(ids)) and len(text) - len(tokenizer.decode(ids)) <= 1
            assert ids[: len(prompt := render_for_sampling(tokenizer, CHAT[:1]))] == prompt


@pytest.mark.parametrize("moment", [MOMENT, LATER])
def test_every_directive_says_what_strftime_says(moment, tokenizer):
    for directives in [[f"%{flag}{letter}" for letter in LETTERS] for flag in FLAGS] + [
        ["%%d", "%%%d", "100%", "%é%"]
    ]:
        wanted = "|".join(directives)
        tokenizer.chat_template = (
            f"{{{{ strftime_now('{wanted}') }}}}|{{{{ messages[0].content }}}}<|im_end|>"
        )
        fix_moment(tokenizer, moment)
        assert (
            tokenizer.decode(render_for_sampling(tokenizer, CHAT[:1]))
            == moment.strftime(wanted) + "|when<|im_end|>"
        )


def test_other_templates_are_left_as_they_are(tokenizer):
    tokenizer.chat_template = CHATML
    assert not asks_for_date(tokenizer)
    fix_moment(tokenizer, MOMENT)
    assert (
        tokenizer.decode(render_for_sampling(tokenizer, CHAT[:1]))
        == "<|im_start|>user\nwhen<|im_end|>\n<|im_start|>assistant\n"
    )
