"""Several processes of one run: the first one's word is everybody's, and nobody else writes."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from jaxrl.device.processes import agree, is_first

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
import jax
address, number, folder = sys.argv[1:]
jax.distributed.initialize(address, 2, int(number))
from jaxrl.device.processes import agree, is_first
from jaxrl.errors import InputError
from jaxrl.files.run_folder import RunFolder

run = RunFolder(folder, is_first(), agree)
said = [agree({"from": int(number), "text": "é" * (3 + int(number))}), agree(None)]
run.open("events.jsonl")
run.append("events.jsonl", {"from": int(number)})
there = [run.exists("a")]
path = run.write("a", lambda path: path.write_text(number))
there.append(run.exists("a"))
try:
    run.write("none/a", lambda path: path.write_text(number))
    error = None
except InputError as refused:
    error = str(refused)
print(json.dumps([said, there, path.read_text(), error]))
"""


def test_alone_a_process_is_the_first_and_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", None)  # never called
    value = object()
    assert is_first() and agree(value) is value and jax.process_count() == 1


def test_two_processes_agree_and_one_of_them_writes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(number), str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    first, second = (json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in both)
    assert first == second
    said, there, text, error = first
    assert said == [{"from": 0, "text": "ééé"}, None]
    assert there == [False, True] and text == "0"
    assert error == f"{tmp_path}/none/a cannot be written: No such file or directory; its folder is not there"
    assert (tmp_path / "events.jsonl").read_text() == '{"from": 0}\n'
