"""What befalls a run from outside: signals, a disk that is full, a folder that goes. It ends in one sentence,
and what it had saved goes on.
"""

import os
import resource
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

from jaxrl.cli import main
from jaxrl.commands import run as run_module
from jaxrl.config.file import load_config
from jaxrl.errors import InputError
from jaxrl.files.lock import locked
from tests.end_to_end.runs import lines

CONFIG = """
name: tiny
model:
  architecture: {d_model: 16, num_layers: 1, num_heads: 2, num_kv_heads: 1, d_ff: 32}
task: {name: tiny, game: letter}
checkpoint: {every: 1}
sample: {max_prompt_tokens: 48, max_new_tokens: 4, slots: 8, window: 4}
verify: {workers: 1}
stages:
  - {kind: sft, steps: 3, rows: 4, seq_len: 64, eval_every: 3}
  - {kind: eval, name: after, limit: 8, sample: {temperature: 0}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """The folder of a run that nothing befell."""
    runs = tmp_path_factory.mktemp("whole")
    assert main(["run", str(config), f"runs_dir={runs}", "compilation_cache=null"]) == 0
    return runs / "tiny"


@pytest.fixture
def start(config, tmp_path, capsys):
    """start() -> (exit code, what was told on stderr) of the command, always in the same folder."""

    def start() -> tuple[int, str]:
        capsys.readouterr()
        code = main(["run", str(config), f"runs_dir={tmp_path}", "compilation_cache=null"])
        return code, capsys.readouterr().err

    return start


@contextmanager
def limited_files(size: int):
    """Files cannot grow beyond `size` bytes inside: what a full disk is, made of a limit that needs no disk.

    Nor are compiled programs kept: on a busy machine any takes long enough, and JAX would tell of the file
    that it cannot write.
    """
    limits, least = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        jax.config.jax_persistent_cache_min_compile_time_secs,
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@contextmanager
def after_row(stage_and_step: tuple[str, int], happens, monkeypatch):
    """`happens()` when the run inside has logged this step, before it saves it."""
    log = run_module.RunLogger.log

    def log_then(self, stage, step, metrics):
        log(self, stage, step, metrics)
        if (stage, step) == stage_and_step:
            happens()

    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunLogger, "log", log_then)
        yield


def assert_same_run(folder: Path, whole: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(folder, name) == lines(whole, name)
    for name in ("model/model.safetensors", "eval.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert not list(folder.rglob("*tmp")) and not list(folder.rglob(".saving"))


def test_signals_and_full_disks_lose_nothing(start, whole, tmp_path, monkeypatch):
    """One run, stopped in every way, comes out as the one that was left alone."""
    for number, step, code in [(signal.SIGHUP, 1, 129), (signal.SIGTERM, 2, 143)]:
        with after_row(("sft", step), lambda: os.kill(os.getpid(), number), monkeypatch):
            assert start() == (code, "stopped; the state is saved, and the same command goes on from it\n")
        assert str(step) in os.listdir(tmp_path / "tiny" / "checkpoints" / "0_sft")

    with monkeypatch.context() as patch:  # no room for the next checkpoint: nothing of it is written
        usage = shutil.disk_usage(tmp_path)
        patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=5000))
        code, told = start()
    assert (
        code == 2
        and told.count("\n") == 1
        and "checkpoints/0_sft/3 needs up to" in told
        and "0.0 MiB left" in told
    )
    assert sorted(os.listdir(tmp_path / "tiny" / "checkpoints" / "0_sft")) == ["1", "2"]

    export = run_module.export
    with monkeypatch.context() as patch, limited_files(1 << 30):

        def full(*arguments):
            with limited_files(3000):
                export(*arguments)

        patch.setattr(run_module, "export", full)
        code, told = start()
    assert (
        code == 2
        and told.count("\n") == 1
        and "tiny/model cannot be written: File too large; make room" in told
    )
    assert not (tmp_path / "tiny" / "model").exists() and (tmp_path / "tiny" / "eval.json").exists()

    assert start() == (0, "")
    assert_same_run(tmp_path / "tiny", whole)


@pytest.mark.parametrize("size", [100, 2000])
def test_a_disk_that_is_full_from_the_start(size, start, tmp_path):
    """The tokenizer's library has an exception of its own for it, which says so in its text only."""
    with limited_files(size):
        code, told = start()
    assert code == 2 and told.count("\n") == 1 and "cannot be written: File too large; make room" in told
    assert not (tmp_path / "tiny" / "config.yaml").exists()


