"""Programs that attack the sandbox, each with what must happen. `test_hostile.py` runs them at every
level of the machine.

A section is `=== NAME -> ENDING | ENDING ; OPTIONS` and a program. Endings are `reason`, `reason code` or
`exit code: stdout`; any of them will do. Options are limits, `machine`, and `stdin` (so many bytes). The
attacks (ON_..., with `tools` before them) say `held` where everything that they tried was refused, and print
what went through otherwise; that is their ending unless another is written. PATTERN, PATH and PARENT are
replaced by a pattern of the text that must not be found (which it does not match itself), by a file that
holds that text, and by the number of the trusted process.
"""

from dataclasses import dataclass

from jaxrl.sandbox.sandbox import Level, Limits

HELD = "exit 0: held\n"
TOOLS = r"""
import ctypes, os, re, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, function, *arguments):
    try:
        if function(*arguments) == -1:
            return
    except (OSError, ImportError, ValueError, RuntimeError):
        return
    print("went through:", name)
def found(name, function):
    try:
        text = function()
    except OSError:
        return
    if re.search(PATTERN, text if isinstance(text, bytes) else str(text).encode()):
        print("leaked:", name)
"""


@dataclass(frozen=True)
class Hostile:
    """A program; endings: what may happen; least: below this level it is not run; machine: the only one it is
    for.
    """

    name: str
    program: str
    endings: tuple[str, ...]
    limits: Limits
    least: Level
    stdin: bytes = b""
    machine: str = ""


def programs(text: str, least: Level, tools: bool = False, **defaults: float) -> list[Hostile]:
    """The sections of a text."""
    found = []
    for section in text.split("\n=== ")[1:]:
        head, program = section.split("\n", 1)
        title, _, rest = head.partition(" ; ")
        name, _, endings = title.partition(" -> ")
        options = dict(option.split("=") for option in rest.split())
        stdin, machine = b"y" * int(options.pop("stdin", 0)), options.pop("machine", "")
        limits = Limits(
            **defaults,
            **{key: float(value) if key.endswith("_s") else int(value) for key, value in options.items()},
        )
        expected = (
            tuple(ending.replace("\\n", "\n") for ending in endings.split(" | ")) if endings else (HELD,)
        )
        if tools:
            program = f"{TOOLS}{program}\nprint('held')\n"
        found.append(Hostile(name, program, expected, limits, least, stdin, machine))
    return found


# --------------------------------------------------------- what limits and a separate process alone must hold

ON_LIMITS = r"""
=== memory: list -> memory ; memory_mb=128
x = [0]
while True: x += x
=== memory: bytes -> memory
bytearray(1 << 40)
=== memory: mmap -> exit 1 ; memory_mb=128
import mmap
mmap.mmap(-1, 1 << 30)
=== memory: caught and tried again -> cpu ; memory_mb=128 cpu_s=1 wall_s=60
x = []
while True:
    try: x.append(bytearray(1 << 24))
    except MemoryError: pass
=== loop -> cpu ; cpu_s=1 wall_s=60
while True: pass
=== loop that handles SIGXCPU -> cpu ; cpu_s=1 wall_s=60
import signal
signal.signal(signal.SIGXCPU, lambda *_: None)
while True: pass
=== big integer -> cpu | memory ; cpu_s=1 wall_s=60
9**9**9
=== ReDoS -> cpu ; cpu_s=1 wall_s=60
import re
re.match('(a+)+$', 'a' * 64 + 'b')
=== recursion -> memory | signal 11 | exit 1 | cpu ; memory_mb=64 cpu_s=1 wall_s=60
import sys
sys.setrecursionlimit(10**9)
def f(): f()
f()
=== recursion in C -> memory | signal 11 | exit 1
import sys
sys.setrecursionlimit(10**9)
x = []
for _ in range(10**6): x = [x]
repr(x)
=== deep JSON -> exit 1 | signal 11
import json
json.loads('[' * 10**6)
=== deep pickle -> exit 1 | signal 11
import pickle
x = []
for _ in range(10**5): x = [x]
pickle.dumps(x)
=== deep program -> exit 1 | memory | signal 11
eval('(' * 10**5 + ')' * 10**5)
=== ignores all signals -> wall ; wall_s=0.4
import signal, time
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
time.sleep(600)
=== sleeps -> wall ; wall_s=0.4
import time
time.sleep(600)
=== stops itself -> wall ; wall_s=0.4
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
=== thread that never ends -> wall ; wall_s=0.4
import threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print('done')
=== endless stdout -> output
while True: print('x' * 1000)
=== endless stderr -> output
import sys
while True: sys.stderr.write('x' * 1000)
=== fills stderr, never reads -> exit 0: done\n ; stdin=5000000
import sys
sys.stderr.write('x' * 900_000)
print('done')
=== never reads -> exit 0: done\n ; stdin=5000000
print('done')
=== reads much -> exit 0: 5000000\n ; stdin=5000000
import sys
print(len(sys.stdin.read()))
=== integer of a million digits -> exit 1
print(10**1_000_000)
=== many locals -> exit 0: 99999\n
names = '\n'.join(f'    x{n} = {n}' for n in range(100_000))
exec(f'def f():\n{names}\n    return x99999\nprint(f())')
"""

