"""Calling functions of a program: values cross as they are, and no program can speak for a later call."""

import math
import os
import signal
import time

import pytest

from jaxrl.sandbox.inside.sandbox_literals import MAX_DEPTH, Unserialisable, dumps, loads
from jaxrl.sandbox.sandbox import Limits, Sandbox, SandboxError

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1 << 5000,
    -(1 << 5000),
    0.1,
    -0.0,
    math.inf,
    -math.inf,
    1e-320,
    2 - 3j,
    "",
    "\ud800\x00é日",
    b"",
    b"\xff\x00",
    [],
    [1, [2, []]],
    (),
    (1,),
    ((),),
    {},
    {1: {"a": (2,)}, (1, 2): [3], None: b"x", 1.5: set()},
    set(),
    {1, "a", (2, frozenset({3}))},
    frozenset({b"x"}),
]
# What a child does with its answers' channel is found here by trying all descriptors; 3 and 4 are among them.
FORGE = """
import json, os, struct
def write(data):
    for fd in range(3, 64):
        try: os.write(fd, data)
        except OSError: pass
def forge(nonce, value):
    body = nonce + json.dumps({"t": ["value", value]}).encode()
    write(struct.pack("!I", len(body)) + body)
"""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


def same(one, other):
    return shown(one) == shown(other)


def shown(value):
    """A value with the types of all its parts; the order in which a set gives its elements is no part of
    it.
    """
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(repr(shown(part)) for part in value)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [shown(part) for part in value]
    if isinstance(value, dict):
        return "dict", [(shown(key), shown(part)) for key, part in value.items()]
    return type(value).__name__, repr(value)


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_plain_values_survive_the_round_trip(value):
    assert same(loads(dumps(value)), value) and loads(dumps(value)) == value


