"""Episodes of several turns: many at once, over one session of the sampler and one pool of worlds.

A policy's turn is sampled, its text goes to the world, and what the world answers is the end of the next
prompt, token by token what was read and said before. While worlds think, the device goes on with the rows of
other episodes; a later turn goes on from its row's cache. What an episode holds depends on the weights, its
problem and (key, uid, index) alone, not on when worlds answer: the noise of a token is that of its row and
its place there, and a row that does not go on from the one before (a template that takes back thoughts) has
noise of its own.
"""

import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jax import Array

from jaxrl.data.chat import render_for_sampling, render_next_turn, spoken
from jaxrl.envs.base import StepResult
from jaxrl.envs.pool import Answer, EnvironmentPool
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.sample.session import Session
from jaxrl.types import Completion, Group, Message, Problem, StopReason, Trajectory, Tree, Turn, Verdict

MAX_DETAIL = 2_000  # characters of the last observation that a verdict holds


@dataclass(frozen=True)
class Limits:
    """What ends an episode that its world has not ended.

    context: most tokens of a row; a turn begins where its prompt and max_new_tokens fit.
    max_turns: of the policy; None: as many as the world has for it.
    rows: most rows of an episode (None: any number); a turn that would begin another ends it.
    """

    context: int
    max_turns: int | None = None
    rows: int | None = None

    def fitting(self, engine: Engine) -> "Limits":
        """These, with no more context than the sampler takes."""
        sample = engine.sample
        most = min(sample.max_prompt_tokens + sample.max_new_tokens, engine.policy.config.max_positions)
        return replace(self, context=min(self.context, most))


@dataclass(eq=False)
class Episode:
    """One episode while it is played.

    number: the pool's. index: among the samples of the problem's uid. messages: all that was said.
    row: which of its rows it is in. ended: why it is over, None while it goes on.
    """

    problem: Problem
    number: int
    index: int
    limits: Limits
    messages: list[Message]
    completions: list[Completion] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    row: int = 0
    ended: StopReason | None = None
    error: str | None = None

    @property
    def uid(self) -> int:
        """By which its row's noise is drawn: the first one's is that of a task's completion."""
        name = self.problem.uid if self.row == 0 else f"{self.problem.uid}/{self.row}"
        return zlib.crc32(name.encode())

    def hear(self, answer: Answer, tokenizer, max_new_tokens: int) -> Request | None:
        """Take in the world's answer; returns what the next turn asks of the sampler, None at the end.

        A turn that was cut (`max_tokens`) goes to the world like any other and earns what it earns, as a
        task's completion does; then the episode ends. What the policy would have said is not known, and a
        template would put the closing token into its mouth.
        """
        said = self.completions[-1]
        if answer.result is None:
            self.error, self.ended = answer.error, StopReason.FAILED
        else:
            self.results.append(answer.result)
        if said.stop_reason is StopReason.MAX_TOKENS:
            self.ended = StopReason.MAX_TOKENS
        elif answer.result is None:
            return None
        elif answer.result.done:
            self.ended = StopReason(answer.result.stop_reason or StopReason.ENV_DONE)
        elif len(self.results) == self.limits.max_turns:
            self.ended = StopReason.MAX_TURNS
        if self.ended:
            return None
        self.messages += [
            Message(role="assistant", content=spoken(tokenizer, said.completion_ids)),
            Message(role="user", content=answer.result.observation),
        ]
        prompt_ids = render_next_turn(tokenizer, self.messages, said.prompt_ids, said.completion_ids)
        before = said.prompt_ids + said.completion_ids
        row = self.row + (prompt_ids[: len(before)] != before)
        if len(prompt_ids) + max_new_tokens > self.limits.context or row == self.limits.rows:
            self.ended = StopReason.CONTEXT_FULL
            return None
        self.row = row
        return Request(prompt_ids, self.uid, first_index=self.index, keep=True)

    def trajectory(self, failure_reward: float, policy_version: int) -> Trajectory:
        """The episode when it is over."""
        verdict = episode_verdict(self.results, self.ended, self.error, failure_reward)
        answers = [(result.reward, result.observation) for result in self.results]
        if self.error is not None:  # so that the rewards add up to the verdict's
            answers.append((failure_reward - sum(reward for reward, _ in answers), ""))
        turns = tuple(Turn(said, *answer) for said, answer in zip(self.completions, answers, strict=True))
        return Trajectory(self.problem, turns, verdict, policy_version, self.ended)


