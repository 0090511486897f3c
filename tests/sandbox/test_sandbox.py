"""The sandbox's promises to the trainer: outcomes, cache, levels, failures of its own, and nothing left
behind.
"""

import ctypes
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from jaxrl.errors import InputError
from jaxrl.sandbox import process as sandbox_process
from jaxrl.sandbox.sandbox import (
    Level,
    Limits,
    Outcome,
    OutcomeCache,
    Sandbox,
    SandboxBusy,
    SandboxError,
    shared_sandbox,
)
from jaxrl.types import Problem, Verdict
from jaxrl.verify.pool import VerifierPool
from tests.sandbox.processes import processes_below, wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


# --------------------------------------------------------------------------------------------------- outcomes


def test_a_program_reads_stdin_and_its_output_comes_back(sandbox):
    outcome = sandbox.run("print(int(input()) + 1)", b"41")
    assert (outcome.reason, outcome.code, outcome.stdout, outcome.stderr, outcome.ok) == (
        "exit",
        0,
        b"42\n",
        b"",
        True,
    )
    assert 0 < outcome.seconds < 5


def test_output_is_cut_at_its_limit_and_stderr_keeps_its_end(sandbox):
    limits = Limits(output_bytes=100_000)
    whole = sandbox.run("print('x' * 99_999)", limits=limits)
    assert whole.ok and len(whole.stdout) == 100_000
    over = sandbox.run("print('x' * 100_000)", limits=limits)
    assert (over.reason, over.code, len(over.stdout)) == ("output", None, 100_000)
    told = sandbox.run("import sys\nfor n in range(5000): print(n, file=sys.stderr)", limits=limits)
    assert (
        told.ok and told.stdout == b"" and len(told.stderr) == 4000 and told.stderr.endswith(b"4998\n4999\n")
    )


def test_a_traceback_names_the_program_and_nothing_else(sandbox):
    outcome = sandbox.run("def f():\n    raise ValueError('no')\nf()")
    assert (outcome.reason, outcome.code) == ("exit", 1)
    assert (
        outcome.stderr == b'Traceback (most recent call last):\n  File "main.py", line 3, in <module>\n'
        b'  File "main.py", line 2, in f\nValueError: no\n'
    )


def test_large_programs_and_inputs_pass_through_the_pipes(sandbox):
    program = f"import sys\ntext = {'y' * 300_000!r}\nsys.stdout.write(sys.stdin.read() + text)"
    outcome = sandbox.run(program, b"z" * 400_000)
    assert outcome.ok and outcome.stdout == b"z" * 400_000 + b"y" * 300_000


def test_texts_are_utf_8_and_other_bytes_pass_through(sandbox):
    assert sandbox.run("print('\u00e9', input())", "日".encode()).stdout == "é 日\n".encode()
    assert sandbox.run("print(input())", b"\xff\xc3").stdout == b"\xff\xc3\n"


# A stream that needs the program's globals when it is flushed at the end, as fast output of contest programs
# does.
BUFFERED = """
import os, sys
class Out:
    def __init__(self): self.parts = []
    def write(self, text): self.parts.append(text)
    def flush(self):
        os.write(1, "".join(self.parts).encode())
        self.parts = []
sys.stdout = Out()
print(1)
print(2)
"""