def test_nan_survives_and_subclasses_arrive_as_the_plain_type():
    class Number(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert math.isnan(loads(dumps(math.nan)))
    assert same(loads(dumps(Number(3))), 3) and loads(dumps(Number(3))) != 4


@pytest.mark.parametrize("value", [object(), range(3), iter([]), [1, {2: print}], bytearray(b"x"), ...])
def test_other_values_are_refused(value):
    with pytest.raises(Unserialisable):
        dumps(value)


def test_depth_is_bounded_on_both_sides():
    deep = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert loads(dumps(deep)) == deep
    with pytest.raises(Unserialisable, match="nested deeper"):
        dumps([deep])
    circle = []
    circle.append(circle)
    with pytest.raises(Unserialisable, match="nested deeper"):
        dumps(circle)
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(Unserialisable):
            loads(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[1",
        b'{"x": 1}',
        b"{}",
        b'{"t": 1}',
        b'{"i": 5}',
        b'{"f": "1"}',
        b'{"s": [[1]]}',
        b'{"d": [[1]]}',
        b'{"d": [[{"s": []}, 1]]}',
        b'{"c": ["a", "b"]}',
        b'{"b": "0"}',
        b'{"t": [], "s": []}',
        b'{"c": [1' + b"0" * 400 + b", 1]}",
        b"NaN",
        b"1" * 5000,
        b'{"z": null}',
    ],
)
def test_bytes_that_are_no_value_are_refused(data):
    with pytest.raises(Unserialisable):
        loads(data)


def test_keys_chosen_to_collide_are_refused_quickly():
    modulus = (1 << 61) - 1
    for colliding in ({n * modulus for n in range(200)}, {(n * modulus,): 0 for n in range(200)}):
        with pytest.raises(Unserialisable, match="same hash"):
            loads(dumps(colliding))


# ------------------------------------------------------------------------------------------------------ calls


def test_values_and_exceptions_come_back(sandbox):
    program = "def same(x, *more, **named): return x, more, named\ndef fail(text): raise ValueError(text)"
    with sandbox.functions(program) as functions:
        assert functions.loaded.ok
        for value in VALUES:
            called = functions.call("same", [value, 2], {"k": value})
            assert called.ok and same(called.value, (value, (2,), {"k": value}))
        assert functions.call("fail", ["no"]).raised == "ValueError: no"
        assert functions.call("missing", []).raised == "NameError: the program defines no 'missing'"
        assert functions.call("same", []).raised.startswith("TypeError: same() missing 1 required")
        with pytest.raises(Unserialisable):
            functions.call("same", [object()])
        assert functions.call("same", [1]).value == (1, (), {})


def test_state_stays_in_one_child(sandbox):
    program = "seen = []\ndef add(x): seen.append(x); x.append(9); return seen"
    argument = [1]
    with sandbox.functions(program) as one, sandbox.functions(program) as two:
        assert one.call("add", [argument]).value == [[1, 9]]
        assert one.call("add", [[2]]).value == [[1, 9], [2, 9]]
        assert two.call("add", [[3]]).value == [[3, 9]]
        assert sandbox.run("print('seen' in globals())", os.urandom(8)).stdout == b"False\n"
    assert argument == [1]


def test_of_a_program_that_does_not_load_what_it_has_defined_can_be_called(sandbox):
    programs = {
        "def f(:": "SyntaxError: invalid syntax",
        "1/0": "ZeroDivisionError: ",
        "import sys; sys.exit(0)": "SystemExit: 0",
    }
    for program, text in programs.items():
        with sandbox.functions(program) as functions:
            called = functions.call("f", [])
            assert (
                functions.loaded.raised.startswith(text)
                and called.is_missing
                and called.raised == functions.loaded.raised
            )
    for last in ("assert f(1) == 0", "exit()", "f(1, 2)", "Done", "input()", "raise KeyboardInterrupt"):
        with sandbox.functions(f"def f(x): return x + 1\n{last}\ndef g(): pass") as functions:
            assert functions.call("f", [1]).value == 2 and functions.call("g", []).is_missing


def test_a_method_of_solution_can_be_called_and_a_function_before_it(sandbox):
    program = (
        "class Solution:\n    def __init__(self): self.seen = 0\n    def f(self, x): self.seen += x; return"
        " self.seen\n    g = f"
    )
    with sandbox.functions(program + "\ndef g(x): return -x") as functions:
        assert [functions.call(name, [1]).value for name in ("f", "f", "g")] == [1, 1, -1]
        assert functions.call("h", []).is_missing


def test_prints_and_input_do_not_touch_the_calls(sandbox):
    program = (
        "def f():\n    print('[1]' * 1000, flush=True)\n    try: input()\n    except EOFError: return 'end'"
    )
    with sandbox.functions(program) as functions:
        assert functions.call("f", []).value == "end" == functions.call("f", []).value


ENDINGS = {
    "exit": ("def f(): import os; os._exit(0)", ("exit", 0)),
    "kill": ("def f(): import os; os.kill(os.getpid(), 9)", ("signal", 9)),
    "sleep": ("def f(): import time; time.sleep(600)", ("wall", None)),
    "print": ("def f():\n    while True: print('x' * 1000)", ("output", None)),
    "much": ("def f(): return 'x' * 3_000_000", ("output", None)),
    "exit while loading": ("import os; os._exit(0)", ("exit", 0)),
    "sleep while loading": ("import time; time.sleep(600)", ("wall", None)),
    "close all": ("def f(): import os; os.closerange(0, 64)", ("exit", 1)),
    "promise much": (
        FORGE + "def f():\n    write(b'\\xff' * 4)\n    import time; time.sleep(600)",
        ("wall", None),
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_child_that_ends_gives_its_outcome_and_no_value(sandbox, name):
    program, ending = ENDINGS[name]
    with sandbox.functions(program, Limits(wall_s=0.5)) as functions:
        called = functions.call("f", [])
        assert (
            not called.ok and called.value is None and (called.outcome.reason, called.outcome.code) == ending
        )
        assert functions.call("f", []) == called


def test_wall_time_is_counted_over_calls_and_only_while_waiting(sandbox):
    with sandbox.functions("import time\ndef f(s): time.sleep(s)", Limits(wall_s=4)) as functions:
        time.sleep(4.1)
        assert functions.call("f", [0.01]).ok
        ended = [functions.call("f", [1.5]).ok for _ in range(4)]
    assert ended[0] and not ended[-1]


# ---------------------------------------------------------------------------------------------------- forgery


@pytest.mark.parametrize(
    "program",
    [
        FORGE + "forge(bytes(16), 42)\ndef f(): return 1",  # ahead, while loading
        FORGE + "def f(): forge(bytes(16), 42); return 1",  # in the call, without its number
        FORGE + "import os\ndef f(): forge(bytes(16), 42); os._exit(0)",
        FORGE + "def f():\n    for n in range(256): forge(bytes([n]) * 16, 42)\n    return 42",
    ],
)
def test_answers_without_the_number_of_the_call_count_for_nothing(sandbox, program):
    with sandbox.functions(program) as functions:
        called = functions.call("f", [])
        assert not called.ok and called.value is None
        assert functions.call("f", []).value is None


def test_a_call_cannot_answer_the_next_one(sandbox):
    program = (
        FORGE + "import sys\ndef f(x):\n    nonce = sys._getframe(2).f_locals['nonce']\n"
        "    forge(nonce, 1)\n    forge(nonce, 42)\n    return 1"
    )
    with sandbox.functions(program) as functions:
        called = [functions.call("f", [n]) for n in range(3)]
        assert all(one.value != 42 for one in called) and not called[1].ok and not called[2].ok


@pytest.mark.parametrize(
    "answer",
    [
        b'{"t": ["raised", {"i": "0x' + b"f" * 9000 + b'"}]}',
        b'{"t": ["raised", {"d": []}]}',
        b'{"t": [[1], 1]}',
    ],
)
def test_an_answer_of_no_known_form_is_the_program_s_own_failure(sandbox, answer):
    program = f"import sandbox_literals\ndef f(): sandbox_literals.dumps = lambda value: {answer!r}"
    with sandbox.functions(program) as functions:
        called = functions.call("f", [])
        assert called.value is None and called.raised.startswith("unserialisable")


def test_a_thread_that_answers_late_spoils_its_own_program(sandbox):
    program = (
        FORGE
        + "import sys, threading, time\ndef late(nonce):\n    time.sleep(0.1)\n    forge(nonce, 42)\ndef"
        " f(x):\n    threading.Thread(target=late, args=(sys._getframe(2).f_locals['nonce'],)).start()\n   "
        " return x\ndef g(): time.sleep(3)\n"
    )
    with sandbox.functions(program) as functions:
        assert functions.call("f", [7]).value == 7
        assert functions.call("g", []).raised.startswith("unserialisable: the program wrote to the channel")
        assert not functions.call("f", [42]).ok


def test_an_object_that_equals_everything_is_no_value(sandbox):
    program = (
        "class Any:\n    __eq__ = lambda *_: True\n    __hash__ = lambda _: 0\n"
        "class Int(int):\n    __eq__ = lambda *_: True\n    __hash__ = lambda _: 0\n"
        "class List(list):\n    __eq__ = lambda *_: True\n"
        "def f(): return Any()\ndef g(): return [Any()]\ndef h(): return Int(1)\ndef i(): return List([1])"
    )
    with sandbox.functions(program) as functions:
        assert functions.call("f", []).raised == "unserialisable: a value of type Any"
        assert functions.call("g", []).raised == "unserialisable: a value of type Any"
        assert functions.call("h", []).value == 1 and functions.call("h", []).value != 2
        assert functions.call("i", []).value != [2]


def test_changed_helpers_change_only_the_program_s_own_answers(sandbox):
    program = (
        "import sys\nsys.modules['sandbox_literals'].dumps = lambda value: b'[\"value\", {\"x\": 1}]'\ndef"
        " f(): return 1"
    )
    with sandbox.functions(program) as functions:
        assert not functions.call("f", []).ok
    with sandbox.functions("def f(): return 1") as functions:
        assert functions.call("f", []).value == 1


def test_a_zygote_that_dies_is_no_outcome_of_the_program(sandbox):
    with sandbox.functions("def f(): return 1") as functions:
        os.kill(sandbox._zygote._process.pid, signal.SIGKILL)
        with pytest.raises(SandboxError):
            for _ in range(1000):  # its end takes a moment
                functions.call("f", [])
                time.sleep(0.01)
    with sandbox.functions("def f(): return 1") as functions:
        assert functions.call("f", []).value == 1
