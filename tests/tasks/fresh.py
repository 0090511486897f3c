"""A program in a fresh interpreter: what tasks make must not hang on the process that makes it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output_of(program: str, hash_seed: str) -> str:
    """What the program prints, with this PYTHONHASHSEED; an error of it is an AssertionError with its
    words.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
