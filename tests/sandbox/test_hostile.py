"""The hostile programs at every level of this machine: each ends as it must, finds nothing, leaves nothing,
and harms no later one.
"""

import os
import warnings

import pytest

from jaxrl.sandbox.sandbox import Level, Limits, Sandbox
from tests.sandbox.hostile_programs import PROGRAMS
from tests.sandbox.processes import processes_below

TOKEN = "q7-expected-output-" + "z" * 13
PATTERN = b"q7-expected-output-z{13}"
LEVELS = [Level.PROCESS, Level.KERNEL, Level.NAMESPACES]


@pytest.fixture(scope="module", params=LEVELS, ids=lambda level: level.name)
def sandbox(request, tmp_path_factory):
    """At one level, in a process that has the token in its memory, its environment and a file."""
    os.environ["JAXRL_TEST_TOKEN"] = TOKEN
    path = tmp_path_factory.mktemp("secret") / "expected.txt"
    path.write_text(TOKEN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sandbox = Sandbox(Limits(), min_level=Level.NONE, max_level=request.param)
    with sandbox:
        if sandbox.level != request.param:
            pytest.skip(f"this machine offers {sandbox.level.name}: {sandbox.shortfall}")
        sandbox.secret = path
        yield sandbox
    del os.environ["JAXRL_TEST_TOKEN"]


def test_the_level_of_this_machine_is_shown(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Sandbox(min_level=Level.NONE) as sandbox, capsys.disabled():
            print(f"\nsandbox level of this machine: {sandbox.level.name}. {sandbox.shortfall}")


@pytest.mark.parametrize("hostile", PROGRAMS, ids=lambda hostile: hostile.name)
def test_hostile_program(sandbox, hostile):
    if sandbox.level < hostile.least:
        pytest.skip(f"nothing to hold below {hostile.least.name}")
    if hostile.machine not in ("", os.uname().machine):
        pytest.skip(f"for {hostile.machine} only")
    secret = str(sandbox.secret)
    program = hostile.program
    for word, text in (("PATTERN", repr(PATTERN)), ("PATH", repr(secret)), ("PARENT", str(os.getpid()))):
        program = program.replace(word, text)
    before = processes_below(os.getpid())
    outcome = sandbox.run(program, hostile.stdin, hostile.limits)
    told = f"{outcome.reason} {outcome.code}: {outcome.stdout.decode(errors='replace')}"
    assert any(
        told == ending or told.startswith((ending + " ", ending + ":")) for ending in hostile.endings
    ), (told[:500], outcome.stderr)
    assert TOKEN.encode() not in outcome.stdout + outcome.stderr
    assert sandbox.secret.read_text() == TOKEN and os.listdir(sandbox.secret.parent) == [sandbox.secret.name]
    assert processes_below(os.getpid()) <= before
    assert sandbox.run("print(len('next'), sorted([2, 1]), open)", hostile.name.encode()).stdout.startswith(
        b"4 [1, 2] <built-in"
    )
    assert outcome.seconds < hostile.limits.wall_s + 120
