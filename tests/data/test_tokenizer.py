import json
import logging
import random
from types import SimpleNamespace

import pytest

from jaxrl.data.tokenizer import CHATML, eos_ids, find_tokenizer, load_tokenizer, num_tokens, train_tokenizer
from jaxrl.errors import InputError

TEXTS = [
    "Which service runs on host seven?\nAnswer: alpha-12",
    "The database stores naïve Größe values; host 3.",
    "alpha beta_gamma",
]
WHOLE = "Reason step by step over the graph.\n\nFinish with `ANSWER:` and the entity."


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, whole=[WHOLE])


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_round_trip_loses_nothing(tokenizer):
    draw = random.Random(0)
    chosen = [
        "",
        " ",
        "  a  ",
        "\n\n\t\r\n x",
        "héllo 你好 🙂👩‍👩‍👧",
        "\x00\x07",
        "e\u0301 \u200f\ufeff",
        TEXTS[0] + WHOLE + TEXTS[1],
        "<|im_start|>user\nhi<|im_end|>\n",
    ]
    chosen += ["".join(chr(c) for c in draw.choices(range(0xD800), k=40)) for _ in range(50)]
    chosen += ["".join(chr(c) for c in draw.choices(range(0xE000, 0x110000), k=40)) for _ in range(50)]
    for text in chosen:
        assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_every_word_is_one_token(tokenizer):
    for word in ["Which", " service", " host", " database", " naïve", " Größe", "alpha", " beta"]:
        assert len(ids_of(tokenizer, word)) == 1, word


def test_digits_and_signs_stay_single(tokenizer):
    assert len(ids_of(tokenizer, "12345")) == 5
    assert len(ids_of(tokenizer, "\n\n--")) == 4


def test_vocabulary_holds_bytes_and_words_only():
    # the last three: the roles of the chat template
    assert len(train_tokenizer(["alpha beta", "alpha 12"])) == 3 + 256 + 2 + 3


def test_whole_string_is_one_ordinary_token(tokenizer):
    ids = ids_of(tokenizer, "a" + WHOLE + "b")
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a" + WHOLE + "b"


def test_longer_whole_string_wins():
    tokenizer = train_tokenizer(TEXTS, whole=["state the", "state the answer"])
    assert len(ids_of(tokenizer, "state the answer")) == 1


def test_training_is_deterministic(tokenizer):
    again = train_tokenizer(TEXTS[::-1], whole=[WHOLE])
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_whole_that_cannot_be_decoded_is_refused():
    for text in ["", "Ġé"]:
        with pytest.raises(InputError, match="whole"):
            train_tokenizer(TEXTS, whole=[text])


def test_saved_tokenizer_loads_as_it_was(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = TEXTS[0] + WHOLE + "<|im_end|>\n né🙂"
    assert ids_of(loaded, text) == ids_of(tokenizer, text)
    assert loaded.decode(ids_of(loaded, text)) == text
    assert (loaded.eos_token, loaded.pad_token, loaded.chat_template) == (
        "<|im_end|>",
        "<|endoftext|>",
        CHATML,
    )


def test_errors_name_what_is_wrong(tokenizer, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        load_tokenizer(tmp_path / "tokenizer.json")


def saved_with(tokenizer, folder, **changes):
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    path.write_text(json.dumps(values))
    return folder


def test_eos_pads_where_there_is_no_pad_token(tokenizer, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = load_tokenizer(saved_with(tokenizer, tmp_path, pad_token=None))
    assert loaded.pad_token_id == loaded.eos_token_id
    assert "no pad token" in caplog.text


def test_neither_pad_nor_eos_is_an_error(tokenizer, tmp_path):
    with pytest.raises(InputError, match="neither a pad nor an EOS"):
        load_tokenizer(saved_with(tokenizer, tmp_path, pad_token=None, eos_token=None))


def test_chat_template_from_a_file(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="model.chat_template"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(tmp_path, tmp_path / "other.jinja")
    (tmp_path / "other.jinja").write_text(CHATML)
    assert load_tokenizer(tmp_path, tmp_path / "other.jinja").chat_template == CHATML


def test_find_tokenizer_takes_what_is_there(tokenizer, tmp_path):
    assert find_tokenizer(tmp_path) is None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    assert ids_of(find_tokenizer(tmp_path), TEXTS[0]) == ids_of(tokenizer, TEXTS[0])
    with pytest.raises(InputError, match="does not exist"):
        find_tokenizer(tmp_path / "nowhere")


def test_ids_are_counted_to_the_last_one_over_gaps(tokenizer):
    assert num_tokens(tokenizer) == len(tokenizer)
    gap = tokenizer.get_vocab() | {"far": 1000}
    assert num_tokens(SimpleNamespace(get_vocab=lambda: gap)) == 1001


def test_eos_ids_without_a_tokenizer(tmp_path):
    assert eos_ids(None, tmp_path) == eos_ids(None, None) == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    assert eos_ids(None, tmp_path) == (5,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    assert eos_ids(None, tmp_path) == (6, 7)


def test_eos_ids_join_the_generation_config(tokenizer, tmp_path):
    eos = tokenizer.eos_token_id
    assert eos_ids(tokenizer, None) == eos_ids(tokenizer, tmp_path) == (eos,)
    for value, expected in [(7, (eos, 7)), ([9, eos, 8], (eos, 9, 8)), (None, (eos,))]:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert eos_ids(tokenizer, tmp_path) == expected
    for broken in ["{", '{"eos_token_id": "x"}', "[]"]:
        (tmp_path / "generation_config.json").write_text(broken)
        with pytest.raises(InputError, match="generation_config"):
            eos_ids(tokenizer, tmp_path)
