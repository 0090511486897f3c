"""What shuts a program in: limits, capabilities, namespaces, Landlock.

Standard library only; part of the sandbox's child program.

Everything here is a system call through ctypes; each function raises OSError, with the name of what failed,
where the kernel refuses.
"""

import contextlib
import ctypes
import math
import os
import resource
import struct
import sys

NOBODY = 65534
FOLDER = "/box/work"  # of a program that may write files
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# inside Python's library: installed packages, which may hold data sets and answers
HIDDEN = ("site-packages", "dist-packages")
EMPTY = "/box/empty"

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
# + cgroup UTS IPC user network
NEW_ONCE = CLONE_NEWNS | CLONE_NEWPID | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_LANDLOCK = 444  # create_ruleset, add_rule, restrict_self: the same numbers on every machine

# Landlock's rights: 0 execute, 1 write a file, 2 read a file, 3 read a folder, 4-5 remove, 6-12 make, 13
# move, 14 truncate, 15 ioctl
READ, READ_FOLDER, WRITE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
# + remove, make folders and plain files, move
WRITE_FOLDER = WRITE_FILE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13 | TRUNCATE
RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # from 5 on: 16 bits

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """A function of the C library that says -1 for an error."""
    result = getattr(libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(name: str, number: int, *arguments: object) -> int:
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def prctl(option: int, value: int) -> None:
    call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


# ----------------------------------------------------------------------------------------- process and limits


def die_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, 9)


def become_nobody(readable: list[str]) -> None:
    """Root becomes `nobody`, where it may and `nobody` can read Python's library. Else it stays, and loses
    its capabilities later.
    """
    if os.geteuid() == 0 and all(open_to_all(path) for path in readable):
        try:
            os.setgroups([])
        except PermissionError:  # a root without the capability to change users
            return
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(PR_SET_DUMPABLE, 1)  # changing the user has unset it, and /proc/self would be root's


def open_to_all(path: str) -> bool:
    parts = path.split("/")
    parents = ["/".join(parts[:n]) or "/" for n in range(1, len(parts))]
    needed = 0o005 if os.path.isdir(path) else 0o004
    return (
        all(os.stat(parent).st_mode & 0o001 for parent in parents)
        and os.stat(path).st_mode & needed == needed
    )


