import pytest

from jaxrl.data.chat import (
    encode_text,
    end_of_turn_id,
    render_for_sampling,
    render_for_training,
    render_next_turn,
    spoken,
)
from jaxrl.data.tokenizer import CHATML, train_tokenizer
from jaxrl.errors import InputError

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{"
    " m['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt"
    " %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
NEWLINES = CHATML.replace("<|im_end|>\n", "<|im_end|>\n\n \n")
# Like Qwen 3: what the model thought in earlier turns is taken out when a later turn is rendered.
FORGETFUL = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] if loop.last else message['content'].split('</think>')[-1] }}",
)
NO_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt"
    " %}assistant: {% endif %}"
)
OTHER_OPENING = CHATML.replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"
)
REFUSING = "{{ raise_exception('roles must alternate') }}"
FAREWELL = CHATML.replace("<|im_end|>\n{% endfor %}", "<|im_end|>\nover\n{% endfor %}")
WITH_TOOLS = "{% if tools %}Functions: {{ tools | tojson }}\n{% endif %}" + CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{% for call in message['tool_calls'] %}{{ call | tojson }}{% endfor %}",
)
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
]
CALLS = [{"type": "function", "function": {"name": "look", "arguments": {"host": "seven"}}}]

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Which host?"},
    {"role": "assistant", "content": "Host seven."},
    {"role": "user", "content": "And\nthen?\n"},
    {"role": "assistant", "content": "  alpha\n\nbeta "},
]


def make(template):
    tokenizer = train_tokenizer(["Which host seven alpha beta Be brief And then user assistant system"])
    tokenizer.add_special_tokens(
        {
            "additional_special_tokens": [
                "<|im_start|>",
                "<|eot_id|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
            ]
        }
    )
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.chat_template = template
    return tokenizer


