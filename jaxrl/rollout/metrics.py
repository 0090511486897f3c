"""What the verifier and the sampler say of a batch of experience, in numbers."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxrl.types import Group, StopReason, Trajectory


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means, spreads and quantiles of all that was sampled; rewards not finite are left out and counted.

    `verify/errors` counts the samples without a verdict, whatever reward they were given; most of them are of
    the four kinds that follow. Shares are of the samples whose reward is finite: what a sandbox failed to
    judge is not wrong.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    judged = [t.verdict for t in trajectories if math.isfinite(t.verdict.reward)]
    errors = Counter(t.verdict.error.split(":")[0] for t in trajectories if t.verdict.error is not None)
    rewards_P_G = np.array([[t.verdict.reward for t in group.trajectories] for group in groups], np.float64)
    finite = rewards_P_G[np.isfinite(rewards_P_G)]
    lengths = np.array([t.num_tokens for t in trajectories])
    p10, p50, p90 = np.quantile(lengths, (0.1, 0.5, 0.9))
    metrics = {
        "reward/mean": _mean(finite),
        "reward/std": float(finite.std()) if len(finite) else 0.0,
        "reward/flat_groups": (
            _mean(rewards_P_G.max(axis=1) == rewards_P_G.min(axis=1)) if rewards_P_G.shape[1] > 1 else 0.0
        ),
        "reward/not_finite": float(rewards_P_G.size - finite.size),
        "verify/errors": errors.total(),
        "verify/timeouts": errors["timeout"],
        "verify/crashes": errors["crash"],
        "verify/exceptions": errors["exception"],
        "verify/sandbox": errors["sandbox"],
        "sample/accuracy": _mean([verdict.correct for verdict in judged]),
        "sample/format_rate": _mean([verdict.format_ok for verdict in judged]),
        "sample/length_mean": _mean(lengths),
        "sample/length_p10": float(p10),
        "sample/length_p50": float(p50),
        "sample/length_p90": float(p90),
        "sample/length_max": float(lengths.max()),
        "sample/truncated": _mean([t.is_cut for t in trajectories]),
    }
    for name in sorted({name for t in trajectories for name in t.verdict.parts}):
        part = np.array([t.verdict.parts[name] for t in trajectories if name in t.verdict.parts], np.float64)
        part = part[np.isfinite(part)]
        metrics |= {
            f"reward/{name}": _mean(part),
            f"reward/{name}_std": float(part.std()) if len(part) else 0.0,
        }
    return metrics | episode_metrics(trajectories)


def episode_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Of a world's episodes, how many turns and rows they had, and the shares of what ended them; nothing of
    a task's.
    """
    episodes = [t for t in trajectories if t.ended is not None]
    if not episodes:
        return {}
    turns = [len(t.turns) for t in episodes]
    shares = {
        f"episode/{reason}": _mean([t.ended is reason for t in episodes])
        for reason in (
            StopReason.ENV_DONE,
            StopReason.MAX_TURNS,
            StopReason.CONTEXT_FULL,
            StopReason.MAX_TOKENS,
            StopReason.FAILED,
        )
    }
    return {
        "episode/turns_mean": _mean(turns),
        "episode/turns_max": float(max(turns)),
        "episode/rows_mean": _mean([len(t.rows) for t in episodes]),
        **shares,
    }


def speed(sampled: Sequence[Group], collect_s: float, step_s: float) -> dict[str, float]:
    """Tokens and seconds."""
    trajectories = [t for group in sampled for t in group.trajectories]
    trained = sum(len(row.prompt_ids) + len(row.completion_ids) for t in trajectories for row in t.rows)
    return {
        "sample/tokens_per_s": sum(t.num_tokens for t in trajectories) / collect_s,
        "train/tokens_per_s": trained / step_s,
        "time/collect_s": collect_s,
    }


def _mean(values) -> float:
    return float(np.mean(values)) if len(values) else 0.0
