"""The seccomp filter, on both machines: its instructions are executed here, call by call, and compared with
the tables in plain words.
"""

import errno
import re
import struct
from pathlib import Path

import pytest

from jaxrl.sandbox.inside.sandbox_seccomp import (
    ALLOWED,
    ARCHITECTURES,
    CHECKED,
    REFUSED,
    build_filter,
    is_known,
    numbers,
    with_pid,
)

ALLOW, KILL, PERMISSION, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
PID = 4321


def decide(steps, architecture, number, arguments=()):
    """What a classic BPF machine returns for struct seccomp_data, after the kernel's documentation of the
    format.
    """
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    place, value = 0, 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("<HBBI", steps, 8 * place)
        place += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif code == 0x54:
            value &= constant
        elif code in (0x15, 0x35):
            place += if_true if (value == constant if code == 0x15 else value >= constant) else if_false
        else:
            assert code == 0x06
            return constant


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request):
    return request.param


def ask(machine, number, *arguments):
    return decide(with_pid(build_filter(machine), PID), ARCHITECTURES[machine][0], number, arguments)


def test_every_number_has_the_action_of_its_table_and_unknown_ones_do_not_exist(machine):
    tables = {
        name: set(numbers(table, machine).values())
        for name, table in (("a", ALLOWED), ("r", REFUSED), ("c", CHECKED))
    }
    assert sum(map(len, tables.values())) == len(set.union(*tables.values()))
    everything = (0xFFFFFFFF,) * 6
    for number in range(1024):
        expected = (
            ALLOW if number in tables["a"] else PERMISSION if number in tables["r"] | tables["c"] else UNKNOWN
        )
        assert ask(machine, number, *everything) == expected, number


def test_other_machine_languages_are_killed(machine):
    steps = build_filter(machine)
    for architecture in (0x40000003, 0xC000003E, 0xC00000B7, 0x40000028, 0):  # i386, x86_64, aarch64, arm
        if architecture != ARCHITECTURES[machine][0]:
            assert decide(steps, architecture, numbers(ALLOWED, machine)["write"]) == KILL
    for number in (0x40000000, 0x40000001, 0x40000000 + 39, 0xFFFFFFFF):
        assert ask(machine, number) == KILL


@pytest.mark.parametrize(
    "name, arguments, allowed",
    [
        ("clone", (0x3D0F00,), True),
        ("clone", (17,), False),
        ("clone", (0x3D0F00 | 0x10000000,), False),
        ("clone", (0x100 | 17,), False),
        ("kill", (PID, 9), True),
        ("kill", (PID + 1, 0), False),
        ("kill", (0, 9), False),
        ("kill", (0xFFFFFFFF, 9), False),
        ("kill", (2**64 - PID, 9), False),
        ("tgkill", (PID, 77, 6), True),
        ("tgkill", (1, 1, 0), False),
        ("prlimit64", (0, 7), True),
        ("prlimit64", (PID, 7), True),
        ("prlimit64", (1, 7), False),
        ("fcntl", (5, 3), True),
        ("fcntl", (5, 8, 1), False),
        ("fcntl", (5, 10, 9), False),
        ("fcntl", (5, 15), False),
        ("ioctl", (1, 0x5401), True),
        ("ioctl", (1, 0x5412), False),
        ("ioctl", (1, 0x8901), False),
        ("prctl", (15,), True),
        ("prctl", (4, 1), False),
        ("prctl", (1, 0), False),
        ("prctl", (22, 2), False),
        ("socketpair", (1, 1), True),
        ("socketpair", (1, 1 | 0o2000000 | 0o4000), True),
        ("socketpair", (1, 2), False),
        ("socketpair", (2, 1), False),
        ("sendto", (3, 9, 9, 0, 0, 0), True),
        ("sendto", (3, 9, 9, 0, 0x7FFE0000, 0), False),
        ("sendto", (3, 9, 9, 0, 0x100000000, 0), False),
    ],
)
def test_checked_calls_pass_with_the_right_arguments_only(machine, name, arguments, allowed):
    assert ask(machine, numbers(CHECKED, machine)[name], *arguments) == (ALLOW if allowed else PERMISSION)


@pytest.mark.parametrize(
    "machine, place",
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_those_of_the_kernel_headers(machine, place):
    if not Path(place).exists():
        pytest.skip(f"no kernel headers at {place}")
    rows = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(place).read_text())
    real = {name: int(number) for name, number in rows} | ({"newfstatat": 79} if machine == "aarch64" else {})
    for table in (ALLOWED, REFUSED, CHECKED):
        ours = numbers(table, machine)
        assert {name: real[name] for name in ours} == ours
        missing = {name for name in numbers(table, "x86_64") if name not in ours}
        assert not missing & set(real)


def test_only_machines_with_a_table_are_known():
    assert is_known("x86_64") and is_known("aarch64") and not is_known("riscv64") and not is_known("i686")