ON_ENDINGS = (
    r"""
=== os._exit(0) -> exit 0:
import os
os._exit(0)
=== atexit os._exit -> exit 0:
import atexit, os
atexit.register(os._exit, 0)
raise ValueError
=== sys.exit of a text -> exit 1:
import sys
sys.exit('x')
=== sys.exit of an object with no text -> exit 1:
raise SystemExit(type('E', (), {'__str__': lambda self: 1/0})())
=== claims success and fails -> exit 2: ok\n
print('ok', flush=True)
raise SystemExit(2)
=== abort -> signal 6
import os
os.abort()
=== segfault -> signal 11
import ctypes
ctypes.string_at(0)
=== kills itself -> signal 9
import os
os.kill(os.getpid(), 9)
=== a NUL in the program -> exit 1
print(1"""
    + "\0"
    + r""")
=== closes 0, 1, 2 -> exit 120 | exit 1
import os
for n in range(3): os.close(n)
print(1)
=== closes and reopens stdout -> exit 0: again\n | exit 120: again\n
import os, sys
copy = os.dup(1)
sys.stdout.close()
os.close(1)
print('again', file=open(copy, 'w'))
=== writes the zygote's own protocol -> exit 3: ready\nended 0 0.0\n
import os
for descriptor in range(1024):
    try: os.write(descriptor, b'ready\nended 0 0.0\n')
    except OSError: pass
os._exit(3)
=== changed builtins -> exit 0: | exit 120:
import builtins, sys, os
builtins.print = builtins.open = builtins.len = builtins.isinstance = lambda *a, **k: 1/0
sys.excepthook = os.write = None
sys.stdout = None
=== os._exit replaced -> exit 0 | exit 1 | signal 9 | wall ; wall_s=0.4
import os
os._exit = lambda code: None
=== trace and profile -> exit 1
import sys
sys.settrace(lambda *a: sys.exit(0))
sys.setprofile(lambda *a: 1/0)
print('x')
=== bytes that are no text -> exit 0
import sys
sys.stdout.buffer.write(bytes([255, 0, 13, 27]) + '\u202e\uff11'.encode())
"""
)

ON_OWN_PROCESS = r"""
=== many descriptors
n = 0
try:
    while True: os.dup(0); n += 1
except OSError:
    if n > 64: print(n)
os.closerange(3, 1 << 10)
=== raises its own limits
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
    refused(kind, resource.setrlimit, kind, (-1, -1))
=== capabilities
held = ctypes.create_string_buffer(24)
def none_held():
    return -1 if libc.capget((0x20080522).to_bytes(4, 'little') + bytes(4), held) or not any(held.raw) else 0
refused('capget', none_held)
refused('setuid', os.setuid, 12345)
=== bytes in a file
refused('memory file', lambda: os.write(os.memfd_create('x'), b'x'))
=== environment
found('os.environ', lambda: os.environ)
libc.getenv.restype = ctypes.c_char_p
found('getenv', lambda: libc.getenv(b'JAXRL_TEST_TOKEN') or b'')
if set(os.environ) - {'PYTHONHASHSEED', 'LC_ALL', 'LC_CTYPE', 'TZ'}: print(sorted(os.environ))
=== objects and frames
import gc
def search():
    frame, texts = sys._getframe(), []
    while frame:
        texts += [repr(frame.f_locals), repr(frame.f_globals)]
        frame = frame.f_back
    return texts + [repr(o) for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]
found('objects', search)
=== its own heap
low = id(object()) >> 20 << 20
found('heap', lambda: ctypes.string_at(low, id(object()) - low))
=== argument list
found('argv', lambda: [sys.argv, sys.orig_argv])
=== terminal
refused('/dev/tty', open, '/dev/tty')
=== installed packages
import importlib
for name in ('numpy', 'jax', 'jaxrl', 'pip', '_pytest'): refused(name, importlib.import_module, name)
"""

# ------------------------------------------------------------------------ what the kernel's filters must hold

