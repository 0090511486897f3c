"""The config models: one YAML file is one experiment, its tree is the tree of these classes, and every default is here
or, for the objectives, in `config_algo.py`, and for the tasks in `config_tasks.py`.

Shared sections (`lora`, `task`, `sample`, `optim`) are inherited by the stages; a stage that names one of them changes
only the keys it names (`lora: null` in a stage means: train everything there). Reading and writing files of it is
`config_file.py`'s business.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jaxrl.config_algo import GRPOSection, PolicyGradientSection, PPOSection
from jaxrl.config_base import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Seed, Share, merge
from jaxrl.config_tasks import TaskSection

StageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9 ._-]*$")]  # it becomes the name of a folder

LORA_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


# ---------------------------------------------------------------------------------------------------- shared sections


class ArchitectureSection(Section):
    """A fresh, randomly initialised model, for `model.path: null`. Names and meanings as in `model/config.py`."""

    d_model: PositiveInt = 128
    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    num_kv_heads: PositiveInt = 2
    head_dim: PositiveInt | None = None
    d_ff: PositiveInt = 384
    rope_theta: Positive = 10_000.0
    qk_norm: bool = True
    tie_embeddings: bool = True
    max_positions: PositiveInt = 4096

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}; set head_dim")
        return self


class ModelSection(Section):
    """Where the base model comes from, and how it is held.

    path: a Hugging Face directory (or hub name); null makes a fresh model of `architecture`.
    adapter: a PEFT directory; the first stage goes on from it if its `lora` has the same rank, alpha and targets, and starts
      from the base with it merged in if not.
    tokenizer: a tokenizer directory (or hub name); null takes it from `path`, or, without a path, trains one on the
      task's texts (saved in the run folder).
    chat_template: a file with a Jinja chat template, for tokenizers that have none.
    dtype: of the frozen weights and of the arithmetic; what is trained is always held in float32.
    attention: the kernel of training and prefill: `xla`, `cudnn` (NVIDIA, bfloat16), `splash` (TPU), or `auto`, the fastest
      that the device and dtype allow.
    remat: what the backward pass makes again instead of having kept it. `none` keeps all; `selective` keeps the results of
      matrix products and of attention; `full` keeps the input of each layer, at the price of a second forward pass; `auto`
      is selective where an estimate says that it fits (told at each stage's start), else full.
    """

    path: str | None = None
    architecture: ArchitectureSection | None = None
    adapter: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    remat: Literal["auto", "none", "selective", "full"] = "auto"

    @model_validator(mode="after")
    def _one_source(self):
        if (self.path is None) == (self.architecture is None):
            raise ValueError("give exactly one of `path` (a model directory) and `architecture` (a fresh model)")
        if self.adapter is not None and self.path is None:
            raise ValueError("adapter was trained on a base model; set `path` to it")
        if self.chat_template is not None and self.path is None and self.tokenizer is None:
            raise ValueError("chat_template is for a tokenizer that is loaded; the one made for a fresh model has its own")
        return self


class LoraSection(Section):
    """Low-rank adapters: y = x W + (alpha / rank) (x A) B, with alpha / sqrt(rank) when `rslora`."""

    rank: PositiveInt = 16
    alpha: Positive = 32.0
    dropout: Fraction = 0.0
    targets: Annotated[tuple[Literal[LORA_TARGETS], ...], Field(strict=False, min_length=1)] = LORA_TARGETS
    rslora: bool = False


class MeshSection(Section):
    """Devices per axis; their product must be the number of devices used (1, or all that jax sees)."""

    data: PositiveInt = 1
    fsdp: PositiveInt = 1
    tensor: PositiveInt = 1


class SampleSection(Section):
    """How completions are drawn, and with what means.

    temperature: 0 is greedy. top_k: 0, top_p: 1 and min_p: 0 are off. stop, stop_ids: texts and token ids that end a
      completion, beside the tokenizer's own ids.
    max_prompt_tokens: a longer prompt is an error, never cut.
    slots: rows decoded together at most (but one per device); null means as many as the memory for the cache holds. kv_gib: that memory, GiB
      per device; null means most of what is free. What does not fit waits, and takes the places of rows that have ended.
    window: decode steps inside one compiled call; between two of them the host looks for rows that have ended.
    compact: between windows, go on without the rows that have ended and with a cache no longer than the rows are.
    merge_lora: sample from W + scale * A B, rounded to `model.dtype`, instead of with the adapters beside W: fewer steps
      on the device, and not quite the trainer's policy. weight_dtype, kv_dtype: int8 weights or cache, which is less to
      read, and further from it. How far is in the metrics (`sampler_mismatch/...`), and `algo.sampler_correction` corrects for it.
    """

    temperature: NonNegative = 1.0
    top_k: Annotated[int, Field(ge=0, lt=2**31)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Fraction = 0.0
    max_new_tokens: PositiveInt = 256
    max_prompt_tokens: PositiveInt = 1024
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    stop_ids: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = ()
    slots: PositiveInt | None = None
    kv_gib: Positive | None = None
    window: PositiveInt = 32
    compact: bool = True
    merge_lora: bool = False
    weight_dtype: Literal["model", "int8"] = "model"
    kv_dtype: Literal["model", "int8"] = "model"


class OptimSection(Section):
    """AdamW with a warm-up and a schedule whose floor is `min_ratio * learning_rate`; `clip_norm: 0` does not clip."""

    learning_rate: Positive = 1e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    min_ratio: Share = 0.0
    weight_decay: NonNegative = 0.0
    clip_norm: NonNegative = 1.0
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8


class VerifySection(Section):
    """The verifier pool: a sample that fails (timeout, crash, exception) gets the task's failure reward and is counted as an error.

    workers: processes. timeout_s: wall time of one sample, after which its worker is killed.
    batch_timeout_s: wall time that a batch may still take once its last completion has been sampled; what is not verified
      by then fails.
    recycle_after: samples after which a worker makes way for a fresh one, against verifiers that leak.
    max_error_share: a run stops where more than this share of the last batches' samples are errors.
    """

    workers: PositiveInt = 2
    timeout_s: Positive = 10.0
    batch_timeout_s: Positive = 3600.0
    recycle_after: PositiveInt = 10_000
    max_error_share: Share = 0.5


class CheckpointSection(Section):
    """A checkpoint every `every` optimiser steps, the newest `keep` of them kept (and the best, where there is one)."""

    every: PositiveInt = 50
    keep: PositiveInt = 2


class WandbSection(Section):
    """Weights & Biases, for those who use it; `mode: offline` needs no network."""

    project: str = "jaxrl"
    entity: str | None = None
    mode: Literal["online", "offline"] = "offline"


class TrackSection(Section):
    """What is told of a run. log_every: steps between two console lines; samples_per_step: rows of samples.jsonl."""

    log_every: PositiveInt = 1
    samples_per_step: NonNegativeInt = 16
    wandb: WandbSection | None = None


# ------------------------------------------------------------------------------------------------------------- stages


class DataSection(Section):
    """Records for SFT: a JSONL file, or a dataset by the `datasets` library's name (`hub`). See `data/records.py`."""

    file: str | None = None
    hub: str | None = None
    hub_split: str = "train"

    @model_validator(mode="after")
    def _one_source(self):
        if (self.file is None) == (self.hub is None):
            raise ValueError("give exactly one of `file` (JSONL) and `hub` (a datasets name)")
        return self


class SFTStage(Section):
    """Supervised fine-tuning on records, or (data: null) on the task's own demonstrations.

    steps: optimiser steps; null means `epochs` passes. seq_len: tokens per row; rows: rows per optimiser step;
    microbatch: rows per gradient piece (null: all at once). val_fraction: share of the records held out when the data
    has no validation split of its own. patience: evaluations without improvement before stopping (null: never).
    """

    kind: Literal["sft"]
    name: StageName = "sft"
    data: DataSection | None = None
    steps: PositiveInt | None = None
    epochs: PositiveInt = 1
    rows: PositiveInt = 16
    seq_len: PositiveInt = 512
    packing: bool = True
    microbatch: PositiveInt | None = None
    val_fraction: Fraction = 0.1
    eval_every: PositiveInt = 50
    patience: PositiveInt | None = None
    lora: LoraSection | None = None
    task: TaskSection | None = None
    optim: OptimSection = OptimSection()

    @property
    def rows_per_piece(self) -> int:
        """Rows of a microbatch."""
        return self.microbatch or self.rows


class RLStage(Section):
    """What the GRPO and PPO stages share: policy gradients on the task's train split.

    steps: batches of experience. seq_len: tokens per row of the update; null means max_prompt_tokens + max_new_tokens,
    which always fits.
    """

    steps: PositiveInt = 100
    seq_len: PositiveInt | None = None
    algo: PolicyGradientSection
    lora: LoraSection | None = None
    task: TaskSection
    sample: SampleSection = SampleSection()
    optim: OptimSection = OptimSection()

    @model_validator(mode="after")
    def _samples_vary(self):
        _refuse_greedy(self.sample)
        return self

    @property
    def row_tokens(self) -> int:
        """Tokens per row of the update."""
        return self.seq_len or self.sample.max_prompt_tokens + self.sample.max_new_tokens

    @model_validator(mode="after")
    def _sampler_is_corrected(self):
        if "int8" in (self.sample.weight_dtype, self.sample.kv_dtype) and self.algo.sampler_correction is None:
            raise ValueError(
                "sample.weight_dtype or kv_dtype int8 samples from a policy that is not the trainer's; set algo.sampler_correction "
                "(truncated importance sampling; {} takes its defaults), or leave both at model"
            )
        return self

    @model_validator(mode="after")
    def _settings_fit(self):
        algo, limit = self.algo, self.sample.max_new_tokens
        if self.lora is None and algo.reference == "base" and algo.kl_coef > 0:
            raise ValueError("reference: base is the model without its adapters, and lora is null; set reference to start")
        if algo.overlong_buffer is not None and algo.overlong_buffer >= limit:
            raise ValueError(f"algo.overlong_buffer={algo.overlong_buffer} must be below sample.max_new_tokens={limit}")
        if algo.reference_every is not None and algo.reference_every >= self.steps:
            raise ValueError(f"algo.reference_every={algo.reference_every} never comes in {self.steps} steps; lower it")
        return self


class GRPOStage(RLStage):
    """Group-relative policy optimisation and its family."""

    kind: Literal["grpo"]
    name: StageName = "grpo"
    algo: GRPOSection = GRPOSection()


class PPOStage(RLStage):
    """Proximal policy optimisation with a critic."""

    kind: Literal["ppo"]
    name: StageName = "ppo"
    algo: PPOSection = PPOSection()

    @model_validator(mode="after")
    def _critic_fits(self):
        if self.lora is None and self.algo.critic == "separate":
            raise ValueError("algo.critic: separate is a second set of adapters, and lora is null; set critic to shared")
        if self.algo.critic_warmup >= self.steps:
            raise ValueError(f"algo.critic_warmup={self.algo.critic_warmup} leaves none of the {self.steps} steps to the policy; lower it")
        return self


class RSFTStage(Section):
    """Rejection-sampling fine-tuning: sample, verify, keep the best, fine-tune on them; again from the result.

    iterations: rounds of sampling and training. problems: of the train split, how many are asked in a round (null: all),
      in the order of a permutation that goes on from round to round. samples_per_problem, keep_top: k completions of
      each problem, and how many of its winners are kept: by reward, then correctness, then the shorter.
    min_reward: a winner's reward is above it, or the completion is correct (null: it must be correct). A completion that
      was cut off never wins: it would teach not to end.
    steps, epochs, rows, seq_len, packing, microbatch: of the fine-tuning in each round, as in an SFT stage.
    """

    kind: Literal["rsft"]
    name: StageName = "rsft"
    iterations: PositiveInt = 1
    problems: PositiveInt | None = None
    samples_per_problem: PositiveInt = 8
    keep_top: PositiveInt = 1
    min_reward: float | None = None
    steps: PositiveInt | None = None
    epochs: PositiveInt = 1
    rows: PositiveInt = 16
    seq_len: PositiveInt = 512
    packing: bool = True
    microbatch: PositiveInt | None = None
    lora: LoraSection | None = None
    task: TaskSection
    sample: SampleSection = SampleSection()
    optim: OptimSection = OptimSection()

    @property
    def rows_per_piece(self) -> int:
        """Rows of a microbatch."""
        return self.microbatch or self.rows

    @model_validator(mode="after")
    def _samples_vary(self):
        if self.samples_per_problem > 1:
            _refuse_greedy(self.sample)
        if self.keep_top > self.samples_per_problem:
            raise ValueError(f"keep_top={self.keep_top} is more than samples_per_problem={self.samples_per_problem}; lower it")
        return self


def _refuse_greedy(sample: SampleSection) -> None:
    if sample.temperature == 0:
        raise ValueError("sample.temperature 0 makes all completions of a problem equal; set it above 0 (1.0 is usual)")


class EvalStage(Section):
    """A row of the evaluation table: the policy as it stands, on a split of the task. limit: first n problems only."""

    kind: Literal["eval"]
    name: StageName = "eval"
    split: Literal["train", "val", "test"] = "test"
    limit: PositiveInt | None = None
    task: TaskSection
    sample: SampleSection = SampleSection()


TASKS = ("abduction", "arithmetic", "code", "countdown", "custom", "deduction", "knowledge_graph", "math", "sat", "tiny")
Stage = Annotated[SFTStage | RSFTStage | GRPOStage | PPOStage | EvalStage, Field(discriminator="kind")]
STAGES = {"sft": SFTStage, "rsft": RSFTStage, "grpo": GRPOStage, "ppo": PPOStage, "eval": EvalStage}
INHERITED = ("lora", "task", "sample", "optim")


class Config(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    seed: Seed = 0
    runs_dir: str = "runs"
    compilation_cache: str | None = "~/.cache/jaxrl/xla"
    model: ModelSection
    lora: LoraSection | None = None
    mesh: MeshSection = MeshSection()
    task: TaskSection | None = None
    sample: SampleSection = SampleSection()
    optim: OptimSection = OptimSection()
    verify: VerifySection = VerifySection()
    checkpoint: CheckpointSection = CheckpointSection()
    track: TrackSection = TrackSection()
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]

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
                shared = {key: values[key] for key in INHERITED if key in fields and values.get(key) is not None}
                if _names_another_task(shared.get("task"), stage.get("task")):
                    del shared["task"]  # keys of one task say nothing about another
                stage = merge(shared, stage)
            stages.append(stage)
        return {**values, "stages": stages}

    @model_validator(mode="after")
    def _stage_names_differ(self):
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages are named {name!r}; give each its own `name`")
        return self


def _names_another_task(shared: Any, own: Any) -> bool:
    return isinstance(shared, dict) and isinstance(own, dict) and own.get("name", shared.get("name")) != shared.get("name")
