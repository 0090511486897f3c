"""What tests of whole runs share: their files without the clock, and Ctrl-C at a chosen step."""

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxrl.commands import run as run_module
from jaxrl.interrupt import Interrupted


def lines(folder: Path, name: str) -> list[dict]:
    """Rows of a JSONL file without what the clock and the machine have a say in."""
    rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [
        {
            k: v
            for k, v in row.items()
            if not k.startswith(("time", "memory")) and not k.endswith("tokens_per_s")
        }
        for row in rows
    ]


@contextmanager
def interrupted_after(stop_after: tuple[str, int], monkeypatch):
    """The run inside gets a SIGINT once it has logged this (stage, step), and must leave with Interrupted."""
    log = run_module.RunLogger.log

    def stop_then(self, stage, step, metrics):
        log(self, stage, step, metrics)
        if (stage, step) == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunLogger, "log", stop_then)
        with pytest.raises(Interrupted):
            yield
