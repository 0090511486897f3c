"""The seccomp filter: which system calls a program may make. Standard library only; runs in the child.

A list of what is allowed, not of what is dangerous: a call that is not named here does not exist for the
program (ENOSYS, which C libraries answer with an older call), today's and tomorrow's alike. Calls that a
program is likely to try get EPERM, a clearer text. Left out on purpose, because neither Landlock nor limits
cover them: changes of owner, mode and times of files that exist, links, `truncate` by name, signals to others
in any form (`kill`, queued ones, `fcntl` with F_SETOWN), sockets other than a pair of its own. A call in
another machine language (x32, 32-bit) kills the program: its numbers mean other calls.
"""

import ctypes
import errno
import itertools
import os
import struct
import sys

# name, number on x86_64, number on aarch64; "-": there is no such call. From the kernel's unistd headers.
ALLOWED = """
read 0 63 | write 1 64 | readv 19 65 | writev 20 66 | pread64 17 67 | pwrite64 18 68 | preadv 295 69
pwritev 296 70 | open 2 - | openat 257 56 | close 3 57 | close_range 436 436 | lseek 8 62 | stat 4 -
fstat 5 80 | lstat 6 - | newfstatat 262 79 | statx 332 291 | access 21 - | faccessat 269 48
faccessat2 439 439 | readlink 89 - | readlinkat 267 78 | getdents 78 - | getdents64 217 61 | getcwd 79 17
chdir 80 49 | fchdir 81 50 | dup 32 23 | dup2 33 - | dup3 292 24 | pipe 22 - | pipe2 293 59 | poll 7 -
ppoll 271 73 | select 23 - | pselect6 270 72 | epoll_create1 291 20 | epoll_ctl 233 21 | epoll_wait 232 -
epoll_pwait 281 22 | eventfd2 290 19 | flock 73 32 | fsync 74 82 | fdatasync 75 83 | ftruncate 77 46
fadvise64 221 223 | copy_file_range 326 285 | sendfile 40 71 | statfs 137 43 | fstatfs 138 44 | umask 95 166
mkdir 83 - | mkdirat 258 34 | rmdir 84 - | unlink 87 - | unlinkat 263 35 | rename 82 - | renameat 264 38
renameat2 316 276 | mmap 9 222 | munmap 11 215 | mprotect 10 226 | mremap 25 216 | brk 12 214 | madvise 28 233
msync 26 227 | exit 60 93 | exit_group 231 94 | restart_syscall 219 128 | getpid 39 172 | gettid 186 178
getppid 110 173 | getuid 102 174 | geteuid 107 175 | getgid 104 176 | getegid 108 177 | getgroups 115 158
getresuid 118 148 | getresgid 120 150 | getpgrp 111 - | getpgid 121 155 | getsid 124 156 | sched_yield 24 124
sched_getaffinity 204 123 | getrlimit 97 163 | setrlimit 160 164 | getrusage 98 165 | getpriority 140 141
times 100 153 | uname 63 160 | sysinfo 99 179 | getcpu 309 168 | getrandom 318 278 | time 201 -
gettimeofday 96 169 | clock_gettime 228 113 | clock_getres 229 114 | clock_nanosleep 230 115
nanosleep 35 101 | alarm 37 - | getitimer 36 102 | setitimer 38 103 | pause 34 - | rt_sigaction 13 134
rt_sigprocmask 14 135 | rt_sigreturn 15 139 | rt_sigsuspend 130 133 | rt_sigtimedwait 128 137
rt_sigpending 127 136 | sigaltstack 131 132 | futex 202 98 | set_robust_list 273 99 | set_tid_address 218 96
rseq 334 293 | membarrier 324 283 | arch_prctl 158 - | wait4 61 260 | waitid 247 95 | recvfrom 45 207
shutdown 48 210
"""
REFUSED = """
fork 57 - | vfork 58 - | execve 59 221 | execveat 322 281 | socket 41 198 | ptrace 101 117 | tkill 200 130
chmod 90 - | fchmod 91 52 | fchmodat 268 53 | chown 92 - | fchown 93 55 | lchown 94 - | fchownat 260 54
utimensat 280 88 | setsid 112 157
"""
CHECKED = """
clone 56 220 | ioctl 16 29 | fcntl 72 25 | prctl 157 167 | kill 62 129 | tgkill 234 131 | prlimit64 302 261
socketpair 53 199 | sendto 44 206
"""
# Of a checked call: number of the argument, the values that it may have. OWN_PID stands for the program's,
# see `with_pid`.
OWN_PID = 0x5A5A5A5A
THREAD_FLAGS = (0x3D0F00, 0x7D0F00)  # what glibc and musl pass to clone for a thread; no process has them
CHECKS = {
    "clone": (0, THREAD_FLAGS),
    # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    # DUPFD, descriptor and status flags, locks, DUPFD_CLOEXEC, GETPIPE_SZ
    "fcntl": (1, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)),
    "prctl": (0, (15, 16, 0x53564D41)),  # SET_NAME GET_NAME SET_VMA
    "kill": (0, (OWN_PID,)),
    "tgkill": (0, (OWN_PID,)),
    "prlimit64": (0, (0, OWN_PID)),
}
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # the kernel's code, the column above
X32_BIT = 0x40000000

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data; the arguments follow at 16, eight bytes each
PR_SET_SECCOMP, MODE_FILTER = 22, 2


