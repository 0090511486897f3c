"""One evaluation: the policy as it stands, on a split of a task, one completion per problem."""

import random
from collections.abc import Sequence

from jax import Array

from jaxrl.config.experiment import EvalStage
from jaxrl.envs.pool import EnvironmentPool
from jaxrl.rollout.collect import collect
from jaxrl.sample.engine import Engine
from jaxrl.tasks.base import Task
from jaxrl.track.evaluations import Row, row_from_verdicts
from jaxrl.types import Problem, Trajectory, Tree
from jaxrl.verify.pool import VerifierPool


def choose_problems(task: Task, stage: EvalStage) -> list[Problem]:
    """The problems of the stage's split, the first `limit` of them."""
    return task.problems(stage.split)[: stage.limit]


def evaluate(
    engine: Engine,
    pool: VerifierPool | EnvironmentPool,
    tokenizer,
    problems: Sequence[Problem],
    trainable: Tree,
    frozen: Tree,
    key: Array,
    name: str,
) -> tuple[Row, list[Trajectory]]:
    """A row of the table, and the trajectories behind it."""
    groups = collect(engine, pool, tokenizer, problems, 1, trainable, frozen, key, policy_version=0)
    trajectories = [group.trajectories[0] for group in groups]
    return row_from_verdicts(name, [t.verdict for t in trajectories]), trajectories


def baseline_rows(task: Task, pool: VerifierPool, problems: Sequence[Problem], seed: int) -> list[Row]:
    """A row for each of the task's baselines: what completions that know nothing get on these problems."""
    rows = []
    for name, baseline in task.baselines().items():
        rng = random.Random(f"{name}/{seed}")
        rows.append(
            row_from_verdicts(
                name, list(pool.stream((problem, baseline(problem, rng)) for problem in problems))
            )
        )
    return rows