@pytest.mark.parametrize(
    "program, stdout, code",
    [
        ("print(1)\nexit()\nprint(2)", b"1\n", 0),  # what `site` adds
        ("quit(3)", b"", 3),
        ("exit('no')", b"", 1),
        (
            "print(type(copyright) is type(credits) is type(license), repr(help)[:11])",
            b"True Type help()\n",
            0,
        ),
        ("import sys; sys.exit(2**70)", b"", 255),  # codes as C takes them
        ("import sys; sys.exit(2**32)", b"", 0),
        ("import sys; sys.exit(-1)", b"", 255),
        ("import sys; sys.exit(True)", b"", 1),
        ("import sys; sys.exit(1.0)", b"", 1),
        (
            "import sys; print(__name__, __file__, sys.argv, sys.path[0])",
            b"__main__ /main.py ['main.py'] /\n",
            0,
        ),
        ("import main", b"", 1),
        ("import home", b"", 1),  # sys.path[0] is a name
        ("print(open(0).read(), end='')", b"a b\nc\n", 0),  # the ways to an input
        ("print(open('/dev/stdin').read(), end='')", b"a b\nc\n", 0),
        ("import sys\nsys.stdin = open('/dev/stdin')\nprint(input())", b"a b\n", 0),
        ("import pathlib\nprint(pathlib.Path('/dev/stdin').read_text(), end='')", b"a b\nc\n", 0),
        ("import fileinput\nprint([*fileinput.input('/dev/fd/0')])", b"['a b\\n', 'c\\n']\n", 0),
        ("import sys\nprint(sys.stdin.buffer.readline(), sys.stdin.read())", b"b'a b\\n' c\n\n", 0),
        ("import os\nprint(os.read(0, os.fstat(0).st_size))", b"b'a b\\nc\\n'\n", 0),  # as of a file
        ("import mmap\nprint(mmap.mmap(0, 0, prot=mmap.PROT_READ)[:3])", b"b'a b'\n", 0),
        ("import os\nos.write(0, b'x')", b"", 1),
        ("import os\nos.ftruncate(0, 1)", b"", 1),
        ("print(input(), input())\ntry: input()\nexcept EOFError: print('end')", b"a b c\nend\n", 0),
        ("open('/dev/stdout', 'w').write('hi')", b"hi", 0),
        ("print(len(str(10**5000)), int('9' * 5000) % 7)", b"5001 1\n", 0),  # integers of any length
        (
            "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(50_000))",
            b"50000\n",
            0,
        ),
        (
            "import sys\nprint(sys.stdin.read(3))\nsys.stdin.seek(0)\nprint(sys.stdin.read(3))",
            b"a b\na b\n",
            0,
        ),
        ("\ufeffprint(1)", b"1\n", 0),  # a mark of the byte order, as files from Windows begin
        ("import sys\nprint(1)\nsys.stdout.close()", b"1\n", 0),  # ends
        ("import sys\nsys.stdout.detach()", b"", 120),
        ("import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach())\nprint(1)", b"1\n", 0),
        (
            (
                "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer,"
                " line_buffering=False)\nprint(1)"
            ),
            b"1\n",
            0,
        ),
        (BUFFERED, b"1\n2\n", 0),
        ("import atexit\natexit.register(print, 2)\natexit.register(lambda: 1 / 0)\nprint(1)", b"1\n2\n", 0),
        ("class A:\n    def __del__(self): print(2)\na = A()\nprint(1)", b"1\n2\n", 0),
        (
            (
                "import threading\nthreading.stack_size(1 << 29)\nt = threading.Thread(target=print,"
                " args=(1,))\nt.start()"
            ),
            b"1\n",
            0,
        ),
    ],
)
def test_a_program_finds_what_a_script_finds(sandbox, program, stdout, code):
    outcome = sandbox.run(program, b"a b\nc\n")
    assert (outcome.reason, outcome.stdout, outcome.code) == ("exit", stdout, code), outcome


def test_an_input_is_read_whole_at_once(sandbox):
    assert sandbox.run("import os\nprint(len(os.read(0, 10**7)))", b"x" * 1_000_000).stdout == b"1000000\n"


def test_every_sandbox_gives_the_same_environment(sandbox):
    program = (
        "import locale, os, sys, time\nprint(hash('a'), {'b', 'a', 'c', 'd'}, time.tzname,"
        " locale.getpreferredencoding(), sys.stdout.encoding, sys.argv,"
        " os.getcwd())\nprint(sorted(os.environ.items()))"
    )
    with Sandbox() as other:
        assert sandbox.run(program).stdout == other.run(program).stdout == sandbox.run(program + " ").stdout
    assert b"('UTC', 'UTC') utf-8 utf-8 ['main.py'] /\n" in sandbox.run(program).stdout.lower().replace(
        b"'utc'", b"'UTC'"
    )


def test_the_same_run_comes_from_memory_and_what_the_wall_clock_ended_does_not(sandbox):
    program = "import time\nprint(time.time_ns())"
    first = sandbox.run(program, b"1")
    assert sandbox.run(program, b"1") is first
    others = [
        sandbox.run(program, b"2"),
        sandbox.run(program + "\n", b"1"),
        sandbox.run(program, b"1", Limits(memory_mb=256)),
    ]
    assert len({first.stdout, *(other.stdout for other in others)}) == 4
    assert sandbox.run("pass#", b"\n") is not sandbox.run("pass", b"#\n")  # not the two texts joined
    late = Limits(wall_s=0.05)
    slow = "import time\ntime.sleep(60)"
    assert sandbox.run(slow, limits=late) is not sandbox.run(slow, limits=late)