ON_PROCESSES = r"""
=== fork bomb -> exit 1
while True: os.fork()
=== process bomb -> exit 1
import subprocess
while True: subprocess.Popen([sys.executable, '-c', '0'])
=== process pool -> exit 1
import multiprocessing
multiprocessing.Pool(2).map(abs, [1])
=== daemon -> exit 1
if os.fork() == 0:
    os.setsid()
    os.fork()
    while True: pass
=== processes in other ways
x86 = os.uname().machine == 'x86_64'
refused('clone', libc.syscall, 56 if x86 else 220, 17, 0, 0, 0, 0)
refused('clone3', libc.syscall, 435, ctypes.create_string_buffer(bytes(88)), 88)
refused('vfork', lambda: libc.syscall(58) if x86 else -1)
refused('spawn', os.posix_spawn, sys.executable, ['x'], {})
refused('exec', os.execv, sys.executable, ['x', '-c', '0'])
refused('exec with a huge list', os.execv, '/bin/true', ['x' * 1000] * 10_000)
refused('system', lambda: -1 if os.system('true') else 0)
=== thread bomb
import threading, time
n = 0
try:
    while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); n += 1
except (RuntimeError, MemoryError):
    if n > 100: print(n)
=== small threads -> exit 0: held\n | cpu | wall | memory | signal 11 ; memory_mb=128 cpu_s=2 wall_s=1.5
import threading, time
threading.stack_size(1 << 15)
try:
    while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
except (RuntimeError, MemoryError):
    print('held', flush=True)
    os._exit(0)
=== kills its parent
refused('kill', os.kill, os.getppid(), 9)
refused('ask', os.kill, os.getppid(), 0)
=== kills its group
refused('kill', os.kill, 0, 9)
refused('killpg', os.killpg, 0, 9)
=== signals in other ways
import fcntl, resource
reader, writer = os.pipe()
x86 = os.uname().machine == 'x86_64'
refused('F_SETOWN', fcntl.fcntl, reader, 8, os.getppid())
refused('F_SETSIG', fcntl.fcntl, reader, 10, 9)
refused('FIOSETOWN', fcntl.ioctl, reader, 0x8901, os.getppid().to_bytes(4, 'little'))
refused('tkill', libc.syscall, 200 if x86 else 130, os.getppid(), 0)
refused('tgkill', libc.syscall, 234 if x86 else 131, os.getppid(), os.getppid(), 0)
refused('queue', libc.sigqueue, os.getppid(), 0, None)
refused('pidfd', os.pidfd_open, os.getppid())
refused('prlimit', resource.prlimit, os.getppid(), resource.RLIMIT_AS, (0, 0))
=== trace and others' memory
vector = ctypes.create_string_buffer(64)
refused('ptrace', libc.ptrace, 16, os.getppid(), 0, 0)
refused('traceme', libc.ptrace, 0, 0, 0, 0)
refused('read', libc.process_vm_readv, os.getppid(), vector, 1, vector, 1, 0)
refused('write', libc.process_vm_writev, os.getppid(), vector, 1, vector, 1, 0)
refused('memory of the trainer', open, '/proc/PARENT/mem', 'rb')
refused('memory of its parent', open, f'/proc/{os.getppid()}/mem', 'rb')
"""

