"""`jaxrl verify` and `jaxrl generate`: lines in their order with their verdicts, whole files or none, one
clear error, no jax.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxrl.cli import main
from jaxrl.commands.verify import Tally, verify_file
from tests.sandbox.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
TASK = """
import os, time
from jaxrl.types import Problem, Verdict

class Task:
    failure_reward = -1.0
    def problem(self, record):
        return Problem(str(record["n"]), (), {})
    def verify(self, problem, text):
        if text == "sandbox":
            return Verdict(float("nan"), False, False, error="sandbox: cannot fork")
        if text == "exit":
            os._exit(3)
        if text == "sleep":
            open("asleep", "w").close()
            time.sleep(600)
        return Verdict(float(len(text)), text == "right", True, {"length": len(text)}, problem.uid)
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of the test's own, with a task in it."""
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(TASK)
    return tmp_path


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def verify(*arguments, task="custom", overrides=("file=task.py",)):
    return main(
        [
            "verify",
            task,
            "--input",
            "in.jsonl",
            "--out",
            "out.jsonl",
            "--workers",
            "2",
            *arguments,
            *overrides,
        ]
    )


def test_lines_keep_their_fields_and_their_order(files, capsys):
    texts = ["right", "wrong", "sandbox", "exit", "sleep", "", "right"] + [
        "right" * (n % 3) for n in range(3000)
    ]
    rows = [{"n": n, "other": [n], "reward": "old", "completion": text} for n, text in enumerate(texts)]
    write("in.jsonl", rows)
    assert verify("--timeout", "2") == 0
    told = capsys.readouterr().out
    right = texts.count("right")
    counts = (
        rf"3007 rows: {right} right, {3004 - right} wrong, 3 errors \(sandbox 1, crash 1, timeout 1\); \d+"
        r" per second in out.jsonl\n"
    )
    assert re.fullmatch(counts, told), told
    judged = read("out.jsonl")
    assert [{k: v for k, v in row.items() if k in ("n", "other", "completion")} for row in judged] == [
        {k: v for k, v in row.items() if k != "reward"} for row in rows
    ]
    added = [{k: v for k, v in row.items() if k not in ("n", "other", "completion")} for row in judged]
    failed = {"correct": False, "format_ok": False, "parts": {}, "detail": ""}
    assert added[0] == {
        "reward": 5.0,
        "correct": True,
        "format_ok": True,
        "parts": {"length": 5.0},
        "detail": "0",
        "error": None,
    }
    assert added[1] == {
        "reward": 5.0,
        "correct": False,
        "format_ok": True,
        "parts": {"length": 5.0},
        "detail": "1",
        "error": None,
    }
    assert added[2] == {"reward": None, "error": "sandbox: cannot fork"} | failed, (
        "no judgement is null, not 0"
    )
    assert added[3] == {"reward": -1.0, "error": "crash: exit code 3"} | failed
    assert added[4] == {"reward": -1.0, "error": "timeout"} | failed
    for n, (text, values) in enumerate(zip(texts[5:], added[5:]), start=5):
        assert (values["reward"], values["detail"], values["correct"]) == (len(text), str(n), text == "right")


def test_gzip_in_and_out_is_the_same(files):
    rows = [{"n": n, "completion": "x" * n} for n in range(20)]
    write("in.jsonl", rows)
    assert verify() == 0
    with gzip.open("in.jsonl.gz", "wt") as file:
        file.write(Path("in.jsonl").read_text())
    assert main(["verify", "custom", "--input", "in.jsonl.gz", "--out", "out.jsonl.gz", "file=task.py"]) == 0
    assert gzip.decompress(Path("out.jsonl.gz").read_bytes()) == Path("out.jsonl").read_bytes()