def test_the_cache_is_bounded_by_bytes_and_forgets_the_oldest():
    cache = OutcomeCache(max_bytes=10_000)
    keys = [(bytes([n]), Limits()) for n in range(20)]
    for key in keys:
        cache.put(key, Outcome("exit", 0, bytes(500), b"", 0.1))
        cache.get(keys[0])
    kept = [key for key in keys if cache.get(key) is not None]
    assert kept == [keys[0], *keys[-9:]]


def test_no_descriptors_are_lost(sandbox):
    sandbox.run("print(1)")
    before = os.listdir("/proc/self/fd")
    for n in range(20):
        sandbox.run("print(1)", b"%d" % n)
        with sandbox.functions("def f(): return 1") as functions:
            functions.call("f", [])
    assert os.listdir("/proc/self/fd") == before


def test_limits_that_cannot_work_are_refused(sandbox):
    with pytest.raises(InputError, match=r"memory_mb=10 cannot work; set at least 64"):
        Limits(memory_mb=10)
    with pytest.raises(InputError, match=r"wall_s=nan cannot work"):
        Limits(wall_s=float("nan"))
    with pytest.raises(InputError, match=r"files=2\.5 is not a whole number"):
        Limits(files=2.5)
    with pytest.raises(InputError, match=r"min_level=NAMESPACES is above max_level=KERNEL"):
        Sandbox(min_level=Level.NAMESPACES, max_level=Level.KERNEL)


def test_files_need_the_level_that_has_a_quota():
    needs = pytest.raises(InputError, match=r"files=3 needs level NAMESPACES")
    with Sandbox(max_level=Level.KERNEL) as sandbox, needs:
        sandbox.run("pass", limits=Limits(files=3))


LEVELS = pytest.mark.parametrize(
    "level", [Level.PROCESS, Level.KERNEL, Level.NAMESPACES], ids=lambda level: level.name
)


@LEVELS
def test_packages_that_are_named_can_be_imported_and_no_others(level):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Sandbox(
            Limits(wall_s=30.0), min_level=Level.NONE, max_level=level, packages=("numpy", "json")
        ) as sandbox:
            outcome = sandbox.run(
                "import numpy, os\nprint(numpy.linalg.solve(numpy.eye(3), numpy.ones(3)).sum(),"
                " sorted(os.environ))"
            )
            assert outcome.stdout == b"3.0 ['LC_ALL', 'PYTHONHASHSEED', 'TZ']\n", outcome
            assert b"No module named 'jaxlib'" in sandbox.run("import jaxlib").stderr
    with pytest.raises(
        InputError, match="the package 'no_such_package', which programs are to import, is not installed"
    ):
        Sandbox(packages=("no_such_package",))


# ---------------------------------------------------------------------------------------------- busy machines


def test_a_wall_limit_that_strikes_while_a_program_waits_for_a_cpu_says_nothing(sandbox, monkeypatch):
    limits = Limits(wall_s=0.6, cpu_s=30.0)
    ready = "while True: pass"
    monkeypatch.setattr(sandbox_process, "waited_for_cpu", lambda pid: next(waited))
    waited = itertools.count(1.0, 0.55)  # between the program's first instruction and its end
    with pytest.raises(SandboxBusy, match="the machine is busy: of .* s a program waited 0.[56]"):
        sandbox.run(ready, limits=limits)
    with sandbox.functions("def f():\n    while True: pass", limits) as functions, pytest.raises(SandboxBusy):
        functions.call("f", [])
    waited = itertools.count(1.0, 0.4)
    assert sandbox.run(ready, limits=limits).reason == "wall"


@LEVELS
def test_whose_time_is_looked_at_the_kernel_says(level):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            Sandbox(min_level=Level.NONE, max_level=level) as sandbox,
            sandbox.functions("import os\nf = os.getpid") as functions,
        ):
            status = Path(f"/proc/{functions._child._pid}/status").read_text()
            pid_inside = int(status.partition("NSpid:")[2].splitlines()[0].split()[-1])
            assert pid_inside == functions.call("f", []).value


def test_time_of_waiting_for_a_cpu_is_counted():
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel keeps no count")
    code = (
        "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nprint(flush=True)\nwhile True:"
        " pass"
    )
    rivals = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for rival in rivals:
            rival.stdout.readline()
        assert wait_until(lambda: sandbox_process.waited_for_cpu(rivals[0].pid) > 0.1, seconds=60.0)
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
            rival.stdout.close()
    assert sandbox_process.waited_for_cpu(rivals[0].pid) == 0.0  # it is gone


