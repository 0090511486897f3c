"""Alarms: sentences about a step whose numbers say that the run is broken. Silence is no proof of health."""

from collections.abc import Mapping

from jaxrl.update.state import MAX_WEIGHT

FLAT_ENTROPY = 0.005  # nats per token
LARGE_MISMATCH = 0.2  # nats, at the 99th percentile: a ratio of 1.2, where PPO begins to clip
MOSTLY = 0.9


def find_alarms(metrics: Mapping[str, float]) -> dict[str, str]:
    """What is wrong with a step of reinforcement learning: a sentence, with what to do, by the kind of
    alarm.
    """
    alarms = {}

    def sound(kind: str, is_broken: bool, sentence: str) -> None:
        if is_broken:
            alarms[kind] = sentence

    reward, entropy = metrics["reward/mean"], metrics.get("entropy")
    sound(
        "equal rewards",
        metrics["reward/std"] == 0 and metrics["reward/not_finite"] == 0,
        f"all rewards are {reward:g}: nothing can be learnt from this batch; check the verifier, the prompt"
        " and the temperature",
    )
    sound(
        "flat groups",
        metrics["reward/std"] > 0 and metrics["reward/flat_groups"] > MOSTLY,
        f"{metrics['reward/flat_groups']:.0%} of the groups have equal rewards and teach nothing; set"
        " algo.dynamic_sampling or algo.curriculum, or choose problems that are neither solved nor hopeless",
    )
    sound(
        "entropy",
        entropy is not None and entropy < FLAT_ENTROPY,
        f"the entropy is {entropy or 0:.4f} nats per token: the policy says the same every time; raise"
        " algo.clip_high, algo.entropy_coef or algo.kl_coef, or lower optim.learning_rate, unless the task"
        " is solved",
    )
    mismatch = metrics.get("sampler_mismatch/p99", 0.0)
    sound(
        "mismatch",
        mismatch > LARGE_MISMATCH,
        f"sampler and trainer differ by {mismatch:.2f} nats at the 99th percentile: the ratio is not what it"
        " seems; set algo.sampler_correction, or hold the weights in float32",
    )
    sound(
        "truncated",
        metrics["sample/truncated"] > MOSTLY,
        f"{metrics['sample/truncated']:.0%} of the completions ran into max_new_tokens; raise it, or teach"
        " the model to stop first",
    )
    sound(
        "not finite",
        metrics["reward/not_finite"] > 0,
        f"{metrics['reward/not_finite']:.0f} rewards are not finite numbers; these samples are left out of"
        " the update; mend the verifier",
    )
    errors = metrics.get("verify/errors", 0)
    sound(
        "verifier errors",
        errors > 0,
        f"{errors:.0f} samples have no verdict, which is not the same as a wrong answer; samples.jsonl says"
        " why (`error`), and verify/timeouts, crashes, exceptions and sandbox how often",
    )
    sound(
        "skipped",
        metrics.get("skipped", 0) > 0,
        f"{metrics.get('skipped', 0):.0f} updates changed nothing, because a loss, a gradient or a result was"
        f" not finite or a weight beyond {MAX_WEIGHT:,.0f}; lower optim.learning_rate",
    )
    used, dropped = metrics["groups/used"], metrics["groups/dropped"]
    sound(
        "few groups",
        used < dropped / 4,
        f"only {used:.0f} of {used + dropped:.0f} groups had rewards that differ, so the update is small;"
        " raise algo.dynamic_sampling, or choose problems that are neither solved nor hopeless",
    )
    return alarms
