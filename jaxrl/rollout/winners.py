"""Rejection sampling: which completions are good enough to be imitated, and what became of the others."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.disk import writing
from jaxrl.files.journal import read_journal, write_journal
from jaxrl.track.logger import sample_row
from jaxrl.types import Group, Trajectory


@dataclass(frozen=True)
class Winner:
    """A row of an episode to be imitated, by its exact ids.

    sample: the episode's row of samples.jsonl, with its first row; None with those that follow.
    emitted: which of completion_ids the policy emitted (`Completion`).
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    sample: dict[str, Any] | None
    emitted: list[bool] | None = None

    @property
    def example(self) -> tuple[list[int], list[bool]]:
        """(ids, loss_mask) as `pack` takes them: the loss is on what was sampled, the EOS included."""
        emitted = [True] * len(self.completion_ids) if self.emitted is None else self.emitted
        return self.prompt_ids + self.completion_ids, [False] * len(self.prompt_ids) + emitted


@dataclass(frozen=True)
class WinnerStatistics:
    """What became of the completions of an iteration.

        sampled = truncated + errors + non_finite + rejected + duplicates + surplus + winners

    Each is counted once, under the first that applies.
    """

    asked: int  # problems
    solved: int  # problems with a winner
    sampled: int  # completions
    correct: int  # of all sampled
    truncated: int  # cut off by max_new_tokens
    errors: int  # without a verdict
    non_finite: int  # with a reward that is not a finite number
    rejected: int  # not good enough
    duplicates: int  # good enough, and the same ids as a better or earlier one of their problem
    surplus: int  # good enough, and not among the keep_top of their problem
    winners: int
    reward_sampled: float | None  # mean of the finite rewards; None without any
    reward_kept: float | None
    length_kept: float | None  # mean number of tokens


def choose_winners(
    groups: Sequence[Group], keep_top: int, min_reward: float | None
) -> tuple[list[Trajectory], WinnerStatistics]:
    """The best completions of every problem.

    A winner is correct or, where min_reward is given, has a reward above it. Never one that was cut off (it
    would teach not to end), that has no verdict, or whose reward is not finite. Those of a problem are
    ordered by reward, then the correct ones first, then by number of tokens, the shorter first, then in the
    order sampled.

    Args:
      groups: the verified completions, problem by problem.
      keep_top: winners kept of a problem, at most.
    Returns:
      (the winners in the order of the problems, each problem's best first; what became of all completions).
    """
    fates: Counter[str] = Counter()
    winners: list[Trajectory] = []
    solved = 0
    for group in groups:
        flaws = [_flaw(trajectory, min_reward) for trajectory in group.trajectories]
        # a stable sort
        ordered = sorted((t for t, flaw in zip(group.trajectories, flaws) if flaw is None), key=_rank)
        distinct: dict[tuple[int, ...], Trajectory] = {}
        for trajectory in ordered:
            distinct.setdefault(tuple(trajectory.completion_ids), trajectory)
        kept = list(distinct.values())[:keep_top]
        fates.update(flaw for flaw in flaws if flaw is not None)
        fates["duplicates"] += len(ordered) - len(distinct)
        fates["surplus"] += len(distinct) - len(kept)
        solved += bool(kept)
        winners += kept
    sampled = [trajectory for group in groups for trajectory in group.trajectories]
    statistics = WinnerStatistics(
        asked=len(groups),
        solved=solved,
        sampled=len(sampled),
        correct=sum(t.verdict.correct for t in sampled),
        **{
            fate: fates[fate]
            for fate in ("truncated", "errors", "non_finite", "rejected", "duplicates", "surplus")
        },
        winners=len(winners),
        reward_sampled=_mean(t.verdict.reward for t in sampled if math.isfinite(t.verdict.reward)),
        reward_kept=_mean(t.verdict.reward for t in winners),
        length_kept=_mean(t.num_tokens for t in winners),
    )
    return winners, statistics


def save_winners(path: Path, winners: Sequence[Trajectory], statistics: WinnerStatistics) -> None:
    """Write a JSONL, whole or not at all: the statistics, then a line for each row of each winner."""
    rows = [
        Winner(row.prompt_ids, row.completion_ids, sample_row(t) if i == 0 else None, row.emitted)
        for t in winners
        for i, row in enumerate(t.rows)
    ]
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_journal(path, map(asdict, (statistics, *rows)))


def load_winners(path: Path) -> tuple[list[Winner], WinnerStatistics]:
    """What `save_winners` has written.

    Raises:
      InputError: another file, or a broken one.
    """
    try:
        first, *rows = read_journal(path)
        winners, statistics = [Winner(**row) for row in rows], WinnerStatistics(**first)
        found = sum(winner.sample is not None for winner in winners)
        if found != statistics.winners:
            raise ValueError(f"it holds {found} winners and speaks of {statistics.winners}")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a file of winners: {error}; restore it, or delete the stage's folders in "
            "checkpoints"
        ) from None
    return winners, statistics


def _flaw(trajectory: Trajectory, min_reward: float | None) -> str | None:
    """Why a completion cannot win; None if it can."""
    verdict = trajectory.verdict
    if trajectory.is_cut:
        return "truncated"
    if verdict.error is not None:
        return "errors"
    if not math.isfinite(verdict.reward):
        return "non_finite"
    is_good = verdict.correct or (min_reward is not None and verdict.reward > min_reward)
    return None if is_good else "rejected"


def _rank(trajectory: Trajectory) -> tuple[float, bool, int]:
    verdict = trajectory.verdict
    return -verdict.reward, not verdict.correct, trajectory.num_tokens


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None