def test_a_folder_that_is_deleted_under_its_run_is_not_made_again(start, tmp_path, monkeypatch):
    with after_row(("sft", 1), lambda: shutil.rmtree(tmp_path / "tiny"), monkeypatch):
        code, told = start()
    assert code == 2 and told.count("\n") == 1 and "its folder is not there" in told
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_run_made_anew_is_left_to_it(start, tmp_path, monkeypatch):
    """Deleted while the first start loads its model, and taken by a second one."""
    load = run_module.load

    def meanwhile(*arguments):
        shutil.rmtree(tmp_path / "tiny")
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "lock").write_text("another's")
        return load(*arguments)

    monkeypatch.setattr(run_module, "load", meanwhile)
    code, told = start()
    assert code == 2 and "was deleted or replaced while this process was at work in it" in told
    assert [(path.name, path.read_text()) for path in (tmp_path / "tiny").iterdir()] == [
        ("lock", "another's")
    ]


def test_a_lost_console_does_not_end_the_run(config, whole, tmp_path, monkeypatch, caplog):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        run_module.run(load_config(config, [f"runs_dir={tmp_path}", "compilation_cache=null"]), pipe)
    assert_same_run(tmp_path / "tiny", whole)
    assert [record.getMessage() for record in caplog.records if "console" in record.getMessage()] == [
        "the console is lost (Broken pipe); the run goes on, and metrics.jsonl in its folder tells of it"
    ]


def test_one_process_of_those_that_share_a_run_locks_it(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "run_locked", lambda *_: "ran")
    experiment = load_config(config, [f"runs_dir={tmp_path}"])
    with locked(tmp_path / "tiny"):
        with pytest.raises(InputError, match="another process is at work"):
            run_module.run(experiment)
        monkeypatch.setattr(run_module, "is_first", lambda: False)
        assert run_module.run(experiment) == "ran"


BROKEN = {
    "config.yaml": [b"\xff\xfe", b"a: [", b"[1]\n", b"", b"a: 2024-99-99\n", None],
    "metrics.jsonl": [
        b"\xff\n",
        b"{\n",
        b"{}\n",
        b"[1]\n",
        b"[1]",
        b"null\n",
        b'{"stage": "sft", "step": "1", "time": 0}\n',
        None,
    ],
    "samples.jsonl": [b"\xff\n", b"{}\n", b"[1]\n", b'{"stage": "sft", "step": 1, "completion": 3}\n', None],
    "events.jsonl": [b"\xff\n", b"{}\n", b'{"stage": null, "step": 1, "time": 0, "kind": "x"}\n', None],
    "eval.json": [b"\xff", b"{}", b"[1]", b"[{}]", b"", None],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_and_stays_as_it_is(name, config, whole, tmp_path, capsys, monkeypatch):
    """Found before anything is loaded; nothing beside it is touched."""
    monkeypatch.setattr(run_module, "load", None)  # never called
    folder = tmp_path / "tiny"
    folder.mkdir()
    for content in BROKEN[name]:
        for file in BROKEN:
            (folder / file).unlink(missing_ok=True)
            (folder / file).write_bytes(
                (whole / file).read_bytes().replace(str(whole.parent).encode(), str(tmp_path).encode())
            )
        (folder / name).unlink()
        (folder / name).write_bytes(content) if content is not None else (folder / name).mkdir()
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert main(["run", str(config), f"runs_dir={tmp_path}", "compilation_cache=null"]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and f"tiny/{name}" in told and "Traceback" not in told
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    (folder / name).rmdir()


def test_a_torn_last_row_is_repaired(start, whole, tmp_path, caplog):
    shutil.copytree(whole, tmp_path / "tiny")
    (tmp_path / "tiny" / "config.yaml").write_text(
        (whole / "config.yaml").read_text().replace(str(whole.parent), str(tmp_path))
    )
    with (tmp_path / "tiny" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "sft", "step": 4, "lo\xc3')
    assert start() == (0, "")
    assert "metrics.jsonl: the last row was torn" in caplog.text
    assert [event["kind"] for event in lines(tmp_path / "tiny", "events.jsonl")][-1] == "torn row"
    assert_same_run(tmp_path / "tiny", whole)
