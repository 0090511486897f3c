"""The command line without a model: what it asks for, what it takes where nothing is said, what it says of itself."""

from datetime import datetime

import pytest

from jaxrl.cli import main, parse


def test_only_what_is_required_is_asked_for(capsys):
    asked = {"verify": "TASK, --input, --out", "generate": "TASK, --n, --out", "run": "CONFIG", "eval": "--model, --config"}
    for command, required in asked.items():
        with pytest.raises(SystemExit):
            main([command])
        assert f"the following arguments are required: {required}\n" in capsys.readouterr().err


def test_rows_decoded_together_are_as_many_as_the_memory_holds_unless_said():
    flags = ["sample", "--model", "m", "--prompts", "p", "--out", "o"]
    assert parse(flags).slots is None and parse([*flags, "--slots", "3"]).slots == 3


def test_a_date_is_a_day(capsys):
    flags = ["sample", "--model", "m", "--prompts", "p", "--out", "o"]
    assert parse(flags).date is None and parse([*flags, "--date", "2025-12-31"]).date == datetime(2025, 12, 31)
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
