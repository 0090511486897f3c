"""The replay buffer: the best verified completions of each problem, to be learned from again. Host only."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from jaxrl.errors import InputError
from jaxrl.rollout.curriculum import FLOOR, SuccessRates, sample_weighted
from jaxrl.types import Group, Trajectory


@dataclass(frozen=True)
class Entry:
    """A completion worth learning from again, with what was known when it was sampled. Plain JSON values.

    `sampler_logprobs` (one per completion id) and `advantage` are those of the policy of `policy_version`; so
    is `excluded`, what the sampler's filter left out at each completion id (None: there was no filter).
    `emitted`: which of completion_ids the policy emitted, where an episode had several turns (None: all).
    """

    uid: str
    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]
    reward: float
    correct: bool
    advantage: float
    policy_version: int
    excluded: list[str] | None = None
    emitted: list[bool] | None = None


class ReplayBuffer:
    """At most `per_problem` completions of a problem and `capacity` in all.

    Of a problem the best stay: by higher reward, then fewer tokens, then newer. Beyond the capacity the
    easiest problems (highest success rate) make room first, for what the policy can do it need not be shown;
    among equals the oldest.

    Args:
      per_problem, capacity: at least 1.
      needs_advantage: leave out completions whose advantage is 0, those of groups without spread: where the
        advantage is what is learnt from, they teach nothing, and a newer copy of a problem now solved would
        displace one that does.
      entries: what `state` returned. Bounds that have become smaller since hold at once, all problems equally
        easy.
    Raises:
      InputError: entries that `state` did not write.
    """

    def __init__(
        self,
        per_problem: int,
        capacity: int,
        entries: Iterable[Mapping[str, Any]] = (),
        needs_advantage: bool = False,
    ):
        self._per_problem, self._capacity, self._needs_advantage = per_problem, capacity, needs_advantage
        # sorted by _identity: draws depend on what is held, not on how it came
        self._entries: list[Entry] = []
        self._take([_read(i, values) for i, values in enumerate(entries)], SuccessRates())

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, groups: Sequence[Group], advantages: Sequence[Sequence[float]], rates: SuccessRates) -> int:
        """Offer the completions of verified groups.

        Those enter that are correct, with a finite reward and no error of the verifier, that ended by
        themselves, and whose turns are one row. Said before, one replaces its copy only if it is newer:
        fresher sampler_logprobs are closer to the policy.

        Args:
          advantages: one per trajectory, [P][G]. rates: by them the easiest make room.
        Returns:
          how many completions are held now that were not before.
        """
        offers = [
            _entry(trajectory, float(advantage))
            for group, advantages_G in zip(groups, advantages, strict=True)
            for trajectory, advantage in zip(group.trajectories, advantages_G, strict=True)
            if _is_worth_keeping(trajectory) and (advantage != 0 or not self._needs_advantage)
        ]
        return self._take(offers, rates)

    def draw(self, count: int, rates: SuccessRates, seed: Sequence[int]) -> list[Entry]:
        """Up to `count` distinct entries, fewer where fewer are held; hard problems first.

            weight = 1 - rate + FLOOR, without replacement

        The draw depends on what is held, the rates and the seed (not negative, for example (seed, step))
        alone.
        """
        weights = np.array([1 - rates.rate(entry.uid) + FLOOR for entry in self._entries])
        return [self._entries[i] for i in sample_weighted(weights, count, np.random.default_rng(seed))]

    def state(self) -> list[dict[str, Any]]:
        """Plain JSON, from which the constructor makes an equal buffer."""
        return [dict(vars(entry)) for entry in self._entries]

    def _take(self, offers: Iterable[Entry], rates: SuccessRates) -> int:
        before = {_identity(entry): entry for entry in self._entries}
        held = dict(before)
        for entry in offers:
            if entry.policy_version > held.setdefault(_identity(entry), entry).policy_version:
                held[_identity(entry)] = entry
        by_problem = defaultdict(list)
        for entry in held.values():
            by_problem[entry.uid].append(entry)
        best = [
            entry
            for entries in by_problem.values()
            for entry in sorted(entries, key=_rank)[: self._per_problem]
        ]
        best.sort(key=lambda entry: (rates.rate(entry.uid), -entry.policy_version, _identity(entry)))
        self._entries = sorted(best[: self._capacity], key=_identity)
        return sum(_identity(entry) not in before for entry in self._entries)


def _identity(entry: Entry) -> tuple:
    return entry.uid, tuple(entry.completion_ids)


def _rank(entry: Entry) -> tuple:
    return -entry.reward, len(entry.completion_ids), -entry.policy_version, entry.completion_ids


def _is_worth_keeping(trajectory: Trajectory) -> bool:
    verdict, is_whole = trajectory.verdict, len(trajectory.rows) == 1 and not trajectory.is_cut
    return verdict.correct and verdict.error is None and math.isfinite(verdict.reward) and is_whole


def _entry(trajectory: Trajectory, advantage: float) -> Entry:
    (row,), reward = trajectory.rows, float(trajectory.verdict.reward)
    sampled = row.prompt_ids, row.completion_ids, row.sampler_logprobs
    return Entry(
        trajectory.problem.uid,
        *sampled,
        reward,
        True,
        advantage,
        trajectory.policy_version,
        row.excluded,
        row.emitted,
    )


def _read(index: int, values: Mapping[str, Any]) -> Entry:
    names = {field.name for field in fields(Entry)}
    needed = {field.name for field in fields(Entry) if field.default is MISSING}
    found = set(values) if isinstance(values, Mapping) else {type(values).__name__}
    if not needed <= found <= names:
        raise InputError(
            f"entry {index} of a saved replay buffer has {sorted(found)} where {sorted(needed)} belong; "
            "resume with the version of jaxrl that saved it, or begin the stage anew"
        )
    return Entry(**values)