def episode_verdict(
    results: Sequence[StepResult], ended: StopReason | None, error: str | None, failure_reward: float
) -> Verdict:
    """What is said of a whole episode.

        reward = sum of the turns' rewards; the failure reward where there is an error

    It is correct where the world's metric `success` says so (more than 0, summed over turns), and in a world
    that never names it, where the world ended the episode with a reward above 0. Its format is good where no
    turn had `parse_errors`. Its parts are the other metrics, summed over turns, and `parse_errors`; its
    detail the last observation.
    """
    if error is not None:
        return Verdict(failure_reward, correct=False, format_ok=False, error=error)
    metrics: dict[str, float] = defaultdict(float)
    for result in results:
        for name, value in result.metrics.items():
            metrics[name] += value
    reward = sum(result.reward for result in results)
    success = metrics.pop("success", float(ended is StopReason.ENV_DONE and reward > 0))
    return Verdict(
        reward,
        correct=success > 0,
        format_ok=not metrics.get("parse_errors"),
        parts=dict(metrics),
        detail=results[-1].observation[:MAX_DETAIL],
    )


def play(
    engine: Engine,
    pool: EnvironmentPool,
    tokenizer,
    problems: Sequence[Problem],
    group_size: int,
    trainable: Tree,
    frozen: Tree,
    key: Array,
    policy_version: int,
    limits: Limits,
) -> list[Group]:
    """Play group_size episodes of every problem.

    Args:
      key: the noise of this call; an episode depends on (key, problem uid, index) alone.
      policy_version: updates done by the weights given, kept with each trajectory.
    Returns:
      One group per problem, in the order of the problems.
    Raises:
      InputError: too many of the last batches' episodes have failed; a template that refuses a chat.
    """
    session, limits = engine.session(trainable, frozen, key), limits.fitting(engine)
    asked: list[list[Episode]] = []  # by the number of the request
    seen: Counter[str] = Counter()
    for problem in problems:
        first = seen[problem.uid] * group_size  # a problem that comes twice has other samples the second time
        seen[problem.uid] += 1
        asked.append(
            [
                Episode(problem, pool.begin(problem), first + i, limits, list(problem.messages))
                for i in range(group_size)
            ]
        )
        prompt_ids = render_for_sampling(tokenizer, problem.messages)
        uid, keep = asked[-1][0].uid, limits.max_turns != 1
        session.add(Request(prompt_ids, uid, group_size, first_index=first, keep=keep))
    groups = list(asked)
    _play_to_the_end(session, pool, tokenizer, asked)

    def group(problem: Problem, episodes: list[Episode]) -> Group:
        return Group(problem, tuple(e.trajectory(pool.failure_reward, policy_version) for e in episodes))

    played = [group(problem, episodes) for problem, episodes in zip(problems, groups, strict=True)]
    pool.check([t.verdict for group in played for t in group.trajectories])
    return played


def _play_to_the_end(session: Session, pool: EnvironmentPool, tokenizer, asked: list[list[Episode]]) -> None:
    """Sample and step until every episode has ended. `asked` grows with the requests."""
    playing = {episode.number: episode for episodes in asked for episode in episodes}

    def hear(answers: list[Answer]) -> None:
        for answer in answers:
            episode = playing[answer.episode]
            identity = episode.uid, episode.index
            request = episode.hear(answer, tokenizer, session.engine.sample.max_new_tokens)
            if request is None or (request.uid, episode.index) != identity:
                session.drop(*identity)
            if request is None:
                pool.end(episode.number)
                del playing[episode.number]
            else:
                session.add(request)
                asked.append([episode])

    while playing:
        for sampled in session.run(between=lambda: hear(pool.poll())):
            episode = asked[sampled.request][sampled.index]
            episode.completions.append(sampled.completion)
            pool.step(episode.number, sampled.completion.text)
        answers = pool.wait(time.monotonic() + pool.batch_timeout_s)
        if not answers and playing:
            pool.give_up()
            answers = pool.poll()
        hear(answers)
