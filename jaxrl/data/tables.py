"""Records with a dataset's own field names, from JSONL or parquet files, or through `datasets`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.jsonl import read_objects


def read_file(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each record of a file: parquet if it is named so, else JSONL, plain or `.gz`.

    Raises:
      InputError: a file that cannot be read; parquet without pyarrow.
    """
    return _parquet_rows(Path(path)) if str(path).endswith(".parquet") else read_objects(path)


def read_hub(name: str, config: str | None, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each record of a split: a dataset of the hub, or a folder that it was saved to.

    Raises:
      InputError: no `datasets` library; a dataset, configuration or split that cannot be loaded.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"the dataset {name!r} needs the `datasets` library; install it with: pip install "
            "'jaxrl[datasets]'"
        ) from None
    try:
        saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
        rows = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, config, split=split)
        if isinstance(rows, datasets.DatasetDict):
            rows = rows[split]
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        what = f"dataset {name!r}, configuration {config}, split {split!r}"
        raise InputError(f"{what} cannot be loaded: {error}; check hub, hub_config and hub_split") from None
    for i, row in enumerate(rows):
        yield f"{name} ({split}), record {i}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{path} needs pyarrow, which comes with the `datasets` library: pip install 'jaxrl[datasets]'"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"data file {path} cannot be read after row {number}: {error}; check the file"
        ) from None
