import json
import resource
import shutil
import sys
import types

import numpy as np
import pytest

from jaxrl.config.shared import TrackSection, WandbSection
from jaxrl.errors import InputError
from jaxrl.files.journal import read_journal
from jaxrl.files.run_folder import RunFolder
from jaxrl.track.logger import RunLogger, read_run_file, sample_row
from jaxrl.types import Completion, Problem, StopReason, Trajectory, Verdict


def places(path):
    return [(row["stage"], row["step"]) for row in read_journal(path)]


def fill(folder, *rows):
    with RunLogger(RunFolder(folder)) as logger:
        for stage, step in rows:
            logger.log(stage, step, {"loss": 1.0})
            logger.log_samples(stage, step, [{"text": "a"}, {"text": "b"}])


def test_rows_are_on_disk_at_once(tmp_path):
    logger = RunLogger(RunFolder(tmp_path))
    logger.log(
        "sft",
        1,
        {
            "loss": np.float32(0.5),
            "tokens": np.array(7),
            "bad": float("nan"),
            "worse": np.inf,
            "n": 3,
            "word": "x",
        },
    )
    logger.log_samples("sft", 1, [{"text": "line\n\u2028é", "reward": np.float32(1)}])
    (row,) = read_journal(tmp_path / "metrics.jsonl")
    assert row.pop("time") > 0
    assert row == {
        "stage": "sft",
        "step": 1,
        "loss": 0.5,
        "tokens": 7.0,
        "bad": None,
        "worse": None,
        "n": 3,
        "word": "x",
    }
    assert read_journal(tmp_path / "samples.jsonl") == [
        {"stage": "sft", "step": 1, "text": "line\n\u2028é", "reward": 1.0}
    ]
    logger.close()


def test_names_of_the_place_are_taken(tmp_path):
    with RunLogger(RunFolder(tmp_path)) as logger, pytest.raises(ValueError, match="'step'"):
        logger.log("sft", 1, {"step": 2})


def test_a_stage_that_begins_drops_what_comes_again(tmp_path):
    rows = [("sft", 1), ("sft", 2), ("eval", 0), ("grpo", 1), ("grpo", 2), ("grpo", 3)]
    order = ["sft", "eval", "grpo"]
    for limit, kept in [
        (("grpo", 2), rows[:5]),
        (("grpo", 0), rows[:3]),
        (("sft", 1), rows[:1]),
        (("sft", -1), []),
    ]:
        for name in ("metrics.jsonl", "samples.jsonl"):
            (tmp_path / name).unlink(missing_ok=True)
        fill(tmp_path, *rows)
        with RunLogger(RunFolder(tmp_path)) as logger:
            logger.begin(order, *limit)
            logger.log("grpo", 9, {})
        assert places(tmp_path / "metrics.jsonl") == [*kept, ("grpo", 9)]
        assert places(tmp_path / "samples.jsonl") == [row for row in kept for _ in range(2)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.jsonl", "metrics.jsonl", "samples.jsonl"]


def test_torn_last_line_is_left_out_and_cut(tmp_path):
    fill(tmp_path, ("sft", 1), ("sft", 2))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-12])
    assert places(path) == [("sft", 1)]
    fill(tmp_path, ("sft", 2))
    assert places(path) == [("sft", 1), ("sft", 2)]


def test_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "a"}\n{"stage"\n{"stage": "b"}\n')
    with pytest.raises(InputError, match="line 2, column 9"):
        read_journal(path)


@pytest.mark.parametrize(
    "tail, kept",
    [
        (b'{"stage": "a", "st', 1),
        (b'{"stage": "\xc3', 1),
        (b"\0" * 100, 1),
        (b'{"stage": "a", "step": 2, "time": 0}', 2),
    ],
)
def test_what_a_dead_process_left_of_its_last_row_is_repaired(tail, kept, tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"stage": "a", "step": 1, "time": 0}\n' + tail)
    assert len(read_run_file(path)) == kept
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("a", 3, {})
    assert places(path) == [*[("a", 1), ("a", 2), ("a", 3)][:kept], ("a", 3)]
    assert ("the last row was torn" in caplog.text) == (kept == 1)


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"[1]", "line 2: must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "'stage' is None"),
        (b"\xff", "line 2, column 1: not UTF-8"),
        (b'{"stage": 1, "step": 1, "time": 0}', "'stage' is 1"),
        (b'{"stage": "a", "time": 0}', "'step' is None"),
        (b'{"stage": "a", "step": "1", "time": 0}', "'step' is '1'"),
        (b'{"stage": "a", "step": 1}', "'time' is None"),
        (b'{"stage": "a", "step": 1, "time": 0, "loss": [1]}', "'loss' is .1."),
        (b"[" * 100_000, "line 2"),
        (b"1" * 5000, "line 2"),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\n{}"])
def test_rows_that_no_run_writes(line, reason, end, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"stage": "a", "step": 1, "time": 0.5, "loss": null, "word": "x", "flag": true}\n' + line + end
    )
    with pytest.raises(InputError, match=f"metrics.jsonl, .*{reason}"):
        read_run_file(path)


