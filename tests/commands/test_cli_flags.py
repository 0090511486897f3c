"""The command line without a model: what it asks for, what it takes where nothing is said, what it says of
itself.
"""

import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from jaxrl.cli import main, parse
from jaxrl.commands import generate

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
GENERATE = [sys.executable, "-m", "jaxrl.cli", "generate", "arithmetic", "--n", "3", "--out"]


def test_only_what_is_required_is_asked_for(capsys):
    asked = {
        "verify": "TASK, --input, --out",
        "generate": "TASK, --n, --out",
        "run": "CONFIG",
        "eval": "--model, --config",
    }
    for command, required in asked.items():
        with pytest.raises(SystemExit):
            main([command])
        assert f"the following arguments are required: {required}\n" in capsys.readouterr().err


def test_rows_decoded_together_are_as_many_as_the_memory_holds_unless_said():
    flags = ["sample", "--model", "m", "--prompts", "p", "--out", "o"]
    assert parse(flags).slots is None and parse([*flags, "--slots", "3"]).slots == 3


def test_a_date_is_a_day(capsys):
    flags = ["sample", "--model", "m", "--prompts", "p", "--out", "o"]
    assert parse(flags).date is None and parse([*flags, "--date", "2025-12-31"]).date == datetime(
        2025, 12, 31
    )
    with pytest.raises(SystemExit):
        parse([*flags, "--date", "tomorrow"])
    assert "'tomorrow' is not a date; give one as 2025-12-31" in capsys.readouterr().err


def test_a_wrong_experiment_is_refused(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    assert main(["run", str(config)]) == 2 and "cannot be read" in capsys.readouterr().err
    config.write_text("name: x\nmodel: {path: y}\nstages: [{kind: stf}]\n")
    assert main(["run", str(config)]) == 2 and "stages.0" in capsys.readouterr().err
    config.write_text("name: x\nmodel: {path: y}\nstages: [{kind: sft}]\n")
    assert main(["eval", "--model", "y", "--config", str(config)]) == 2
    assert "no stage of kind eval" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


def test_version_and_help(capsys):
    for flags, said in [(["--version"], "jaxrl 0"), (["--help"], "run"), (["sample", "--help"], "--prompts")]:
        with pytest.raises(SystemExit) as left:
            main(flags)
        assert left.value.code == 0 and said in capsys.readouterr().out


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_that_is_stopped_says_by_what(number, code, monkeypatch, capsys, tmp_path):
    """In the shell's way: 128 and the signal's number."""

    def stop(*_):
        signal.raise_signal(number)

    monkeypatch.setattr(generate, "generate_file", stop)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert main(["generate", "arithmetic", "--n", "1", "--out", str(tmp_path / "out")]) == code
    assert capsys.readouterr().err == "stopped at once; no file was written\n"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


@pytest.mark.parametrize(
    "command", [[*GENERATE, "out.jsonl"], [*GENERATE[:3], "--help"]], ids=["generate", "help"]
)
def test_a_reader_that_has_left_is_no_error(command, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        ended = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=pipe, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command[3] == "--help" or len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_a_full_disk_behind_stdout_is_an_error(tmp_path):
    with open("/dev/full", "w") as full:
        command = [*GENERATE, "out.jsonl"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (
        2,
        "error: the standard output cannot be written: No space left on device\n",
    )
    assert (tmp_path / "out.jsonl").exists()


def test_without_any_console_no_file_takes_its_place(tmp_path):
    """With descriptors 0 to 2 closed the next files opened would have these numbers, and what libraries print
    would land in them.
    """
    program = """
import os
from contextlib import suppress
from jaxrl.cli import main
main(["generate", "no task", "--n", "1", "--out", "out"])
files = [open(name, "wb") for name in "abc"]
for number in range(3):
    with suppress(OSError):
        os.write(number, b"noise")
"""
    command = f'exec {sys.executable} -c "$0" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, program], cwd=tmp_path, env=ENVIRONMENT).returncode == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"", "b": b"", "c": b""}
