"""The sections that an experiment and its stages share: model, adapters, mesh, sampling, optimiser, and how a
run is kept.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from jaxrl.config.section import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share

LoraTarget = Literal["q", "k", "v", "o", "gate", "up", "down"]
LORA_TARGETS: tuple[LoraTarget, ...] = get_args(LoraTarget)


class ArchitectureSection(Section):
    """A fresh, randomly initialised model, for `model.path: null`; a Qwen3, without `qk_norm` a Llama.

    d_model: width of the hidden states.
    num_layers: blocks.
    num_heads, num_kv_heads: heads of queries, and of keys and values; the first is a multiple of the second.
    head_dim: width of a head; null means d_model / num_heads.
    d_ff: width inside the MLP.
    rope_theta: base of the rotary frequencies.
    qk_norm: whether queries and keys are normalised.
    tie_embeddings: whether the head is the embedding, transposed.
    max_positions: the longest sequence that the model may see.
    """

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
    def _heads_divide(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ValueError(
                f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}; set head_dim"
            )
        return self


class ModelSection(Section):
    """Where the base model comes from, and how it is held.

    path: a Hugging Face directory (or hub name); null makes a fresh model of `architecture`.
    architecture: the sizes of a fresh model; exactly one of `path` and `architecture` is given.
    adapter: a PEFT directory; the first stage goes on from it if its `lora` has the same rank, alpha and
      targets, and starts from the base with it merged in if not.
    tokenizer: a tokenizer directory (or hub name); null takes it from `path`, or, without a path, trains one
      on the task's texts (saved in the run folder).
    chat_template: a file with a Jinja chat template, for tokenizers that have none.
    training_template: where the chat template takes the thoughts of earlier turns out (Qwen3, QwQ,
      DeepSeek-R1), SFT renders a record that this would break with a template of jaxrl's for that family,
      which keeps them; see `data/training_templates.py`. False refuses such records. Sampling keeps to the
      model's own template.
    dtype: of the frozen weights and of the arithmetic; what is trained is always held in float32.
    attention: the kernel of training and prefill: `xla`, `cudnn` (NVIDIA, bfloat16), `splash` (TPU), or
      `auto`, the fastest that the device and dtype allow.
    remat: what the backward pass makes again instead of having kept it. `none` keeps all; `selective` keeps
      the results of matrix products and of attention; `full` keeps the input of each layer, at the price of a
      second forward pass; `auto` is selective where an estimate says that it fits (told at each stage's
      start), else full.
    """

    path: str | None = None
    architecture: ArchitectureSection | None = None
    adapter: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    training_template: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    remat: Literal["auto", "none", "selective", "full"] = "auto"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.architecture is None):
            raise ValueError(
                "give exactly one of `path` (a model directory) and `architecture` (a fresh model)"
            )
        if self.adapter is not None and self.path is None:
            raise ValueError("adapter was trained on a base model; set `path` to it")
        if self.chat_template is not None and self.path is None and self.tokenizer is None:
            raise ValueError(
                "chat_template is for a tokenizer that is loaded; the one made for a fresh model has its own"
            )
        return self


class LoraSection(Section):
    """Low-rank adapters: y = x W + (alpha / rank) (x A) B, with alpha / sqrt(rank) when `rslora`.

    rank: columns of A, rows of B.
    alpha: the scale's numerator.
    dropout: share of x that the adapters do not see, in SFT and RSFT; policy gradients know no dropout.
    targets: the linear layers that have adapters.
    rslora: whether the scale is alpha / sqrt(rank), which keeps its size at high ranks.
    """

    rank: PositiveInt = 16
    alpha: Positive = 32.0
    dropout: Fraction = 0.0
    targets: Annotated[tuple[LoraTarget, ...], Field(strict=False, min_length=1)] = LORA_TARGETS
    rslora: bool = False


class MeshSection(Section):
    """Devices per axis; their product is the number of devices used, all that jax sees or as many of each
    process. `mesh: auto` stands for null everywhere.

    dcn_data: slices of a TPU that a slower network joins; the batch is split over them, and each holds
      `data * fsdp * tensor` devices. null means as many as there are.
    data: the batch is split over it, the weights are copied.
    fsdp: the batch and the weights are split over it.
    tensor: every matrix product is split over it, the vocabulary of the head among them.

    Where `data`, `fsdp` or `tensor` is null, it is chosen when the run starts, from the devices, their memory
    and the sizes of the model, never from what is free at the moment: weights are copied where they fit with
    what training and sampling add to them, else cut over `fsdp`, over `tensor` only where that is not enough
    or does not divide. The choice is told with its reason.
    """

    dcn_data: PositiveInt | None = 1
    data: PositiveInt | None = 1
    fsdp: PositiveInt | None = 1
    tensor: PositiveInt | None = 1

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: Any) -> Any:
        return dict.fromkeys(cls.model_fields) if values == "auto" else values


class SampleSection(Section):
    """How completions are drawn, and with what means.

    temperature: what the logits are divided by; 0 is greedy.
    top_k, top_p, min_p: only the k likeliest ids; only the likeliest ones up to a mass of p; only ids at
      least min_p as likely as the likeliest. 0, 1 and 0 are off; they look at what the temperature has left.
      GRPO and PPO learn with the very ids that were kept (a bit per id of the vocabulary and token: memory
      that is planned for), also for `kl_coef`, `entropy_coef` and updates after the first. Ids that the
      tokenizer does not have are never drawn.
    max_new_tokens: the most tokens of a completion, its EOS included.
    max_prompt_tokens: a longer prompt is an error, never cut.
    stop, stop_ids: texts and token ids that end a completion, beside the tokenizer's own ids.
    slots: rows decoded together at most (but one per device); null means as many as the memory for the cache
      holds.
    kv_gib: memory for the cache, GiB per device; null means most of what is free. What does not fit waits,
      and takes the places of rows that have ended.
    window: decode steps inside one compiled call; between two of them the host looks for rows that have
      ended.
    compact: between windows, go on without the rows that have ended and with a cache no longer than the rows
      are.
    merge_lora: sample from W + scale * A B, rounded to `model.dtype`, instead of with the adapters beside W:
      fewer steps on the device, and not quite the trainer's policy.
    weight_dtype, kv_dtype: int8 weights or cache, which is less to read, and further from the trainer's
      policy. How far is in the metrics (`sampler_mismatch/...`), and `algo.sampler_correction` corrects for
      it.
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

    @property
    def is_filtered(self) -> bool:
        """Whether some ids are left out of a draw for being unlikely."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


class OptimSection(Section):
    """AdamW with a warm-up and a schedule.

    learning_rate: after the warm-up, and where the schedule begins.
    schedule: how it falls over the stage's steps.
    warmup_steps: steps in which it rises from 0.
    min_ratio: the schedule's floor is min_ratio * learning_rate.
    weight_decay: AdamW's.
    clip_norm: the gradient's largest norm; 0 does not clip.
    b1, b2, eps: AdamW's.
    """

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
    """The verifier pool: a sample that fails (timeout, crash, exception) gets the task's failure reward and
    is counted as an error. Of a world, whose episodes live in such processes, a sample here is one turn; what
    fails costs its episode.

    workers: processes.
    timeout_s: wall time of one sample, after which its worker is killed.
    batch_timeout_s: wall time that a batch may still take once its last completion has been sampled; what is
      not verified by then fails.
    recycle_after: samples after which a worker makes way for a fresh one, against verifiers that leak.
    max_error_share: a run stops where more than this share of the last batches' samples are errors.
    pass_env: names of environment variables that a reward needs although they look like secrets (the key of
      an LLM judge). Verifier processes see no others of that kind: tokens, keys, passwords, cloud
      credentials, URLs with a password in them.
    """

    workers: PositiveInt = 2
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 10.0
    batch_timeout_s: Positive = 3600.0
    recycle_after: PositiveInt = 10_000
    max_error_share: Share = 0.5
    pass_env: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()


class CheckpointSection(Section):
    """Checkpoints of a stage.

    every: optimiser steps (GRPO and PPO: batches) between two of them.
    keep: how many of the newest are kept; SFT keeps the best one, too.
    """

    every: PositiveInt = 50
    keep: PositiveInt = 2


class DistributedSection(Section):
    """The processes of a run: one on each host, or one for each GPU; `jaxrl run` is started in all of them.

    Of the machine, not of the experiment: it is not kept in the run's `config.yaml`, and not compared when a
    run goes on. What is null is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID,
    else from what TPU slices, Slurm and Kubernetes put into the environment; where nothing says otherwise,
    the process is alone.

    coordinator: HOST:PORT of process 0, which listens there; all others must reach it.
    num_processes: how many there are; 1 is alone, whatever the environment says.
    process_id: which one this is, from 0.
    timeout_s: how long the others may give no sign of life, or be later than the first at a point where all
      meet, before a process ends and names whom it has waited for.
    """

    coordinator: str | None = None
    num_processes: PositiveInt | None = None
    process_id: NonNegativeInt | None = None
    timeout_s: Positive = 300.0


class ExpectSection(Section):
    """What a run of this config should measure, by runs that were made before; told beside the run's own
    numbers at its end.

    accuracy: for evaluations by name, the lowest and the highest that is normal.
    runs: how many runs say so.
    changed: keys that this run sets otherwise than the file whose numbers these are; the ranges then say
      nothing about it. `jaxrl run` fills it in from the overrides of the command line.
    """

    accuracy: Annotated[dict[str, Annotated[tuple[Share, Share], Field(strict=False)]], Field(min_length=1)]
    runs: PositiveInt
    changed: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, (low, high) in self.accuracy.items():
            if low > high:
                raise ValueError(
                    f"accuracy of {name!r}: [{low}, {high}] must be the lowest and the highest, in this "
                    "order; swap them"
                )
        return self


class WandbSection(Section):
    """Weights & Biases, for those who use it.

    project, entity: where the run is shown.
    mode: `offline` needs no network and no account.
    """

    project: str = "jaxrl"
    entity: str | None = None
    mode: Literal["online", "offline"] = "offline"


class TrackSection(Section):
    """What is told of a run.

    log_every: steps between two console lines.
    samples_per_step: rows of samples.jsonl.
    wandb: null, or the section of Weights & Biases.
    """

    log_every: PositiveInt = 1
    samples_per_step: NonNegativeInt = 16
    wandb: WandbSection | None = None


Flag = bool | int | float | str


class GPUSection(Section):
    """What NVIDIA GPUs are asked for before jax starts; without one it is not looked at. Variables in the
    environment (`XLA_FLAGS`, `XLA_CLIENT_MEM_FRACTION`, `XLA_PYTHON_CLIENT_PREALLOCATE`) have the last word.

    memory_fraction: share of each GPU's memory that arrays may take. What is left over is for the driver, the
      libraries' work spaces, CUDA graphs and collectives. Lower it where another process uses the same GPU;
      null takes jax's own, 0.75.
    preallocate: whether that share is taken at the start, so that nobody else gets it and it does not fall
      into pieces; else as it is needed.
    flags: XLA's, by name without the dashes, for example `{xla_gpu_autotune_level: 0}`. One that XLA does not
      know is an error. Which matter, and what they are by themselves: docs/gpu.md.
    """

    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = 0.9
    preallocate: bool = True
    flags: dict[Annotated[str, Field(pattern=r"^xla_\w+$")], Flag] = {}  # noqa: RUF012
