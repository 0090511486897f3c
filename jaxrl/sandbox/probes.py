"""What a level is measured by: small hostile programs, each with what it must give where the level holds.

Asking for features would say what the kernel offers; these say what a program meets. None does harm where the
seal does not hold: the signal is number 0, the process that is started ends at once, the files are this
module's own.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jaxrl.sandbox.outcomes import Level, Limits, Outcome

QUICK = Limits(wall_s=20.0, cpu_s=5.0, memory_mb=256, output_bytes=1 << 16)
SECRET = "what no program may know"
SIGSYS = 31

# A program prints what it could do and should not, then `done`.
PROCESS = """
import os, resource
for name in set(os.environ) - {"PYTHONHASHSEED", "LC_ALL", "LC_CTYPE", "TZ"}:
    print("inherit", name)
for descriptor in range(3, 1000):
    try:
        os.fstat(descriptor)
    except OSError:
        continue
    print("use descriptor", descriptor)
try:
    bytearray(1 << 30)
except MemoryError:
    pass
else:
    print("take a gigabyte")
if resource.getrlimit(resource.RLIMIT_CPU)[1] > 10:
    print("use CPU time without end")
print("done")
"""
ATTEMPTS = """
import os
def attempt(name, function, *arguments):
    try:
        if function(*arguments) != -1:
            print(name)
    except OSError:
        pass
"""
KERNEL = (
    ATTEMPTS
    + """
import ctypes, socket
def fork():
    if os.fork() == 0:
        os._exit(0)
libc = ctypes.CDLL(None)
path = PATH
attempt("read a file", lambda: open(path).read())
attempt("write to a file", open, path, "a")
attempt("make a file", open, path + ".new", "w")
attempt("truncate a file", os.truncate, path, 0)
attempt("change a file's mode", os.chmod, path, 0o777)
attempt("link to a file", os.link, path, path + ".link")
attempt("list a folder", os.listdir, os.path.dirname(path))
attempt("read /proc", lambda: open("/proc/self/environ", "rb").read())
attempt("open a socket", socket.socket, socket.AF_INET)
attempt("open a local socket", socket.socket, socket.AF_UNIX)
attempt("signal its parent", os.kill, os.getppid(), 0)
attempt("trace a process", libc.ptrace, 0, 0, 0, 0)
attempt("make a namespace", libc.unshare, 0x10000000)
attempt("start a process", fork)
attempt("start another program", os.execv, "/bin/true", ["true"])
print("done")
"""
)
# getpid, as the x32 machine numbers it
OTHER_NUMBERS = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)"
NAMESPACES = (
    ATTEMPTS
    + """
attempt("see a file of the machine", os.stat, PATH)
attempt("see the machine's processes", os.stat, "/proc/self")
attempt("see the machine's devices", os.stat, "/sys/class")
if os.getpid() != 2 or os.getppid() != 1:
    print("see process numbers")
if os.uname().nodename != "sandbox":
    print("see the host's name")
print("done")
"""
)
FILES = """
for number in range(100):
    try:
        open(str(number), "w").close()
    except OSError:
        break
if number != 8:
    print("make", number, "files instead of 8")
print("done")
"""

Run = Callable[[str, Limits], Outcome]


def find_hole(run: Run, level: Level) -> str | None:
    """What a program can do here that the level forbids, as text, or None where the level holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "secret")
        path.write_text(SECRET)
        path.chmod(0o666)
        Path(folder).chmod(0o777)
        programs = [(PROCESS, QUICK)]
        if level >= Level.KERNEL:
            programs.append((KERNEL.replace("PATH", repr(str(path))), QUICK))
        if level >= Level.NAMESPACES:
            programs.append((NAMESPACES.replace("PATH", repr(str(path))), QUICK))
            programs.append((FILES, replace(QUICK, files=8)))
        for program, limits in programs:
            outcome = run(program, limits)
            if outcome.stdout != b"done\n" or not outcome.ok:
                return describe(outcome)
        if path.read_text() != SECRET or os.listdir(folder) != ["secret"]:
            return "a program can change files of the machine"
    if run("while True: print('x' * 1000)", QUICK).reason != "output":
        return "the limit on output does not hold"
    if run("import time; time.sleep(60)", replace(QUICK, wall_s=0.05)).reason != "wall":
        return "the limit on wall time does not hold"
    if level >= Level.KERNEL and os.uname().machine == "x86_64":
        outcome = run(OTHER_NUMBERS, QUICK)
        if (outcome.reason, outcome.code) != ("signal", SIGSYS):
            return "a program can make system calls under other numbers"
    return None


def describe(outcome: Outcome) -> str:
    done = ", ".join(outcome.stdout.decode(errors="replace").replace("done\n", "").splitlines())
    if done:
        return f"a program can {done}"
    return (
        f"a probe ended with {outcome.reason} {outcome.code}: "
        f"{outcome.stderr.decode(errors='replace').strip()[-300:]}"
    )