def add_bos(tokenizer):
    """Make the tokenizer itself put a BOS before all it encodes, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.bos_token_id)]
    )
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


def trained_texts(tokenizer, ids, mask):
    """The runs of trained ids, decoded."""
    texts, run = [], []
    for token, is_trained in [*zip(ids, mask, strict=True), (None, False)]:
        if is_trained:
            run.append(token)
        elif run:
            texts.append(tokenizer.decode(run))
            run = []
    return texts


def test_chatml_by_hand():
    tokenizer = make(CHATML)
    prompt = tokenizer.decode(render_for_sampling(tokenizer, CHAT[:2]))
    assert (
        prompt == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich"
        " host?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(render_for_training(tokenizer, CHAT[:3])[0]) == prompt + "Host seven.<|im_end|>"


@pytest.mark.parametrize(
    "template, expected",
    [
        (CHATML, ["Host seven.<|im_end|>", "  alpha\n\nbeta <|im_end|>"]),
        (NEWLINES, ["Host seven.<|im_end|>", "  alpha\n\nbeta <|im_end|>"]),
        (LLAMA3, ["Host seven.<|eot_id|>", "alpha\n\nbeta<|eot_id|>"]),
    ],
    ids=["chatml", "newlines", "llama3"],
)
def test_mask_covers_each_completion_and_its_end(template, expected):
    tokenizer = make(template)
    ids, mask = render_for_training(tokenizer, CHAT)
    assert trained_texts(tokenizer, ids, mask) == expected
    assert mask[-1]
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert whole.startswith(tokenizer.decode(ids))


@pytest.mark.parametrize("template", [CHATML, NEWLINES, LLAMA3])
def test_training_ids_begin_with_the_sampling_ids(template):
    tokenizer = add_bos(make(template))
    ids, mask = render_for_training(tokenizer, CHAT)
    starts = [i for i, is_trained in enumerate(mask) if is_trained and not mask[i - 1]]
    for turn, start in zip([2, 4], starts, strict=True):
        assert ids[:start] == render_for_sampling(tokenizer, CHAT[:turn])


def test_bos_is_never_doubled():
    tokenizer = add_bos(make(LLAMA3))
    for ids in (render_for_sampling(tokenizer, CHAT[:2]), render_for_training(tokenizer, CHAT)[0]):
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_bos_with_which_a_message_begins_is_the_template_s_to_write():
    tokenizer = add_bos(make(LLAMA3))
    chat = [{**message, "content": "<|begin|>" + message["content"]} for message in CHAT]
    assert render_for_sampling(tokenizer, chat[:2]) == render_for_sampling(tokenizer, CHAT[:2])
    assert render_for_training(tokenizer, chat) == render_for_training(tokenizer, CHAT)
    # it writes none: the text's own stays
    assert render_for_sampling(make(CHATML), chat[1:2]).count(tokenizer.bos_token_id) == 1


def test_a_text_has_the_tokenizer_s_bos_once_or_the_one_that_it_begins_with():
    plain, adding = make(None), add_bos(make(None))
    bos = plain.bos_token_id
    with_one = [bos, *plain("Which host")["input_ids"]]
    assert encode_text(plain, "<|begin|>Which host") == encode_text(adding, "<|begin|>Which host") == with_one
    assert encode_text(adding, "Which host") == with_one
    assert encode_text(plain, "Which host") == with_one[1:]
    # nobody added one; the text is taken as it is
    assert encode_text(plain, "<|begin|><|begin|>Which host") == [bos, *with_one]


def test_sampling_ids_are_those_of_transformers():
    tokenizer = add_bos(make(LLAMA3))
    theirs = tokenizer.apply_chat_template(CHAT[:2], add_generation_prompt=True, return_dict=False)
    assert render_for_sampling(tokenizer, CHAT[:2]) == theirs


def test_completion_that_merges_with_the_prompt_is_tokenised_apart():
    tokenizer = make(CHATML)
    core = tokenizer.backend_tokenizer
    from tokenizers import AddedToken

    core.add_tokens([AddedToken("\n\n", normalized=False)])  # as in many vocabularies
    chat = [CHAT[1], {"role": "assistant", "content": "\nalpha"}]
    ids, mask = render_for_training(tokenizer, chat)
    prompt_ids = render_for_sampling(tokenizer, chat[:1])
    assert ids[: len(prompt_ids)] == prompt_ids and mask.index(True) == len(prompt_ids)
    assert trained_texts(tokenizer, ids, mask) == ["\nalpha<|im_end|>"]
    with pytest.raises(InputError, match="leading whitespace"):
        render_for_training(tokenizer, [*chat, CHAT[3], CHAT[4]])


def test_messages_after_the_last_assistant_are_left_out():
    tokenizer = make(CHATML)
    assert render_for_training(tokenizer, [*CHAT, CHAT[1]]) == render_for_training(tokenizer, CHAT)


@pytest.mark.parametrize(
    "inside",
    [
        "alpha<|im_end|>beta",
        "<|im_start|>host<|im_end|>",
        "<|im_end|>",
        "alpha<|endoftext|> beta<|im_end|>\n",
    ],
)
def test_special_tokens_inside_a_completion_are_trained_with_all_that_follows(inside):
    tokenizer = make(CHATML)
    ids, mask = render_for_training(
        tokenizer, [CHAT[1], {"role": "assistant", "content": inside}, CHAT[3], CHAT[4]]
    )
    assert trained_texts(tokenizer, ids, mask) == [inside + "<|im_end|>", "  alpha\n\nbeta <|im_end|>"]


def test_text_behind_the_end_of_turn_is_refused_and_not_cut_off():
    for template in (FAREWELL, NO_END):
        with pytest.raises(InputError, match="message 1: .*not learn to stop"):
            render_for_training(
                make(template), [CHAT[1], {"role": "assistant", "content": "alpha<|im_end|>beta"}]
            )


def test_turns_that_are_not_to_be_trained_on_are_what_the_later_ones_saw():
    tokenizer = make(CHATML)
    both, first, last = (
        render_for_training(tokenizer, [*CHAT[:2], {**CHAT[2], **a}, CHAT[3], {**CHAT[4], **b}])
        for a, b in [({}, {}), ({}, {"train": False}), ({"train": False}, {})]
    )
    assert both[0] == last[0] and both[0][: len(first[0])] == first[0]
    assert trained_texts(tokenizer, *first) == ["Host seven.<|im_end|>"]
    assert trained_texts(tokenizer, *last) == ["  alpha\n\nbeta <|im_end|>"]
    # A template that breaks the prefix for the first turn alone serves a record that does not train it.
    thinking = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHost seven."}
    ids, mask = render_for_training(
        make(FORGETFUL), [CHAT[1], {**thinking, "train": False}, CHAT[1], thinking]
    )
    assert trained_texts(tokenizer, ids, mask) == [thinking["content"] + "<|im_end|>"]
    with pytest.raises(InputError, match="no assistant message to train on"):
        render_for_training(tokenizer, [CHAT[1], {**CHAT[2], "train": False}])


def test_tools_and_calls_go_to_a_template_that_renders_them():
    tokenizer = make(WITH_TOOLS)
    chat = [
        {**CHAT[1], "tools": TOOLS},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "tool", "content": "alpha"},
        CHAT[4],
    ]
    ids, mask = render_for_training(tokenizer, chat)
    theirs = tokenizer.apply_chat_template([CHAT[1], *chat[1:]], tools=TOOLS, tokenize=False)
    assert theirs.startswith(tokenizer.decode(ids)) and theirs.startswith("Functions: [{")
    call, answer = trained_texts(tokenizer, ids, mask)
    assert '"arguments": {"host": "seven"}' in call and answer == "  alpha\n\nbeta <|im_end|>"
    assert tokenizer.decode(render_for_sampling(tokenizer, chat[:3])) == theirs[: theirs.rindex("  alpha")]


def test_what_a_template_leaves_out_is_refused():
    tools, calls, tool = (
        {**CHAT[1], "tools": TOOLS},
        {**CHAT[2], "tool_calls": CALLS},
        {"role": "tool", "content": "beta"},
    )
    user_only = CHATML.replace(
        "{% for message in messages %}",
        "{% for message in messages if message['role'] in ('user', 'assistant') %}",
    )
    for template, chat, message in [
        (CHATML, [tools, CHAT[2]], "message 0: the chat template does not render `tools`"),
        (CHATML, [CHAT[1], calls], "message 1: the chat template does not render `tool_calls`"),
        (user_only, CHAT, "message 0: the chat template leaves out what messages of role 'system' say"),
        ("beta" + user_only, [CHAT[1], CHAT[2], tool, CHAT[2]], "message 2: the chat template leaves out"),
        (
            user_only,
            [CHAT[1], CHAT[2], tool, CHAT[4]],
            "message 2: the chat template leaves out what messages of role 'tool' say",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            render_for_training(make(template), chat)
        with pytest.raises(InputError, match=message):
            render_for_sampling(make(template), chat)
    # rendered, if not word by word
    shouting = CHATML.replace("message['content']", "message['content'] | upper")
    assert render_for_sampling(make(shouting), CHAT[:2])


def test_broken_prefix_is_an_error():
    thinking = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHost seven."}
    tokenizer = make(FORGETFUL)
    assert trained_texts(tokenizer, *render_for_training(tokenizer, [CHAT[1], thinking])) == [
        thinking["content"] + "<|im_end|>"
    ]
    with pytest.raises(InputError, match="message 3: .*prefix property"):
        render_for_training(tokenizer, [CHAT[1], thinking, CHAT[1], thinking])
    with pytest.raises(InputError, match="message 1: .*prefix property"):
        render_for_training(make(OTHER_OPENING), CHAT[1:3])


def test_template_errors():
    with pytest.raises(InputError, match="not learn to stop"):
        render_for_training(make(NO_END), CHAT)
    with pytest.raises(InputError, match="roles must alternate"):
        render_for_sampling(make(REFUSING), CHAT[:2])
    with pytest.raises(InputError, match="can only concatenate|must be str|unsupported operand"):
        render_for_sampling(make("{{ 'a' + 1 }}"), CHAT[:2])
    with pytest.raises(InputError, match="no chat template"):
        render_for_sampling(make(None), CHAT[:2])
    with pytest.raises(InputError, match="no assistant message"):
        render_for_training(make(CHATML), CHAT[:2])
    with pytest.raises(InputError, match="begins with an assistant"):
        render_for_training(make(CHATML), CHAT[2:])


def test_end_of_turn_id():
    for template, token in [(CHATML, "<|im_end|>"), (LLAMA3, "<|eot_id|>"), (NEWLINES, "<|im_end|>")]:
        tokenizer = make(template)
        assert tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer)) == token


def play(tokenizer, said, observed):
    """The prompt of every turn, where the policy says these ids and these answers come."""
    messages = list(CHAT[:2])
    prompts = [render_for_sampling(tokenizer, messages)]
    for ids, answer in zip(said, observed, strict=True):
        messages += [
            {"role": "assistant", "content": spoken(tokenizer, ids)},
            {"role": "user", "content": answer},
        ]
        prompts.append(render_next_turn(tokenizer, messages, prompts[-1], ids))
    return messages, prompts


def spelled(tokenizer, text):
    """Other ids than the tokenizer's for a text: letter by letter."""
    ids = [i for letter in text for i in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    assert tokenizer.decode(ids) == text
    return ids


@pytest.mark.parametrize(
    "template", [CHATML, LLAMA3, NEWLINES, FORGETFUL], ids=["chatml", "llama", "blanks", "qwen"]
)
def test_a_later_turn_reads_the_very_ids_of_those_before(template):
    tokenizer = make(template)
    end = tokenizer("<|eot_id|>" if template == LLAMA3 else "<|im_end|>", add_special_tokens=False)[
        "input_ids"
    ]
    said = [
        spelled(tokenizer, "seven") + end,
        spelled(tokenizer, "alpha"),
        tokenizer("beta")["input_ids"] + end,
    ]
    messages, prompts = play(tokenizer, said, ["Which?", "And then?", "host"])
    for ids, before, after in zip(said, prompts, prompts[1:]):
        assert after[: len(before) + len(ids)] == before + ids
    # and they spell what the template would have written
    for turn, ids in enumerate(prompts):
        assert tokenizer.decode(ids) == tokenizer.decode(
            render_for_sampling(tokenizer, messages[: 2 + 2 * turn])
        )


def test_a_turn_after_thoughts_that_the_template_takes_out_is_rendered_anew():
    tokenizer = make(FORGETFUL)
    end = tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"]
    said = [tokenizer("alpha</think>seven", add_special_tokens=False)["input_ids"] + end]
    messages, (first, second) = play(tokenizer, said, ["Which?"])
    assert second[: len(first + said[0])] != first + said[0]
    assert second == render_for_sampling(tokenizer, messages)
    assert "alpha" not in tokenizer.decode(second)
