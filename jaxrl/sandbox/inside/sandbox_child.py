"""The sandbox's child program: a zygote that forks a process per program. Standard library, no jaxrl.

    python -s -P -S -B sandbox_child.py CONTROL_FD PARENT_PID LEVEL [PATH_OF_A_PACKAGE ...]

It is a clean interpreter that knows nothing of the trainer: it gets descriptors and limits over the control
socket, nothing else. The program goes past it, through a pipe, and its input in a file in memory, which it
closes: it keeps nothing of one for the next.

    door --- zygote --- program               at Level.NAMESPACES: door --- zygote --- init --- program

The door ends when the trainer is gone. The zygote is process 1 of a process namespace of its own at
NAMESPACES; each `init` is process 1 of another, so that with it everything ends that a program may have left.
The zygote kills a program when the trainer hangs up its `watch` socket, and reports on it, before and after
the program has it: `ready`, then `ended STATUS CPU_SECONDS`; `failed: REASON` where the set-up failed.
Everyone dies with the parent.
"""

import array
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from collections import namedtuple
from contextlib import suppress

PROCESS, KERNEL, NAMESPACES = 1, 2, 3
MAX_DESCRIPTORS = 6
USUAL = tuple("bisect collections copy functools heapq itertools math random re string typing".split())
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "MKL", "OMP")}
# What is the same for all programs: the level, and from KERNEL on the descriptor of the Landlock rules and
# the seccomp filter.
Seal = namedtuple("Seal", "level rules filter")
Run = namedtuple("Run", "pid watch handle")


def main(arguments: list[str]) -> int:
    control_fd, parent, level = map(int, arguments[:3])
    packages = arguments[3:]
    control = socket.socket(fileno=control_fd)
    os.environ.pop("LD_LIBRARY_PATH", None)
    try:
        prepared = prepare(level, packages)
        import_packages(packages)
    except (OSError, ImportError) as error:
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        control.send(f"failed: {where}{getattr(error, 'strerror', None) or error}".encode())
        return 1
    for name in USUAL:
        __import__(name)  # once here instead of once per run
    program.prepare_interpreter()
    gc.collect()
    gc.freeze()
    zygote = os.fork()
    if zygote == 0:
        seal.die_with_parent()
        control.send(b"ready")
        serve(control, prepared)
        os._exit(0)
    control.close()
    poll = select.poll()
    poll.register(os.pidfd_open(zygote), select.POLLIN)
    while not poll.poll(1000) and os.getppid() == parent:
        pass  # not the control socket alone: a process that the trainer forked may hold the other end
    return 0


def prepare(level: int, packages: list[str]) -> Seal:
    """Go where programs are to run, and prepare what shuts them in."""
    if level >= KERNEL and not seccomp.is_known(os.uname().machine):
        raise OSError(f"there is no table of system calls for {os.uname().machine}")
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # inherited: when memory runs out, the kernel takes a program, not the trainer
    seal.lift_cpu_limit()
    packages = seal.with_libraries(packages)
    library = seal.library_paths(packages)
    seal.become_nobody(library + packages)
    if level == NAMESPACES:
        seal.enter_namespaces(library + packages)
    os.chdir("/")
    if level < KERNEL:
        return Seal(level, None, None)
    rights = (
        seal.rights_in_namespaces() if level == NAMESPACES else seal.rights_on_the_host(library, packages)
    )
    return Seal(level, seal.landlock_rules(rights), seccomp.build_filter(os.uname().machine))


class Packages:
    """Finds the packages that programs may import beside the standard library, and no others with them."""

    def __init__(self, paths: list[str]):
        self._files = {os.path.basename(path).partition(".")[0]: path for path in paths}

    def find_spec(self, name, path=None, target=None):
        file = self._files.get(name) if path is None else None
        if file is None:
            return None
        from importlib.util import spec_from_file_location

        is_folder = os.path.isdir(file)
        start = os.path.join(file, "__init__.py") if is_folder else file
        return spec_from_file_location(name, start, submodule_search_locations=[file] if is_folder else None)


def import_packages(paths: list[str]) -> None:
    """Once here instead of once per run.

    One thread each: more would take address space, and CPU time that others need.
    """
    sys.meta_path.append(Packages(paths))
    os.environ |= ONE_THREAD
    for path in paths:
        __import__(os.path.basename(path).partition(".")[0])
    for name in ONE_THREAD:
        del os.environ[name]


# ----------------------------------------------------------------------------------------------------- zygote


