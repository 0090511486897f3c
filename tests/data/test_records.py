import gzip
import json
import sys

import pytest

from jaxrl.config.experiment import DataSection
from jaxrl.data.records import parse_record, read_records, split_records
from jaxrl.errors import InputError

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(path):
    return read_records(DataSection(file=str(path)))


def write(path, *lines):
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines),
        encoding="utf-8",
    )
    return path


def test_forms_of_a_record(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"messages": [USER, ASSISTANT], "source": "ignored"},
        "",
        {"prompt": "q", "completion": "a"},
        {"prompt": [USER], "completion": "a", "messages": None},
        {"prompt": "q", "completion": "a", "thinking": "hm"},
        {"messages": [USER, {**ASSISTANT, "thinking": "hm"}]},
        {"messages": [USER, ASSISTANT], "thinking": "hm"},
    )
    thought = [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\na"}]
    assert read(path) == [[USER, ASSISTANT]] * 3 + [thought] * 3


def test_the_answers_of_a_prompt_are_given_and_not_learnt():
    given, later = {**ASSISTANT, "train": False}, {"role": "user", "content": "and?"}
    for completion in ("a", [ASSISTANT]):
        assert parse({"prompt": [USER, ASSISTANT, later], "completion": completion}) == [
            USER,
            given,
            later,
            ASSISTANT,
        ]
        for asked in ({"weight": 1}, {"train": True}):
            assert parse({"prompt": [USER, {**ASSISTANT, **asked}, later], "completion": completion}) == [
                USER,
                ASSISTANT,
                later,
                ASSISTANT,
            ]
    several = [ASSISTANT, later, ASSISTANT]
    assert parse({"prompt": "q", "completion": several}) == [USER, *several]
    assert parse({"prompt": [USER], "completion": several, "thinking": "hm"})[-1]["content"].startswith(
        "<think>"
    )


def test_gzip_and_byte_order_mark(tmp_path):
    line = json.dumps({"prompt": "q", "completion": "ä"}, ensure_ascii=False)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(line)
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode())
    assert (
        read(tmp_path / "a.jsonl.gz")
        == read(tmp_path / "b.jsonl")
        == [[USER, {"role": "assistant", "content": "ä"}]]
    )


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"prompt": "q", completion: 1}', r"line 2, column 17: not JSON: .*found 'completion: 1}'"),
        ('{"prompt": "q"', r"line 2, column 15: not JSON: .*found the end of the line"),
        ("[1, 2]", r"line 2: a record must be an object, and this is a list: \[1, 2\]"),
        ('{"question": "q"}', r"line 2: a record needs .*keys found are 'question'"),
        ('{"prompt": "q"}', r"line 2: a record needs `messages`"),
        ('{"prompt": 3, "completion": "a"}', r"line 2: prompt must be a string, and is int: 3"),
        ('{"prompt": "q", "completion": {"a": 1}}', r"line 2: completion must be a string, and is an object"),
        ('{"prompt": "q", "completion": ["a"]}', r"line 2: completion\[0\] must be an object"),
        ('{"prompt": "q", "completion": []}', r"line 2: completion must be a list .*at least one"),
        (
            '{"prompt": "q", "completion": [{"role": "user", "content": "q"}]}',
            r"line 2: completion\[0\] is of role 'user'",
        ),
        (
            '{"prompt": [{"role": "assistant", "content": "a"}], "completion": "b"}',
            r"line 2: prompt ends with an assistant message",
        ),
        ('{"messages": "q"}', r"line 2: messages must be a list"),
        ('{"messages": []}', r"line 2: messages must be a list .*at least one"),
        ('{"messages": ["q"]}', r"line 2: messages\[0\] must be an object"),
        (
            '{"messages": [{"role": "user"}]}',
            r"line 2: messages\[0\].content must be a string, and is missing",
        ),
        ('{"messages": [{"role": "user", "content": "q"}]}', r"line 2: messages: no assistant message"),
        (
            '{"messages": [{"role": "assistant", "content": "q"}]}',
            r"line 2: messages\[0\] is an assistant message",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "q", "tool_calls": [1]}]}',
            r"messages\[0\].tool_calls must be a list of objects",
        ),
        (
            '{"messages": [{"role": "user", "content": "q", "thinking": "x"}]}',
            r"messages\[0\].thinking belongs",
        ),
        (
            r'{"prompt": "a\ud800", "completion": "a"}',
            r"line 2: prompt holds half a surrogate pair at character 1",
        ),
    ],
)
def test_errors_name_the_place_and_what_was_found(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", {"prompt": "q", "completion": "a"}, line)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


# ------------------------------------------------------------------------------------ keys: heeded or refused


def parse(value, ignore=()):
    return parse_record(value, "here, line 7", ignore)


def thinking(key, value="hm"):
    return {**ASSISTANT, key: value}


@pytest.mark.parametrize("key", ["thinking", "reasoning_content", "reasoning"])
def test_thinking_by_each_of_its_names(key):
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\na"}
    assert (
        parse({"messages": [USER, thinking(key)]})
        == parse({"messages": [USER, ASSISTANT], key: "hm"})
        == [USER, thought]
    )
    assert parse({"prompt": "q", "completion": "a", key: "hm"}) == [USER, thought]
    assert parse({"messages": [USER, {**thinking(key), "thinking": "hm", "reasoning": None}]}) == [
        USER,
        thought,
    ]


def test_weights_and_train_say_which_turns_are_trained_on():
    off = {**ASSISTANT, "train": False}
    for no in ({"weight": 0}, {"weight": 0.0}, {"train": False}, {"weight": 0, "train": False}):
        assert parse({"messages": [USER, {**ASSISTANT, **no}, USER, {**ASSISTANT, "weight": 1}]}) == [
            USER,
            off,
            USER,
            ASSISTANT,
        ]
    for yes in ({"weight": 1.0, "train": True}, {"weight": None}, {}):
        assert parse({"messages": [{**USER, "weight": 0}, {**ASSISTANT, **yes}]}) == [USER, ASSISTANT]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"type": "object", "properties": {"a": {"default": None}}},
        },
    }
]
CALL = {"id": "x", "type": "function", "function": {"name": "look", "arguments": {"a": 1}}}


