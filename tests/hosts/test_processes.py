"""Several processes of one run: they agree, share arrays, and whoever ends in whatever way, all end."""

import json
import re
import signal
from pathlib import Path

import pytest

from jaxrl.device.processes import (
    OF_OTHERS,
    agree,
    check_same,
    gather,
    is_first,
    joined,
    num_processes,
    own_share,
)
from jaxrl.errors import PROCESS_LOST, InputError
from tests.hosts.local import end, free_port, start

# Every process runs this; what it is to do at the end is its last argument.
PROGRAM = """
import json, os, sys, time
from jaxrl.cluster import Place
from jaxrl.device import processes
from jaxrl.device.processes import agree, gather, is_first, joined, on_first
from jaxrl.errors import PROCESS_LOST, InputError, ProcessLost
from jaxrl.files.run_folder import RunFolder

address, count, number, timeout_s, folder, how = sys.argv[1:]
count, number = int(count), int(number)
processes.START_S = float(os.environ.get("START_S", 300))
processes.GRACE_S = 5.0

def whole():
    import jax, numpy as np
    from jaxrl.config.shared import MeshSection
    from jaxrl.device.arrays import everywhere, fetch, put
    from jaxrl.device.memory import device_memory, free_memory, own_devices
    from jaxrl.device.mesh import make_mesh, replicated, rows_sharding
    mesh = make_mesh(MeshSection(data=2))
    rows = np.array([[1, np.nan], [3, 4], [5, 6], [7, 8]], np.float32)
    shardings = {"rows": rows_sharding(mesh), "key": replicated(mesh)}
    array = put({"rows": rows, "key": jax.random.key(3)}, shardings)
    assert [s.data.shape for s in array["rows"].addressable_shards] == [(2, 2)]
    assert fetch(array["rows"]).tolist()[1:] == rows.tolist()[1:] and np.isnan(fetch(array["rows"])[0, 1])
    assert everywhere(array["rows"]).is_fully_replicated
    assert jax.random.key_data(fetch(array["key"])).tolist() == [0, 3]
    assert len(set(gather("memory", [device_memory(own_devices(mesh)[0]), free_memory(mesh)])[0])) == 2
    run = RunFolder(folder, is_first(), agree)
    said = [agree("a", {"from": number, "text": "é" * (3 + number)}), agree("b", None), gather("c", number)]
    run.open("events.jsonl")
    run.append("events.jsonl", {"from": number})
    there = [run.exists("a")]
    path = run.write("a", lambda path: path.write_text(str(number)))
    there.append(run.exists("a"))
    on_first("d", lambda: run.append("events.jsonl", {"on first": number}))
    print(json.dumps([said, there, path.read_text()]))

def cannot_write():
    # the others wait for what has to be written, and hear why it is not
    RunFolder(folder, is_first(), agree).write("none/a", lambda path: path.write_text(""))

def bad_input():
    if number == 1:
        raise InputError("the value is 3; set 4")
    gather("e", 0)

def crash():
    if number == 1:
        1 / 0
    gather("e", 0)

def killed():
    if number == 1:
        os.kill(os.getpid(), 9)
    gather("e", 0)

def first_killed():
    if number == 0:
        os.kill(os.getpid(), 9)
    gather("e", 0)

def killed_in_a_collective():
    from jax.experimental.multihost_utils import sync_global_devices
    sync_global_devices("f")
    if number == 1:
        os.kill(os.getpid(), 9)
    sync_global_devices("g")

def never_comes():
    if number == 1:
        while True:
            time.sleep(0.1)
    gather("verdicts of step 3", 0)

def other_way():
    gather("e" if number == 0 else "f", 0)

try:
    with joined(Place(address, count, number), float(timeout_s)):
        {f.__name__: f for f in (whole, bad_input, cannot_write, crash, killed, first_killed,
                                 killed_in_a_collective, never_comes, other_way)}[how]()
except (InputError, ProcessLost) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2 if isinstance(error, InputError) else PROCESS_LOST)
"""


def together(how: str, folder: Path, timeout_s: float = 300):
    address = f"127.0.0.1:{free_port()}"
    return end(
        [
            start(["-c", PROGRAM, address, "2", str(n), str(timeout_s), str(folder), how], 1, {})
            for n in (0, 1)
        ]
    )


