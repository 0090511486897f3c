"""Groups of trajectories made by hand, for tests."""

import dataclasses

from jaxrl.types import Completion, Group, Problem, StopReason, Trajectory, Verdict


def trajectory(
    reward=0.0,
    uid="p",
    prompt=(1, 2),
    said=(3, 4, 5),
    cut=False,
    logprob=-1.0,
    parts=None,
    correct=None,
    error=None,
):
    reason = StopReason.MAX_TOKENS if cut else StopReason.EOS
    completion = Completion(list(prompt), list(said), [logprob] * len(said), reason)
    correct = reward > 0 if correct is None else correct
    return Trajectory.one_turn(
        Problem(uid, (), {}), completion, Verdict(reward, correct, True, parts or {}, error=error), 0
    )


def with_completion(trajectory, **changes):
    """The episode of one turn, with its completion changed."""
    completion = dataclasses.replace(trajectory.rows[0], **changes)
    return Trajectory.one_turn(trajectory.problem, completion, trajectory.verdict, trajectory.policy_version)


def group(*trajectories):
    return Group(trajectories[0].problem, tuple(trajectories))


def group_of(*rewards, **settings):
    return group(*(trajectory(reward, **settings) for reward in rewards))