def test_system_and_tools_come_to_the_front():
    system = {"role": "system", "content": "be brief"}
    for record in (
        {"prompt": "q", "completion": "a"},
        {"messages": [USER, ASSISTANT]},
        {"prompt": [USER], "completion": "a"},
    ):
        assert parse({**record, "system": "be brief"}) == [system, USER, ASSISTANT]
        assert parse({**record, "system": "be brief", "tools": TOOLS}) == [
            {**system, "tools": TOOLS},
            USER,
            ASSISTANT,
        ]
        assert parse({**record, "system": "", "tools": json.dumps(TOOLS)}) == [
            {**USER, "tools": TOOLS},
            ASSISTANT,
        ]
        assert (
            parse({**record, "system": None, "tools": []})
            == parse({**record, "tools": "[]"})
            == [USER, ASSISTANT]
        )


def test_calls_and_their_answers():
    said = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    found = {"role": "tool", "content": "b", "tool_call_id": "x", "name": "look"}
    spelt = {**CALL, "function": {"name": "look", "arguments": '{"a": 1}'}}
    for call in (CALL, spelt, {"id": "x", **CALL["function"]}):
        assert parse(
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    found,
                    ASSISTANT,
                ]
            }
        ) == [USER, said, found, ASSISTANT]
    thought = {**said, "content": "<think>\nhm\n</think>\n\n"}
    assert parse({"messages": [USER, {**said, "reasoning_content": "hm"}]}) == [USER, thought]