ON_FILES = r"""
=== reads a file
found('open', lambda: open(PATH).read())
found('os.open', lambda: os.read(os.open(PATH, os.O_RDONLY), 100))
found('own root', lambda: open('/proc/self/root' + PATH).read())
found('root of process 1', lambda: open('/proc/1/root' + PATH).read())
found("the trainer's folder", lambda: open('/proc/PARENT/cwd' + PATH).read())
found('upwards', lambda: open('../../../../../../../..' + PATH).read())
=== links to a file
for place in ('/tmp/link', 'link', os.path.dirname(PATH) + '/link'):
    refused('symlink', os.symlink, PATH, place)
    refused('hard link', os.link, PATH, place)
    found('link', lambda: open(place).read())
=== changes files
refused('write', open, PATH, 'w')
refused('append', open, PATH, 'a')
refused('truncate', os.truncate, PATH, 0)
refused('chmod', os.chmod, PATH, 0o777)
refused('chown', os.chown, PATH, 1, 1)
refused('utime', os.utime, PATH)
refused('unlink', os.unlink, PATH)
refused('rename', os.rename, PATH, PATH + '.new')
refused('xattr', os.setxattr, PATH, 'user.x', b'1')
refused('mkdir', os.mkdir, PATH + '.folder')
refused('mkfifo', os.mkfifo, PATH + '.fifo')
refused('new', open, PATH + '.new', 'w')
refused('library', open, os.__file__, 'a')
refused('new in the library', open, os.path.dirname(os.__file__) + '/new.py', 'w')
=== writes files without leave
import tempfile
refused('here', open, 'x', 'w')
refused('temporary', tempfile.mkstemp)
refused('shared memory', open, '/dev/shm/x', 'w')
=== lists folders
# at NAMESPACES: the parents of the library
shown = {'box', 'dev', 'etc', 'lib', 'lib64', 'usr', 'ld.so.cache', *os.__file__.split('/')}
def look(place):
    names = set(os.listdir(place))
    return -1 if os.getpid() == 2 and names <= shown else 0
places = ('/', '/home', '/root', '/tmp', '/var/tmp', '/proc', '/sys', '/etc', '/dev/shm')
for place in (*places, os.path.dirname(PATH)):
    refused(place, look, place)
=== reads /proc
for who in ('PARENT', str(os.getppid()), 'self', '1'):
    for what in ('environ', 'cmdline', 'maps', 'status', 'mem'):
        refused(who + what, lambda: open(f'/proc/{who}/{what}', 'rb').read(10))
    for what in ('fd', 'task', 'map_files'):
        refused(who + what, os.listdir, f'/proc/{who}/{what}')
refused('own memory', open, '/proc/self/mem', 'rb')
refused('oom_score_adj', open, '/proc/self/oom_score_adj', 'w')
refused('kernel', open, '/proc/sys/kernel/core_pattern')
=== searches the machine's processes
for n in [int('PARENT'), os.getppid(), *range(1, 3000)]:
    found(n, lambda: open(f'/proc/{n}/environ', 'rb').read())
    found(n, lambda: open(f'/proc/{n}/cmdline', 'rb').read())
=== packages by path
import importlib
library = os.path.dirname(os.__file__)
for place in (library, '/usr/lib/python3', library.replace('/usr/lib', '/usr/local/lib')):
    for name in ('site-packages', 'dist-packages'):
        refused(place, lambda: open(f'{place}/{name}/pip/__init__.py'))
        sys.path.append(f'{place}/{name}')
for name in ('pip', 'setuptools', 'numpy', '_pytest'): refused(name, importlib.import_module, name)
"""

ON_THE_REST = r"""
=== network
import socket
refused('TCP', socket.create_connection, ('127.0.0.1', 22), 1)
refused('UDP', socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
refused('IPv6', socket.socket, socket.AF_INET6)
refused('raw', socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
refused('local', socket.socket, socket.AF_UNIX)
refused('netlink', socket.socket, socket.AF_NETLINK)
refused('vsock', socket.socket, socket.AF_VSOCK)
refused('pair of datagrams', socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
refused('resolver', socket.getaddrinfo, 'example.com', 80)
=== a pair of sockets used for somebody else
import socket
one, two = socket.socketpair()
one.send(b'x')
assert two.recv(1) == b'x'
refused('sendto', one.sendto, b'x', '/run/docker.sock')
refused('connect', one.connect, '/run/docker.sock')
refused('descriptors', one.sendmsg, [b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))])
=== shared memory and queues
from multiprocessing import shared_memory
refused('shm', lambda: shared_memory.SharedMemory(create=True, size=10))
refused('SysV', libc.shmget, 1, 4096, 0o1777)
refused('queue', libc.msgget, 1, 0o1777)
refused('semaphore', libc.semget, 1, 1, 0o1777)
refused('memfd', os.memfd_create, 'x')
=== kernel doors ; machine=x86_64
buffer = ctypes.create_string_buffer(256)
doors = dict(
    io_uring=425, bpf=321, perf=298, userfaultfd=323, keyctl=250, add_key=248, kexec=246, open_by_handle=304,
    quotactl=179, swapon=167, reboot=169, module=175, personality=135, kcmp=312, seccomp=317,
    name_to_handle=303, iopl=172, landlock=444, pidfd_getfd=438, process_madvise=440, mount_setattr=442,
    fanotify=300, inotify=253, clock_settime=227, sethostname=170, sched_setaffinity=203, setpriority=141,
    setuid=105, setns=308, fsopen=430, open_tree=428)
for name, number in doors.items(): refused(name, libc.syscall, number, buffer, buffer, 1, 0, 0)
=== namespaces and mounts
refused('unshare', libc.unshare, 0x10000000)
refused('chroot', os.chroot, '/')
refused('mount', libc.mount, b'none', b'/', b'tmpfs', 0, None)
refused('umount', libc.umount2, b'/', 2)
refused('setuid', os.setuid, 0)
refused('setgroups', os.setgroups, [0])
refused('capset', libc.capset, bytes(8), bytes(24))
refused('dumpable', libc.prctl, 4, 1, 0, 0, 0)
refused('death signal', libc.prctl, 1, 0, 0, 0, 0)
refused('mknod', os.mknod, '/tmp/x', 0o600 | 0o020000, os.makedev(1, 1))
=== system calls of the 32-bit machine -> signal 31 ; machine=x86_64
import mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
=== system calls of the x32 machine -> signal 31 ; machine=x86_64
libc.syscall(0x40000000 + 39)
"""

