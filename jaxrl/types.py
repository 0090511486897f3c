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
    """Why a completion ended."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    MAX_TOKENS = "max_tokens"


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
    place, as `sample/sets.py` writes it; None where nothing was filtered.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]
    stop_reason: StopReason
    text: str = ""
    excluded: list[str] | None = None


@dataclass(frozen=True)
class Trajectory:
    """One verified episode: a completion, its verdict, and the age of the weights that produced it."""

    problem: Problem
    completion: Completion
    verdict: Verdict
    policy_version: int


@dataclass(frozen=True)
class Group:
    """The G trajectories of one problem."""

    problem: Problem
    trajectories: tuple[Trajectory, ...]
