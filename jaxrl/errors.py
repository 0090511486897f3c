"""The one exception for what a user can put right.

Not for defects of ours: those stay ordinary exceptions with a traceback.
"""


class InputError(ValueError):
    """Bad input from outside: a config, a file, a flag.

    The command line prints its text alone and leaves with code 2.

    The text names the value, the reason and the remedy, in that order:
    ``batch of 30 rows cannot be split over 4 data shards; set problems_per_batch * group_size to a multiple
    of 4``.
    """
