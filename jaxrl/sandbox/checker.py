"""Tests that are Python source with the right answers inside (`assert add(1, 2) == 3`), run on a function
that a model wrote.

Two sandboxed processes that never meet. One has executed the model's program; the other, the checker,
executes the tests, in which the functions under test are stand-ins. A stand-in's call stops the checker; this
side carries name and arguments over to the model's process, and the value it returns, or its exception, back.
The verdict is the checker's. The model's process sees arguments and nothing else; what it returns reaches the
checker as a plain value, so an object that equals everything does not get there.

    checker            start(tests) -> a call
    model's process    call(name, args) -> value
    checker            go_on(value) -> a call, and so on
"""

from dataclasses import dataclass

from jaxrl.sandbox.inside.sandbox_literals import Unserialisable
from jaxrl.sandbox.outcomes import failing
from jaxrl.sandbox.sandbox import Functions, Sandbox

# The tests run in a thread, which waits inside a stand-in while this side is elsewhere. Some draw their
# arguments: `random` is seeded, so that they draw the same ones every time. `_thread` and `_queue`, since
# `threading` and `queue` take as long to import as the whole process to start.
CHECKER = """
import _queue, _thread, builtins

calls, returns = _queue.SimpleQueue(), _queue.SimpleQueue()

def start(setup, names, tests):
    _thread.start_new_thread(check, (setup, names, tests))
    return calls.get()

def go_on(value, raised):
    returns.put((value, raised))
    return calls.get()

def check(setup, names, tests):
    if any("random" in source for source in [setup, *tests]):
        __import__("random").seed(0)
    space = {"__name__": "tests"}
    place = "the set-up"
    try:
        exec(setup, space)
        space.update({name: stand_in(name) for name in names})
        for number, test in enumerate(tests, 1):
            place = f"test {number}"
            exec(test, space)
    except BaseException as error:
        calls.put(("failed", place, type(error).__name__, str(error)[:500]))
    else:
        calls.put(("passed",))

def stand_in(name):
    def call(*args, **kwargs):
        calls.put(("call", name, args, kwargs))
        value, raised = returns.get()
        if raised is not None:
            raise exception(raised)
        return value
    return call

def exception(text):
    name, _, message = text.partition(": ")
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return Exception(text)
    # One that ends an iteration would end the test's own, and pass `all(map(add, ...))`: as out of a
    # generator (PEP 479).
    return RuntimeError(text) if issubclass(kind, (StopIteration, StopAsyncIteration)) else kind(message)
"""


class BrokenTests(Exception):
    """The tests fail or end before they have heard of the program: no verdict follows."""


@dataclass(frozen=True)
class Checked:
    """passed: the verdict. failure: what was wrong. calls: how many the tests have made."""

    passed: bool
    failure: str
    calls: int


def run_tests(sandbox: Sandbox, program: str, setup: str, names: list[str], tests: list[str]) -> Checked:
    """Run tests on a program's functions.

    Args:
      program: the model's, untrusted.
      setup: source that the checker executes before the tests: imports and helpers, of the data set.
      names: the functions under test, which the program should define at its top level.
      tests: sources, executed one after the other up to the first that raises.
    Raises:
      BrokenTests: they raise or end without a call, with a call whose arguments are no plain values, or pass
        without one.
      SandboxError: the sandbox broke down.
    """
    with sandbox.functions(program) as solution:
        if solution.loaded.outcome is not None:
            return Checked(False, f"the program {failing(solution.loaded)}", 0)
        with sandbox.functions(CHECKER) as checker:
            return _relay(solution, checker, setup, names, tests)


def _relay(
    solution: Functions, checker: Functions, setup: str, names: list[str], tests: list[str]
) -> Checked:
    calls = 0
    heard = checker.call("start", [setup, names, tests])
    while heard.ok and heard.value[0] == "call":
        _, name, args, kwargs = heard.value
        given = solution.call(name, list(args), kwargs)
        calls += 1
        if given.outcome is not None or given.is_missing:
            return Checked(False, f"{name} {failing(given)}", calls)
        try:
            heard = checker.call("go_on", [given.value, given.raised])
        except Unserialisable as error:  # with what is around it, a value can be too deep that alone was not
            return Checked(False, f"{name} returned a value that cannot be passed on: {error}", calls)
    if heard.ok and heard.value[0] == "passed":
        failure = "" if calls else "they call nothing"
    else:
        failure = "{1}: {2}: {3}".format(*heard.value) if heard.ok else f"they {failing(heard)}"
    if not calls:
        raise BrokenTests(failure)
    return Checked(not failure, failure, calls)