def test_a_sample_with_other_values(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"stage": "a", "step": 1, "parts": {"x": 1}, "extra": [1], "reward": null}\n')
    assert len(read_run_file(path)) == 1
    for values in ('"completion": 3', '"parts": [1]', '"reward": "1"', '"prompt": null'):
        path.write_text(f'{{"stage": "a", "step": 1, {values}}}\n')
        with pytest.raises(InputError, match="samples.jsonl, line 1"):
            read_run_file(path)


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.raises(InputError, match="samples.jsonl cannot be written: Is a directory"):
        RunLogger(RunFolder(tmp_path))
    with pytest.raises(InputError, match="samples.jsonl cannot be read: Is a directory"):
        read_run_file(tmp_path / "samples.jsonl")


@pytest.mark.parametrize("again", ["nothing", "a file", "another run"])
def test_files_that_go_while_they_are_written_are_missed(again, tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    with RunLogger(RunFolder(folder)) as logger:
        logger.log("sft", 1, {})
        shutil.rmtree(folder)
        if again != "nothing":
            folder.mkdir()
        if again == "a file":
            (folder / "metrics.jsonl").touch()
        if again == "another run":
            fill(folder, ("sft", 1))
        before = {path: path.read_bytes() for path in folder.glob("*")}
        for write in (
            lambda: logger.log("sft", 2, {}),
            lambda: logger.log_samples("sft", 2, [{}]),
            lambda: logger.begin(["sft"], "sft", 0),
        ):
            with pytest.raises(
                InputError, match="metrics.jsonl was deleted or replaced while the run was at work"
            ):
                write()
    assert {path: path.read_bytes() for path in folder.glob("*")} == before


def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path):
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("sft", 1, {"loss": 1.0})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        try:
            with pytest.raises(
                InputError, match="metrics.jsonl cannot be written: File too large; make room"
            ):
                logger.log("sft", 2, {"loss": 1.0})
            logger.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("sft", 2, {"loss": 1.0})
    assert places(tmp_path / "metrics.jsonl") == [("sft", 1), ("sft", 2)]


def test_rows_that_all_stay_are_not_written_anew(tmp_path):
    fill(tmp_path, ("sft", 1), ("sft", 2))
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.begin(["sft"], "sft", 2)
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode


def test_half_a_surrogate_is_written_as_its_escape(tmp_path):
    fill(tmp_path, ("sft", 1))
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log_samples("sft", 2, [{"completion": "a\ud800b"}])
        logger.begin(["sft"], "sft", 2)
    assert read_journal(tmp_path / "samples.jsonl")[-1]["completion"] == "a\ud800b"


def test_other_processes_write_nothing(tmp_path):
    with RunLogger(RunFolder(tmp_path, writes=False), TrackSection(wandb=WandbSection())) as logger:
        logger.log("sft", 1, {"loss": 1.0})
        logger.log_samples("sft", 1, [{}])
        logger.begin(["sft"], "sft", 0)
    assert list(tmp_path.iterdir()) == []


def test_sample_row_is_plain_json():
    trajectory = Trajectory.one_turn(
        Problem("kg-1", ({"role": "user", "content": "q"},), {}),
        Completion([1], [2, 3], [-0.1, -0.2], StopReason.EOS, "a"),
        Verdict(np.float32(0.5), True, True, {"answer": np.float64(1.0)}),
        policy_version=4,
    )
    row = json.loads(json.dumps(sample_row(trajectory)))
    assert (
        row["uid"],
        row["completion"],
        row["num_tokens"],
        row["stop_reason"],
        row["reward"],
        row["parts"],
    ) == ("kg-1", "a", 2, "eos", 0.5, {"answer": 1.0})


def test_wandb_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"jaxrl\[wandb\]"):
        RunLogger(RunFolder(tmp_path), TrackSection(wandb=WandbSection()))


def test_wandb_gets_each_stage_on_its_own_axis(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        define_metric=lambda *a, **k: calls.append(("define", *a, k)),
        log=lambda row: calls.append(("log", row)),
        finish=lambda: calls.append(("finish",)),
    )
    fake = types.ModuleType("wandb")
    fake.Error = RuntimeError
    fake.init = lambda **options: calls.append(("init", options)) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):  # the second is the same run, resumed
        with RunLogger(
            RunFolder(tmp_path), TrackSection(wandb=WandbSection(project="p")), name="n", config={"seed": 0}
        ) as logger:
            logger.log("sft", step, {"loss": 0.5, "bad": float("nan")})
    inits = [call[1] for call in calls if call[0] == "init"]
    assert inits[0] == inits[1] and inits[0]["mode"] == "offline" and inits[0]["resume"] == "allow"
    assert [call[1] for call in calls if call[0] == "log"] == [
        {"sft/step": s, "sft/loss": 0.5} for s in (1, 2)
    ]
    assert calls.count(("define", "sft/*", {"step_metric": "sft/step"})) == calls.count(("finish",)) == 2
