"""Shared by all tests: eight CPU devices, compiled programs kept on disk, tiny models made once."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "jaxrl" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest

REFERENCE_GRAPH = Path(__file__).resolve().parents[2] / "shared" / "data" / "kg"


@pytest.fixture
def reference_graph() -> Path:
    """The folder with the original project's graph and questions."""
    if not REFERENCE_GRAPH.is_dir():
        pytest.skip(f"the real knowledge-graph files are not at {REFERENCE_GRAPH}")
    return REFERENCE_GRAPH