@pytest.mark.parametrize(
    "record, message",
    [
        (
            {"messages": [USER, ASSISTANT], "chosen": "x", "lang": "en", "n": 0},
            r"the record has `chosen`, `n`, .*ignore: \[chosen, n\]",
        ),
        ({"messages": [USER, ASSISTANT], "prompt": "q"}, "the record has `prompt`"),
        ({"messages": [USER, ASSISTANT], "a: b": 1, "": 2}, r'ignore: \["a: b", ""\]'),  # as YAML takes them
        ({"prompt": "q", "completion": "a", "weight": 0}, "the record has `weight`"),
        ({"messages": [USER, {**ASSISTANT, "prefix": True}]}, r"messages\[1\] has `prefix`"),
        ({"messages": [USER, {**ASSISTANT, "trainable": False}]}, r"messages\[1\] has `trainable`"),
        ({"messages": [{**USER, "name": "Ann"}, ASSISTANT]}, r"messages\[0\] has `name`"),
        ({"prompt": [{**USER, "images": ["x.png"]}], "completion": "a"}, r"prompt\[0\] has `images`"),
        ({"messages": [USER, {**ASSISTANT, "function_call": {"name": "f"}}]}, "has `function_call`"),
        ({"messages": [USER, {**ASSISTANT, "weight": 0.5}]}, r"messages\[1\].weight is 0.5"),
        ({"messages": [USER, {**ASSISTANT, "weight": "0"}]}, r"messages\[1\].weight is '0'"),
        ({"messages": [USER, {**ASSISTANT, "train": 0}]}, r"messages\[1\].train must be true or false"),
        ({"messages": [USER, {**ASSISTANT, "train": True, "weight": 0}]}, "say different things"),
        ({"messages": [{**USER, "weight": 1}, ASSISTANT]}, "only assistant messages can be"),
        ({"messages": [USER, {**ASSISTANT, "weight": 0}]}, "nothing is left to train on"),
        (
            {"messages": [USER, {**thinking("reasoning"), "thinking": "ho"}]},
            r"messages\[1\].thinking and messages\[1\].reasoning are names of one",
        ),
        (
            {"messages": [USER, {**thinking("reasoning"), "content": "<think>x</think>a"}]},
            "begins with <think> already",
        ),
        (
            {"messages": [USER, {**ASSISTANT, "content": "<think>x</think>a"}], "thinking": "hm"},
            "thinking: .*begins with <think> already",
        ),
        ({"messages": [USER, ASSISTANT], "system": ["x"]}, "system must be a string"),
        (
            {"messages": [{"role": "system", "content": "s"}, USER, ASSISTANT], "system": "t"},
            "two system prompts",
        ),
        ({"messages": [USER, ASSISTANT], "tools": ["look"]}, "tools must be a list of objects"),
        ({"messages": [USER, ASSISTANT], "tools": "look"}, "tools is text that is not JSON"),
        ({"messages": [{**USER, "tool_calls": [CALL]}, ASSISTANT]}, "only assistant messages call tools"),
        (
            {
                "messages": [
                    USER,
                    {**ASSISTANT, "tool_calls": [{"function": {"name": "f", "arguments": "1"}}]},
                ]
            },
            "arguments must be an object",
        ),
        (
            {"messages": [USER, {**ASSISTANT, "tool_calls": [{"id": "x"}]}]},
            "must hold a `function` with its `name`",
        ),
    ],
)
def test_what_would_be_lost_is_refused_by_name(record, message):
    with pytest.raises(InputError, match="here, line 7: .*" + message):
        parse(record)


def test_keys_that_say_nothing_or_are_named_are_left_out(tmp_path):
    empty = {"refusal": None, "annotations": [], "audio": {}, "note": ""}
    assert parse(
        {"messages": [{**USER, **empty}, {**ASSISTANT, **empty}], "id": 3, "source": "s", **empty}
    ) == [USER, ASSISTANT]
    record = {"messages": [USER, {**ASSISTANT, "weight": 0.5, "score": 2}], "score": 1, "prompt": "q"}
    assert parse(record, ("score", "weight", "prompt")) == [USER, ASSISTANT]
    path = write(tmp_path / "a.jsonl", record)
    assert read_records(DataSection(file=str(path), ignore=["score", "weight", "prompt"])) == [
        [USER, ASSISTANT]
    ]


