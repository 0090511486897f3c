"""Shared by all tests: the lanes, CPU devices, compiled programs on disk, and not all of them in memory."""

import os
import signal
from pathlib import Path

# Where a lane has not said otherwise there are eight devices, so that any test can be run by itself.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "jaxrl" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Eight devices that share few busy cores may wait for each other longer than the 40 s after which XLA ends
# the process.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_collective_call_terminate_timeout_seconds=600".strip()
)

# What is started in the background or under nohup ignores these, and so do the processes that it starts; the
# laws about stopping are about what everybody else starts.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

import jax
import pytest

MOST_MAPS = 20_000
REFERENCE_GRAPH = Path(__file__).resolve().parents[2] / "shared" / "data" / "kg"

# The lane of a test is its own mark, if it has one (`@pytest.mark.mesh`: it needs several devices), else the
# row that names its file or folder, else `fast`. `scripts/test.sh LANE` runs one, in the setting it needs.
LANES = {
    "fast": (),
    "mesh": (),
    "sandbox": (
        "sandbox",
        "verify",
        "envs/test_pool.py",
        "tasks/code",
        "tasks/programs",
        "cases/test_program_cases.py",
        "commands/test_verify.py",
    ),
    # whole runs, and what compiles whole steps and samplers, which takes minutes
    "end_to_end": (
        "end_to_end",
        "cases",
        "sample",
        "update",
        "model/test_remat.py",
        "policy/test_load.py",
        "rollout/test_collect.py",
        "rollout/test_episodes.py",
        "test_bench.py",
        "test_bench_gpu.py",
        "test_seeds.py",
        "train/test_experience.py",
        "train/test_rl.py",
        "train/test_rsft.py",
    ),
    "aot": ("compiled/test_aot.py", "compiled/test_gpu_flags.py"),
    "hosts": ("hosts",),
}


def lane_of(file: Path) -> str:
    """The lane of a test file whose tests have no mark of their own; the most special row counts."""
    places = {file, *file.parents}
    rows = [(len(place), lane) for lane, rows in LANES.items() for place in rows if Path(place) in places]
    return max(rows, default=(0, "fast"))[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Every test is in exactly one lane, which is then one of its marks."""
    here = Path(__file__).parent
    for item in items:
        own = {mark.name for mark in item.iter_markers() if mark.name in LANES}
        if len(own) > 1:
            raise pytest.UsageError(f"{item.nodeid} is marked for several lanes: {sorted(own)}")
        if not own:
            item.add_marker(lane_of(item.path.relative_to(here)))


@pytest.fixture(autouse=True, scope="module")
def few_programs_in_memory():
    """Let go of compiled programs between files when there are many: on CPU each takes pieces of the address
    space, of which Linux gives a process 65,530, and the next one after those is a segmentation fault.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture
def reference_graph() -> Path:
    """The folder with the original project's graph and questions."""
    if not REFERENCE_GRAPH.is_dir():
        pytest.skip(f"the real knowledge-graph files are not at {REFERENCE_GRAPH}")
    return REFERENCE_GRAPH
