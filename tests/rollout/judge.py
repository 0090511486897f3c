"""A verify function for the tests of `collect`: it says what it was given, after a time that mixes up the
order.
"""

import time
import zlib

from jaxrl.types import Verdict


def verify(problem, text):
    number = zlib.crc32(f"{problem.uid}/{text}".encode())
    time.sleep(0.01 * (number % 3))
    if number % 5 == 0:
        raise ValueError("a fifth of all texts cannot be judged")
    return Verdict(
        reward=float(number % 97), correct=number % 2 == 0, format_ok=True, detail=f"{problem.uid}/{text}"
    )