# ------------------------------------------------------------------------------------------- failures of ours


def test_a_zygote_that_died_is_replaced(sandbox):
    os.kill(sandbox._zygote._process.pid, signal.SIGKILL)
    assert sandbox.run("print('after')").stdout == b"after\n"


def test_a_set_up_that_keeps_failing_is_an_error_and_no_outcome(sandbox, tmp_path, monkeypatch):
    broken = tmp_path / "child.py"
    broken.write_text("import sys\nsys.exit('no such luck')")
    with Sandbox() as other:
        monkeypatch.setattr(sandbox_process, "CHILD_PROGRAM", broken)
        other.close()
        with pytest.raises(SandboxError, match="no such luck"):
            other.run("print(1)", b"never seen")
        monkeypatch.undo()
        assert other.run("print(1)", b"never seen").ok


def test_a_zygote_that_hangs_is_an_error_within_its_time(tmp_path, monkeypatch):
    hanging = tmp_path / "child.py"
    hanging.write_text(
        "import socket, sys, time\ncontrol ="
        " socket.socket(fileno=int(sys.argv[1]))\ncontrol.send(b'ready')\ntime.sleep(600)"
    )
    monkeypatch.setattr(sandbox_process, "SET_UP_S", 0.1)
    monkeypatch.setattr(sandbox_process, "CLOSE_S", 0.1)
    with Sandbox() as sandbox:
        sandbox.close()
        monkeypatch.setattr(sandbox_process, "CHILD_PROGRAM", hanging)
        before = time.monotonic()
        with pytest.raises(SandboxError, match="do not start"):
            sandbox.run("print(1)")
        assert time.monotonic() - before < 300
        sandbox.close()


# ---------------------------------------------------------------------------------------- nothing left behind


def test_closing_ends_all_processes():
    before = processes_below(os.getpid())
    with Sandbox() as sandbox:
        functions = sandbox.functions("def f(): pass")
        assert len(processes_below(os.getpid()) - before) >= 3
    assert wait_until(lambda: processes_below(os.getpid()) <= before)
    functions.__exit__()


def test_a_daemon_does_not_outlive_its_program_where_processes_can_be_started():
    program = (
        "import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n       "
        " print(os.getpid(), flush=True)\n        os.closerange(0, 3)\n        time.sleep(600)\n   "
        " os._exit(0)\ntime.sleep(0.3)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Sandbox(min_level=Level.NONE, max_level=Level.PROCESS) as sandbox:
            outcome = sandbox.run(program)
    assert outcome.ok and not Path(f"/proc/{int(outcome.stdout)}").exists()


@LEVELS
def test_nothing_outlives_a_trainer_that_is_killed(level):
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from jaxrl.sandbox.sandbox import *\n"
        f"sandbox = Sandbox(min_level=Level.NONE, max_level=Level({int(level)}))\n"
        "functions = sandbox.functions('def f(): pass')\n"
        "print('going', flush=True)\n"
        "sandbox.run('import time; time.sleep(600)', limits=Limits(wall_s=600))\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert trainer.stdout.readline() == b"going\n"
    assert wait_until(lambda: len(processes_below(trainer.pid)) >= 4)
    below = processes_below(trainer.pid)
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


# ------------------------------------------------------------------------------------------------------- pool


def test_the_zygote_does_not_share_a_worker_s_cpu_limit():
    """A pool's worker has one per sample; the zygote's time is that of all samples."""
    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (100_000, before[1]))
    try:
        with Sandbox() as sandbox:
            limits = [Path(f"/proc/{pid}/limits").read_text() for pid in processes_below(os.getpid())]
            assert sandbox.level and limits and not any("100000" in text for text in limits)
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def verify(problem, text):
    outcome = shared_sandbox(Limits(wall_s=5.0), Level.KERNEL).run(text, problem.data["stdin"].encode())
    same = outcome.ok and outcome.stdout.decode(errors="replace").strip() == problem.data["expected"]
    return Verdict(
        reward=float(same), correct=same, format_ok=True, detail=f"{outcome.reason} {outcome.code}"
    )


