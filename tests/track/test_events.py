"""The stream of events: all that befell a run, once, where people look; and a run that is taken up again has
the alarms of one that was left alone.
"""

import io
import json
import logging

import pytest

from jaxrl.errors import InputError
from jaxrl.files.run_folder import RunFolder
from jaxrl.track.console import Console
from jaxrl.track.logger import RunLogger, read_run_file

STAGES = ["sft", "grpo"]
FLAT = {"reward/flat_groups": 1.0, "reward/std": 0.5}
HEALTHY = {"reward/flat_groups": 0.0, "reward/std": 0.5}


def events(folder, *columns):
    return [tuple(row.get(key) for key in columns) for row in read_run_file(folder / "events.jsonl")]


def test_an_alarm_is_kept_where_it_first_sounded_and_told_once_in_a_stage(tmp_path):
    stream = io.StringIO()
    with RunLogger(RunFolder(tmp_path), console=Console(stream)) as logger:
        for stage, step, metrics in [
            ("sft", 1, {"loss": 1.0}),
            ("grpo", 1, HEALTHY),
            ("grpo", 2, FLAT),
            ("grpo", 3, HEALTHY),
            ("grpo", 4, FLAT | {"skipped": 1.0}),
            ("ppo", 1, FLAT),
        ]:
            logger.log(stage, step, metrics)
    assert events(tmp_path, "stage", "step", "kind", "level") == [
        ("grpo", 2, "flat groups", "alarm"),
        ("grpo", 4, "skipped", "alarm"),
        ("ppo", 1, "flat groups", "alarm"),
    ]
    assert [line.split(":")[1] for line in stream.getvalue().splitlines()] == [
        " grpo, step 2",
        " grpo, step 4",
        " ppo, step 1",
    ]
    assert events(tmp_path, "reward/flat_groups", "reward/std")[0] == (1.0, 0.5), (
        "the numbers that it is about"
    )


def play(folder, stops):
    """A run of two stages that is flat in three steps; stopped where `stops` says, with a checkpoint every
    second step.
    """
    flat = {("sft", 2), ("sft", 3), ("grpo", 3)}
    done, stops = [("sft", 0)], list(stops)
    while True:
        stage, step = done[-1]
        with RunLogger(RunFolder(folder)) as logger:
            for name in STAGES[STAGES.index(stage) :]:
                logger.begin(STAGES, name, step if name == stage else 0)
                for at in range((step if name == stage else 0) + 1, 5):
                    logger.log(name, at, FLAT if (name, at) in flat else HEALTHY)
                    if stops and stops[0] == (name, at):
                        break
                    if at % 2 == 0:
                        done.append((name, at))
                else:
                    continue
                stops.pop(0)
                break
            else:
                return


@pytest.mark.parametrize(
    "stops", [[("sft", 1)], [("sft", 3), ("sft", 3)], [("sft", 2), ("grpo", 1), ("grpo", 3), ("grpo", 4)]]
)
def test_interrupted_is_uninterrupted_but_for_the_restarts(stops, tmp_path):
    for name, at in (("whole", []), ("stopped", stops)):
        (tmp_path / name).mkdir()
        play(tmp_path / name, at)
    columns = ("stage", "step", "kind", "sentence", "reward/flat_groups")
    whole = events(tmp_path / "whole", *columns)
    assert [row[:3] for row in whole] == [("sft", 2, "flat groups"), ("grpo", 3, "flat groups")]
    rows = read_run_file(tmp_path / "stopped" / "events.jsonl")
    alarms = [row for row in rows if row["level"] == "alarm"]
    assert [tuple(row[key] for key in columns) for row in alarms] == whole
    assert [row["kind"] for row in rows if row["level"] != "alarm"] == ["restart"] * len(stops)


def test_alarms_behind_the_checkpoint_are_dropped_and_all_else_stays(tmp_path):
    """Even where they do not come again: the steps behind it are no steps of this run."""
    with RunLogger(RunFolder(tmp_path)) as logger:
        for place in [("sft", 1), ("sft", 3), ("grpo", 1)]:
            logger.log(*place, {"skipped": 1.0} if place == ("sft", 3) else FLAT)
            logging.getLogger("jaxrl").warning("at %s %d", *place)
    for stage, step in [("grpo", 0), ("sft", 2), ("sft", 0)]:
        with RunLogger(RunFolder(tmp_path)) as logger:
            logger.begin(STAGES, stage, step)
        rows = read_run_file(tmp_path / "events.jsonl")
        alarms = [(row["stage"], row["step"]) for row in rows if row["level"] == "alarm"]
        assert alarms == {"grpo": [("sft", 1), ("sft", 3)], "sft": [("sft", 1)] * (step > 0)}[stage]
        assert [row["sentence"] for row in rows if row["level"] == "warning"] == [
            "at sft 1",
            "at sft 3",
            "at grpo 1",
        ]
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("sft", 1, FLAT)
    assert events(tmp_path, "stage", "step", "level")[-1] == ("sft", 1, "alarm"), "dropped, it is kept anew"