def test_the_input_can_be_judged_in_place(files):
    write("in.jsonl", [{"n": 1, "completion": "right"}])
    assert main(["verify", "custom", "file=task.py", "--input", "in.jsonl", "--out", "in.jsonl"]) == 0
    assert read("in.jsonl")[0]["correct"] is True


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"not json", "line 3, column 1: not JSON"),
        (b"[1]", "line 3: must be a JSON object"),
        (b'{"n": 1}', "line 3: field 'completion' is missing; it should hold the text that is judged"),
        (b'{"n": 1, "completion": null}', "line 3: field 'completion' is None; it should hold"),
        (
            b'{"prompt": "say a", "completion": "a"}',
            "line 3: field 'ask' is missing; it should hold one of 'a', ",
        ),
        (
            b'{"prompt": "say a", "ask": "a", "completion": "a", "x": NaN}',
            "in.jsonl, line 3: holds 'NaN', a number that JSON does not",
        ),
        (b"\xff", "line 3, column 1: not UTF-8"),
    ],
)
def test_a_bad_line_is_one_error_with_its_number_and_nothing_is_written(files, capsys, line, reason):
    good = b'{"prompt": "say a", "ask": "a", "completion": "a"}\n'
    Path("in.jsonl").write_bytes(good + b"\n" + line + b"\n" + good)
    assert verify(task="tiny", overrides=()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and reason in error
    assert sorted(path.name for path in files.iterdir()) == ["in.jsonl", "task.py"]


@pytest.mark.parametrize(
    "command, reason",
    [
        ("verify tinny --input in.jsonl --out o", "unknown task 'tinny'; the tasks are: "),
        (
            "verify tiny gmae=echo --input in.jsonl --out o",
            "tiny: task: unknown key 'gmae' in TinySection; did you mean 'game'?",
        ),
        ("verify tiny game=chess --input in.jsonl --out o", "tiny: task.game: "),
        ("verify tiny --input none.jsonl --out o", "none.jsonl cannot be read"),
        ("verify tiny --input in.jsonl --out none/o", "its folder does not exist"),
        ("verify tiny --input in.jsonl --out o --workers 0", "0 workers"),
        (
            "verify sat variables=3 --input in.jsonl --out o",
            "task.variables: must be a list; give [3], or [3, 3] where it is a range",
        ),
        ("verify tiny --input in.jsonl --out o --timeout 0", "verify.timeout_s=0.0 cannot"),
        ("verify tiny --input in.jsonl --out o --timeout nan", "verify.timeout_s=nan cannot"),
        ("verify tiny --input in.jsonl --out o", "in.jsonl holds no records"),
        ("verify custom --input in.jsonl --out o", "custom: task.file: is required"),
        ("generate tiny --n 0 --out o", "--n 0"),
        ("generate tiny --n 5 --seed -1 --out o", "--seed -1"),
        ("generate custom --n 5 --out o file=task.py", "the task of task.py has no generator"),
        ("generate tiny --n 5 --out none/o", "its folder does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(files, capsys, command, reason):
    Path("in.jsonl").write_text("\n")
    assert main(command.split()) == 2
    error = capsys.readouterr().err.lower()
    assert reason.lower() in error and error.count("\n") == 1
    assert not Path("o").exists()


def test_more_workers_than_make_sense_are_refused_before_one_is_started(files, capsys, monkeypatch):
    def start(timeout_s):
        raise AssertionError("a worker was started")

    monkeypatch.setattr("jaxrl.verify.workers.WorkerProcess", start)
    write("in.jsonl", [{"n": 1, "completion": "right"}])
    assert verify("--workers", "99999999") == 2
    assert "a pool of 99999999 workers is more than the " in capsys.readouterr().err


def test_what_a_users_task_raises_is_one_error_with_its_line_and_the_records(files, capsys):
    write("in.jsonl", [{"n": 1, "completion": "right"}, {"completion": "right"}])
    assert verify() == 2
    place = f"in.jsonl, line 2: {files / 'task.py'}, line 8: KeyError: 'n'; mend the file"
    assert capsys.readouterr().err == f"error: {place}\n" and not Path("out.jsonl").exists()
    records = [
        ({}, "field 'prompt' is missing; it should hold 'sort' and"),
        ({"prompt": "sort"}, "field 'prompt' is 'sort'"),
    ]
    for record, reason in records:
        write("in.jsonl", [record | {"completion": "a"}])
        assert verify(overrides=(f"file={ROOT / 'examples' / 'sort.py'}",)) == 2
        assert f"error: in.jsonl, line 1: {reason}" in capsys.readouterr().err


def test_unknown_flags_are_refused_and_keys_may_stand_anywhere(files, capsys):
    refused = {
        "generate tiny --n 1 --out o game=echo --fast a=b": "--fast",
        "score --model m --tokens t --out o a=b": "a=b",
    }
    for command, unknown in refused.items():
        with pytest.raises(SystemExit):
            main(command.split())
        assert f"unrecognized arguments: {unknown}\n" in capsys.readouterr().err
    for words in (
        "tiny game=count --n 3 --out o",
        "tiny --n 3 game=count --out o",
        "tiny --n 3 --out o game=count",
        "--n 3 --out o tiny game=count",
    ):
        assert main(["generate", *words.split()]) == 0
        assert {row["game"] for row in read("o")} == {"count"}


def test_what_is_generated_depends_on_the_seed_alone(files, capsys):
    for seed, name in [("0", "a"), ("0", "b"), ("1", "c")]:
        assert main(["generate", "tiny", "--n", "50", "--seed", seed, "--out", name]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "50 problems in a"
    a, b, c = (Path(name).read_bytes() for name in "abc")
    assert a == b != c and a.count(b"\n") == 50


def test_generated_problems_can_be_judged(files):
    main(["generate", "tiny", "--n", "30", "--out", "in.jsonl"])
    write("in.jsonl", [row | {"completion": row["ask"]} for row in read("in.jsonl")])
    assert verify(task="tiny", overrides=()) == 0
    assert all(row["correct"] and row["reward"] == 1.0 for row in read("out.jsonl"))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file_and_no_process(files, number):
    write("in.jsonl", [{"n": n, "completion": "sleep"} for n in range(4)])
    command = [
        sys.executable,
        "-m",
        "jaxrl.cli",
        "verify",
        "custom",
        "--input",
        "in.jsonl",
        "--out",
        "out.jsonl",
        "--timeout",
        "100",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--workers", "2", "file=task.py"], env=environment, stderr=subprocess.PIPE, text=True
    )
    workers = []
    while len(workers) < 2 or not Path("asleep").exists():  # at work, both
        time.sleep(0.05)
        assert process.poll() is None
        workers = [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and parent_of(path) == process.pid
        ]
    process.send_signal(number)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 128 + number and error == "stopped at once; no file was written\n"
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=120)
    assert {path.name for path in files.iterdir()} - {"__pycache__", "asleep"} == {"in.jsonl", "task.py"}


def test_a_signal_leaves_an_input_that_is_to_be_the_output_as_it_is(files, monkeypatch):
    rows = [{"n": n, "completion": "right"} for n in range(8)]
    write("in.jsonl", rows)
    Path("out.jsonl").symlink_to("in.jsonl")
    add = Tally.add

    def stopped(tally, row):
        if tally.rows == 3:
            raise KeyboardInterrupt
        add(tally, row)

    monkeypatch.setattr(Tally, "add", stopped)
    with pytest.raises(KeyboardInterrupt) as stop:
        verify_file("custom", ["file=task.py"], Path("in.jsonl"), Path("out.jsonl"), 1, 60.0)
    assert read("in.jsonl") == rows and not getattr(stop.value, "__notes__", ())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_signal_leaves_what_is_judged_and_resume_goes_on_from_it(files, capsys, suffix):
    rows = [{"n": n, "completion": "right" if n < 20 else "sleep", "error": "old"} for n in range(24)]
    write("in.jsonl", rows)
    out = f"out.jsonl{suffix}"
    arguments = ["verify", "custom", "--input", "in.jsonl", "--out", out, "--workers", "1", "file=task.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxrl.cli", *arguments, "--timeout", "300"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (files / "asleep").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130 and not list(files.glob("*.tmp"))

    def read_out():
        written = gzip.decompress(Path(out).read_bytes()) if suffix else Path(out).read_bytes()
        return [json.loads(line) for line in written.splitlines()]

    kept = read_out()
    assert (
        f"the first {len(kept)} rows are judged and in {out}; the same command with --resume goes on" in error
    )
    assert (
        [row["n"] for row in kept] == [*range(len(kept))]
        and 0 < len(kept) <= 20
        and all(row["correct"] for row in kept)
    )

    write("in.jsonl", rows[1:])
    assert (
        main([*arguments, "--resume"]) == 2
        and "is not in.jsonl, line 1 with a verdict" in capsys.readouterr().err
    )
    write("in.jsonl", rows[: len(kept) - 1])
    assert (
        main([*arguments, "--resume"]) == 2
        and "more rows than in.jsonl has records" in capsys.readouterr().err
    )
    assert read_out() == kept
    write("in.jsonl", rows[:22])
    assert main([*arguments, "--resume", "--timeout", "2"]) == 0
    assert (
        f"22 rows, {len(kept)} of them judged before: 20 right, 0 wrong, 2 errors (timeout 2)"
        in capsys.readouterr().out
    )
    assert [row["n"] for row in read_out()] == [*range(22)]
    Path(out).unlink()
    assert main([*arguments, "--resume"]) == 2 and "nothing to go on from" in capsys.readouterr().err


def test_bad_records_are_skipped_and_counted_where_that_is_asked_for(files, capsys):
    good = b'{"prompt": "say a", "ask": "a", "completion": "a"}\n'
    bad = [
        b"not json\n",
        b"[1]\n",
        b'{"prompt": "say a", "completion": "a"}\n',
        b'{"prompt": "say a", "ask": "a"}\n',
        b"\xff\n",
    ]
    Path("in.jsonl").write_bytes(good + b"".join(bad) + good)
    assert verify("--skip-bad", task="tiny", overrides=()) == 0
    told = capsys.readouterr().out
    assert told.startswith(
        "2 rows: 2 right, 0 wrong, 0 errors; 5 bad records skipped, the first: in.jsonl, line 2, column 1:"
        " not JSON"
    )
    assert [row["correct"] for row in read("out.jsonl")] == [True, True]
    Path("in.jsonl").write_bytes(b"".join(bad))
    assert verify("--skip-bad", task="tiny", overrides=()) == 2
    assert (
        "holds no records; give one JSON object per line; the first of 5 bad ones: in.jsonl, line 1, column"
        in capsys.readouterr().err
    )


def parent_of(path):
    try:
        return int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def test_neither_command_loads_an_accelerator(files):
    write("in.jsonl", [{"prompt": "say a", "ask": "a", "completion": "a"}])
    program = """
        import sys
        from jaxrl.cli import main
        assert main(["verify", "tiny", "--input", "in.jsonl", "--out", "out.jsonl"]) == 0
        assert main(["generate", "tiny", "--n", "1", "--out", "out.jsonl"]) == 0
        assert not {"jax", "jaxlib", "flax", "transformers", "optax"} & set(sys.modules)
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, check=True)
