"""The one exception for what a user can put right; defects of ours stay ordinary exceptions."""


class InputError(ValueError):
    """Bad input from outside: a config, a file, a flag. The command line prints its text alone; exit code 2.

    The text names the value, the reason and the remedy, in that order:
    ``batch of 30 rows cannot be split over 4 data shards; set problems_per_batch * group_size to a multiple
    of 4``.
    """


PROCESS_LOST = 75  # exit code: EX_TEMPFAIL of sysexits.h, "start it again"


class TryAgain(InputError):
    """What is not the input's fault and will pass: a network that is away, a port that is still held. Exit
    code PROCESS_LOST.
    """


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or does not answer: this one cannot go on without it. Nothing is
    wrong with the input; started again, the run goes on from its last checkpoint. Exit code PROCESS_LOST.
    """


def exit_code(error: BaseException) -> int:
    """Of an error that ends a command: 2 where the same again would fail the same way."""
    return PROCESS_LOST if isinstance(error, (ProcessLost, TryAgain)) else 2
