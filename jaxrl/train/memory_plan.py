"""What an update needs of a device's memory, estimated from shapes, and what its backward pass may therefore
keep.
"""

import math
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from jaxrl.config.experiment import FineTuningStage, RLStage, Stage
from jaxrl.device.memory import device_memory, own_devices
from jaxrl.device.mesh import num_row_shards, shardings_for
from jaxrl.errors import InputError
from jaxrl.model.policy import Policy
from jaxrl.model.remat import kept_bytes
from jaxrl.ops.logprobs import CHUNK_ELEMENTS
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.sample.sets import set_bytes
from jaxrl.track.format import data_size
from jaxrl.types import Tree
from jaxrl.update.microbatch import stage_microbatch

USABLE = 0.9  # of a device's memory; the rest is the allocator's, the compiler's and the sampler's
# Of what is trained: itself, Adam's two moments, the sum of the gradients and those of a microbatch.
COPIES = 5
EXCLUDED_SHARE = 0.2  # of a device's memory, for the excluded ids of one update


@dataclass(frozen=True)
class Plan:
    """What an update holds on each device, in bytes, with `remat`; `available` is what there is."""

    remat: str
    rows: int
    row_shards: int
    seq_len: int
    activations: int
    needed: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether what is needed is there."""
        return self.needed <= self.available

    def line(self) -> str:
        """The plan in words."""
        return (
            f"remat {self.remat}: a microbatch of {self.rows} x {self.seq_len} tokens keeps"
            f" {data_size(self.activations)} of activations per device; with weights, optimiser and logits"
            f" about {data_size(self.needed)} of {data_size(self.available)}"
        )

    def warning(self) -> str | None:
        """What to change where it does not fit."""
        if self.fits:
            return None
        rest = self.available - (self.needed - self.activations)
        remedy = "hold the weights in bfloat16 or cut them over mesh.fsdp"
        rows = self.rows * rest // self.activations // self.row_shards * self.row_shards
        if rows > 0:
            remedy = f"set the microbatch to {rows}, or a shorter seq_len"
        return (
            f"an update is likely to need {data_size(self.needed - self.available)} more than there is;"
            f" {remedy}"
        )


def plan_update(
    asked: str,
    policy: Policy,
    trainable: Tree,
    frozen: Tree,
    rows: int,
    seq_len: int,
    mesh: Mesh,
    references: int = 0,
    excluded: int = 0,
) -> Plan:
    """The plan with the remat asked for; for `auto` with `selective` where that fits, else with `full`.

        activations = rows * seq_len / row shards * layers * kept_bytes(remat)
        needed = activations + kept_bytes(none) of one layer
                 + 4 float32 arrays of the logits of a chunk / tensor, chunks being a device's own
                 + (COPIES + references) * what is trained + what is frozen + gathered + 2 * excluded

    `none` is never chosen: `selective` makes again only what is cheaper than memory traffic, and was faster
    in every update that was measured. The plan follows from settings and the machine alone, so that a run
    that is taken up again has the same.

    Args:
      asked: `auto` or one of those in `model/remat.py`.
      rows, seq_len: of a microbatch, over all devices.
      references: further copies of what is trained, such as the reference of a KL term.
      excluded: bytes of `excluded_bytes`; the next update's are there before this one's are gone.
    """
    row_shards = num_row_shards(mesh)
    tokens = rows * seq_len // row_shards
    per_token = {
        remat: kept_bytes(policy.config, policy.lora, policy.dtype, remat)
        for remat in ("none", "selective", "full")
    }
    logits = min(tokens * policy.config.vocab_size, CHUNK_ELEMENTS) // mesh.shape["tensor"]
    fixed = tokens * per_token["none"] + 4 * 4 * logits
    fixed += (COPIES + references) * device_bytes(trainable, mesh) + device_bytes(frozen, mesh)
    fixed += 2 * excluded + gathered_bytes(policy, "model" in trainable, mesh)
    available = int(USABLE * device_memory(own_devices(mesh)[0]))

    def plan(remat: str) -> Plan:
        activations = tokens * policy.config.num_layers * per_token[remat]
        if remat == "none":  # what is gathered for a layer is kept for its backward pass
            model = {"model": {**frozen, **trainable}["model"]}
            activations += device_bytes(model, mesh) * (mesh.shape["fsdp"] - 1)
        return Plan(remat, rows, row_shards, seq_len, activations, fixed + activations, available)

    if asked != "auto":
        return plan(asked)
    return plan("selective") if plan("selective").fits else plan("full")


def plan_stage(asked: str, stage: FineTuningStage | RLStage, weights: PolicyWeights, mesh: Mesh) -> Plan:
    """The plan of a stage's updates."""
    is_rl, rows = isinstance(stage, RLStage), stage_microbatch(stage, mesh)
    seq_len = stage.row_tokens if is_rl else stage.seq_len
    references = int(has_reference(stage))
    excluded = excluded_bytes(stage, weights.policy.config.vocab_size, mesh) if is_rl else 0
    return plan_update(
        asked, weights.policy, weights.trainable, weights.frozen, rows, seq_len, mesh, references, excluded
    )


def gathered_bytes(policy: Policy, is_trained: bool, mesh: Mesh) -> int:
    """Embedding and head, whole over fsdp while they are used, and their gradient where they are trained."""
    if mesh.shape["fsdp"] == 1:
        return 0
    itemsize = 2 if policy.dtype == "bfloat16" else 4
    per_number = itemsize + (4 + 4 if is_trained else itemsize)  # head; embedding as it is held, gradient
    return policy.config.vocab_size * policy.config.d_model * per_number // mesh.shape["tensor"]


def has_reference(stage: Stage) -> bool:
    """Whether a stage holds a second copy of what is trained, for a KL term."""
    return isinstance(stage, RLStage) and stage.algo.kl_coef > 0


def excluded_bytes(stage: RLStage, vocab_size: int, mesh: Mesh) -> int:
    """What the excluded ids of an update's tokens take on each device (`PolicyBatch.excluded`); 0 where
    nothing is filtered.
    """
    rows = stage_microbatch(stage, mesh)
    rows *= -(-stage.algo.rows_per_update // rows)
    return rows * stage.row_tokens * set_bytes(stage.sample, vocab_size) // num_row_shards(mesh)


def check_excluded(stage: RLStage, vocab_size: int, mesh: Mesh) -> None:
    """InputError if they would take more than EXCLUDED_SHARE of a device's memory."""
    needed, available = excluded_bytes(stage, vocab_size, mesh), device_memory(own_devices(mesh)[0])
    if needed > EXCLUDED_SHARE * available:
        raise InputError(
            f"stage {stage.name}: top_k, top_p or min_p need a bit for each of {vocab_size} ids and each"
            f" token of an update, {stage.algo.rows_per_update} rows of {stage.row_tokens}:"
            f" {data_size(needed)} per device of {data_size(available)}; raise algo.updates_per_batch, lower"
            " seq_len (or sample.max_prompt_tokens and max_new_tokens) or problems_per_batch, or leave the"
            " filters off"
        )


def device_bytes(tree: Tree, mesh: Mesh) -> int:
    """What a tree of (abstract) arrays takes on each device."""
    size = lambda leaf, sharding: math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return sum(jax.tree.leaves(jax.tree.map(size, tree, shardings_for(tree, mesh))))
