"""What NVIDIA GPUs are asked for before jax starts on them: their memory, and flags of the compiler.

jax and XLA read both from the environment when the first device is used, and not again: what is set later has
no effect (`jax.process_index()` uses one already). What the user has set there stays as it is. Where no GPU
is in sight nothing is set.

No flag is set that a config does not name: which ones matter is on already (docs/gpu.md has the table), and
XLA ends the process, without an exception, at a flag that its version does not know. Those of a config are
tried first, in a process of their own.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jaxrl.config.shared import Flag, GPUSection
from jaxrl.errors import InputError

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
DEVICE_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")  # the last one: under Windows
# jax takes the second for an older name of the first, and refuses both together.
FRACTION_NAMES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
VARIABLES = ("XLA_FLAGS", *FRACTION_NAMES, PREALLOCATE)
CHECK_TIMEOUT_S = 600.0


def set_up_gpus(section: GPUSection) -> list[str]:
    """Set the environment of this process for its GPUs, before anything asks jax for devices. Asked again it
    does and says the same.

    Returns:
      What was set, and what was left as the user had it, in sentences; none where there is no GPU.
    Raises:
      InputError: a flag in `gpu.flags` that XLA does not know, or a value that it does not take.
    """
    if not gpu_in_sight():
        return []
    if section.flags:
        check_flags(as_text(section.flags))
    settings, notes = changes(section, users_environment())
    os.environ.update(settings)
    return notes


@functools.cache
def users_environment() -> dict[str, str]:
    """The variables as this process found them, before any was set here."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def gpu_in_sight() -> bool:
    """Whether jax may find an NVIDIA GPU: its plugin is installed, a driver's file is there, and nothing says
    that another platform is wanted. Asks no driver and starts nothing.
    """
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return (
        (not wanted or bool({"cuda", "gpu"} & set(wanted.split(","))))
        and any(importlib.util.find_spec(plugin) for plugin in PLUGINS)
        and any(Path(file).exists() for file in DEVICE_FILES)
    )


def changes(section: GPUSection, environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(variables to set, sentences about them), so that nothing that stands in `environment` changes."""
    settings, notes = {}, []
    there = environment.get("XLA_FLAGS", "")
    named = set(re.findall(r"--(\w+)", there))
    if added := as_text({name: value for name, value in section.flags.items() if name not in named}):
        settings["XLA_FLAGS"] = f"{there} {added}".strip()
        notes.append(f"XLA_FLAGS: added {added}")
    if kept := [name for name in section.flags if name in named]:
        notes.append(f"XLA_FLAGS: {', '.join(kept)} left as in the environment")
    if fraction := [name for name in FRACTION_NAMES if name in environment]:
        notes.append(f"GPU memory: {fraction[0]}={environment[fraction[0]]}, as in the environment")
    elif section.memory_fraction is not None:
        settings[FRACTION_NAMES[0]] = f"{section.memory_fraction:g}"
        notes.append(f"GPU memory: {section.memory_fraction:.0%} of each GPU (gpu.memory_fraction)")
    if PREALLOCATE in environment:
        notes.append(f"GPU memory: {PREALLOCATE}={environment[PREALLOCATE]}, as in the environment")
    elif not section.preallocate:
        settings[PREALLOCATE] = "false"
        notes.append("GPU memory: taken piece by piece (gpu.preallocate)")
    return settings, notes


@functools.cache
def check_flags(given: str) -> None:
    """InputError unless XLA takes these flags. Takes some seconds: jax is imported in a process of its own,
    on CPU, where the library reads the flags of all devices.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | {"XLA_FLAGS": given, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=CHECK_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"gpu.flags: jax did not start within {CHECK_TIMEOUT_S} s with {given}; take flags out"
        ) from None
    if done.returncode == 0:
        return
    unknown = re.search(r"Unknown flags? in XLA_FLAGS: (.*)", done.stderr)
    reason = f"it does not know {unknown.group(1).strip()}" if unknown else f"it refuses {given}"
    version = importlib.metadata.version("jaxlib")
    raise InputError(
        f"gpu.flags: XLA of jaxlib {version} would end the process, since {reason}; correct the flag, or take"
        " it out"
    )


def as_text(flags: Mapping[str, Flag]) -> str:
    """Flags as XLA reads them from the environment."""
    words = {name: str(x).lower() if isinstance(x, bool) else str(x) for name, x in flags.items()}
    return " ".join(f"--{name}={word}" for name, word in words.items())