def serve(control: socket.socket, prepared: Seal) -> None:
    """Fork for every request, kill and report, until the trainer is gone."""
    if prepared.level == PROCESS:
        seal.prctl(seal.PR_SET_CHILD_SUBREAPER, 1)
    own_handle = os.pidfd_open(os.getpid())
    poll = select.poll()
    poll.register(control, select.POLLIN)
    runs: dict[int, Run] = {}  # by watch, until the trainer hangs up, and by handle
    while True:
        # one at a time: the numbers of descriptors that it closes are used again
        descriptor, _ = poll.poll()[0]
        run = runs.get(descriptor)
        if run is None:
            message, ancillary, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS))
            if not message:
                return
            run = fork(prepared, own_handle, json.loads(message), array.array("i", ancillary[0][2]).tolist())
            for descriptor in (run.watch, run.handle):
                runs[descriptor] = run
                poll.register(descriptor, select.POLLIN)
        elif descriptor == run.watch:
            signal.pidfd_send_signal(run.handle, signal.SIGKILL)
            del runs[descriptor]
            poll.unregister(descriptor)
        else:
            _, status, usage = os.wait4(run.pid, 0)
            if prepared.level == PROCESS:
                kill_orphans(spare={other.pid for other in runs.values()})
            if prepared.level < NAMESPACES:  # there, its `init` has reported
                report(run.watch, status, usage)
            for descriptor in (run.watch, run.handle):
                if runs.pop(descriptor, None):
                    poll.unregister(descriptor)
                os.close(descriptor)


def fork(prepared: Seal, own_handle: int, limits: dict[str, float], descriptors: list[int]) -> Run:
    """A new process for one program, which `begin`s. Keeps the watch open here, nothing else."""
    zygote = os.getpid()
    if prepared.level == NAMESPACES:
        seal.call("unshare", seal.CLONE_NEWPID)  # for the next child
    pid = os.fork()
    if pid == 0:
        begin(prepared, limits, descriptors, zygote)
    if prepared.level == NAMESPACES:
        seal.call("setns", own_handle, seal.CLONE_NEWPID)  # else there could be no further one
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    return Run(pid, descriptors[0], os.pidfd_open(pid))


def report(watch: int, status: int, usage: resource.struct_rusage) -> None:
    with suppress(OSError):  # the trainer does not listen any more
        os.write(watch, f"ended {status} {usage.ru_utime + usage.ru_stime:.3f}\n".encode())


def kill_orphans(spare: set[int]) -> None:
    """Kill what programs have left behind: now this process's children, which may have children."""
    while orphans := children() - spare:
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def children() -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        # suppressed where it is not a process, or gone
        with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
            if int(file.read().rsplit(b")", 1)[1].split()[1]) == os.getpid():
                found.add(int(name))
    return found


# ---------------------------------------------------------------------------------------------------- program


def begin(prepared: Seal, limits: dict[str, float], descriptors: list[int], zygote: int) -> None:
    """In a new process: run the program of this request. Never returns."""
    watch, requests, answers = *descriptors[:2], (descriptors[5:] or [None])[0]
    try:
        if prepared.level == NAMESPACES:
            become_init(limits, watch)
        shut_in(prepared, limits, descriptors, parent=1 if prepared.level == NAMESPACES else zygote)
        os.write(watch, b"ready\n")
        os.close(watch)
        program.run(requests, answers)
    except BaseException as error:  # of the set-up; `run` does not return, unless a program tampers with it
        with suppress(OSError):
            os.write(watch, f"failed: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def become_init(limits: dict[str, float], watch: int) -> None:
    """Fork once more. The child returns; this process stays as number 1 of the namespace, and tells how the
    child ended.
    """
    seal.die_with_parent()
    if limits["files"]:
        seal.make_folder(limits)
    pid = os.fork()
    if pid != 0:
        keep_open({watch})
        report(watch, *os.wait4(pid, 0)[1:])
        os._exit(0)


def shut_in(prepared: Seal, limits: dict[str, float], descriptors: list[int], parent: int) -> None:
    """Take the descriptors and put the seal on. Raises OSError where it fails."""
    seal.die_with_parent()
    if os.getppid() != parent:
        raise OSError("the parent is gone")
    os.setsid()
    watch, requests, stdin, stdout, stderr, *answers = descriptors
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    keep_open({0, 1, 2, watch, requests, *answers} | ({prepared.rules} - {None}))
    seal.limit_resources(limits, count_allowed(prepared.level, limits))
    seal.prctl(seal.PR_SET_NO_NEW_PRIVS, 1)
    seal.drop_capabilities()
    if prepared.level >= KERNEL:
        seal.prctl(seal.PR_SET_DUMPABLE, 0)
        seal.landlock_apply(prepared.rules)
        seccomp.install(seccomp.with_pid(prepared.filter, os.getpid()))


def keep_open(descriptors: set[int]) -> None:
    below = 0
    for descriptor in sorted(descriptors):
        if below < descriptor:  # Python passes an empty range from 0 on to the kernel as one without end
            os.closerange(below, descriptor)
        below = descriptor + 1
    os.closerange(below, 1 << 16)


def count_allowed(level: int, limits: dict[str, float]) -> int | None:
    """RLIMIT_NPROC. It counts a user's threads: in a user namespace ours alone, else all of that user's on
    the machine.
    """
    if level == NAMESPACES:
        return limits["processes"] + 16  # door and zygote, `init` and program of every open `functions`
    if level == PROCESS:
        return limits["processes"] + threads_of_user()
    return None  # no second process anyway, and threads need address space


def threads_of_user() -> int:
    count = 0
    for name in os.listdir("/proc"):
        with suppress(OSError):  # gone
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import sandbox_literals  # noqa: F401  (sandbox_program takes it from here)
    import sandbox_program as program
    import sandbox_seal as seal
    import sandbox_seccomp as seccomp

    del sys.path[0]
    sys.exit(main(sys.argv[1:]))
