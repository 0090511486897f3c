"""Dynamic sampling: groups with equal rewards teach nothing; they are dropped, and others sampled."""

from collections.abc import Callable

from jaxrl.types import Group


def gather(
    sample: Callable[[int], list[Group]], spreads: Callable[[Group], bool], count: int, rounds: int
) -> tuple[list[Group], list[Group]]:
    """Sample until `count` groups have spread, at most `rounds` times; each round asks for what is missing.

    Args:
      sample: how many groups -> so many, of the next problems.
      spreads: whether a group is worth an update.
    Returns:
      the groups kept, at most `count` (fewer when the rounds are spent), and all that were sampled.
    Source: Yu et al. 2025 (DAPO), section 3.2.
    """
    kept: list[Group] = []
    sampled: list[Group] = []
    for _ in range(rounds):
        fresh = sample(count - len(kept))
        sampled += fresh
        kept += [group for group in fresh if spreads(group)]
        if len(kept) == count:
            break
    return kept, sampled
