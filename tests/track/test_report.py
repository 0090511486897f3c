import json

import pytest

from jaxrl.config.file import dump_config, validate_config
from jaxrl.errors import InputError
from jaxrl.files.run_folder import RunFolder
from jaxrl.track.alarms import Alarm
from jaxrl.track.logger import RunLogger
from jaxrl.track.report import write_report

CONFIG = {
    "name": "demo",
    "seed": 3,
    "model": {"architecture": {}},
    "lora": {"rank": 8},
    "task": {"name": "knowledge_graph"},
    "stages": [
        {"kind": "eval", "name": "base"},
        {"kind": "sft"},
        {"kind": "eval", "name": "after-sft"},
        {"kind": "grpo"},
        {"kind": "eval", "name": "after-grpo"},
    ],
}


def evaluation_row(name, accuracy, low, high):
    return {
        "name": name,
        "n": 100,
        "correct": 50,
        "accuracy": accuracy,
        "ci80": [low, high],
        "ci95": [low, high],
        "mean_reward": 0.25,
        "format_rate": 1.0,
        "errors": 2,
        "parts": {"steps": 0.75},
    }


def make_run(folder, spread=0.5):
    (folder / "config.yaml").write_text(dump_config(validate_config(CONFIG, "test")))
    (folder / "eval.json").write_text(
        json.dumps(
            [
                evaluation_row("oracle", 0.9, 0.8, 0.95),
                evaluation_row("base", 0.1, 0.05, 0.17),
                evaluation_row("random", 0.0, 0.0, 0.05),
                evaluation_row("after-grpo", 0.5, 0.4, 0.6),
            ]
        )
    )
    with RunLogger(RunFolder(folder)) as logger:
        for step in range(1, 11):
            logger.log("sft", step, {"loss": 3.0 / step, "train/tokens_per_s": 1000.0, "time/step_s": 60.0})
        for step in range(1, 101):
            logger.log(
                "grpo",
                step,
                {
                    "loss": 0.0,
                    "reward/mean": step / 100,
                    "reward/flat_groups": float(spread == 0),
                    "kl/ref": 0.01,
                },
            )
            texts = ["wrong ``` and", "nearly |", "right\n````\n# no heading"]
            logger.log_samples(
                "grpo",
                step,
                [
                    {
                        "uid": f"kg-{r}",
                        "prompt": "question?",
                        "completion": text,
                        "reward": r * spread,
                        "parts": {"answer": r, "path": 0.5},
                        "stop_reason": "eos",
                    }
                    for r, text in enumerate(texts)
                ],
            )
    return folder


def test_report_of_a_run(tmp_path):
    text = write_report(make_run(tmp_path)).read_text()
    assert text.startswith("# demo\n")
    for part in [
        "- seed: 3",
        "LoRA of rank 8",
        "jaxrl run config.yaml",
        "| base | 100 | 10.0% | 5.0 – 17.0% |",
        "| after-grpo | 100 | 50.0% |",
        "| mean reward | steps | format | errors |",
        "## sft\n\nsteps 1 to 10, wall time 0:10:00, 1000.0 tokens/s (median)",
        "| loss (`loss`) | 3.000 | 0.300 | 0.300 |",
        "| reward (`reward/mean`) | 0.010 | 1.000 | 1.000 |",
        "## Completions of grpo, step 100",
        "### best: kg-2\n\nreward 1.000, answer 2, path 0.500, stopped by eos",
        "### median: kg-1",
        "### worst: kg-0",
        "`````text\nright\n````\n# no heading\n`````",
    ]:
        assert part in text, part
    assert "Alarms" not in text
    curve = next(line for line in text.splitlines() if line.startswith("reward  "))
    assert curve.split()[1][0] == "▁" and curve.split()[1][-1] == "█"


def test_alarms_are_those_of_the_stream_and_say_how_often_they_sounded(tmp_path):
    make_run(tmp_path, spread=0.0)
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.events.move_to("after-grpo", 0)
        logger.events.record_alarms(
            [Alarm("worse", "after-grpo answers worse than base: 10.0% against 50.0%")]
        )
        logger.log("sft", 11, {"loss": float("nan")})
    text = write_report(tmp_path).read_text()
    alarms = text.split("## Alarms\n\n")[1].split("\n\n")[0].splitlines()
    assert [alarm.split(":")[0] for alarm in alarms] == [
        "- **grpo, step 1",
        "- **after-grpo, step 0",
        "- **sft, step 11",
    ]
    assert "100% of the groups have equal rewards" in alarms[0]
    assert alarms[0].endswith("(in 100 of 100 steps, last in step 100)**")
    assert alarms[1].endswith("10.0% against 50.0%**")
    assert alarms[2].endswith("(in 1 of 11 steps, last in step 11)**")


def test_the_other_events_have_their_time(tmp_path):
    make_run(tmp_path)
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.begin(["base", "sft", "after-sft", "grpo"], "grpo", 100)
    with pytest.raises(InputError), RunLogger(RunFolder(tmp_path)):
        raise InputError("the verifier\n  is given up")
    text = write_report(tmp_path).read_text()
    told = text.split("## Events\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(", ", 1)[1] for line in told] == [
        "info: grpo: the run is taken up again at step 100",
        "error: the verifier is given up",
    ]
    assert "## Alarms" not in text


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(validate_config(CONFIG, "test")))
    assert "No step has been logged yet." in write_report(tmp_path).read_text()
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log("sft", 1, {"loss": None})
        logger.log("base", 0, {"eval/accuracy": 0.5})
    assert "## base (eval)" in write_report(tmp_path).read_text()


def test_long_completions_are_cut_and_say_so(tmp_path):
    make_run(tmp_path)
    with RunLogger(RunFolder(tmp_path)) as logger:
        logger.log_samples("grpo", 101, [{"completion": "x" * 2500, "reward": 1.0}])
    assert "x\n[500 more characters]\n" in write_report(tmp_path).read_text()


def test_not_a_run_folder(tmp_path):
    with pytest.raises(InputError, match="give the folder of a run"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        write_report(tmp_path)
