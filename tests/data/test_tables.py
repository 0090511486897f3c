"""Records from files of all kinds, with their own fields, and errors that say where."""

import gzip
import json

import pytest

from jaxrl.data.tables import read_file, read_hub
from jaxrl.errors import InputError

RECORDS = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "é ∧ ½?", "answer": "#### 3"}]


def test_jsonl_plain_and_gzipped_and_parquet_hold_the_same(tmp_path):
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.Table.from_pylist(RECORDS), tmp_path / "a.parquet"
    )
    for name, place in (("a.jsonl", "line"), ("a.jsonl.gz", "line"), ("a.parquet", "row")):
        rows = list(read_file(tmp_path / name))
        assert [record for _, record in rows] == RECORDS
        assert [at for at, _ in rows] == [f"{tmp_path / name}, {place} {i}" for i in (1, 2)]


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="none.jsonl cannot be read"):
        list(read_file(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="list.jsonl, line 1: must be a JSON object"):
        list(read_file(tmp_path / "list.jsonl"))
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="broken.parquet cannot be read after row 0"):
        list(read_file(tmp_path / "broken.parquet"))
    with pytest.raises(InputError, match="none.parquet cannot be read after row 0"):
        list(read_file(tmp_path / "none.parquet"))


def test_a_saved_dataset_is_read_by_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {"train": datasets.Dataset.from_list(RECORDS), "test": datasets.Dataset.from_list(RECORDS[:1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    name = str(tmp_path / "d")
    assert [record for _, record in read_hub(name, None, "train")] == RECORDS
    assert list(read_hub(name, None, "test")) == [(f"{name} (test), record 0", RECORDS[0])]
    with pytest.raises(InputError, match="split 'dev' cannot be loaded"):
        list(read_hub(name, None, "dev"))
