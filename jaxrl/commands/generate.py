"""`jaxrl generate`: writes fresh problems of a task to a file. No jax, no accelerator."""

from pathlib import Path

from jaxrl.config.file import make_task_section
from jaxrl.errors import InputError
from jaxrl.files.jsonl import check_out, write_rows
from jaxrl.tasks import make_task


def generate_file(name: str, overrides: list[str], count: int, seed: int, out: Path) -> int:
    """Write `count` fresh records of a task; equal arguments give equal bytes on every machine.

    Returns:
      The number of records.
    Raises:
      InputError: settings that do not fit; a task without a generator.
    """
    check_out(out)
    if count < 1:
        raise InputError(f"--n {count} problems cannot be made; give at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative; give 0 or more")
    task = make_task(make_task_section(name, overrides))
    return write_rows(out, task.generate(count, seed))