def is_known(machine: str) -> bool:
    """Whether there is a table for this machine, a name as `os.uname().machine` gives it."""
    return machine in ARCHITECTURES and sys.byteorder == "little"


def numbers(table: str, machine: str) -> dict[str, int]:
    """Name to number on a machine."""
    column = 1 + ARCHITECTURES[machine][1]
    rows = [entry.split() for entry in table.replace("\n", "|").split("|") if entry.strip()]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def build_filter(machine: str) -> bytes:
    """The filter as the kernel takes it, eight bytes per instruction, but for the program's process number:
    see `with_pid`.
    """
    actions = dict.fromkeys(numbers(REFUSED, machine).values(), "refuse")
    actions |= dict.fromkeys(numbers(ALLOWED, machine).values(), "allow")
    actions |= {number: name for name, number in numbers(CHECKED, machine).items()}
    ends = sorted({end for number in actions for end in (number, number + 1)} | {0})
    starts = [(end, actions.get(end, "unknown")) for end in ends]
    starts = [starts[0], *(pair for last, pair in itertools.pairwise(starts) if pair[1] != last[1])]
    return b"".join(
        [
            step(LOAD, ARCHITECTURE),
            step(EQUAL, ARCHITECTURES[machine][0], if_true=1),
            step(RETURN, KILL),
            step(LOAD, NUMBER),
            step(AT_LEAST, X32_BIT, if_false=1),  # no call of any known machine has such a number
            step(RETURN, KILL),
            *search(starts),
        ]
    )


def search(starts: list[tuple[int, str]]) -> list[bytes]:
    """Find the action of a number by halving; starts: where each range of numbers with one action begins.

    In a row it would be correct too, but the kernel tries a new filter on every number, and this happens for
    every program.
    """
    if len(starts) == 1:
        return perform(starts[0][1])
    middle = len(starts) // 2
    low, high = search(starts[:middle]), search(starts[middle:])
    return [step(AT_LEAST, starts[middle][0], if_true=len(low)), *low, *high]


def perform(action: str) -> list[bytes]:
    if action in ("allow", "refuse", "unknown"):
        return [
            step(
                RETURN,
                {"allow": ALLOW, "refuse": ERROR | errno.EPERM, "unknown": ERROR | errno.ENOSYS}[action],
            )
        ]
    return [*check(action), step(RETURN, ERROR | errno.EPERM)]


def with_pid(steps: bytes, pid: int) -> bytes:
    """Build once, fill in for every program."""
    return steps.replace(struct.pack("=I", OWN_PID), struct.pack("=I", pid))


def check(name: str) -> list[bytes]:
    """Steps that return ALLOW where the arguments are right, and else fall through.

    Integers count by their low 32 bits.
    """
    # AF_UNIX and SOCK_STREAM, with any flags: a stream pair can send to nobody else. asyncio needs one
    if name == "socketpair":
        family = [step(LOAD, argument(0)), step(EQUAL, 1, if_false=4)]
        return [
            *family,
            step(LOAD, argument(1)),
            step(AND, 0xF),
            step(EQUAL, 1, if_false=1),
            step(RETURN, ALLOW),
        ]
    if name == "sendto":  # without an address: both halves of the pointer are zero
        low = [step(LOAD, argument(4)), step(EQUAL, 0, if_false=3)]
        return [*low, step(LOAD, argument(4) + 4), step(EQUAL, 0, if_false=1), step(RETURN, ALLOW)]
    index, values = CHECKS[name]
    steps = [step(LOAD, argument(index))]
    for value in values:
        steps += [step(EQUAL, value, if_false=1), step(RETURN, ALLOW)]
    return steps


def argument(index: int) -> int:
    return 16 + 8 * index


def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; if_true and if_false are the steps to skip after a comparison."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


libc = ctypes.CDLL(None, use_errno=True)


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def install(steps: bytes) -> None:
    """From here on, for this process and for good. Needs PR_SET_NO_NEW_PRIVS.

    Raises:
      OSError: the kernel has no seccomp filters, or does not allow one here.
    """
    program = FilterProgram(len(steps) // 8, steps)
    if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp filter: {os.strerror(number)}")
