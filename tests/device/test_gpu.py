"""What GPUs are given before jax starts: nothing of the user's changes, and XLA takes what is set."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl.config.shared import GPUSection
from jaxrl.device import gpu
from jaxrl.errors import InputError

ROOT = Path(__file__).parents[2]
GPU_PAGE, CONFIG = ROOT / "docs" / "gpu.md", ROOT / "configs" / "quickstart.yaml"


@pytest.fixture
def environment(monkeypatch):
    """A process that sees a GPU and in which nothing has been set; what is set goes away afterwards."""
    monkeypatch.setattr(gpu, "gpu_in_sight", lambda: True)
    for name in gpu.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    gpu.users_environment.cache_clear()
    before = dict(os.environ)
    yield monkeypatch
    gpu.users_environment.cache_clear()
    os.environ.clear()
    os.environ.update(before)


def parses(flags: str) -> subprocess.CompletedProcess:
    """Whether XLA starts with these flags: it ends the process if not."""
    return subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def test_xla_knows_every_flag_of_the_table_in_the_docs():
    rows = re.findall(r"^\| `(xla_\w+)` \| `?([^|`]+)`? \|", GPU_PAGE.read_text(), re.M)
    assert len(rows) > 5
    assert parses(gpu.as_text(dict(rows))).returncode == 0
    assert parses("--xla_gpu_no_such_flag=true").returncode != 0  # so the line above says something


def test_a_flag_of_the_config_that_would_end_the_process_is_an_error(environment):
    for flags, reason in (
        ({"xla_gpu_no_such_flag": True}, "does not know --xla_gpu_no_such_flag=true"),
        ({"xla_gpu_autotune_level": "high"}, "it refuses --xla_gpu_autotune_level=high"),
    ):
        with pytest.raises(InputError, match=rf"gpu\.flags: XLA of jaxlib .*{reason}"):
            gpu.set_up_gpus(GPUSection(flags=flags))
        assert "XLA_FLAGS" not in os.environ
    gpu.set_up_gpus(GPUSection(flags={"xla_gpu_autotune_level": 2}))
    assert os.environ["XLA_FLAGS"] == "--xla_gpu_autotune_level=2"


def test_by_itself_it_asks_for_memory_and_sets_no_flags(environment):
    assert gpu.set_up_gpus(GPUSection()) == ["GPU memory: 90% of each GPU (gpu.memory_fraction)"]
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.9" and "XLA_FLAGS" not in os.environ


def test_asked_twice_it_does_and_says_the_same(environment):
    environment.setenv("XLA_FLAGS", "--xla_dump_to=/nowhere")
    section = GPUSection(preallocate=False, flags={"xla_gpu_enable_triton_gemm": False})
    first = gpu.set_up_gpus(section)
    after = {name: os.environ.get(name) for name in gpu.VARIABLES}
    assert gpu.set_up_gpus(section) == first
    assert {name: os.environ.get(name) for name in gpu.VARIABLES} == after
    assert after["XLA_FLAGS"] == "--xla_dump_to=/nowhere --xla_gpu_enable_triton_gemm=false"
    assert after["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


@pytest.mark.parametrize(
    "theirs",
    [
        {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"},
        {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm"},  # a bare name means true
        {"XLA_CLIENT_MEM_FRACTION": ".5"},
        {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5", "XLA_PYTHON_CLIENT_PREALLOCATE": "true"},
    ],
)
def test_what_stands_in_the_environment_has_the_last_word_and_is_told(theirs):
    """As the settings are laid over the environment, every variable and every flag of the user's stays."""
    ours = {"xla_gpu_autotune_level": 4, "xla_gpu_enable_triton_gemm": True}
    section = GPUSection(memory_fraction=0.8, preallocate=False, flags=ours)
    settings, notes = gpu.changes(section, theirs)
    after = theirs | settings
    flags = lambda environment: dict(
        word.removeprefix("--").partition("=")[::2] for word in environment.get("XLA_FLAGS", "").split()
    )
    assert flags(theirs).items() <= flags(after).items()
    assert set(flags(after)) == set(ours)
    for name in set(theirs) - {"XLA_FLAGS"}:
        assert after[name] == theirs[name] and any(f"{name}={theirs[name]}" in note for note in notes)
    # jax refuses the two names of the fraction together
    assert len(set(gpu.FRACTION_NAMES) & set(after)) == 1
    if "XLA_FLAGS" in theirs:
        assert any("left as in the environment" in note for note in notes)


def test_without_a_gpu_nothing_is_set(environment):
    environment.setattr(gpu, "gpu_in_sight", lambda: False)
    assert gpu.set_up_gpus(GPUSection(flags={"xla_nonsense": 1})) == []
    assert not set(gpu.VARIABLES) & set(os.environ)


@pytest.mark.parametrize(
    "platforms, plugin, driver, expected",
    [
        ("", True, True, True),
        ("cuda,cpu", True, True, True),
        ("cpu", True, True, False),
        ("", False, True, False),
        ("", True, False, False),
    ],
)
def test_a_gpu_is_in_sight(monkeypatch, tmp_path, platforms, plugin, driver, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(gpu, "PLUGINS", ("json",) if plugin else ("no_such_plugin",))
    monkeypatch.setattr(gpu, "DEVICE_FILES", (str(tmp_path if driver else tmp_path / "nvidia0"),))
    assert gpu.gpu_in_sight() is expected


def test_a_run_sets_its_gpus_up_before_it_uses_a_device(tmp_path):
    """In a process of its own, up to the mesh: later the environment is not read again."""
    code = f"""
from jax._src import xla_bridge
from jaxrl.commands import run as command
from jaxrl.config.file import load_config

used, config = [], load_config({str(CONFIG)!r}, ["runs_dir={tmp_path}"])
command.set_up_gpus = lambda section: used.append(xla_bridge.backends_are_initialized()) or []

def make_mesh(section):
    raise SystemExit

command.make_mesh = make_mesh
try:
    command.run(config)
finally:
    print(used[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr
