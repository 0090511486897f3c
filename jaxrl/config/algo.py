"""The objectives: every switch of GRPO and its family, of PPO and of the replay buffer, with its default and
its meaning.

Names are those of the functions in `ops/`, which have the formulas and their sources.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jaxrl.config.section import NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share

BASELINES_OVER_GROUPS = ("grpo", "center", "rloo", "gdpo")


class CorrectionSection(Section):
    """Truncated importance sampling for the gap between the sampler's logprobs and the trainer's.

    level: the weight of each token by itself, or of its whole sequence.
    cap: the largest weight.
    how: what happens above the cap: `truncate` holds the weight there, `mask` takes the token (or sequence)
      out of the loss.
    """

    level: Literal["token", "sequence"] = "token"
    cap: Annotated[float, Field(gt=1)] = 2.0
    how: Literal["truncate", "mask"] = "truncate"


class ReplaySection(Section):
    """The best verified completions of each problem, mixed into later updates.

    ratio: share of an update's sequences that are replayed; fewer while the buffer is small.
    use: `sft` adds coef * cross-entropy on the replayed tokens (at the sampling temperature, over all ids,
      filtered or not); `off_policy` puts them through the policy loss, with the logprobs of the time when
      they were sampled and the ids that a filter kept then, and the advantages: GRPO's of that time, PPO's of
      today's critic.
    coef: weight of the cross-entropy of `use: sft`.
    per_problem, capacity: best completions kept for a problem, and in all; the easiest problems make room
      first.
    """

    ratio: float = 0.25
    use: Literal["sft", "off_policy"] = "sft"
    coef: Positive = 0.1
    per_problem: PositiveInt = 2
    capacity: PositiveInt = 512

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        if not 0 < self.ratio < 1:
            raise ValueError(
                f"ratio {self.ratio} is the share of an update that is replayed: it must lie between 0 and "
                "1, so that fresh samples remain; leave the replay section out (null) to replay nothing"
            )
        return self


class PolicyGradientSection(Section):
    """What GRPO and PPO share.

    problems_per_batch, group_size: P problems, G completions of each.
    updates_per_batch: minibatches that the P * G rows are split into, one optimiser step each.
    microbatch: rows per gradient piece (null: rows of about 4,096 tokens on each row shard, of 1,024 on CPU).
      Completions are packed, and pieces that stay empty cost nothing: the smaller the piece, the less is
      padding.
    old_logprobs: what the ratio of a batch's later updates is to, and a KL penalty in the reward from: a pass
      of the `trainer` over the batch, or what the `sampler` said, which saves the pass and counts the gap
      between the two as a change of the policy. The first update needs neither: its ratio is 1. The gap is
      logged, with `sampler` of that update.
    ratio_level: `token`, or `sequence` (GSPO).
    clip_low, clip_high: the ratio earns gradient in 1 - low .. 1 + high.
    dual_clip: for negative advantages the loss is bounded by dual_clip * |A| (null: it is not).
    aggregate: `token_mean` over the tokens of an optimiser step; `sequence_mean` of each sequence's mean;
      `constant` divides each sequence's sum by sample.max_new_tokens, then takes the mean over sequences.
    kl_coef, kl_estimator, kl_in: weight and estimate (k1, k2, k3) of KL(policy || reference), a term of the
      `loss` or taken off the `reward` (k1 only). 0 leaves out the reference and its forward pass.
    kl_unbiased: whether the estimate in the loss is multiplied by the token's ratio to the policy that
      sampled, through which the gradient passes, too; its mean gradient is then that of KL(policy ||
      reference), which plain k1's and k3's is not.
    reference: the policy as the stage `start`s, the `base` without adapters, or null: none.
    reference_every: steps after which the reference becomes the policy of that time (null: never).
    entropy_coef: weight of the entropy bonus, whose gradient costs a third matmul with the head. With top-k,
      top-p or min-p it is the entropy over the ids that were kept.
    sampler_correction: its section; null leaves the gap uncorrected (it is logged all the same).
    overlong: what becomes of completions that run into max_new_tokens. `keep` them; `mask` takes them out of
      the batch; `penalty` takes up to 1 off the reward, growing over the last `overlong_buffer` tokens, cut
      off or not.
    overlong_buffer: tokens over which that penalty grows.
    curriculum: which problems are drawn: `none`, each once an epoch; `success_rate`, oftenest those solved
      half the time.
    replay: its section; null replays nothing.
    rows_per_episode: of a world's episodes, most rows of an update that one has. A row goes on from turn to
      turn as long as the chat template only adds to it; one that takes back thoughts begins a row every turn,
      and needs the world's max_turns here. An episode that would need more ends there, as one that was cut
      (`context_full`). Room for so many rows is kept on the device; those that stay empty cost no time.
    """

    problems_per_batch: PositiveInt = 16
    group_size: PositiveInt
    updates_per_batch: PositiveInt = 1
    microbatch: PositiveInt | None = None
    old_logprobs: Literal["trainer", "sampler"] = "trainer"
    ratio_level: Literal["token", "sequence"] = "token"
    clip_low: Positive = 0.2
    clip_high: Positive = 0.2
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    aggregate: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    kl_coef: NonNegative = 0.0
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_in: Literal["loss", "reward"]
    kl_unbiased: bool = False
    reference: Literal["start", "base"] | None = "start"
    reference_every: PositiveInt | None = None
    entropy_coef: NonNegative = 0.0
    sampler_correction: CorrectionSection | None = None
    overlong: Literal["keep", "mask", "penalty"] = "keep"
    overlong_buffer: PositiveInt | None = None
    curriculum: Literal["none", "success_rate"] = "none"
    replay: ReplaySection | None = None
    rows_per_episode: PositiveInt = 1

    @property
    def replayed_per_batch(self) -> int:
        """Replayed sequences that come on top of a batch's P * G, once the buffer holds so many."""
        ratio = self.replay.ratio if self.replay else 0.0
        return round(self.problems_per_batch * self.group_size * ratio / (1 - ratio))

    @property
    def rows_per_update(self) -> int:
        """The most sequences that one optimiser step sees."""
        fresh = self.problems_per_batch * self.group_size * self.rows_per_episode
        return -(-(fresh + self.replayed_per_batch) // self.updates_per_batch)

    @property
    def num_updates(self) -> int:
        """Optimiser steps per batch of experience."""
        return self.updates_per_batch

    @property
    def num_held(self) -> int:
        """First optimiser steps of a stage in which the policy holds still."""
        return 0

    @model_validator(mode="after")
    def _updates_divide(self) -> Self:
        batch = self.problems_per_batch * self.group_size
        if batch % self.updates_per_batch:
            raise ValueError(
                f"a batch of {batch} rows cannot be split into updates_per_batch={self.updates_per_batch} "
                "equal parts"
            )
        return self

    @model_validator(mode="after")
    def _replay_fits(self) -> Self:
        if self.replay is not None and self.replayed_per_batch == 0:
            batch = self.problems_per_batch * self.group_size
            raise ValueError(
                f"replay.ratio={self.replay.ratio} of a batch of {batch} is less than one sequence; raise "
                "it, or the batch"
            )
        if self.replay is not None and self.replay.capacity < self.replayed_per_batch:
            raise ValueError(
                f"replay.capacity={self.replay.capacity} is less than the {self.replayed_per_batch} "
                "sequences that a batch asks for; raise it"
            )
        return self

    @model_validator(mode="after")
    def _kl_fits(self) -> Self:
        if self.kl_coef > 0 and self.reference is None:
            raise ValueError(
                f"kl_coef={self.kl_coef} needs a reference to measure from; set reference to start or base, "
                "or kl_coef to 0"
            )
        if self.kl_in == "reward" and self.kl_estimator != "k1":
            raise ValueError(
                f"kl_in: reward takes the k1 estimate, not {self.kl_estimator}; set kl_estimator to k1, or "
                "kl_in to loss"
            )
        if self.kl_unbiased and (self.kl_coef == 0 or self.kl_in != "loss"):
            raise ValueError(
                "kl_unbiased multiplies the KL term of the loss by the ratio: it needs kl_coef above 0 and "
                "kl_in: loss"
            )
        if self.kl_unbiased and self.kl_estimator == "k2":
            raise ValueError(
                "kl_unbiased: the ratio makes k1 and k3 unbiased, and k2 is biased in value; set "
                "kl_estimator to k3 (or k1)"
            )
        if self.reference_every is not None and (self.kl_coef == 0 or self.reference != "start"):
            raise ValueError(
                "reference_every renews a reference that is in use: it needs kl_coef above 0 and reference: "
                "start"
            )
        return self

    @model_validator(mode="after")
    def _old_logprobs_fit(self) -> Self:
        if self.old_logprobs == "sampler" and self.sampler_correction is not None:
            raise ValueError(
                "sampler_correction weighs tokens by the gap between trainer and sampler, and old_logprobs: "
                "sampler takes the two for one; set old_logprobs to trainer, or sampler_correction to null"
            )
        return self

    @model_validator(mode="after")
    def _overlong_fits(self) -> Self:
        if (self.overlong == "penalty") != (self.overlong_buffer is not None):
            raise ValueError(
                "overlong: penalty and overlong_buffer (the tokens over which it grows) go together; set "
                "both or neither"
            )
        return self


class GRPOSection(PolicyGradientSection):
    """Critic-free policy gradients.

    advantage: from rewards to advantages, `ops/advantages.py`. `grpo`: (r - mean) / std of its group.
      `center`: r - mean of its group (Dr. GRPO). `rloo`: r - mean of the others of its group. `reinforce_pp`:
      (r - mean) / std of the whole batch. `gdpo`: each part of the reward by its own group's mean and std,
      then the weighted sum by the batch's std.
    part_weights: with gdpo, the parts of the verdict that are learnt from and what each weighs (negative: a
      penalty); the reward itself, and parts without a weight, are only logged.
    loss: `clip`, or `cispo`: the ratio, held within 1 - clip_low .. 1 + clip_high, is a constant weight of
      the logprob.
    dynamic_sampling: null, or how many rounds of sampling may be spent to fill the batch with groups whose
      rewards differ; groups without spread teach nothing and are dropped and counted.
    """

    group_size: PositiveInt = 8
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    advantage: Literal["grpo", "center", "rloo", "reinforce_pp", "gdpo"] = "grpo"
    part_weights: dict[str, float] | None = None
    loss: Literal["clip", "cispo"] = "clip"
    dynamic_sampling: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _groups_have_spread(self) -> Self:
        if self.group_size == 1 and (self.advantage in BASELINES_OVER_GROUPS or self.dynamic_sampling):
            what = "dynamic_sampling" if self.dynamic_sampling else f"advantage: {self.advantage}"
            raise ValueError(
                f"group_size 1 leaves nothing to compare a completion with, as {what} does; set group_size "
                "to 2 or more"
            )
        if self.advantage == "reinforce_pp" and self.problems_per_batch * self.group_size == 1:
            raise ValueError(
                "advantage: reinforce_pp normalises over the batch, which has one row; raise "
                "problems_per_batch"
            )
        return self

    @model_validator(mode="after")
    def _parts_have_weights(self) -> Self:
        if (self.advantage == "gdpo") != (self.part_weights is not None):
            raise ValueError(
                "advantage: gdpo and part_weights (the reward's parts and their weights) go together; set "
                "both or neither"
            )
        if self.part_weights is not None and not any(self.part_weights.values()):
            raise ValueError(
                f"part_weights {self.part_weights} give no part of the reward a weight, so that nothing is "
                "learnt; give one"
            )
        if self.advantage == "gdpo" and self.overlong == "penalty":
            raise ValueError(
                "overlong: penalty is taken off the reward, and advantage: gdpo sees only its parts; set it "
                "to keep or mask"
            )
        if self.advantage == "gdpo" and self.kl_coef > 0 and self.kl_in == "reward":
            raise ValueError(
                "kl_in: reward takes the KL off the reward, and advantage: gdpo sees only its parts; set it "
                "to loss"
            )
        return self

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        if self.loss == "cispo" and self.ratio_level == "sequence":
            raise ValueError("loss: cispo weighs each token by its own ratio; set ratio_level to token")
        if self.loss == "cispo" and self.dual_clip is not None:
            raise ValueError("loss: cispo has no clip that dual_clip could bound; leave dual_clip out")
        return self


class PPOSection(PolicyGradientSection):
    """Policy gradients with a critic: generalised advantage estimation over tokens or turns, `ops/gae.py`.

    gamma, gae_lambda: discount and mixing, per token or per turn. 1 and 1 give every token what is still to
      come less the value, fit for one verified reward at the end; a lower lambda trusts the critic more.
    gae_level: whether a step of the two is a token or a turn; an episode of one completion is one turn.
    whiten: advantages to mean 0, variance 1.
    bootstrap_truncated: whether a completion that was cut by max_new_tokens is worth what the critic expects
      after it, in place of the verdict on it. False: the verdict ends the episode, cut or not; else running
      out of tokens pays as soon as the critic expects more than the verdict.
    critic: a value head on the policy's own hidden states (`shared`), or on those of adapters of its own
      (`separate`).
    vf_coef: weight of the value loss.
    value_clip: how far a value may move from the old one and still count (null: any).
    critic_learning_rate: of the critic's own parameters (null: optim's).
    critic_warmup: first batches that train the critic's own parameters only.
    kl_target, kl_horizon: with a target, kl_coef is adapted after each batch so that the KL stays near it;
      the horizon is in sequences. The target is in nats per token.
    ppo_epochs: passes over a batch, each in a new order, updates_per_batch minibatches in each.
    """

    group_size: PositiveInt = 1
    problems_per_batch: PositiveInt = 64
    updates_per_batch: PositiveInt = 2
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_in: Literal["loss", "reward"] = "reward"
    gamma: Share = 1.0
    gae_lambda: Share = 1.0
    gae_level: Literal["token", "turn"] = "token"
    whiten: bool = True
    bootstrap_truncated: bool = False
    critic: Literal["shared", "separate"] = "shared"
    vf_coef: Positive = 0.5
    value_clip: Positive | None = 0.2
    critic_learning_rate: Positive | None = None
    critic_warmup: NonNegativeInt = 0
    kl_target: Positive | None = None
    kl_horizon: Positive = 10_000.0
    ppo_epochs: PositiveInt = 2

    @property
    def num_updates(self) -> int:
        """Optimiser steps per batch of experience."""
        return self.ppo_epochs * self.updates_per_batch

    @property
    def num_held(self) -> int:
        """First optimiser steps of a stage in which the policy holds still."""
        return self.critic_warmup * self.num_updates

    @model_validator(mode="after")
    def _critic_scores(self) -> Self:
        if self.old_logprobs == "sampler":
            raise ValueError(
                "old_logprobs: sampler saves nothing with a critic: the pass that gives its values gives the "
                "trainer's logprobs, too; set old_logprobs to trainer"
            )
        return self

    @model_validator(mode="after")
    def _kl_adapts(self) -> Self:
        if self.kl_target is not None and (self.kl_coef == 0 or self.kl_in != "reward"):
            raise ValueError(
                "kl_target adapts the KL penalty in the reward: it needs kl_coef above 0 (where to begin) "
                "and kl_in: reward"
            )
        batch = self.problems_per_batch * self.group_size
        if self.kl_target is not None and self.kl_horizon < batch:
            raise ValueError(
                f"kl_horizon={self.kl_horizon:g} is shorter than one batch of {batch} sequences; kl_coef "
                "would jump about; raise it"
            )
        return self