def test_alone_a_process_is_the_first_and_waits_for_nobody():
    value = object()
    with joined(None):
        assert is_first() and agree("a", value) is value and gather("b", value) == [value]
        assert num_processes() == 1 and list(own_share(3)) == [0, 1, 2]
        check_same("c", {"d": "e"}, "f")


def test_two_processes_agree_and_share_arrays_and_one_of_them_writes(tmp_path):
    ended = together("whole", tmp_path)
    assert [process.code for process in ended] == [0, 0], ended
    first, second = (json.loads(process.output.splitlines()[-1]) for process in ended)
    assert first == second
    said, there, text = first
    assert said == [{"from": 0, "text": "ééé"}, None, [0, 1]]
    assert there == [False, True] and text == "0"
    assert (tmp_path / "events.jsonl").read_text() == '{"from": 0}\n{"on first": 0}\n'


@pytest.mark.parametrize(
    "how, codes, sentences",
    [
        ("bad_input", (2, 2), ("process 1: the value is 3; set 4", "error: the value is 3; set 4")),
        (
            "cannot_write",
            (2, 2),
            ("^error: .*none/a cannot be written: No such", "process 0: .*none/a cannot be written"),
        ),
        ("crash", (PROCESS_LOST, 1), ("process 1 has ended at .*ZeroDivisionError", "ZeroDivisionError")),
        (
            "killed",
            (PROCESS_LOST, -signal.SIGKILL),
            ("process 1 has ended at .* waits for it at 'e': it was killed", ""),
        ),
        ("first_killed", (-signal.SIGKILL, PROCESS_LOST), ("", "process 0 has ended at .*killed")),
        ("killed_in_a_collective", (PROCESS_LOST, -signal.SIGKILL), ("process 1 has ended at", "")),
    ],
)
def test_however_one_process_ends_the_other_ends_with_a_sentence_about_it(how, codes, sentences, tmp_path):
    ended = together(how, tmp_path)
    assert tuple(process.code for process in ended) == codes, ended
    for process, sentence in zip(ended, sentences, strict=True):
        assert sentence == "" or re.search(sentence, process.errors, re.MULTILINE), process


def test_one_that_lives_and_does_not_come_is_named_with_what_it_is_missed_at(tmp_path):
    first, second = together("never_comes", tmp_path, timeout_s=10)
    assert (first.code, second.code) == (PROCESS_LOST, PROCESS_LOST), (first, second)
    assert "process 1 has not come to 'verdicts of step 3' within 10 s (its last sign" in first.errors
    assert "process 0 has ended at" in second.errors and "has not come to" in second.errors


@pytest.mark.parametrize(
    "number, sentence",
    [
        (0, "process 1 of 2 has not come to 127.0.0.1:.* within 2 s; start all of them"),
        (1, "process 0 does not answer at 127.0.0.1:.* within 2 s .*; start it"),
    ],
)
def test_one_that_nobody_comes_to_meet_says_so(number, sentence, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    arguments = ["-c", PROGRAM, address, "2", str(number), "1", str(tmp_path), "whole"]
    (alone,) = end([start(arguments, 1, {"START_S": "1"})])
    assert alone.code == PROCESS_LOST and re.search(sentence, alone.errors), alone


def test_programs_that_differ_are_a_defect_and_no_wait(tmp_path):
    ended = together("other_way", tmp_path)
    assert all(process.code != 0 for process in ended), ended
    assert any("at 'f' while process 0 is at 'e'" in process.errors for process in ended)


def test_check_same_is_about_what_differs(monkeypatch):
    monkeypatch.setattr(
        "jaxrl.device.processes.gather", lambda *_: [{"a": "1", "b": "2"}, {"a": "1", "c": "3"}]
    )
    with pytest.raises(
        InputError, match=r"^files: process 1 does not have what process 0 has \(b, c\); copy$"
    ):
        check_same("files", {}, "copy")


def test_an_error_of_ones_own_is_not_held_back_for_a_loss_that_may_come():
    assert OF_OTHERS.match("UNKNOWN: Gloo AllGather failed: Connection reset by peer")
    assert not OF_OTHERS.match("connection refused by the reward's server: aborted")
