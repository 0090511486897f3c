"""Files under the weights: opening safetensors without reading them, telling what does not fit, saving a folder as a whole.

Not here: what the tensors mean (`names.py`).
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from jaxrl.errors import InputError

FLOATS = ("F32", "F16", "BF16")
LISTED = 10  # of what is wrong with a file, so many are named
TEMPORARY = ".saving"


def open_tensors(paths: Iterable[Path]) -> dict[str, tuple[Any, Path]]:
    """Name -> (a slice that reads when it is indexed, its file), over several safetensors files.

    Nothing but the headers is read here. The slices are NumPy's framework, which gives bfloat16 as `ml_dtypes.bfloat16`.

    Raises:
      InputError: a file that is missing or is not a whole safetensors file.
    """
    tensors: dict[str, tuple[Any, Path]] = {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} does not exist; fetch the folder again, with all its files")
        try:
            file = safe_open(path, framework="numpy")
            tensors |= {name: (file.get_slice(name), path) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a whole safetensors file ({error}); fetch it again") from None
    return tensors


def check_tensors(place: Path, tensors: dict[str, tuple[Any, Path]], expected: dict[str, tuple[int, ...]], remedy: str) -> None:
    """One InputError with everything that is missing, left over, misshapen or not of a float type.

    Args:
      place: the folder, for the text. expected: name -> shape. remedy: what the user can do, closing the text.
    """
    problems = [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in tensors]
    for name, (tensor, path) in tensors.items():
        shape, kind = tuple(tensor.get_shape()), tensor.get_dtype()
        if name not in expected:
            problems.append(f"unexpected: {name} {list(shape)} in {path.name}")
        elif shape != expected[name]:
            problems.append(f"wrong shape: {name} is {list(shape)} in {path.name}, should be {list(expected[name])}")
        elif kind not in FLOATS:
            problems.append(f"wrong type: {name} is {kind} in {path.name}, should be one of {', '.join(FLOATS)}")
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        listed = "\n  ".join(problems[:LISTED] + more)
        raise InputError(f"{place}: {len(problems)} tensor(s) do not fit:\n  {listed}\n{remedy}")


@contextmanager
def saving(folder: Path, last: str, replaces: tuple[str, ...]) -> Iterator[Path]:
    """A temporary folder to write files to; they move into `folder` when the block ends, or vanish when it fails.

    `last` is the file without which readers take the folder for nothing: it is removed before the others are replaced
    and put in place after them, so that a folder that has it is whole, whenever the process may have died.

    Args:
      folder: made if missing; files in it that are not written anew stay.
      replaces: glob patterns of older files that must not survive beside the new ones (another number of shards).
    Raises:
      InputError: if the folder cannot be made.
    """
    is_new = not folder.exists()
    temporary = folder / TEMPORARY
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another folder") from None
    try:
        yield temporary
        (folder / last).unlink(missing_ok=True)
        for old in (path for pattern in replaces for path in folder.glob(pattern)):
            old.unlink()
        # safetensors makes files that only their owner can read; the text file has the mode that the user's umask gives
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
            if path.name != last:
                shutil.copymode(temporary / last, path)
            os.replace(path, folder / path.name)
        temporary.rmdir()
    except BaseException:
        shutil.rmtree(folder if is_new else temporary, ignore_errors=True)
        raise