def test_a_restart_says_where_and_a_start_that_does_nothing_is_none(tmp_path):
    for step in (0, 3, None):
        with RunLogger(RunFolder(tmp_path)) as logger:
            if step is not None:
                logger.begin(STAGES, "sft", step)
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.begin(STAGES, "grpo", -1)
        logger.begin(STAGES, "grpo", 0)
    assert events(tmp_path, "stage", "step", "sentence") == [
        ("sft", 3, "sft: the run is taken up again at step 3"),
        ("grpo", 0, "grpo: the run is taken up again from its start"),
    ]


def test_what_the_library_warns_of_is_kept_while_the_run_is_open_and_no_longer(tmp_path, caplog):
    log = logging.getLogger("jaxrl")
    log.warning("before")
    with RunLogger(RunFolder(tmp_path)) as logger:
        log.warning("checkpoint %s cannot be read", 3, extra={"kind": "checkpoint fallback"})
        log.info("only if asked for")
        logger.log("sft", 2, {})
        logging.getLogger("jaxrl.data.chat").warning("of a room")
    log.warning("after")
    handlers = list(log.handlers)
    with pytest.raises(InputError), RunLogger(RunFolder(tmp_path / "none")):
        pass
    assert log.handlers == handlers
    assert events(tmp_path, "stage", "step", "kind", "level", "sentence") == [
        (None, None, "checkpoint fallback", "warning", "checkpoint 3 cannot be read"),
        ("sft", 2, "test_events", "warning", "of a room"),
    ]
    assert caplog.text.count("WARNING") == 4, "stderr has them all"


@pytest.mark.parametrize("others", [0, 1])
def test_where_nobody_else_listens_stderr_still_has_the_warnings(others, tmp_path, monkeypatch, capsys):
    """As from a Python program that has set up no logging; where it has, that shows them, once."""
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler()] * others)
    with RunLogger(RunFolder(tmp_path)):
        logging.getLogger("jaxrl").warning("of the library")
    assert capsys.readouterr().err == "of the library\n"
    assert events(tmp_path, "sentence") == [("of the library",)]


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_torn_row_that_is_taken_away_is_an_event(name, tmp_path):
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("sft", 1, FLAT)
    with (tmp_path / name).open("a") as file:
        file.write('{"stage": "sf')
    with RunLogger(RunFolder(tmp_path)):
        pass
    assert events(tmp_path, "kind") == [("flat groups",), ("torn row",)]
    assert f"{name}: the last row was torn" in read_run_file(tmp_path / "events.jsonl")[1]["sentence"]


def test_what_ends_a_run_is_its_last_event(tmp_path):
    stream = io.StringIO()
    with pytest.raises(InputError), RunLogger(RunFolder(tmp_path), console=Console(stream)) as logger:
        logger.log("grpo", 4, {})
        raise InputError("60% of the last 64 samples have no verdict")
    assert events(tmp_path, "stage", "step", "kind", "level", "sentence") == [
        ("grpo", 4, "end", "error", "60% of the last 64 samples have no verdict")
    ]
    assert stream.getvalue() == "", "the program says it when it ends"
    with pytest.raises(KeyboardInterrupt), RunLogger(RunFolder(tmp_path)):
        raise KeyboardInterrupt
    assert len(events(tmp_path, "kind")) == 1


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("sft", 1, {"loss": float("nan"), "skipped": 0.0})
    (row,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (row["kind"], row["loss"], row["skipped"]) == ("loss", None, 0.0)


def test_other_processes_tell_and_keep_nothing(tmp_path):
    with RunLogger(RunFolder(tmp_path, writes=False)) as logger:
        logger.begin(STAGES, "sft", 0)
        logger.log("sft", 1, FLAT)
        logger.events.record("end", "error", "x")
        logging.getLogger("jaxrl").warning("y")
    assert list(tmp_path.iterdir()) == []
