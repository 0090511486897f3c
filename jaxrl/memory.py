"""How much memory is free where arrays are made, and what to say when there is not enough of it."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.sharding import Mesh

from jaxrl.errors import InputError


def free_bytes(mesh: Mesh) -> float:
    """Bytes free on the fullest device of the mesh; for CPU devices, which share the host's memory, each its part of it."""
    devices = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in devices]
    if all(s is not None and "bytes_limit" in s for s in stats):
        return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / len(devices)


@contextmanager
def explain_out_of_memory(what: str, remedy: Callable[[], str]) -> Iterator[None]:
    """Turn the compiler's report of memory that ran out into one sentence with the setting to change.

    Raises:
      InputError: in place of an error whose status is RESOURCE_EXHAUSTED; others pass.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        wanted = re.search(r"allocat\w+ ([\d.]+ ?\w*)", str(error))
        size = f" (it asked for {wanted.group(1)} more)" if wanted else ""
        raise InputError(f"{what} does not fit into the memory of the device{size}; {remedy()}") from error
