"""Problems in, verified groups out: sampling on the device and verification on the host, side by side. A
task's completions are verified; the episodes of a world are played (`episodes.py`).
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial

from jax import Array

from jaxrl.config.shared import VerifySection
from jaxrl.data.chat import render_for_sampling
from jaxrl.device.processes import gather, num_processes, own_share
from jaxrl.envs.asked import WorldTask
from jaxrl.envs.pool import EnvironmentPool
from jaxrl.errors import InputError
from jaxrl.rollout.episodes import Limits, play
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.tasks.base import Task
from jaxrl.types import Group, Problem, Trajectory, Tree, Verdict
from jaxrl.verify.pool import VerifierPool


def open_pool(task: Task, section: VerifySection) -> VerifierPool | EnvironmentPool:
    """The pool that verifies a task's completions, or has a world's episodes, as a config's `verify` section
    has it.

    Raises:
      InputError: as the pools; a world in a run of several processes.
    """
    if not isinstance(task, WorldTask):
        return open_verifiers(task, section)
    if (count := num_processes()) > 1:
        raise InputError(
            f"episodes of a world are played by one process, and this run has {count}; start it"
            " as one process"
        )
    return EnvironmentPool(
        task.world,
        section.workers,
        section.timeout_s,
        batch_timeout_s=section.batch_timeout_s,
        recycle_after=section.recycle_after,
        max_error_share=section.max_error_share,
        pass_env=section.pass_env,
    )


def open_verifiers(task: Task, section: VerifySection) -> VerifierPool:
    """The pool that verifies a task's completions; of a world, what its scripted policies do."""
    return VerifierPool(
        task.verify,
        section.workers,
        section.timeout_s,
        task.failure_reward,
        batch_timeout_s=section.batch_timeout_s,
        recycle_after=section.recycle_after,
        max_error_share=section.max_error_share,
        pass_env=section.pass_env,
    )


def verifiers_of(
    task: Task, pool: VerifierPool | EnvironmentPool, section: VerifySection
) -> AbstractContextManager[VerifierPool]:
    """The verifiers of a task whose pool is open: the same, or, beside a world's pool, new ones."""
    return nullcontext(pool) if isinstance(pool, VerifierPool) else open_verifiers(task, section)


def collect(
    engine: Engine,
    pool: VerifierPool | EnvironmentPool,
    tokenizer,
    problems: Sequence[Problem],
    group_size: int,
    trainable: Tree,
    frozen: Tree,
    key: Array,
    policy_version: int,
    context: int | None = None,
    rows: int | None = None,
) -> list[Group]:
    """Sample group_size completions of every problem and verify each as soon as its row has ended; or, with
    the pool of a world, play as many episodes.

    Args:
      key: the noise of this call; a completion depends on (key, problem uid, index) alone.
      policy_version: updates done by the weights given, kept with each trajectory.
      context, rows: most tokens of a row of an episode, most rows of an episode; None: what the sampler
        takes, and any number.
    Returns:
      One group per problem, in the order of the problems.
    Raises:
      InputError: too many of the last batches' samples are errors of the verifier.
    """
    if isinstance(pool, EnvironmentPool):
        limits = Limits(context or engine.policy.config.max_positions, rows=rows)
        return play(
            engine, pool, tokenizer, problems, group_size, trainable, frozen, key, policy_version, limits
        )
    seen: Counter[str] = Counter()
    requests = []
    for problem in problems:
        uid, prompt_ids = zlib.crc32(problem.uid.encode()), render_for_sampling(tokenizer, problem.messages)
        # A problem that comes twice in a batch has other samples the second time.
        requests.append(Request(prompt_ids, uid, group_size, first_index=seen[problem.uid] * group_size))
        seen[problem.uid] += 1
    places = [(p, i) for p in range(len(problems)) for i in range(group_size)]
    own = [places[n] for n in own_share(len(places))]  # of several processes, each verifies its part
    completions, tickets = {}, dict.fromkeys(own, 0)
    for sampled in engine.run(trainable, frozen, requests, key):
        place = (sampled.request, sampled.index)
        completions[place] = sampled.completion
        if place in tickets:
            tickets[place] = pool.submit(problems[sampled.request], sampled.completion.text)
        pool.poll()  # workers get their next text while the device decodes
    exchange = partial(_of_all, f"verdicts after update {policy_version}", len(places), pool.batch_timeout_s)
    verdicts = dict(zip(places, pool.gather(tickets.values(), exchange)))

    def group(p: int, problem: Problem) -> Group:
        places = [(p, i) for i in range(group_size)]
        return Group(
            problem,
            tuple(
                Trajectory.one_turn(problem, completions[at], verdicts[at], policy_version) for at in places
            ),
        )

    return [group(p, problem) for p, problem in enumerate(problems)]


def _of_all(what: str, count: int, extra_s: float, own: list[Verdict]) -> list[Verdict]:
    """The verdicts of all processes, in the order of what was verified, on each of them."""
    if num_processes() == 1:
        return own
    parts = gather(what, [asdict(verdict) for verdict in own], extra_s)
    verdicts: list[Verdict | None] = [None] * count
    for n, part in enumerate(parts):
        verdicts[n :: len(parts)] = [Verdict(**values) for values in part]
    return verdicts
