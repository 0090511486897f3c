"""The config models: one YAML file is one experiment, its tree is the tree of these classes. The stages are
here; what they share is in `config/shared.py`, the objectives are in `config/algo.py`, the tasks in
`config/tasks.py`.

Shared sections (`lora`, `task`, `sample`, `optim`) are inherited by the stages; a stage that names one of
them changes only the keys it names (`lora: null` in a stage means: train everything there). Reading and
writing files of it is `config/file.py`'s business.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from jaxrl.config.algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.config.envs import EnvSection, env_sections
from jaxrl.config.section import Fraction, PositiveInt, Section, Seed, merge
from jaxrl.config.shared import (
    CheckpointSection,
    DistributedSection,
    ExpectSection,
    GPUSection,
    LoraSection,
    MeshSection,
    ModelSection,
    OptimSection,
    SampleSection,
    TrackSection,
    VerifySection,
)
from jaxrl.config.tasks import TaskSection
from jaxrl.files.place import is_url, join, local_copy, local_path

LEAST_RL_TEMPERATURE = 0.01  # float32 logits are rounded by some 1e-6: 1e-4 nats here
AskedSection = Annotated[TaskSection | EnvSection, Field(discriminator="name")]  # a task, or a world
# it becomes the name of a folder
StageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9 ._-]*$")]


# ----------------------------------------------------------------------------------------------------- stages


class DataSection(Section):
    """Records for SFT: a JSONL file, or a dataset by the `datasets` library's name. See `data/records.py`.

    file: a JSONL file.
    hub: in its place a dataset's name, or a folder that it was saved to.
    hub_split: the split of the dataset.
    ignore: keys of records and messages that are left out, whatever they hold; any other key that is not
      known is an error.
    """

    file: str | None = None
    hub: str | None = None
    hub_split: str = "train"
    ignore: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give exactly one of `file` (JSONL) and `hub` (a datasets name)")
        return self


class FineTuningStage(Section):
    """What the SFT and RSFT stages share: cross-entropy on packed rows.

    steps: optimiser steps; null means `epochs` passes.
    epochs: passes over the rows, where `steps` is null.
    rows: rows per optimiser step.
    seq_len: tokens per row; a longer record is an error, never cut.
    packing: whether several records share a row; none sees another.
    microbatch: rows per gradient piece (null: rows of about 4,096 tokens on each row shard, of 1,024 on CPU).
    lora: as shared; null trains the whole model.
    optim: as shared.
    """

    steps: PositiveInt | None = None
    epochs: PositiveInt = 1
    rows: PositiveInt = 16
    seq_len: PositiveInt = 512
    packing: bool = True
    microbatch: PositiveInt | None = None
    lora: LoraSection | None = None
    optim: OptimSection = OptimSection()


class SFTStage(FineTuningStage):
    """Supervised fine-tuning on records, or (data: null) on the task's own demonstrations.

    name: of the stage, in metrics, checkpoints and on the console.
    data: the records; null takes the task's demonstrations.
    val_fraction: share of the records held out when the data has no validation split of its own.
    eval_every: steps between two validation losses; the checkpoint with the lowest is what the stage leaves.
    patience: evaluations without improvement before stopping (null: never).
    task: as shared; asked for demonstrations only.
    """

    kind: Literal["sft"]
    name: StageName = "sft"
    data: DataSection | None = None
    val_fraction: Fraction = 0.1
    eval_every: PositiveInt = 50
    patience: PositiveInt | None = None
    task: AskedSection | None = None


class RLStage(Section):
    """What the GRPO and PPO stages share: policy gradients on the task's train split.

    steps: batches of experience.
    seq_len: tokens per row of the update; null means max_prompt_tokens + max_new_tokens, which always fits.
      An episode of a world whose next prompt would leave no room for max_new_tokens in a row ends, as one
      that was cut.
    algo: the objective.
    lora: as shared; null trains the whole model.
    task: as shared; its train split is what is asked.
    sample: as shared; how completions are drawn.
    optim: as shared.
    """

    steps: PositiveInt = 100
    seq_len: PositiveInt | None = None
    algo: PolicyGradientSection
    lora: LoraSection | None = None
    task: AskedSection
    sample: SampleSection = SampleSection()
    optim: OptimSection = OptimSection()

    @model_validator(mode="after")
    def _samples_vary(self) -> Self:
        _refuse_greedy(self.sample)
        if self.sample.temperature < LEAST_RL_TEMPERATURE:
            raise ValueError(
                f"sample.temperature {self.sample.temperature:g} divides the rounding of the logits, so that "
                "the trainer's logprobs are no longer those of the sampler, and multiplies every gradient; "
                f"set it to {LEAST_RL_TEMPERATURE} or more (1.0 is usual)"
            )
        return self

    @property
    def row_tokens(self) -> int:
        """Tokens per row of the update."""
        return self.seq_len or self.sample.max_prompt_tokens + self.sample.max_new_tokens

    @model_validator(mode="after")
    def _sampler_is_corrected(self) -> Self:
        if (
            "int8" in (self.sample.weight_dtype, self.sample.kv_dtype)
            and self.algo.sampler_correction is None
        ):
            raise ValueError(
                "sample.weight_dtype or kv_dtype int8 samples from a policy that is not the trainer's; set "
                "algo.sampler_correction (truncated importance sampling; {} takes its defaults), or leave "
                "both at model"
            )
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        algo, limit = self.algo, self.sample.max_new_tokens
        if self.lora is None and algo.reference == "base" and algo.kl_coef > 0:
            raise ValueError(
                "reference: base is the model without its adapters, and lora is null; set reference to start"
            )
        if algo.overlong_buffer is not None and algo.overlong_buffer >= limit:
            raise ValueError(
                f"algo.overlong_buffer={algo.overlong_buffer} must be below sample.max_new_tokens={limit}"
            )
        if algo.overlong == "penalty" and self.task.name in env_sections():
            raise ValueError(
                "algo.overlong: penalty measures one completion, and a world's episodes have several; set it "
                "to keep or mask"
            )
        if algo.rows_per_episode > 1 and self.task.name not in env_sections():
            raise ValueError(
                f"algo.rows_per_episode={algo.rows_per_episode} is for episodes of a world, and "
                f"{self.task.name} is a task, whose completions are one row each; set it to 1"
            )
        if algo.reference_every is not None and algo.reference_every >= self.steps:
            raise ValueError(
                f"algo.reference_every={algo.reference_every} never comes in {self.steps} steps; lower it"
            )
        return self


class GRPOStage(RLStage):
    """Group-relative policy optimisation and its family.

    name: of the stage, in metrics, checkpoints and on the console.
    """

    kind: Literal["grpo"]
    name: StageName = "grpo"
    algo: GRPOSection = GRPOSection()


class PPOStage(RLStage):
    """Proximal policy optimisation with a critic.

    name: of the stage, in metrics, checkpoints and on the console.
    """

    kind: Literal["ppo"]
    name: StageName = "ppo"
    algo: PPOSection = PPOSection()

    @model_validator(mode="after")
    def _critic_fits(self) -> Self:
        if self.lora is None and self.algo.critic == "separate":
            raise ValueError(
                "algo.critic: separate is a second set of adapters, and lora is null; set critic to shared"
            )
        if self.algo.critic_warmup >= self.steps:
            raise ValueError(
                f"algo.critic_warmup={self.algo.critic_warmup} leaves none of the {self.steps} steps to the "
                "policy; lower it"
            )
        return self


class RSFTStage(FineTuningStage):
    """Rejection-sampling fine-tuning: sample, verify, keep the best, fine-tune on them; again from the
    result.

    name: of the stage, in metrics, checkpoints and on the console.
    iterations: rounds of sampling and training.
    problems: of the train split, how many are asked in a round (null: all), in the order of a permutation
      that goes on from round to round.
    samples_per_problem, keep_top: k completions of each problem, and how many of its winners are kept: by
      reward, then correctness, then the shorter.
    min_reward: a winner's reward is above it, or the completion is correct (null: it must be correct). A
      completion that was cut off never wins: it would teach not to end.
    steps, epochs: of the fine-tuning in each round.
    task: as shared; its train split is what is asked.
    sample: as shared; how completions are drawn.
    """

    kind: Literal["rsft"]
    name: StageName = "rsft"
    iterations: PositiveInt = 1
    problems: PositiveInt | None = None
    samples_per_problem: PositiveInt = 8
    keep_top: PositiveInt = 1
    min_reward: float | None = None
    task: AskedSection
    sample: SampleSection = SampleSection()

    @model_validator(mode="after")
    def _samples_vary(self) -> Self:
        if self.samples_per_problem > 1:
            _refuse_greedy(self.sample)
        if self.keep_top > self.samples_per_problem:
            raise ValueError(
                f"keep_top={self.keep_top} is more than samples_per_problem={self.samples_per_problem}; "
                "lower it"
            )
        return self


def _refuse_greedy(sample: SampleSection) -> None:
    if sample.temperature == 0:
        raise ValueError(
            "sample.temperature 0 makes all completions of a problem equal; set it above 0 (1.0 is usual)"
        )
    if sample.top_k == 1:
        raise ValueError(
            "sample.top_k 1 keeps the likeliest token alone, so that all completions of a problem are equal; "
            "raise it, or set 0: off"
        )


class EvalStage(Section):
    """A row of the evaluation table: the policy as it stands, on a split of the task.

    name: of the row.
    split: which problems are asked.
    limit: first n problems only.
    task, sample: as shared.
    """

    kind: Literal["eval"]
    name: StageName = "eval"
    split: Literal["train", "val", "test"] = "test"
    limit: PositiveInt | None = None
    task: AskedSection
    sample: SampleSection = SampleSection()


TASKS = (
    "abduction",
    "arithmetic",
    "code",
    "countdown",
    "custom",
    "deduction",
    "knowledge_graph",
    "math",
    "reasoning_gym",
    "sat",
    "tiny",
)
Stage = Annotated[SFTStage | RSFTStage | GRPOStage | PPOStage | EvalStage, Field(discriminator="kind")]
STAGES: dict[str, type[Section]] = {
    "sft": SFTStage,
    "rsft": RSFTStage,
    "grpo": GRPOStage,
    "ppo": PPOStage,
    "eval": EvalStage,
}
INHERITED = ("lora", "task", "sample", "optim")


class Config(Section):
    """One experiment.

    name: of the run, and of its folder.
    seed: of everything that is drawn; the same seed on the same machine and versions is the same run.
    runs_dir: the run's folder is made in it: a path, or a URL that fsspec takes (`gs://bucket/runs`), which a
      local copy is kept of (in `$JAXRL_RUNS_CACHE`, or else in `~/.cache/jaxrl/runs`). Of several processes:
      a path that all of them see, or `gs://`.
    compilation_cache: where compiled programs are kept between runs; null keeps none.
    model: the base model.
    lora: the adapters that are trained; null trains the whole model.
    mesh: the devices, and where arrays lie on them.
    gpu: memory and compiler flags on NVIDIA GPUs.
    distributed: the processes, where there are several.
    task: what is asked and how it is judged: a task, or a world whose episodes are played.
    sample: how completions are drawn.
    optim: the optimiser.
    verify: verifier processes.
    checkpoint: how often the run is saved.
    track: what is told of the run.
    expect: what a run of this config should measure.
    stages: what is done, in order; each goes on from the policy that the one before left.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    seed: Seed = 0
    runs_dir: str = "runs"
    compilation_cache: str | None = "~/.cache/jaxrl/xla"
    model: ModelSection
    lora: LoraSection | None = None
    mesh: MeshSection = MeshSection()
    gpu: GPUSection = GPUSection()
    distributed: DistributedSection = DistributedSection()
    task: AskedSection | None = None
    sample: SampleSection = SampleSection()
    optim: OptimSection = OptimSection()
    verify: VerifySection = VerifySection()
    checkpoint: CheckpointSection = CheckpointSection()
    track: TrackSection = TrackSection()
    expect: ExpectSection | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]

    @property
    def url(self) -> str | None:
        """Of the run's folder, where that is kept elsewhere."""
        return join(self.runs_dir, self.name) if is_url(self.runs_dir) else None

    @property
    def folder(self) -> Path:
        """Where the run leaves what it makes: its folder, or the local copy of one that is kept elsewhere."""
        runs = local_path(self.runs_dir) if self.url is None else local_copy(self.runs_dir)
        return runs / self.name

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: Any) -> Any:
        """Fill each stage's sections from the shared ones, key by key."""
        if not isinstance(values, dict) or not isinstance(values.get("stages"), (list, tuple)):
            return values
        stages = []
        for stage in values["stages"]:
            if isinstance(stage, dict) and stage.get("kind") in STAGES:
                fields = STAGES[stage["kind"]].model_fields
                shared = {
                    key: values[key] for key in INHERITED if key in fields and values.get(key) is not None
                }
                if _names_another_task(shared.get("task"), stage.get("task")):
                    del shared["task"]  # keys of one task say nothing about another
                stage = merge(shared, stage)
            stages.append(stage)
        return {**values, "stages": stages}

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Self:
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages are named {name!r}; give each its own `name`")
        return self

    @model_validator(mode="after")
    def _expected_is_evaluated(self) -> Self:
        evaluations = [stage.name for stage in self.stages if isinstance(stage, EvalStage)]
        for name in self.expect.accuracy if self.expect else ():
            if name not in evaluations:
                stages = ", ".join(evaluations) or "none"
                raise ValueError(
                    f"expect.accuracy names {name!r}, which is no eval stage; the eval stages are: {stages}"
                )
        return self


def _names_another_task(shared: Any, own: Any) -> bool:
    return (
        isinstance(shared, dict)
        and isinstance(own, dict)
        and own.get("name", shared.get("name")) != shared.get("name")
    )
