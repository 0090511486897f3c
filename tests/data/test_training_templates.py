"""Records of several turns for models whose template takes thoughts back: token by token against what their
sampler sees.
"""

import fnmatch
import logging
import tomllib
from functools import partial
from pathlib import Path

import pytest

from jaxrl.data import chat, training_templates
from jaxrl.data.chat import end_of_turn_id, render_for_sampling, render_for_training
from jaxrl.data.tokenizer import CHATML, train_tokenizer
from jaxrl.data.training_templates import FAMILIES, find_family
from jaxrl.errors import InputError
from tests.data.thinking_templates import STAND_INS, THINKING

TOKENIZER = train_tokenizer(
    ["alpha beta gamma delta question answer first second sum of system user assistant"]
)
TOKENIZER.add_tokens(["<think>", "</think>", "\n\n"])
TOKENIZER.add_special_tokens(
    {"bos_token": "<begin>", "additional_special_tokens": ["<|im_start|>", "<｜end▁of▁sentence｜>"]}
)

SYSTEM, USER, LATER = (
    {"role": role, "content": text}
    for role, text in [("system", "Be brief."), ("user", "alpha\n\nbeta?"), ("user", "second?")]
)
PLAIN, THINKS, OTHER = (
    {"role": "assistant", "content": text}
    for text in [
        "first answer",
        "<think>\nsum of\n\nalpha\n</think>\n\ngamma",
        "<think>\ndelta\n</think>\n\nbeta",
    ]
)
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
]
CALL = {"tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"place": "é"}}}]}
FOUND = {"role": "tool", "content": "delta"}
CHATS = {
    "plain": [USER, PLAIN, LATER, PLAIN, USER, PLAIN],
    "thinking": [SYSTEM, USER, THINKS, LATER, OTHER, USER, THINKS],
    "now and then": [USER, THINKS, LATER, PLAIN, USER, OTHER],
    "not all trained": [USER, {**THINKS, "train": False}, LATER, OTHER, USER, PLAIN, USER],
}
TOOL_CHATS = {
    "thinking": [
        {**USER, "tools": TOOLS},
        {**THINKS, **CALL},
        FOUND,
        {**OTHER, **CALL},
        FOUND,
        FOUND,
        PLAIN,
        LATER,
        PLAIN,
    ],
    "plain": [{**SYSTEM, "tools": TOOLS}, USER, {**PLAIN, "content": "", **CALL}, FOUND, PLAIN],
}


def use(template):
    TOKENIZER.chat_template = template
    return TOKENIZER


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def own_ids(messages):
    return ids_of(chat._render(TOKENIZER, messages, False))


def without_thoughts(ids):
    """The ids without those from each <think> to its </think>, and the blank line after it; an unclosed one
    stays.
    """
    start, end, blank = (ids_of(text)[0] for text in ("<think>", "</think>", "\n\n"))
    kept = []
    while ids:
        if ids[0] == start and end in ids:
            ids = ids[ids.index(end) + 1 :]
            ids = ids[1:] if ids[0] == blank else ids
        else:
            kept, ids = [*kept, ids[0]], ids[1:]
    return kept


def as_sent_back(messages):
    return [
        {**m, "content": m["content"].split("</think>\n\n")[-1]} if m["role"] == "assistant" else m
        for m in messages
    ]


def turns_of(ids, mask):
    """(ids before, ids of) each trained turn."""
    starts = [i for i, trained in enumerate(mask) if trained and not mask[i - 1]]
    return [(ids[:start], ids[start : start + [*mask[start:], False].index(False)]) for start in starts]


@pytest.mark.parametrize("family, template", STAND_INS)
def test_a_family_is_known_by_its_behaviour(family, template):
    assert find_family(partial(chat._render, use(template))) == family


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        # opens thoughts, and takes none back
        CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"),
        # ours would add empty thoughts
        CHATML.replace("{{ message['content'] }}", "{{ message['content'].split('</think>')[-1] }}"),
        THINKING["Qwen3"][0].replace("<|im_end|>", "<|end|>"),
    ],
)
def test_other_templates_are_of_no_family(template):
    assert find_family(partial(chat._render, use(template))) is None


@pytest.mark.parametrize("family, template", STAND_INS)
@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_each_turn_sees_what_the_sampler_saw_and_earlier_thoughts_and_is_what_was_sampled(
    family, template, messages
):
    check_turns(use(template), messages)


@pytest.mark.parametrize("template", [template for family, template in STAND_INS if "Qwen" in family])
@pytest.mark.parametrize("messages", TOOL_CHATS.values(), ids=TOOL_CHATS)
def test_so_does_each_turn_of_a_chat_with_tools(template, messages):
    check_turns(use(template), messages)


