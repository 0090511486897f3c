"""The prompt of a line of `jaxrl sample`: text, messages or ids, with one BOS, and nothing that it asks for
left out in silence.
"""

import pytest

from jaxrl.commands.sample import read_prompt
from jaxrl.commands.score import score_tokens
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.errors import InputError
from jaxrl.policy.hand_over import PolicyWeights
from tests.data.test_chat import LLAMA3, TOOLS, WITH_TOOLS, add_bos, make
from tests.tiny import one_device, policy_and_trees

USER = {"role": "user", "content": "Which host?"}


def prompt(record, tokenizer):
    return read_prompt(record, tokenizer, "in.jsonl, line 3", 1000)


@pytest.mark.parametrize("adds", [False, True])
def test_every_form_has_one_bos_and_ids_are_taken_as_they_are(adds):
    tokenizer = add_bos(make(LLAMA3)) if adds else make(LLAMA3)
    bos = tokenizer.bos_token_id
    chats = [{"messages": [USER]}, {"messages": [{**USER, "content": "<|begin|>Which host?"}]}]
    texts = [{"prompt": "<|begin|>Which host?"}, *([{"prompt": "Which host?"}] if adds else [])]
    for forms in (chats, texts):
        first, *others = (prompt(record, tokenizer) for record in forms)
        assert first[0] == bos and first.count(bos) == 1 and all(ids == first for ids in others)
    assert prompt({"prompt_ids": [bos, bos, 5]}, tokenizer) == [bos, bos, 5]
    assert prompt({"prompt_ids": [5]}, tokenizer) == [5]


def test_system_and_tools_of_a_line_are_in_its_prompt():
    tokenizer = make(WITH_TOOLS)
    line = {"messages": [USER], "system": "Be brief.", "tools": TOOLS, "answer": "seven", "uid": 4}
    text = tokenizer.decode(prompt(line, tokenizer))
    assert (
        text.startswith("Functions: [{")
        and "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich host?" in text
    )


@pytest.mark.parametrize(
    "line, message",
    [
        ({"messages": [USER], "tools": TOOLS}, "message 0: the chat template does not render `tools`"),
        ({"messages": [{"role": "system", "content": "a"}, USER], "system": "b"}, "two system prompts"),
        ({"messages": [{**USER, "images": ["a.png"]}]}, r"messages\[0\] has `images`"),
        (
            {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}},
            "`chat_template_kwargs` beside `messages`",
        ),
        ({"messages": [USER], "temperature": 0}, "`temperature` beside `messages` would not be heeded"),
        ({"prompt": "a", "system": "b"}, "`system` beside `prompt`"),
        ({"prompt_ids": [1], "tools": TOOLS}, "`tools` beside `prompt_ids`"),
        ({"prompt": [USER]}, "`prompt` is text as it is, and here a list; give messages as `messages`"),
    ],
)
def test_what_a_line_asks_for_and_would_not_get_is_refused(line, message):
    with pytest.raises(InputError, match="in.jsonl, line 3: .*" + message):
        prompt(line, train_tokenizer(["a b Which host"]))


@pytest.mark.parametrize(
    "row, message",
    [
        ([], r"row 1: must have at least one token id, each in 0\.\.63, and is \[\]"),
        ([3, 64], r"row 1: .*each in 0\.\.63, and is \[3, 64\]"),
        ([1] * 4097, "row 1: 4097 tokens are more than the model's 4096 positions"),
    ],
)
def test_rows_that_the_model_cannot_score_are_named(row, message):
    with pytest.raises(InputError, match=message):
        score_tokens(PolicyWeights(*policy_and_trees()), [[1, 2], row], one_device())