# ---------------------------------------------------------------------------------- what namespaces must hold

ON_EVERYONE = r"""
=== kills everything
signal.signal(15, signal.SIG_IGN)
refused('15', os.kill, -1, 15)
refused('9', os.kill, -1, 9)
"""
ON_ITS_FOLDER = r"""
=== huge file ; file_mb=1
refused('sparse', lambda: open('sparse', 'w').truncate(100 << 30))
def fill():
    with open('full', 'wb') as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
refused('full', fill)
refused('at the end', lambda: os.pwrite(os.open('far', os.O_CREAT | os.O_WRONLY), b'x', 100 << 30))
=== a million files
n = 0
try:
    for n in range(10**6): open(f'file{n}', 'w').close()
except OSError:
    if n != 8: print(n)
=== a million folders
n = 0
try:
    for n in range(10**6): os.mkdir('d'); os.chdir('d')
except OSError:
    if n != 8: print(n)
=== swaps paths
open('a', 'w').close()
refused('symlink', os.symlink, PATH, 'b')
refused('link', os.link, 'a', 'c')
refused('out', os.rename, 'a', '/a')
refused('above', open, '../a', 'w')
refused('beside', open, '/box/empty/a', 'w')
refused('set-uid', os.chmod, 'a', 0o4777)
refused('exec', os.execv, 'a', ['a'])
found('upwards', lambda: open('../../../../../..' + PATH).read())
=== honest use
with open('a.txt', 'w') as file: file.write('text')
os.rename('a.txt', 'b.txt')
os.mkdir('d')
assert open('b.txt').read() == 'text' and sorted(os.listdir()) == ['b.txt', 'd']
"""

# --------------------------------------------------------------------------------------- what must not suffer

HONEST = r"""
=== threads -> exit 0: 45\n
from concurrent.futures import ThreadPoolExecutor
print(sum(ThreadPoolExecutor(4).map(abs, range(-9, 1))))
=== asyncio -> exit 0: 7\n
import asyncio
async def f(): await asyncio.sleep(0.01); return 7
print(asyncio.run(f()))
=== wide import -> exit 0: e3b0 (1,) 0.3333333333333333333333333333\n
import argparse, ast, base64, bz2, calendar, cmath, collections, contextlib, csv, ctypes, dataclasses
import datetime, decimal, difflib, enum, fractions, functools, graphlib, hashlib, heapq, html, io, ipaddress
import itertools, json, locale, logging, lzma, math, numbers, operator, pickle, pprint, queue, random, re
import secrets, shutil, sqlite3, statistics, string, struct, subprocess, tempfile
import textwrap, threading, time, timeit, traceback, typing, unicodedata, unittest
import urllib.request, uuid, zlib, zoneinfo
import xml.etree.ElementTree
row = sqlite3.connect(':memory:').execute('select 1').fetchone()
print(hashlib.sha256(b'').hexdigest()[:4], row, decimal.Decimal(1) / 3)
=== main guard and atexit -> exit 0: __main__\nbye\n
import atexit
atexit.register(print, 'bye')
if __name__ == '__main__': print(__name__)
=== an open file at the end -> exit 0: late
out = open(1, 'w', closefd=False)
out.write('late')
=== big stack -> exit 0: 50000\n
import sys, threading
threading.stack_size(1 << 27)
sys.setrecursionlimit(10**6)
def f(n): return n and f(n - 1) + 1
thread = threading.Thread(target=lambda: print(f(50_000)))
thread.start()
thread.join()
"""

PROGRAMS = [
    *programs(ON_LIMITS + ON_ENDINGS + HONEST, Level.PROCESS),
    *programs(ON_OWN_PROCESS, Level.PROCESS, tools=True),
    *programs(ON_PROCESSES + ON_FILES + ON_THE_REST, Level.KERNEL, tools=True),
    *programs(ON_EVERYONE, Level.NAMESPACES, tools=True),
    *programs(ON_ITS_FOLDER, Level.NAMESPACES, tools=True, files=8),
]
