"""Which places are elsewhere, and what is answered where only a place here will do."""

from pathlib import Path

import pytest

from jaxrl.config.file import parse_yaml, validate_config
from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, read_rows
from jaxrl.files.place import CACHE, is_url, join, local_copy, local_path
from jaxrl.policy.folder import model_folder
from jaxrl.train.inputs import check_inputs
from jaxrl.weights.peft import read_adapter_section

CONFIG = """
name: tiny
model: {architecture: {d_model: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, d_ff: 32}}
task: {name: tiny, game: letter}
stages: [{kind: sft}]
"""


def load(**changes):
    return validate_config(parse_yaml(CONFIG) | changes, "tiny")


@pytest.mark.parametrize("place", ["gs://b/runs", "s3://b", "memory://runs/", "dir::memory://x", "gs:/b"])
def test_these_are_elsewhere(place):
    assert is_url(place) and is_url(Path(place))


@pytest.mark.parametrize(
    "place", ["runs", "/abs/runs", "../a:b/c", "c:/x", "file:///abs", "local:///abs", "a/gs://b"]
)
def test_and_these_are_here(place):
    assert not is_url(place)


def test_a_folder_here_is_a_path_with_or_without_its_protocol():
    for runs_dir in ("/abs/runs", "file:///abs/runs", "local:///abs/runs"):
        assert (load(runs_dir=runs_dir).folder, load(runs_dir=runs_dir).url) == (Path("/abs/runs/tiny"), None)
    assert load().folder == Path("runs/tiny") and load(runs_dir="file://runs").folder == Path("runs/tiny")


def test_a_folder_elsewhere_has_a_local_copy_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, str(tmp_path))
    config = load(runs_dir="gs://bucket/runs")
    assert config.url == "gs://bucket/runs/tiny" == load(runs_dir="gs://bucket/runs/").url
    assert config.folder.is_relative_to(tmp_path) and config.folder.name == "tiny"
    assert (
        config.folder
        == load(runs_dir="gs://bucket/runs/").folder
        != load(runs_dir="gs://bucket/other").folder
    )
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert config.folder.is_relative_to(tmp_path / "xdg" / "jaxrl" / "runs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert local_copy("gs://b").is_relative_to(Path.home() / ".cache" / "jaxrl" / "runs")
    assert join("memory://", "a") == "memory://a" and local_path("file:///a") == Path("/a")


READERS = {
    "rows": lambda place: next(read_rows(place)),
    "rows of a flag": lambda place: next(read_rows(Path(place))),
    "out": check_out,
    "out of a flag": lambda place: check_out(Path(place)),
    "model": model_folder,
    "adapter": read_adapter_section,
    "config": lambda place: check_inputs(load(model={"path": place}), Path("none")),
    "data": lambda place: check_inputs(load(stages=[{"kind": "sft", "data": {"file": place}}]), Path("none")),
}


@pytest.mark.parametrize("reader", READERS)
def test_where_a_place_here_is_needed_a_url_is_one_error_with_the_remedy(reader):
    with pytest.raises(InputError, match=r"^gs://bucket/a is a URL, and only runs_dir may be one; .*copy"):
        READERS[reader]("gs://bucket/a")


def test_what_a_users_task_is_told_may_be_a_url(tmp_path):
    (tmp_path / "task.py").write_text("")
    task = {"name": "custom", "file": str(tmp_path / "task.py"), "options": {"server": "http://host/x"}}
    check_inputs(load(task=task), tmp_path)
