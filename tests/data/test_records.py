import gzip
import json
import sys

import pytest

from jaxrl.config import DataSection
from jaxrl.data.records import parse_record, read_records, split_records
from jaxrl.errors import InputError

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(path):
    return read_records(DataSection(file=str(path)))


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
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


def test_gzip_and_byte_order_mark(tmp_path):
    line = json.dumps({"prompt": "q", "completion": "ä"}, ensure_ascii=False)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(line)
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode())
    assert read(tmp_path / "a.jsonl.gz") == read(tmp_path / "b.jsonl") == [[USER, {"role": "assistant", "content": "ä"}]]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"prompt": "q", completion: 1}', r"line 2, column 17: not JSON: .*found 'completion: 1}'"),
        ('{"prompt": "q"', r"line 2, column 15: not JSON: .*found the end of the line"),
        ("[1, 2]", r"line 2: a record must be an object, and this is a list: \[1, 2\]"),
        ('{"question": "q"}', r"line 2: a record needs .*keys found are 'question'"),
        ('{"prompt": "q"}', r"line 2: a record needs `messages`"),
        ('{"prompt": 3, "completion": "a"}', r"line 2: prompt must be a string, and is int: 3"),
        ('{"prompt": "q", "completion": ["a"]}', r"line 2: completion must be a string, and is a list"),
        ('{"messages": "q"}', r"line 2: messages must be a list"),
        ('{"messages": []}', r"line 2: messages must be a list .*at least one"),
        ('{"messages": ["q"]}', r"line 2: messages\[0\] must be an object"),
        ('{"messages": [{"role": "user"}]}', r"line 2: messages\[0\].content must be a string, and is missing"),
        ('{"messages": [{"role": "user", "content": "q"}]}', r"line 2: messages: no assistant message"),
        ('{"messages": [{"role": "assistant", "content": "q"}]}', r"line 2: messages\[0\] is an assistant message"),
        ('{"messages": [{"role": "assistant", "content": "q", "tool_calls": [1]}]}', r"messages\[0\].tool_calls: .*not supported"),
        ('{"messages": [{"role": "user", "content": "q", "thinking": "x"}]}', r"messages\[0\].thinking belongs"),
        (r'{"prompt": "a\ud800", "completion": "a"}', r"line 2: prompt holds half a surrogate pair at character 1"),
    ],
)
def test_errors_name_the_place_and_what_was_found(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", {"prompt": "q", "completion": "a"}, line)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


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
    rows = datasets.Dataset.from_list([{"messages": [USER, ASSISTANT]}, {"messages": [USER, {**ASSISTANT, "thinking": "hm"}]}])
    datasets.DatasetDict({"sft": rows}).save_to_disk(tmp_path / "saved")
    records = read_records(DataSection(hub=str(tmp_path / "saved"), hub_split="sft"))
    assert records == [[USER, ASSISTANT], [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\na"}]]
    with pytest.raises(InputError, match="hub_split"):
        read_records(DataSection(hub=str(tmp_path / "saved"), hub_split="train"))
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
