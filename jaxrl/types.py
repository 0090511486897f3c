"""The words that host code passes around: messages, problems, verdicts, completions. No arrays, no jax."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

# of either sign: float32 holds the sum of the squares of a million of these, and not of much more
MAX_REWARD = 1e16
# No trained transformer has weights of this size: the largest, biases of attention, are some hundreds. A
# weight beyond it is a rate out of all proportion, even where the norms behind it hide that from the loss.
MAX_WEIGHT = 1e4
Tree = dict[str, Any]  # nested dicts with arrays for leaves: parameters, gradients


class Message(TypedDict):
    """One turn of a chat, as chat templates read it.

    tool_calls: an assistant's calls, `arguments` as an object; tool_call_id, name: of the call that a tool's
      message answers.
    tools: on a chat's first message, the functions that the chat may call. train: False on an assistant's
      turn that is not trained on.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    tools: NotRequired[list[dict[str, Any]]]
    train: NotRequired[bool]


class StopReason(StrEnum):
    """Why a completion ended; from ENV_DONE on, why an episode did: the world ended it, there were no more
    turns for it, the next prompt would not have fit, the policy could not be read, no world answered.
    """

    EOS = "eos"
    STOP_STRING = "stop_string"
    MAX_TOKENS = "max_tokens"
    ENV_DONE = "env_done"
    MAX_TURNS = "max_turns"
    CONTEXT_FULL = "context_full"
    PARSE_ERROR = "parse_error"
    FAILED = "failed"  # no world answered: the verdict's error says why


CUTS = (StopReason.MAX_TOKENS, StopReason.MAX_TURNS, StopReason.CONTEXT_FULL)


@dataclass(frozen=True)
class Problem:
    """The unit of a dataset: what is asked, and what a verifier needs to know about the answer.

    `uid` is stable over runs and machines: sampling keys and result caches are derived from it.
    `data` holds plain JSON values only, so that a problem crosses process borders and is written to files as
    it is.
    """

    uid: str
    messages: tuple[Message, ...]
    data: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A verifier's answer about one completion.

    `reward` is in the task's own units, at most MAX_REWARD of either sign. `parts` holds the named numbers
    that it is made of (logged one by one).
    `error` is None, or says why there is no verdict (`timeout`, `crash: ...`, `exception: ...`, `sandbox:
    ...`). `reward` is then the failure reward; or NaN, where the completion has no part in it (`sandbox`):
    the sample is then left out.
    """

    reward: float
    correct: bool
    format_ok: bool
    parts: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Completion:
    """What the policy said to one prompt.

    `completion_ids` are the sampled ids, a sampled EOS included; `sampler_logprobs` has one number per id,
    its logprob at the sampling temperature: in RL, which learns from it, in the distribution that it was
    drawn from, so after top-k, top-p and min-p and among the tokenizer's ids; everywhere else in the model's
    own, over the whole vocabulary, as scoring gives it. `text` is the decoded completion without the EOS and
    without the stop string. `excluded`, in RL with a filter: for each id what could not have come in its
    place, as `sample/sets.py` writes it; None where nothing was filtered. `emitted`, where turns were joined
    (`Trajectory.rows`): which ids the policy emitted, None for all of them; the others are observations, with
    logprob 0.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]
    stop_reason: StopReason
    text: str = ""
    excluded: list[str] | None = None
    emitted: list[bool] | None = None

    @property
    def is_emitted(self) -> list[bool]:
        """For each of the completion's ids whether the policy emitted it."""
        return [True] * len(self.completion_ids) if self.emitted is None else self.emitted


@dataclass(frozen=True)
class Turn:
    """What the policy said at one point of an episode, to all that stands in the completion's prompt.

    `reward` is what this turn earned; those of an episode add up to its verdict's. `observation`: what the
    world answered.
    """

    completion: Completion
    reward: float
    observation: str = ""


@dataclass(frozen=True)
class Trajectory:
    """One verified episode: its turns, its verdict, and the age of the weights that produced it.

    A task is an environment of one turn: see `one_turn`. `ended`: why the episode ended; None where that is
    why its last turn did.
    """

    problem: Problem
    turns: tuple[Turn, ...]
    verdict: Verdict
    policy_version: int
    ended: StopReason | None = None

    @classmethod
    def one_turn(
        cls, problem: Problem, completion: Completion, verdict: Verdict, policy_version: int
    ) -> "Trajectory":
        """The episode of a task: one completion, judged."""
        return cls(problem, (Turn(completion, verdict.reward),), verdict, policy_version)

    @property
    def rows(self) -> list[Completion]:
        """The turns as training reads them, token by token: a turn whose prompt begins with everything
        before goes on in the same row, one whose prompt does not (a template that drops earlier thoughts)
        begins another.
        """
        rows: list[Completion] = []
        for turn in self.turns:
            if rows and _goes_on(rows[-1], turn.completion):
                rows[-1] = _join(rows[-1], turn.completion)
            else:
                rows.append(turn.completion)
        return rows

    @property
    def completion_ids(self) -> list[int]:
        """All ids that the policy emitted, turn after turn."""
        return [token for turn in self.turns for token in turn.completion.completion_ids]

    @property
    def num_tokens(self) -> int:
        """How many ids the policy emitted."""
        return sum(len(turn.completion.completion_ids) for turn in self.turns)

    @property
    def text(self) -> str:
        """What the policy said, turn after turn."""
        return "\n\n".join(turn.completion.text for turn in self.turns)

    @property
    def stop_reason(self) -> "StopReason":
        """Why the episode ended."""
        return self.ended or self.turns[-1].completion.stop_reason

    @property
    def is_cut(self) -> bool:
        """Whether the policy was stopped before it had come to its end."""
        return self.stop_reason in CUTS


def _goes_on(row: Completion, turn: Completion) -> bool:
    """Whether a turn's prompt is the whole row and an observation."""
    before = row.prompt_ids + row.completion_ids
    return len(turn.prompt_ids) > len(before) and turn.prompt_ids[: len(before)] == before


def _join(row: Completion, turn: Completion) -> Completion:
    """The row, what was observed after it, and the turn."""
    observed = turn.prompt_ids[len(row.prompt_ids) + len(row.completion_ids) :]
    excluded = None
    if row.excluded is not None or turn.excluded is not None:
        nothing = [""] * len(row.completion_ids), [""] * len(turn.completion_ids)
        excluded = (row.excluded or nothing[0]) + [""] * len(observed) + (turn.excluded or nothing[1])
    return Completion(
        row.prompt_ids,
        row.completion_ids + observed + turn.completion_ids,
        row.sampler_logprobs + [0.0] * len(observed) + turn.sampler_logprobs,
        turn.stop_reason,
        turn.text,
        excluded,
        row.is_emitted + [False] * len(observed) + turn.is_emitted,
    )


@dataclass(frozen=True)
class Group:
    """The G trajectories of one problem."""

    problem: Problem
    trajectories: tuple[Trajectory, ...]
