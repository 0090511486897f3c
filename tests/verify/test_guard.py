"""Giving up on a verifier: by the share of missing verdicts over the last batches, never for wrong
answers.
"""

import math

import pytest

from jaxrl.errors import InputError
from jaxrl.types import Verdict
from jaxrl.verify.guard import BATCHES, MIN_SAMPLES, ErrorGuard

RIGHT, WRONG = Verdict(1.0, True, True), Verdict(0.0, False, False)
TIMEOUT, SANDBOX = (
    Verdict(0.0, False, False, error="timeout"),
    Verdict(math.nan, False, False, error="sandbox: no memory"),
)


def test_wrong_answers_are_no_errors():
    guard = ErrorGuard(0.0)
    for _ in range(20):
        guard.check([WRONG] * 100 + [RIGHT])


def test_the_share_must_be_passed_not_reached():
    ErrorGuard(0.5).check([TIMEOUT, RIGHT] * 50)
    with pytest.raises(
        InputError, match="50% of the last 101 samples have no verdict, and verify.max_error_share is 0.5"
    ):
        ErrorGuard(0.5).check([TIMEOUT, RIGHT] * 50 + [TIMEOUT])


def test_a_few_samples_say_nothing_but_they_add_up():
    guard = ErrorGuard(0.5)
    for _ in range(3):
        guard.check([TIMEOUT] * (MIN_SAMPLES // 4))
    with pytest.raises(InputError, match="100% of the last 64"):
        guard.check([SANDBOX] * (MIN_SAMPLES // 4))


def test_batches_of_long_ago_are_forgotten():
    guard = ErrorGuard(0.5)
    guard.check([TIMEOUT] * 60)
    for _ in range(BATCHES - 1):
        guard.check([RIGHT] * 60)
    with pytest.raises(InputError, match=f"of the last {60 * BATCHES}"):
        for _ in range(BATCHES):  # 60 of 300, then the first 60 leave as more come
            guard.check([SANDBOX] * 60)
    guard = ErrorGuard(0.2)
    for verdict in [TIMEOUT] + [RIGHT] * BATCHES + [TIMEOUT] + [RIGHT] * BATCHES:
        guard.check([verdict] * 12)  # never more than 12 of 60


def test_the_message_names_the_most_frequent_error_and_one_is_a_share_that_nothing_passes():
    with pytest.raises(InputError, match="40 of 70 say 'sandbox: no memory'"):
        ErrorGuard(0.5).check([TIMEOUT] * 30 + [SANDBOX] * 40)
    ErrorGuard(1.0).check([TIMEOUT] * 100)
    ErrorGuard(0.5).check([])