def check_turns(tokenizer, messages):
    ids, mask = render_for_training(tokenizer, messages)
    trained = [
        i
        for i, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("train", True)
    ]
    bare = as_sent_back(messages)
    for i, (before, completion) in zip(trained, turns_of(ids, mask), strict=True):
        assert without_thoughts(before) == without_thoughts(render_for_sampling(tokenizer, bare[:i]))
        said = TOKENIZER.decode(completion)
        thought, _, answer = messages[i]["content"].rpartition("</think>\n\n")
        assert (
            thought.removeprefix("<think>\n") in said
            and answer in said
            and completion[-1] == end_of_turn_id(tokenizer)
        )
        # Where the model's own template writes the turn as it is sampled, it is that one.
        prompt, whole = render_for_sampling(tokenizer, messages[:i]), own_ids(messages[: i + 1])
        if whole[: len(prompt)] == prompt and set(ids_of("</think>")) <= {*whole[len(prompt) :]}:
            assert completion == whole[len(prompt) : len(prompt) + len(completion)]
        # With the thoughts gone, it is what the own one writes of the turn.
        history = own_ids(bare[: i + 1])
        kept = without_thoughts(before + completion)
        assert kept == without_thoughts(history)[: len(kept)]


@pytest.mark.parametrize("template", THINKING["Qwen3"] + THINKING["Qwen3-Thinking or QwQ"][:1])
@pytest.mark.parametrize(
    "messages", [[USER, PLAIN], [SYSTEM, USER, THINKS], [{**USER, "tools": TOOLS}, {**THINKS, **CALL}]]
)
def test_a_single_turn_is_the_model_s_own_rendering_by_either_template(template, messages):
    tokenizer = use(template)
    family = find_family(partial(chat._render, tokenizer))
    for opens_turn, part in ((True, messages[:-1]), (False, messages)):
        own = chat._render(tokenizer, part, opens_turn)
        assert (
            training_templates.render_kept(partial(chat._render, tokenizer), family, part, opens_turn) == own
        )
    ids, mask = render_for_training(tokenizer, messages, training_template=False)
    assert render_for_training(tokenizer, messages) == (ids, mask)
    assert chat._render(tokenizer, messages, False).startswith(tokenizer.decode(ids))


def test_thoughts_are_trained_on_where_the_own_template_would_drop_them_in_silence():
    """R1-0528: the prompt is how the rendered turn begins, and the thoughts are not in it."""
    for family in ("DeepSeek-R1-Distill", "DeepSeek-R1-0528"):
        tokenizer = use(THINKING[family][0])
        ids, mask = render_for_training(tokenizer, [USER, THINKS])
        assert "sum of\n\nalpha\n</think>\n\ngamma<｜end" in tokenizer.decode(
            [i for i, trained in zip(ids, mask) if trained]
        )
        assert ids.count(tokenizer.bos_token_id) == 1
        with pytest.raises(InputError, match="message 1: the chat template breaks the prefix property"):
            render_for_training(tokenizer, [USER, THINKS], training_template=False)
    # its thought is in what it answers
    same = {"role": "assistant", "content": "<think>\ngamma\n</think>\n\ngamma"}
    with pytest.raises(InputError, match="leaves out what the message thinks"):
        render_for_training(tokenizer, [USER, same], training_template=False)


def test_it_is_told_once_and_can_be_turned_off(caplog):
    tokenizer = use(THINKING["Qwen3"][0])
    chat._family.cache_clear()
    with caplog.at_level(logging.WARNING):
        render_for_training(tokenizer, [USER, THINKS])
        assert not caplog.messages  # the own template serves
        for messages in CHATS.values():
            render_for_training(tokenizer, messages)
    assert (
        len(caplog.messages) == 1
        and "training template of Qwen3," in caplog.text
        and "model.training_template" in caplog.text
    )
    with pytest.raises(InputError, match="message 3: .*prefix property"):
        render_for_training(tokenizer, CHATS["plain"], training_template=False)


def test_what_the_training_template_would_render_otherwise_is_refused():
    tokenizer = use(THINKING["DeepSeek-R1-Distill"][0])
    with pytest.raises(InputError, match="system message only before all others"):
        render_for_training(tokenizer, [USER, THINKS, SYSTEM, LATER, PLAIN])
    twice = {"role": "assistant", "content": "<think>\nalpha\n</think>\n\nbeta</think>gamma"}
    with pytest.raises(
        InputError, match="message 3: the training template of Qwen3 gives another completion"
    ):
        render_for_training(use(THINKING["Qwen3"][0]), [USER, PLAIN, LATER, twice])


def test_the_templates_are_part_of_the_package():
    root = Path(__file__).parents[2]
    (pattern,) = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "jaxrl.data"
    ]
    found = {
        str(path.relative_to(root / "jaxrl" / "data"))
        for path in (root / "jaxrl" / "data" / "templates").iterdir()
    }
    assert (
        {f"templates/{name}" for name, _ in FAMILIES.values()} == found == set(fnmatch.filter(found, pattern))
    )
