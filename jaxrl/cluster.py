"""Which process of a run this one is: from the config's `distributed` section and the environment, before jax
is imported.

A machine by itself finds out without asking anybody: nothing here opens a connection but `_tpu_metadata`,
which is asked only where the section says that there are several processes and nothing else says which.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl.errors import InputError

if TYPE_CHECKING:
    from jaxrl.config.shared import DistributedSection

PORT = 8482  # of the coordinator, where a cluster names the host alone; libtpu itself listens at 8476
SETTINGS = {  # keys of the section, and the variables that stand for them; jax knows the first
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


class Place(NamedTuple):
    """Process `process_id` of `num_processes`, which meet at `coordinator`, HOST:PORT on the first's host."""

    coordinator: str
    num_processes: int
    process_id: int


def find_place(
    section: "DistributedSection | None" = None,
    environ: Mapping[str, str] = os.environ,
    ask_metadata: Callable[[str], str] | None = None,
) -> Place | None:
    """This process's place among those of a run; None where it is alone.

    Each of the three values is the section's; where that is null, that of its variable (`SETTINGS`); then,
    in this order, what a TPU slice (TPU_WORKER_HOSTNAMES), Slurm or an indexed job of Kubernetes says. A
    cluster of one process is no cluster.

    Args:
      ask_metadata: attribute of this machine -> its text, see `_tpu_metadata`.
    Raises:
      InputError: values that are missing, or that do not fit each other.
    """
    given: dict[str, Any] = {name: getattr(section, name, None) for name in SETTINGS}
    for name, variable in SETTINGS.items():
        if given[name] is None and environ.get(variable):
            given[name] = environ[variable] if name == "coordinator" else _number(environ, variable)
    if given["num_processes"] == 1:
        return None
    found = _tpu(environ) or _slurm(environ) or _kubernetes(environ)
    if all(value is None for value in given.values()) and found.get("num_processes", 1) == 1:
        return None
    if not found and given["num_processes"] is not None and given["coordinator"] is None:
        found = _tpu_slice(ask_metadata or _tpu_metadata)
    given = {name: found.get(name) if value is None else value for name, value in given.items()}
    if missing := [name for name, value in given.items() if value is None]:
        raise InputError(
            f"distributed: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, and nothing"
            " in the environment says so; set each in the config or on the command line"
            f" (distributed.process_id=0), or as {', '.join(SETTINGS[name] for name in missing)}"
        )
    return _checked(Place(**given))


def own_gpu(environ: Mapping[str, str] = os.environ) -> int | None:
    """The GPU of a process that Slurm has started beside others on its node: the one with its number there.
    None: all that it sees, as where Slurm gave each task its own, or JAX_LOCAL_DEVICE_IDS says which.
    """
    tasks = re.findall(r"(\d+)(?:\(x\d+\))?(?:,|$)", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    sees_one = environ.get("CUDA_VISIBLE_DEVICES", "").count(",") == 0 and "CUDA_VISIBLE_DEVICES" in environ
    if all(int(count) == 1 for count in tasks) or sees_one or environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    return _number(environ, "SLURM_LOCALID")


def refuse_several(command: str, environ: Mapping[str, str] = os.environ) -> None:
    """InputError where the environment says that this process is one of several, for a command that works in
    one alone.
    """
    if (place := find_place(None, environ)) is not None:
        raise InputError(
            f"{command} runs in one process, and the environment says that this is one of"
            f" {place.num_processes}; start it once, on one host (`jaxrl run` with an eval stage is what"
            " several do together), or set JAX_NUM_PROCESSES=1 if each is a job of its own"
        )


def _checked(place: Place) -> Place:
    host, colon, port = place.coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InputError(
            f"distributed.coordinator {place.coordinator!r} is not of the form HOST:PORT; give the host of"
            f" process 0 and a free port of it, for example 10.0.0.2:{PORT}"
        )
    if not 0 <= place.process_id < place.num_processes:
        raise InputError(
            f"distributed.process_id={place.process_id} is not among the {place.num_processes} processes;"
            f" give each another number from 0 to {place.num_processes - 1}"
        )
    return place


def _number(environ: Mapping[str, str], variable: str) -> int:
    text = environ[variable]
    if not text.strip().isdecimal():
        raise InputError(f"{variable} is {text!r}, which is no number; set it to one, or unset it")
    return int(text)


def _tpu(environ: Mapping[str, str]) -> dict[str, Any]:
    """The hosts of a TPU slice, as GKE and `tpu/` name them; several slices follow one another."""
    names = environ.get("TPU_WORKER_HOSTNAMES", "")
    hosts = [name.strip() for name in names.split(",") if name.strip()]
    slices = _number(environ, "MEGASCALE_NUM_SLICES") if environ.get("MEGASCALE_NUM_SLICES") else 1
    if len(hosts) * slices <= 1 or not environ.get("TPU_WORKER_ID"):
        return {}
    first = environ.get("MEGASCALE_COORDINATOR_ADDRESS", hosts[0]).partition(":")[0]
    number = _number(environ, "MEGASCALE_SLICE_ID") if slices > 1 else 0
    return {
        "coordinator": f"{first}:{PORT}",
        "num_processes": len(hosts) * slices,
        "process_id": number * len(hosts) + _number(environ, "TPU_WORKER_ID"),
    }


def _slurm(environ: Mapping[str, str]) -> dict[str, Any]:
    """The tasks of a Slurm step (`srun`); a batch script by itself is one process, whatever it may start."""
    needed = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    if any(not environ.get(name) for name in needed):
        return {}
    # `gpu07`, `gpu07,gpu09`, `gpu[07-09,12],other`: the first node has the first task
    ((prefix, number),) = re.findall(r"^([^,\[]+)(?:\[([^,\-\]]+))?", environ["SLURM_STEP_NODELIST"])
    # two jobs may share a node
    port = 61_440 + _number(environ, "SLURM_JOB_ID") % 4096
    return {
        "coordinator": f"{prefix}{number}:{port}",
        "num_processes": _number(environ, "SLURM_STEP_NUM_TASKS"),
        "process_id": _number(environ, "SLURM_PROCID"),
    }


def _kubernetes(environ: Mapping[str, str]) -> dict[str, Any]:
    """The pods of an indexed job: its index is in the environment, the rest `tpu/jobset.yaml` puts there."""
    name = "JOB_COMPLETION_INDEX"
    return {"process_id": _number(environ, name)} if environ.get(name) else {}


def _tpu_slice(ask: Callable[[str], str]) -> dict[str, Any]:
    """The hosts of a TPU slice as the metadata server of its machines tells them: each is a host, or an old
    `name:id:address`.
    """
    hosts = [text.split(":")[-1] for text in ask("worker-network-endpoints").split(",")]
    return {
        "coordinator": f"{hosts[0]}:{PORT}",
        "num_processes": len(hosts),
        "process_id": int(ask("agent-worker-number")),
    }


def _tpu_metadata(attribute: str) -> str:
    import urllib.error  # 50 ms that nobody else has to wait
    import urllib.request

    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/attributes/{attribute}",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode().strip()
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"distributed.num_processes is set, and which of them this is nobody says (the metadata server of"
            f" Cloud TPU does not answer: {error}); set distributed.coordinator and distributed.process_id"
        ) from None