def test_verify_functions_share_one_sandbox_per_worker():
    problem = Problem(
        uid="p", messages=({"role": "user", "content": "?"},), data={"stdin": "3", "expected": "9"}
    )
    texts = [
        "print(int(input()) ** 2)",
        "print(6)",
        "import os; os._exit(0)",
        "import os; os.kill(os.getppid(), 9)",
    ] * 5
    with VerifierPool(verify, workers=2, timeout_s=60.0, failure_reward=0.0) as pool:
        verdicts = pool.gather([pool.submit(problem, text) for text in texts])
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 0.0, 0.0] * 5
    assert all(verdict.error is None for verdict in verdicts)


# ----------------------------------------------------------------------------------------------------- levels


def test_the_level_is_what_the_kernel_offers():
    """So that a defect of ours is a failure here, not a lower level and skipped tests."""
    expected = Level.PROCESS
    has_landlock = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1)) >= 1
    if has_landlock and os.uname().machine in ("x86_64", "aarch64"):
        expected = Level.KERNEL
        command = (
            "unshare --user --map-root-user --mount --net --ipc --uts --pid --fork mount -t tmpfs x /tmp"
        )
        if subprocess.run(command.split(), capture_output=True).returncode == 0:
            expected = Level.NAMESPACES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Sandbox(min_level=Level.NONE) as sandbox:
            assert (sandbox.level, sandbox.shortfall == "") == (expected, expected == Level.NAMESPACES)


LIKE_DOCKER = """
import errno, sys, warnings
from jaxrl.sandbox.inside import sandbox_seal as seal
from jaxrl.sandbox.inside import sandbox_seccomp as s
refused = [s.step(s.LOAD, s.NUMBER)]
for number in REFUSED:
    refused += [s.step(s.EQUAL, number, if_false=1), s.step(s.RETURN, s.ERROR | errno.EPERM)]
seal.prctl(seal.PR_SET_NO_NEW_PRIVS, 1)
s.install(b"".join([*refused, s.step(s.RETURN, s.ALLOW)]))
from jaxrl.sandbox.sandbox import *
warnings.simplefilter("ignore")
with Sandbox(min_level=Level[sys.argv[1]]) as sandbox:
    print(sandbox.level.name, sandbox.run("print(1)").stdout, sandbox.shortfall)
"""
UNSHARE, MOUNT, LANDLOCK = {"x86_64": (272, 165, 444), "aarch64": (97, 40, 444)}.get(
    os.uname().machine, (0, 0, 0)
)


def ask(code, *arguments, python=sys.executable, **options):
    return subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=600, **options
    )


def test_where_namespaces_are_refused_as_in_docker_the_level_is_kernel():
    done = ask(LIKE_DOCKER.replace("REFUSED", f"({UNSHARE}, {MOUNT})"), "KERNEL")
    assert done.stdout.startswith(
        "KERNEL b'1\\n' NAMESPACES does not hold here: unshare: Operation not permitted; it needs"
    ), done
    done = ask(LIKE_DOCKER.replace("REFUSED", f"({UNSHARE}, {MOUNT})"), "NAMESPACES")
    assert (
        "InputError: programs that a model wrote are not run: NAMESPACES does not hold here: unshare:"
        in done.stderr
    )
    assert done.stderr.strip().endswith("or set min_level to KERNEL")


def test_without_landlock_nothing_is_run_unless_told_explicitly():
    code = LIKE_DOCKER.replace("REFUSED", f"({UNSHARE}, {LANDLOCK})")
    done = ask(code, "KERNEL")
    assert (
        "InputError: programs that a model wrote are not run: KERNEL does not hold here:"
        " landlock_create_ruleset:" in done.stderr
    )
    assert ask(code, "PROCESS").stdout.startswith("PROCESS b'1\\n' KERNEL does not hold")


def test_on_an_unknown_machine_there_is_no_filter_and_it_says_so():
    # uname says i686 from here on
    code = "import ctypes\nctypes.CDLL(None).personality(8)\n" + LIKE_DOCKER.replace("REFUSED", "()")
    done = ask(code, "KERNEL")
    assert "KERNEL does not hold here: there is no table of system calls for i686" in done.stderr


def test_it_works_for_an_unprivileged_user():
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    if (
        os.getuid() != 0
        or python is None
        or ask("import sys; assert sys.version_info >= (3, 11)", python=python).returncode
    ):
        pytest.skip("needs to start as root, and a Python 3.11 outside root's home")
    done = ask(
        LIKE_DOCKER.replace("REFUSED", "()"),
        "KERNEL",
        python=python,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert done.stdout.startswith(("KERNEL b'1\\n'", "NAMESPACES b'1\\n'")), done
