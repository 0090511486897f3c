import io
import os

import pytest

from jaxrl.track.console import Console

METRICS = {
    "loss": 0.4375,
    "reward/mean": 0.6123,
    "kl/ref": 0.00312,
    "clip_fraction": 0.012,
    "grad_norm": 0.84,
    "train/tokens_per_s": 48_200.0,
    "other": 1.0,
}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(steps, seconds=2.0, metrics=METRICS, **options):
    stream, clock = io.StringIO(), Clock()
    with Console(stream, clock=clock, **options) as console:
        console.stage("grpo", total=100, detail="16 x 8 completions")
        for step in steps:
            clock.now += seconds
            console.progress(step, metrics, memory=("gpu", 12 * 2**30))
    return stream.getvalue()


def test_plain_lines():
    heading, first, second, third = run([1, 2, 3]).splitlines()
    assert heading == "── grpo · 100 steps · 16 x 8 completions ──"
    assert first.startswith("grpo    1/100  eta -:--:--  ")
    assert (
        third
        == "grpo    3/100  eta 0:03:14  reward   0.612  loss   0.438  kl   0.003  clip    1.2%  grad   0.840 "
        " tok/s   48.2k  gpu 12.0 GiB"
    )
    assert "\x1b" not in first + second + third


def test_lines_stand_under_one_another():
    lines = run(range(1, 100)).splitlines()[1:]
    assert len({line.index("reward") for line in lines}) == len({len(line) for line in lines}) == 1


def test_metrics_that_are_missing_or_not_finite():
    line = run([1], metrics={"loss": float("nan"), "kl/ref": None}).splitlines()[-1]
    assert "loss     nan" in line and "kl       –" in line and "reward" not in line


def test_log_every_keeps_the_last_step():
    lines = run([9, 10, 11, 99, 100], log_every=10).splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["10/100", "100/100"]
    assert "eta 0:00:00" in lines[-1]


def test_first_step_does_not_count_for_the_eta():
    stream, clock = io.StringIO(), Clock()
    console = Console(stream, clock=clock)
    console.stage("sft", total=10, start=4)
    for step, seconds in [(5, 300.0), (6, 1.0), (7, 1.0)]:
        clock.now += seconds
        console.progress(step, {})
    assert stream.getvalue().splitlines()[-1] == "sft   7/10  eta 0:00:03"


def test_a_stage_may_count_something_else_than_steps():
    stream = io.StringIO()
    with Console(stream) as console:
        console.stage("eval", total=300, detail="test split", unit="problem")
    assert stream.getvalue() == "── eval · 300 problems · test split ──\n"


def test_other_processes_are_silent():
    stream = io.StringIO()
    console = Console(stream, enabled=False, is_terminal=True)
    console.stage("grpo", total=3)
    console.progress(1, METRICS)
    console.note("a")
    console.warn("b")
    console.table("t", ["a"], [["b"]])
    console.close()
    assert stream.getvalue() == ""


def test_notes_and_tables_in_plain_text():
    stream = io.StringIO()
    console = Console(stream)
    console.note("resumed [from] step 3")
    console.warn("look here")
    console.table("Evaluation", ["model", "n"], [["base", "7"]])
    notes, table = stream.getvalue().split("\n\n", 1)
    assert notes == "resumed [from] step 3\nwarning: look here"
    assert table == "Evaluation\nmodel  n\n─────  ─\nbase   7\n\n"


def test_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = run([1, 2, 100], is_terminal=True)
    assert "\x1b[" in text and "0.612" in text and "100/100" in text and "12.0 GiB" in text
    stream = io.StringIO()
    console = Console(stream, is_terminal=True)
    console.note("keep [bold]brackets[/bold]")
    console.table("[t]", ["[a]"], [["[b]"]])
    for shown in ("[bold]brackets[/bold]", "[t]", "[a]", "[b]"):
        assert shown in stream.getvalue()


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in run([1, 2], is_terminal=True)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_console_that_nobody_reads_falls_silent_and_stops_nothing(is_terminal, monkeypatch, caplog):
    monkeypatch.setenv("TERM", "xterm-256color")
    reader, writer = os.pipe()
    with open(writer, "w") as stream, Console(stream, is_terminal=is_terminal) as console:
        console.stage("grpo", total=100)
        os.close(reader)
        for step in (1, 2):
            console.progress(step, METRICS)
        console.note("a")
        console.table("t", ["a"], [["b"]])
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "the console is lost (Broken pipe)"
    ]


def test_a_disk_that_takes_no_more_lines(caplog):
    with open("/dev/full", "w") as stream:
        console = Console(stream)
        console.note("a")
        console.note("b")
    assert "No space left" in caplog.text


def test_a_process_without_a_console():
    console = Console(None)
    console.stage("grpo", total=3)
    console.progress(1, METRICS)
    console.close()
