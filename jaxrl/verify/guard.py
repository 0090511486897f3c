"""When a run gives up on its verifier: errors of the last batches, counted."""

from collections import Counter, deque
from collections.abc import Sequence

from jaxrl.errors import InputError
from jaxrl.types import Verdict

BATCHES = 5
MIN_SAMPLES = 64  # fewer say too little, be they all errors


class ErrorGuard:
    """Watches the share of samples without a verdict: timeouts, crashes, exceptions, a sandbox that fails.

    A wrong answer is a verdict, and a policy that learns from failure rewards learns to please a broken
    verifier.

    Args:
      max_share: of the samples of the last BATCHES batches; 1 never gives up.
    """

    def __init__(self, max_share: float):
        self.max_share = max_share
        self._batches: deque[tuple[int, Counter[str]]] = deque(maxlen=BATCHES)

    def check(self, verdicts: Sequence[Verdict]) -> None:
        """Take in a batch. InputError if too many of the last samples (MIN_SAMPLES or more) are errors."""
        self._batches.append((len(verdicts), Counter(v.error for v in verdicts if v.error is not None)))
        samples = sum(count for count, _ in self._batches)
        errors = sum((errors for _, errors in self._batches), Counter())
        share = errors.total() / max(1, samples)
        if samples >= MIN_SAMPLES and share > self.max_share:
            (often, times), *_ = errors.most_common(1)
            raise InputError(
                f"{share:.0%} of the last {samples} samples have no verdict, and verify.max_error_share is "
                f"{self.max_share:g}; {times} of {errors.total()} say {often[:300]!r}; mend the verifier, "
                "give it more time or workers (verify.timeout_s, verify.batch_timeout_s, verify.workers), "
                "or raise verify.max_error_share"
            )
