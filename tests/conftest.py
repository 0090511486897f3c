"""Shared by all tests: eight CPU devices, compiled programs kept on disk, and not all of them in memory."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "jaxrl" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Eight devices that share few busy cores may wait for each other longer than the 40 s after which XLA ends
# the process.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_collective_call_terminate_timeout_seconds=600".strip()
)

import jax
import pytest

MOST_MAPS = 20_000
REFERENCE_GRAPH = Path(__file__).resolve().parents[2] / "shared" / "data" / "kg"


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