def test_nulls_that_datasets_may_have_filled_in_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    calls = [{"function": {"name": "look", "arguments": arguments}} for arguments in ({"a": 1}, {"b": 2})]
    as_text = [
        {"function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in calls
    ]

    def read_saved(name, calls):
        rows = [
            {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]} for call in calls
        ]
        datasets.Dataset.from_list(rows).save_to_disk(tmp_path / name)
        return read_records(DataSection(hub=str(tmp_path / name)))

    with pytest.raises(InputError, match="record 0: arguments hold nulls, .*as JSON text"):
        read_saved("objects", calls)
    first, second = (
        record[1]["tool_calls"][0]["function"]["arguments"] for record in read_saved("text", as_text)
    )
    assert (first, second) == ({"a": 1}, {"b": 2})


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="no records"):
        read(write(tmp_path / "empty.jsonl", "", ""))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe4"}\n')
    with pytest.raises(InputError, match="line 1, column 13: not UTF-8: found byte 0xe4"):
        read(tmp_path / "latin.jsonl")
    for name, content in [("text.jsonl.gz", b"{}"), ("torn.jsonl.gz", gzip.compress(b"{}" * 1000)[:-9])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / name)


def test_datasets_library_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"jaxrl\[datasets\]"):
        read_records(DataSection(hub="someone/something"))


def test_saved_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(
        [{"messages": [USER, ASSISTANT]}, {"messages": [USER, {**ASSISTANT, "thinking": "hm"}]}]
    )
    datasets.DatasetDict({"sft": rows}).save_to_disk(tmp_path / "saved")
    records = read_records(DataSection(hub=str(tmp_path / "saved"), hub_split="sft"))
    assert records == [
        [USER, ASSISTANT],
        [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\na"}],
    ]
    with pytest.raises(InputError, match="hub_split"):
        read_records(DataSection(hub=str(tmp_path / "saved"), hub_split="train"))
    scored = datasets.Dataset.from_list(
        [{"messages": [USER, {**ASSISTANT, "weight": 1}], "score": 2, "id": 1}]
    )
    scored.save_to_disk(tmp_path / "scored")
    with pytest.raises(InputError, match="record 0: the record has `score`"):
        read_records(DataSection(hub=str(tmp_path / "scored")))
    assert read_records(DataSection(hub=str(tmp_path / "scored"), ignore=("score",))) == [[USER, ASSISTANT]]
    with pytest.raises(InputError, match="cannot be loaded"):
        read_records(DataSection(hub=str(tmp_path / "none")))


def numbered(count):
    return [parse_record({"prompt": f"q{i}", "completion": "a"}, "here") for i in range(count)]


def test_split_is_a_partition_and_deterministic():
    records = numbered(50)
    train, val = split_records(records, 0.1, seed=0)
    assert (len(train), len(val)) == (45, 5)
    assert sorted(map(str, train + val)) == sorted(map(str, records))
    assert split_records(records, 0.1, seed=0) == (train, val)
    assert split_records(records, 0.1, seed=1) != (train, val)


def test_split_does_not_hang_on_order_or_growth():
    records = numbered(200)
    _, val = split_records(records, 0.1, seed=0)
    _, reordered = split_records(records[::-1], 0.1, seed=0)
    assert sorted(map(str, reordered)) == sorted(map(str, val))
    _, grown = split_records(numbered(205), 0.1, seed=0)
    assert len([r for r in val if r not in grown]) <= 1


def test_equal_records_stay_on_one_side():
    train, val = split_records(numbered(10) * 3, 0.3, seed=0)
    assert (len(train), len(val)) == (21, 9)
    assert not [r for r in val if r in train]


def test_split_at_the_borders():
    assert split_records(numbered(3), 0.0, seed=0) == (numbered(3), [])
    assert [len(side) for side in split_records(numbered(2), 0.01, seed=0)] == [1, 1]
    assert [len(side) for side in split_records(numbered(2), 0.99, seed=0)] == [1, 1]
    with pytest.raises(InputError, match="too few"):
        split_records(numbered(1), 0.1, seed=0)
