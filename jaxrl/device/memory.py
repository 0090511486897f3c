"""How much memory there is where arrays are made, and what to say when it is not enough."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxrl.device.processes import gather
from jaxrl.errors import InputError


def device_memory(device: jax.Device) -> int:
    """Bytes that a device of this process has for arrays: the least of what all processes find. On CPU its
    part of this process's share of the host's memory.
    """
    stats = device.memory_stats()
    found = stats["bytes_limit"] if stats is not None else host_memory() // jax.local_device_count()
    return min(gather("memory of a device", found))


def host_memory(limit_file: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of the machine, or of the container if that is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = limit_file.read_text().strip() if limit_file.is_file() else "max"
    return machine if limit == "max" else min(machine, int(limit))


def free_memory(mesh: Mesh) -> float:
    """Bytes free on the mesh's fullest device; CPU devices share what the host has left. The same on all
    processes: what follows from it has to be.
    """
    stats = [device.memory_stats() for device in own_devices(mesh)]
    if stats[0] is None:
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free = min(pages, host_memory()) / len(stats)
    else:
        free = min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
    return min(gather("free memory", free))


def own_devices(mesh: Mesh) -> list[jax.Device]:
    """The mesh's devices that are this process's: others tell nothing of themselves."""
    return [device for device in mesh.devices.flat if device.process_index == jax.process_index()]


def memory_in_use() -> tuple[str, int]:
    """Bytes in use on the first device; on backends that do not say (CPU), the resident memory of this
    process.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:
        return "device", stats["bytes_in_use"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return "process", pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def explain_out_of_memory(what: str, remedy: Callable[[], str]) -> Iterator[None]:
    """Turn the compiler's report of memory that ran out into one sentence with the setting to change.

    Raises:
      InputError: in place of an error whose status is RESOURCE_EXHAUSTED, or that says so in words: who reads
        the result of a program that found no memory gets INTERNAL. Others pass.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            raise
        wanted = re.search(r"allocat\w+ ([\d.]+ ?\w*)", str(error))
        size = f" (it asked for {wanted.group(1)} more)" if wanted else ""
        raise InputError(f"{what} does not fit into the memory of the device{size}; {remedy()}") from error
