"""The kinds of stages: a row each, by the `kind` that a config names."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.train.ahead import Ahead, Found
from jaxrl.train.evaluation import check_evaluation, evaluation
from jaxrl.train.rl import check_rl, rl
from jaxrl.train.rsft import check_rsft, rsft
from jaxrl.train.sft import check_sft, sft
from jaxrl.train.stage import Run


class StageKind(NamedTuple):
    """check: looks ahead, see `preflight.py`. run: (run, stage, its place in the config, the weights that the
    stage before left) -> the weights that it leaves.
    """

    check: Callable[[Ahead, Any], Found]
    run: Callable[[Run, Any, int, PolicyWeights], PolicyWeights]


STAGE_KINDS = {
    "sft": StageKind(check_sft, sft),
    "rsft": StageKind(check_rsft, rsft),
    "grpo": StageKind(check_rl, rl),
    "ppo": StageKind(check_rl, rl),
    "eval": StageKind(check_evaluation, evaluation),
}