def lift_cpu_limit() -> None:
    """A trainer may be limited itself, per sample; the zygote lives longer."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


def drop_capabilities() -> None:
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    call("capset", header, nothing)


def limit_resources(limits: dict[str, float], processes: int | None) -> None:
    """The kernel's own limits. processes: of this user together, or None where that number would count
    strangers.
    """
    cpu = math.ceil(limits["cpu_s"])
    wanted = {
        resource.RLIMIT_CPU: (cpu, cpu + 1),  # SIGXCPU, and a second later SIGKILL
        resource.RLIMIT_AS: (limits["memory_mb"] << 20,) * 2,
        resource.RLIMIT_FSIZE: ((limits["file_mb"] << 20) if limits["files"] else 0,) * 2,
        resource.RLIMIT_NOFILE: (limits["open_files"],) * 2,
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_STACK: (8 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]),
    }
    if processes is not None:
        wanted[resource.RLIMIT_NPROC] = (processes, processes)
    for kind, pair in wanted.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            pair = tuple(hard if value == resource.RLIM_INFINITY else min(value, hard) for value in pair)
        resource.setrlimit(kind, pair)


# --------------------------------------------------------------------------------------------------- Landlock


def landlock_rules(allowed: dict[str, int]) -> int:
    """A descriptor of a rule set: the files and folders that can be used, each with its rights, and no
    others. For `landlock_apply`.
    """
    abi = syscall("landlock_create_ruleset", SYS_LANDLOCK, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    handled = RIGHTS_BY_ABI.get(abi, (1 << 16) - 1)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    # files; from ABI 4 TCP; from ABI 6 abstract sockets and signals
    attributes = struct.pack("=QQQ", handled, 0b11, 0b11)
    rules = syscall(
        "landlock_create_ruleset", SYS_LANDLOCK, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)
    )
    for path, rights in allowed.items():
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        of_its_kind = handled if os.path.isdir(path) else handled & (READ | WRITE_FILE | TRUNCATE)
        rule = struct.pack("=Qi", rights & of_its_kind, descriptor)
        syscall(
            f"landlock_add_rule {path}", SYS_LANDLOCK + 1, rules, ctypes.c_uint(1), rule, ctypes.c_uint(0)
        )
        os.close(descriptor)
    return rules


def rights_in_namespaces() -> dict[str, int]:
    """Of the new root: all can be read (only what is shown is there), the working folder and /dev/null
    written.
    """
    return {
        "/": READ | READ_FOLDER,
        os.path.dirname(FOLDER): READ | READ_FOLDER | WRITE_FOLDER,
        os.devnull: READ | WRITE_FILE,
    }


def rights_on_the_host(library: list[str], packages: list[str]) -> dict[str, int]:
    """Of the machine's own files. Landlock cannot take a folder back out of one, so Python's library is
    listed by entry.
    """
    rights = {os.devnull: READ | WRITE_FILE} | {path: READ for path in packages if not os.path.isdir(path)}
    for path in library:
        if os.path.isdir(path):
            rights[path] = READ_FOLDER  # the import system lists it
            entries = [os.path.join(path, name) for name in os.listdir(path) if name not in HIDDEN]
            rights |= {entry: READ | READ_FOLDER for entry in entries if os.path.exists(entry)}
        else:
            rights.setdefault(path, READ)
    return rights | {path: READ | READ_FOLDER for path in packages if os.path.isdir(path)}


def landlock_apply(rules: int) -> None:
    syscall("landlock_restrict_self", SYS_LANDLOCK + 2, rules, ctypes.c_uint(0))
    os.close(rules)


# ------------------------------------------------------------------------------------------------- namespaces


def enter_namespaces(readable: list[str]) -> None:
    """New user, mount, network, IPC, UTS and cgroup namespaces; a new pid namespace from the next child on.

    The new root folder holds `readable`, and is itself read-only.
    """
    user, group = os.geteuid(), os.getegid()
    call("unshare", NEW_ONCE)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as map_file:
            map_file.write(text)
    sources = {path: os.path.realpath(path) for path in readable}
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # The old root moves to a folder of the new one, so that what the new one covers (/tmp) can still be
    # reached there.
    mount("sandbox", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    os.mkdir("/tmp/old")
    syscall("pivot_root", SYS_PIVOT_ROOT[os.uname().machine], b"/tmp", b"/tmp/old")
    os.chdir("/")
    os.makedirs(FOLDER)
    os.makedirs(EMPTY)
    for path, source in sources.items():
        bind("/old" + source, path)
        for hidden in (os.path.join(path, name) for name in HIDDEN):
            if os.path.isdir(hidden):
                mount(EMPTY, hidden, None, MS_BIND)
    call("umount2", b"/old", MNT_DETACH)
    os.rmdir("/old")
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    call("sethostname", b"sandbox", 7)


def bind(source: str, path: str) -> None:
    """Show a file or folder of the old root at `path` of the new one, read-only (devices as they are)."""
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    mount(source, path, None, MS_BIND | MS_REC)
    if path not in DEVICES:
        kept = os.statvfs(path).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # may not be taken off again
        mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    try:
        call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    except OSError as error:
        raise OSError(error.errno, f"{target}: {error.strerror}") from None


def make_folder(limits: dict[str, float]) -> None:
    """Go to a working folder of its own size and number of files, in memory, in a mount namespace with which
    it goes.
    """
    call("unshare", CLONE_NEWNS)
    data = f"size={limits['file_mb']}m,nr_inodes={limits['files'] + 1},mode=700"
    mount("work", FOLDER, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, data)
    os.chdir(FOLDER)


# ------------------------------------------------------------------------------------------ what Python needs


def with_libraries(packages: list[str]) -> list[str]:
    """The packages' own paths, and the folders of shared libraries that were installed beside them."""
    return packages + [f"{path}.libs" for path in packages if os.path.isdir(f"{path}.libs")]


def library_paths(packages: list[str]) -> list[str]:
    """The files and folders that a program needs to import the standard library: itself, C libraries behind
    it, devices.

    And the C libraries behind these packages.
    """
    folders = [path for path in sys.path if os.path.exists(path)]
    inside = [path for path in folders if not any(path.startswith(other + "/") for other in folders)]
    others = [path for path in ("/etc/ld.so.cache", *DEVICES) if os.path.exists(path)]
    return inside + c_libraries(folders, packages) + others


def c_libraries(folders: list[str], packages: list[str]) -> list[str]:
    """The shared libraries that extension modules are linked with, found by loading them all in a process of
    its own.
    """
    modules = [
        os.path.join(folder, name)
        for folder in folders
        if os.path.isdir(folder)
        for name in sorted(os.listdir(folder))
    ]
    modules += [
        os.path.join(folder, name)
        for path in packages
        for folder, _, names in os.walk(path)
        for name in sorted(names)
    ]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        for module in modules:
            if module.endswith(".so"):
                with contextlib.suppress(OSError):  # it lacks a library here, so no program can import it
                    ctypes.CDLL(module)
        os.write(writer, "\n".join(loaded_libraries()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as lines:
        names = lines.read().splitlines()
    status = os.waitpid(pid, 0)[1]
    if status != 0:
        raise OSError(
            f"loading Python's extension modules, to find what they need, ended with status {status}"
        )
    known = tuple(f"{path}/" for path in [*folders, *packages])
    return [name for name in names if name.startswith("/") and not name.startswith(known)]


def loaded_libraries() -> list[str]:
    """The paths under which this process's shared libraries were found."""

    class Information(ctypes.Structure):  # the start of struct dl_phdr_info
        _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]

    names = []
    visitor = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Information), ctypes.c_size_t, ctypes.c_void_p)
    libc.dl_iterate_phdr(
        visitor(lambda info, size, data: names.append(os.fsdecode(info.contents.name)) or 0), None
    )
    return names
