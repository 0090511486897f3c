"""Alarms: numbers that say that a run is broken, in sentences that say what to do. The one place with
thresholds: what is told on the console, kept in `events.jsonl` and counted in the report is found here.

Pure functions on numbers. Silence is no proof of health.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxrl.files.jsonl import short
from jaxrl.track.evaluations import Row
from jaxrl.track.format import compact, percent
from jaxrl.types import MAX_WEIGHT, StopReason

FLAT_ENTROPY = 0.005  # nats per token
LARGE_MISMATCH = 0.2  # nats, at the 99th percentile: a ratio of 1.2, where PPO begins to clip
MOSTLY = 0.9  # of the groups, of the completions
FEW_GROUPS = 1 / 4  # with unlike rewards for one without: a fifth of those sampled


@dataclass(frozen=True)
class Alarm:
    """kind: told once in a stage. numbers: by which the alarm was found."""

    kind: str
    sentence: str
    numbers: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """An alarm of a step.

    metrics: the numbers that it looks at, NaN where the step does not have one; a step without the first of
      them is not asked.
    """

    kind: str
    metrics: tuple[str, ...]
    is_broken: Callable[..., bool]
    sentence: Callable[..., str]


RULES = (
    Rule(
        "equal rewards",
        ("reward/std", "reward/not_finite", "reward/mean"),
        lambda std, not_finite, _: std == 0 and not_finite == 0,
        lambda _, __, mean: (
            f"all rewards are {mean:g}: nothing can be learnt from this batch; check the verifier, the prompt"
            " and the temperature"
        ),
    ),
    Rule(
        "flat groups",
        ("reward/flat_groups", "reward/std"),
        lambda flat, std: flat > MOSTLY and std != 0,
        lambda flat, _: (
            f"{flat:.0%} of the groups have equal rewards and teach nothing; set algo.dynamic_sampling or"
            " algo.curriculum, or choose problems that are neither solved nor hopeless"
        ),
    ),
    Rule(
        "entropy",
        ("entropy",),
        lambda entropy: entropy < FLAT_ENTROPY,
        lambda entropy: (
            f"the entropy is {entropy:.4f} nats per token: the policy says the same every time; raise"
            " algo.clip_high, algo.entropy_coef or algo.kl_coef, or lower optim.learning_rate, unless the"
            " task is solved"
        ),
    ),
    Rule(
        "mismatch",
        ("sampler_mismatch/p99",),
        lambda mismatch: mismatch > LARGE_MISMATCH,
        lambda mismatch: (
            f"sampler and trainer differ by {mismatch:.2f} nats at the 99th percentile: the ratio is not what"
            " it seems; set algo.sampler_correction, or hold the weights in float32"
        ),
    ),
    Rule(
        "truncated",
        ("sample/truncated",),
        lambda truncated: truncated > MOSTLY,
        lambda truncated: (
            f"{truncated:.0%} of the completions ran into max_new_tokens; raise it, or teach the model to"
            " stop first"
        ),
    ),
    Rule(
        "not finite",
        ("reward/not_finite",),
        lambda not_finite: not_finite > 0,
        lambda not_finite: (
            f"{not_finite:.0f} rewards are not finite numbers; these samples are left out of the update; mend"
            " the verifier"
        ),
    ),
    Rule(
        "verifier errors",
        ("verify/errors", "verify/timeouts", "verify/crashes", "verify/exceptions", "verify/sandbox"),
        lambda errors, *_: errors > 0,
        lambda errors, *_: (
            f"{errors:.0f} samples have no verdict, which is not the same as a wrong answer; samples.jsonl"
            " says why (`error`), and verify/timeouts, crashes, exceptions and sandbox how often"
        ),
    ),
    Rule(
        "skipped",
        ("skipped",),
        lambda skipped: skipped > 0,
        lambda skipped: (
            f"{skipped:.0f} updates changed nothing, because a loss, a gradient or a result was not finite or"
            f" a weight beyond {MAX_WEIGHT:,.0f}; lower optim.learning_rate"
        ),
    ),
    Rule(
        "loss",
        ("loss", "skipped"),
        lambda loss, skipped: not math.isfinite(loss) and not skipped > 0,
        lambda *_: "the loss is not a finite number; lower optim.learning_rate or check the data",
    ),
    Rule(
        "few groups",
        ("groups/used", "groups/dropped"),
        lambda used, dropped: used < FEW_GROUPS * dropped,
        lambda used, dropped: (
            f"only {used:.0f} of {used + dropped:.0f} groups had rewards that differ, so the update is small;"
            " raise algo.dynamic_sampling, or choose problems that are neither solved nor hopeless"
        ),
    ),
)


def in_step(metrics: Mapping[str, Any]) -> list[Alarm]:
    """What is wrong with a step of any stage, by its metrics as they are measured or as a row of
    `metrics.jsonl` has them, where null stands for what is not finite.
    """
    alarms = []
    for rule in RULES:
        if rule.metrics[0] in metrics:
            numbers = [_number(metrics.get(name)) for name in rule.metrics]
            if rule.is_broken(*numbers):
                kept = {name: x for name, x in zip(rule.metrics, numbers) if name in metrics}
                alarms.append(Alarm(rule.kind, rule.sentence(*numbers), kept))
    return alarms


def in_answers(samples: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """What is wrong with the completions of an evaluation: rows as `sample_row` makes them.

    All right is no alarm, and one completion says nothing.
    """
    if len(samples) < 2:
        return []
    cut = sum(sample["stop_reason"] == StopReason.MAX_TOKENS for sample in samples) / len(samples)
    alarms = in_step({"sample/truncated": cut})
    errors = [sample["error"] for sample in samples if sample.get("error")]
    if errors:
        return [
            *alarms,
            Alarm(
                "verifier errors",
                f"{len(errors)} of {len(samples)} completions have no verdict, which is not the same as a "
                f"wrong answer, for example {short(errors[0])}; mend the verifier",
                {"verify/errors": len(errors)},
            ),
        ]
    rewards = {sample["reward"] for sample in samples}
    if len(rewards) == 1 and not all(sample["correct"] for sample in samples):
        (reward,) = rewards
        sentence = f"all {len(samples)} completions got the same reward, {compact(reward)}"
        alarms.append(
            Alarm("equal rewards", f"{sentence}; check the verifier and the prompt", {"reward/mean": reward})
        )
    return alarms


def in_evaluation(row: Row, first: Row) -> list[Alarm]:
    """Whether a policy answers worse than the first one that was evaluated did."""
    if row.accuracy >= first.accuracy:
        return []
    sure = (
        "beyond chance (its 95% interval lies below)"
        if row.ci95[1] < first.accuracy
        else "though within the 95% interval"
    )
    numbers = f"{percent(row.accuracy)} against {percent(first.accuracy)}"
    return [
        Alarm(
            "worse",
            f"{row.name} answers worse than {first.name}: {numbers}, {sure}",
            {"accuracy": row.accuracy, "accuracy_first": first.accuracy},
        )
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
