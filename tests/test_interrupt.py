"""Signals, each in a process of its own: the first is a request, the second is obeyed at once, and the
handlers come back.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAD = """
import os, signal, threading
from jaxrl.interrupt import Interrupt, Interrupted, ends_as_ctrl_c
def send(number):
    os.kill(os.getpid(), number)
    signal.getsignal(number)  # the handler runs between two bytecodes
"""


def output_of(body: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + body], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("number", ["signal.SIGINT", "signal.SIGTERM", "signal.SIGHUP"])
def test_the_first_signal_asks_and_the_second_stops(number):
    body = f"""
with Interrupt() as interrupt:
    print(interrupt.requested)
    send({number})
    print(interrupt.requested)
    try:
        send({number})
    except KeyboardInterrupt as stopped:
        print("stopped", stopped.args[0] == {number})
"""
    assert output_of(body).split() == ["False", "True", "stopped", "True"]


def test_the_two_signals_may_differ():
    body = """
with Interrupt() as interrupt:
    send(signal.SIGTERM)
    try:
        send(signal.SIGINT)
    except KeyboardInterrupt:
        print("stopped")
"""
    assert output_of(body) == "stopped"


def test_the_handlers_come_back_however_the_block_ends():
    body = """
mine = lambda number, frame: print("mine")
signal.signal(signal.SIGTERM, mine)
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
with Interrupt():
    assert signal.getsignal(signal.SIGTERM) is not mine
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
try:
    with Interrupt():
        raise RuntimeError
except RuntimeError:
    pass
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
send(signal.SIGTERM)
"""
    assert output_of(body) == "mine"


@pytest.mark.parametrize("number", ["signal.SIGINT", "signal.SIGTERM", "signal.SIGHUP"])
def test_who_asked_is_known_at_the_end(number):
    body = f"""
try:
    with Interrupt():
        send({number})
        raise Interrupted
except Interrupted as interrupted:
    print(interrupted.number == {number})
"""
    assert output_of(body) == "True"


def test_a_run_that_is_to_outlive_its_terminal_does():
    """`nohup` has SIGHUP ignored, and it stays so."""
    body = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Interrupt() as interrupt, ends_as_ctrl_c():
    send(signal.SIGHUP)
    print(interrupt.requested, signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
"""
    assert output_of(body) == "False True"


@pytest.mark.parametrize("number", ["signal.SIGTERM", "signal.SIGHUP"])
def test_ends_clean_up_like_ctrl_c_and_once(number):
    body = f"""
try:
    with ends_as_ctrl_c():
        try:
            send({number})
        finally:
            send(signal.SIGTERM)
            send(signal.SIGHUP)
            print("clean")
except KeyboardInterrupt as stopped:
    print(stopped.args[0] == {number}, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    assert output_of(body).split() == ["clean", "True", "True"]


def test_the_signal_of_one_process_stops_all_of_them_with_its_number():
    said = output_of(
        """
try:
    with Interrupt(lambda what, mine: [mine, None, int(signal.SIGTERM)]) as interrupt:
        print(interrupt.requested, interrupt.stops("step 3"))
        raise Interrupted
except Interrupted as stopped:
    print(stopped.number == signal.SIGTERM)
with Interrupt(lambda what, mine: [mine, None]) as interrupt:
    print(interrupt.stops("step 3"))
    send(signal.SIGHUP)
    print(interrupt.stops("step 4"))
"""
    )
    assert said.split() == ["False", "True", "True", "False", "True"]
