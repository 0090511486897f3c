"""What the processes of a run compare before they begin: that they are all there, and one run."""

import secrets
import time
from pathlib import Path

import jax

from jaxrl import __version__
from jaxrl.config.experiment import Config
from jaxrl.config.file import dump_config
from jaxrl.device.processes import LONG_S, agree, check_same, gather, is_first, num_processes, process_id
from jaxrl.errors import InputError

LOOKS = 300  # for a file that another host has made, a tenth of a second apart: network file systems are slow


def check_processes(config: Config) -> None:
    """Find out that all processes whose devices jax sees are of this run, were started alike, and see one
    folder; alone, that this one is alone.

    Raises:
      InputError: on every process, what is not so.
    """
    count = num_processes()
    if jax.process_count() != count:
        raise InputError(
            f"this is one of {jax.process_count()} hosts whose devices belong together, and the run knows of"
            f" {count}; set distributed.num_processes={jax.process_count()}, and start it on each of them"
        )
    if count == 1:
        return
    if jax.process_index() != process_id():
        raise InputError(
            f"distributed.process_id={process_id()} is process {jax.process_index()} of the devices' own"
            " count; give it that number (of a TPU slice, the worker's)"
        )
    started = {"jax": jax.__version__, "jaxrl": __version__, "config": dump_config(config)}
    # until now, the first one may have brought the run's files from elsewhere
    remedy = "start the same command everywhere, but for `distributed` (JAX_NUM_PROCESSES=1: each by itself)"
    check_same("what was started", started, remedy, LONG_S)
    if config.url is None:
        check_shared(config.folder)


def check_shared(folder: Path) -> None:
    """InputError unless every process sees what the first one writes into the folder."""
    mark = folder / f".{agree('a mark in the folder', secrets.token_hex(8))}"
    if is_first():
        mark.touch()
    try:
        gather("the mark's writing", None)
        seen = gather("the mark's reading", is_first() or _appears(mark), LOOKS / 10)
    finally:
        if is_first():
            mark.unlink(missing_ok=True)
    if not all(seen):
        raise InputError(
            f"process {seen.index(False)} does not see the folder {folder.absolute()} of process 0; set"
            " runs_dir to a place that all hosts share, such as a network file system, or to a bucket of"
            " Google's, gs://BUCKET/FOLDER, which needs no shared disk"
        )


def _appears(path: Path) -> bool:
    for _ in range(LOOKS):
        if path.exists():
            return True
        time.sleep(0.1)
    return False
