import pytest

from jaxrl.data.chat import end_of_turn_id, render_for_sampling, render_for_training
from jaxrl.data.tokenizer import CHATML, train_tokenizer
from jaxrl.errors import InputError

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
NEWLINES = CHATML.replace("<|im_end|>\n", "<|im_end|>\n\n \n")
# Like Qwen 3: what the model thought in earlier turns is taken out when a later turn is rendered.
FORGETFUL = CHATML.replace("{{ message['content'] }}", "{{ message['content'] if loop.last else message['content'].split('</think>')[-1] }}")
NO_END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
OTHER_OPENING = CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
REFUSING = "{{ raise_exception('roles must alternate') }}"

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Which host?"},
    {"role": "assistant", "content": "Host seven."},
    {"role": "user", "content": "And\nthen?\n"},
    {"role": "assistant", "content": "  alpha\n\nbeta "},
]


def make(template):
    tokenizer = train_tokenizer(["Which host seven alpha beta Be brief And then user assistant system"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]})
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.chat_template = template
    return tokenizer


def add_bos(tokenizer):
    """Make the tokenizer itself put a BOS before all it encodes, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.bos_token_id)])
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
    assert prompt == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich host?<|im_end|>\n<|im_start|>assistant\n"
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


def test_broken_prefix_is_an_error():
    thinking = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHost seven."}
    tokenizer = make(FORGETFUL)
    assert trained_texts(tokenizer, *render_for_training(tokenizer, [CHAT[1], thinking])) == [thinking["content"] + "<|im_end|>"]
    with pytest.raises(InputError, match="message 3: .*prefix property"):
        render_for_training(tokenizer, [CHAT[1], thinking, CHAT[1], thinking])
    with pytest.raises(InputError, match="message 1: .*prefix property"):
        render_for_training(make(OTHER_OPENING), CHAT[1:3])


def test_template_errors():
    with pytest.raises(InputError, match="not learn to stop"):
        render_for_training(make(NO_END), CHAT)
    with pytest.raises(InputError, match="roles must alternate"):
        render_for_sampling(make(REFUSING), CHAT[:2])
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
