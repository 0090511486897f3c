"""Files under the weights: opening safetensors without reading them, naming what does not fit, saving a
folder as a whole.

A safetensors file that is written here carries the SHA-256 of its bytes among its metadata, where other
programs pass over it, and is held to it when it is opened here; a flipped bit is an error. Files without one
load as they are.

Not here: what the tensors mean (`names.py`).
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxrl.errors import InputError
from jaxrl.files.digests import side_by_side

FLOATS = ("F32", "F16", "BF16")
LISTED = 10  # of what is wrong with a file, so many are named
TEMPORARY = ".saving"
DIGEST = "jaxrl_sha256"  # of the file, the digest's own digits taken as zeros
METADATA, BEFORE_DIGITS, ZEROS = b'"__metadata__":', f'"{DIGEST}":"'.encode(), b"0" * 64


def open_tensors(paths: Iterable[Path]) -> dict[str, tuple[Any, Path]]:
    """Name -> (a slice that reads when it is indexed, its file), over several safetensors files.

    Nothing but the headers is read here, and the whole of files that carry a digest. The slices are NumPy's
    framework, which gives bfloat16 as `ml_dtypes.bfloat16`.

    Raises:
      InputError: a file that is missing, is not a whole safetensors file, or is not the one that its digest
        was made of.
    """
    tensors: dict[str, tuple[Any, Path]] = {}
    digests: dict[Path, str] = {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} does not exist; fetch the folder again, with all its files")
        try:
            file = safe_open(path, framework="numpy")
            names = file.keys()  # all that this file has of a dict
            tensors |= {name: (file.get_slice(name), path) for name in names}
            digests |= {path: found} if (found := (file.metadata() or {}).get(DIGEST)) is not None else {}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a whole safetensors file ({error}); fetch it again") from None
    for (path, saved), found in zip(digests.items(), side_by_side(_digest, digests), strict=True):
        if saved != found:
            raise InputError(
                f"{path} is not as jaxrl wrote it: its bytes have the SHA-256 {found[:12]}... and it says "
                f"{saved[:12]}...; restore the file or export it again, or, where another program has "
                f"changed it on purpose, take {DIGEST} out of its metadata"
            )
    return tensors


def save_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file with its digest. Equal tensors give equal bytes."""
    metadata = {"format": "pt", DIGEST: ZEROS.decode()}  # transformers asks for `format`
    save_file(tensors, path, metadata=metadata)
    with path.open("r+b") as file:
        place = _read_header(file).index(METADATA) + len(METADATA)

        def put(digest: str) -> None:
            file.seek(place)
            file.write(json.dumps({**metadata, DIGEST: digest}, separators=(",", ":")).encode())
            file.flush()

        put(ZEROS.decode())  # the order in which the library writes the keys changes from file to file
        put(_digest(path))


def _digest(path: Path) -> str:
    """Of a file that carries a digest: the SHA-256 of its bytes, with zeros where the digest stands."""
    with path.open("rb") as file:
        header = _read_header(file)
        made = hashlib.sha256(re.sub(BEFORE_DIGITS + b"[0-9a-f]{64}", BEFORE_DIGITS + ZEROS, header))
        while chunk := file.read(1 << 20):
            made.update(chunk)
    return made.hexdigest()


def _read_header(file: BinaryIO) -> bytes:
    """The bytes of an open safetensors file up to its data: the header's length, eight bytes, and the
    header.
    """
    length = file.read(8)
    return length + file.read(int.from_bytes(length, "little"))


def check_tensors(
    place: Path, tensors: dict[str, tuple[Any, Path]], expected: Mapping[str, tuple[int, ...]], remedy: str
) -> None:
    """One InputError with everything that is missing, left over, misshapen or not of a float type.

    Args:
      place: the folder, for the text. expected: name -> shape. remedy: what the user can do, closing the
        text.
    """
    problems = [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in tensors]
    for name, (tensor, path) in tensors.items():
        shape, kind = tuple(tensor.get_shape()), tensor.get_dtype()
        if name not in expected:
            problems.append(f"unexpected: {name} {list(shape)} in {path.name}")
        elif shape != expected[name]:
            problems.append(
                f"wrong shape: {name} is {list(shape)} in {path.name}, should be {list(expected[name])}"
            )
        elif kind not in FLOATS:
            problems.append(
                f"wrong type: {name} is {kind} in {path.name}, should be one of {', '.join(FLOATS)}"
            )
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        listed = "\n  ".join(problems[:LISTED] + more)
        raise InputError(f"{place}: {len(problems)} tensor(s) do not fit:\n  {listed}\n{remedy}")


@contextmanager
def saving(folder: Path, last: str, replaces: tuple[str, ...]) -> Iterator[Path]:
    """A temporary folder to write files to; they move into `folder` when the block ends, or vanish when it
    fails.

    `last` is the file without which readers take the folder for nothing: it is removed before the others are
    replaced and put in place after them, so that a folder that has it is whole, whenever the process may have
    died.

    Args:
      folder: made if missing; files in it that are not written anew stay.
      replaces: glob patterns of older files that must not survive beside the new ones (another number of
        shards).
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
        # safetensors makes files that only their owner can read; the text file has the mode that the user's
        # umask gives
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
            if path.name != last:
                shutil.copymode(temporary / last, path)
            os.replace(path, folder / path.name)
        temporary.rmdir()
    except BaseException:
        shutil.rmtree(folder if is_new else temporary, ignore_errors=True)
        raise
