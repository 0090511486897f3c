"""The processes that share a run: which one is the first, and how all come to know what it knows."""

import json
from typing import Any

import jax
import numpy as np


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def agree(value: Any) -> Any:
    """The first process's value, on every process; all have to ask for it at the same point.

    Alone, a process is not asked to wait for anything and no collective is made.

    Args:
      value: plain JSON; those of the other processes are not looked at.
    """
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(value).encode() if is_first() else b"", np.uint8)
    # Arrays of a broadcast have one shape everywhere, so the length goes first.
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    room = np.zeros(size, np.uint8)
    room[: len(text)] = text
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(room)).tobytes())
