"""Running a program as Python runs a script, or answering calls of its functions. Standard library only.

Part of the sandbox's child program, at work in the process that is already shut in. Nothing here is a line of
defence: the program can reach and change all of it, and gains what it could have said with its own output or
return values.
"""

import _thread
import atexit
import builtins
import functools
import io
import os
import site
import struct
import sys
import types
from contextlib import suppress

LENGTH = struct.Struct("!I")
NONCE_BYTES = 16
MAX_RAISED = 2000
# of a thread: programs ask for more than there is address space, and Python's own calls are not on it
MAX_STACK = 64 << 20
# of an integer as a text: a second's work. Python's own limit is 4,300, and many programs are older than it
MAX_DIGITS = 300_000
# What these files are on every machine with /proc, which is not there for programs.
STREAMS = {f"{folder}{number}": number for folder in ("/dev/fd/", "/proc/self/fd/") for number in range(3)}
STREAMS |= {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class MissingName(NameError):
    """A function that is to be called is not there."""


class Open:
    """`open`, which knows the standard streams by their paths too."""

    def __init__(self, opener):
        functools.update_wrapper(self, opener)
        self._opener = opener

    def __call__(self, file, *arguments, **options):
        number = STREAMS.get(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else None
        return self._opener(file if number is None else os.dup(number), *arguments, **options)

    def __repr__(self):
        return repr(self._opener)


def prepare_interpreter() -> None:
    """Make of the bare interpreter what runs scripts, ahead of the fork, once for all programs."""
    open_streams()
    sys.set_int_max_str_digits(MAX_DIGITS)
    site.setquit()  # exit and quit
    site.setcopyright()
    site.sethelper()
    builtins.open = io.open = Open(io.open)
    stack_size = _thread.stack_size
    _thread.stack_size = lambda size=0: stack_size(min(size, MAX_STACK))


def open_streams() -> None:
    """New sys.stdin, as of a file (they know whether they can seek), and stdout and stderr, as over pipes."""
    file = os.memfd_create("stdin")
    reader, writer = os.pipe()
    os.dup2(file, 0)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    for descriptor in (file, reader, writer):
        os.close(descriptor)


def run(requests: int, answers: int | None) -> None:
    """Read a program from `requests` and run it; with `answers`, go on to answer calls. Ends the process."""
    sys.argv = ["main.py"]
    # as a script, or as it would be imported
    namespace = fresh_main("__main__" if answers is None else "main")
    if answers is None:
        source = read_frame(requests)
        os.close(requests)
        finish(execute(source, namespace), namespace)
    else:
        answer_calls(requests, answers, namespace)
        finish(0, namespace)


def fresh_main(name: str) -> dict[str, object]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    # named, as that of a script, but there is nothing to import
    sys.path_importer_cache.setdefault(folder, None)
    module = types.ModuleType(name)
    module.__builtins__ = builtins
    module.__file__ = os.path.join(folder, "main.py")
    sys.modules["__main__"] = sys.modules[name] = module
    return module.__dict__


def execute(source: bytes, namespace: dict[str, object]) -> int:
    """Run a program as Python runs a script. Returns its exit code."""
    try:
        load(source, namespace)
    except SystemExit as error:
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF if -(1 << 63) <= error.code < 1 << 63 else 0xFF  # what C makes of it
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException as error:
        report(error)
        return 1
    return 0


def report(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:  # without this file's frames
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def finish(code: int, namespace: dict[str, object]) -> None:
    """End as the interpreter does: wait for threads, call atexit handlers, flush, let go of the globals (open
    files), flush again.

    Streams are flushed while the globals are still there: one that a program has put in place of sys.stdout
    may need them.
    """
    steps = [sys.modules["threading"]._shutdown] if "threading" in sys.modules else []
    for step in (*steps, atexit._run_exitfuncs):
        try:
            step()
        except BaseException as error:
            report(error)
    code = flush() or code
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    with suppress(BaseException):  # of a program's own `__del__`
        namespace.clear()
    flush()  # what that has printed, and what stood in a stream that the program has put another in place of
    os._exit(code)


def flush() -> int:
    """Flush the standard streams that are not closed. The exit code that Python makes of a failure, or 0."""
    code = 0
    for name in ("stdout", "stderr"):
        try:
            stream = getattr(sys, name, None)
            if stream is not None and not is_closed(stream):
                stream.flush()
        except BaseException:
            code = 120
    return code


def is_closed(stream: object) -> bool:
    try:
        return bool(stream.closed)
    except BaseException:  # detached, or no stream: Python tries to flush it then
        return False


def answer_calls(requests: int, answers: int, namespace: dict[str, object]) -> None:
    """Execute the program of the first request, then answer calls, each under the nonce that it came with."""
    import sandbox_literals as literals  # the child program has imported it

    is_loaded, failure = False, None
    while request := read_frame(requests):
        nonce, body = request[:NONCE_BYTES], request[NONCE_BYTES:]
        try:
            value = call(literals.loads(body), namespace) if is_loaded else load(body, namespace)
            answer = literals.dumps(("value", value))
        except literals.Unserialisable as error:
            answer = literals.dumps(("raised", f"unserialisable: {error}"))
        except MissingName as error:
            answer = literals.dumps(("missing", describe(failure or NameError(error))))
        except BaseException as error:
            failure = failure if is_loaded else error
            answer = literals.dumps(("raised", describe(error)))
        is_loaded = True
        write_all(answers, LENGTH.pack(len(nonce) + len(answer)) + nonce + answer)


def load(source: bytes, namespace: dict[str, object]) -> None:
    exec(
        compile(
            source.decode("utf-8", "surrogatepass").removeprefix("\ufeff"),
            "main.py",
            "exec",
            dont_inherit=True,
        ),
        namespace,
    )


def call(request: tuple[str, list[object], dict[str, object]], namespace: dict[str, object]) -> object:
    name, args, kwargs = request
    if name in namespace:
        return namespace[name](*args, **kwargs)
    if hasattr(namespace.get("Solution"), name):  # LeetCode's way of asking for a function
        return getattr(namespace["Solution"](), name)(*args, **kwargs)
    raise MissingName(f"the program defines no {name!r}")


def describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:MAX_RAISED]
    except BaseException as second:
        return f"{type(error).__name__}: (its text raises {type(second).__name__})"


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def read_frame(descriptor: int) -> bytes:
    """Length and body; b"" at the end of the stream."""
    header = read_exactly(descriptor, LENGTH.size)
    return read_exactly(descriptor, LENGTH.unpack(header)[0]) if header else b""


def read_exactly(descriptor: int, size: int) -> bytes:
    """So many bytes and none of what follows; b"" where the stream ends before."""
    chunks = []
    while size:
        chunk = os.read(descriptor, min(size, 1 << 20))
        if not chunk:
            return b""
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
