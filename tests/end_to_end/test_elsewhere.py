"""A run that is kept elsewhere, and whose machine is lost again and again, is the run that nobody has
disturbed.
"""

import io
import json
import shutil

import pytest

from jaxrl.commands.run import run
from jaxrl.files.place import CACHE
from tests.end_to_end.test_resume import ctrl_c, kill, load, stopped
from tests.files.buckets import Bucket, content

STAGES = [
    {"kind": "sft", "steps": 6, "rows": 8, "seq_len": 48, "eval_every": 4},
    {"kind": "rsft", "samples_per_problem": 4, "min_reward": -1, "steps": 2, "rows": 4, "seq_len": 48},
    {"kind": "eval", "name": "after", "sample": {"temperature": 0}},
]


@pytest.fixture(autouse=True)
def bucket():
    Bucket.clear()
    yield
    Bucket.clear()


def test_from_what_was_sent_alone_another_machine_goes_on_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "machine"))
    settings = {"stages": STAGES, "checkpoint": {"every": 2}}
    whole = run(load(tmp_path / "whole", **settings), io.StringIO())
    config, console = load("bucket://runs", **settings), io.StringIO()
    for stop in [
        (ctrl_c, "sft", 3, "logged"),
        (kill, "sft", 5, "logged"),
        (kill, "rsft", 1, "logged"),
        (kill, "after", 0, "saved"),
    ]:
        with stopped(*stop, monkeypatch):
            run(config, io.StringIO())
        shutil.rmtree(tmp_path / "machine")
    run(config, console)
    there = content("runs/tiny")
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows(there[name]) == rows((whole / name).read_bytes())
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors", "eval.json"):
        assert there[name] == (whole / name).read_bytes(), name
    assert "report: bucket://runs/tiny/report.md" in console.getvalue()
    assert "kept at: bucket://runs/tiny\n" in there["report.md"].decode()
    assert (
        json.loads(there["adapter/adapter_config.json"])["base_model_name_or_path"]
        == "bucket://runs/tiny/model"
    )
    kept = {name.split("/")[2] for name in there if name.startswith("checkpoints/0_sft/")}
    assert kept == {path.name for path in (whole / "checkpoints" / "0_sft").iterdir()}, (
        "what is old goes there, too"
    )


def rows(text: bytes) -> list[dict]:
    """Without what the clock and the machine have a say in."""
    return [
        {
            key: value
            for key, value in json.loads(line).items()
            if not key.startswith(("time", "memory")) and not key.endswith("tokens_per_s")
        }
        for line in text.splitlines()
    ]
