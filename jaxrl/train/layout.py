"""Which devices share what, where the config leaves it open: `mesh: auto`.

    weights copied       data          nothing is gathered; each device holds all
    weights cut          fsdp          gathered layer by layer in an update, once per sampling call
    matrices cut, too    tensor        each product is shared: messages in every layer, also while sampling

The first that fits is taken. What counts is how much a device holds all the time: weights, what training
copies of them, and the form that decoding reads, which is whole over `fsdp`. What is left is for activations
and caches.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxrl.config.experiment import EvalStage, SFTStage, Stage
from jaxrl.config.shared import MeshSection, ModelSection
from jaxrl.device.memory import device_memory
from jaxrl.device.mesh import AXES, check_rows, num_slices
from jaxrl.errors import InputError
from jaxrl.policy.describe import describe
from jaxrl.policy.hand_over import PolicyWeights, entered_shapes
from jaxrl.track.format import data_size
from jaxrl.train.memory_plan import COPIES, device_bytes, has_reference
from jaxrl.update.microbatch import stage_microbatch

WEIGHTS_SHARE = 0.6  # of a device's memory, for what is there all the time


def choose_mesh(
    section: MeshSection, model: ModelSection, stages: Sequence[Stage], vocab_size: int
) -> tuple[MeshSection, str | None]:
    """The section with every axis given, and the reason in words; None where nothing was open.

    All processes choose alike, and so does a run that is taken up again on the same machine: asked are
    settings, the number of devices and their memory, and never what is free.

    Raises:
      InputError: axes that are given and do not divide the devices; a model or batches that no layout
        divides.
    """
    if None not in (section.dcn_data, section.data, section.fsdp, section.tensor):
        return section, None
    devices = jax.devices()
    memory = device_memory(jax.local_devices()[0])
    section = section.model_copy(update={"dcn_data": section.dcn_data or num_slices(devices)})
    passed, problem = [], None
    for candidate in candidates(section, len(devices)):
        shape = (candidate.dcn_data * candidate.data, candidate.fsdp, candidate.tensor)
        mesh = Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)
        try:
            held = resident_bytes(model, stages, vocab_size, mesh)
        except InputError as error:  # does not divide
            problem = problem or error
            continue
        passed.append((candidate, held))
        if held <= WEIGHTS_SHARE * memory:
            return candidate, _reason(passed, memory, problem)
    if not passed:
        raise problem
    passed.append(min(passed, key=lambda each: each[1]))
    return passed[-1][0], _reason(passed, memory, problem)


def candidates(section: MeshSection, num_devices: int) -> Iterator[MeshSection]:
    """All ways to use all devices with the axes that are given, the simplest first: least `tensor`, then
    least `fsdp`.

    Raises:
      InputError: if there is none.
    """
    size, rest = divmod(num_devices, section.dcn_data)
    found = [
        section.model_copy(update={"data": size // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor})
        for tensor in ([section.tensor] if section.tensor else range(1, size + 1))
        for fsdp in ([section.fsdp] if section.fsdp else range(1, size + 1))
        if size % (fsdp * tensor) == 0 and section.data in (None, size // (fsdp * tensor))
    ]
    if rest or not found:
        given = {name: size for name, size in section.model_dump().items() if size is not None}
        raise InputError(
            f"mesh {given} cannot be completed to {num_devices} devices; leave an axis null, or give numbers"
            f" that divide {num_devices}"
        )
    yield from found


def resident_bytes(model: ModelSection, stages: Sequence[Stage], vocab_size: int, mesh: Mesh) -> int:
    """What the stage that needs most holds all the time on each device.

        trained in COPIES copies, and one more for a KL term's reference
        + frozen + (where it samples) all weights in model.dtype / tensor

    Raises:
      InputError: weights or microbatches that the mesh does not divide.
    """
    weights, most = describe(model, vocab_size, mesh).shapes(), 0
    for stage in stages:
        if not isinstance(stage, EvalStage):
            check_rows(stage_microbatch(stage, mesh), mesh, f"stage {stage.name}: microbatch (or rows)")
            weights = entered_shapes(weights, stage.lora, model.dtype, mesh)
        copies = COPIES + has_reference(stage)
        held = copies * device_bytes(weights.trainable, mesh) + device_bytes(weights.frozen, mesh)
        most = max(most, held + (0 if isinstance(stage, SFTStage) else _decode_bytes(weights, mesh)))
    return most


def _decode_bytes(weights: PolicyWeights, mesh: Mesh) -> int:
    whole = {**weights.frozen, **weights.trainable}["model"]
    size = sum(leaf.size for leaf in jax.tree.leaves(whole))
    return size * (2 if weights.policy.dtype == "bfloat16" else 4) // mesh.shape["tensor"]


def _reason(passed: Sequence[tuple[MeshSection, int]], memory: int, problem: InputError | None) -> str:
    """passed: what was looked at, the choice last. problem: of the first that did not divide."""

    def named(section: MeshSection) -> str:
        sizes = section.model_dump()
        return ", ".join(f"{name} {sizes[name]}" for name in sizes if sizes[name] > 1) or "one device"

    (chosen, held), before = passed[-1], passed[:-1]
    line = (
        f"mesh auto: {named(chosen)}; weights, optimiser and the sampler's copy take {data_size(held)} per"
        f" device of {data_size(memory)}"
    )
    if held > WEIGHTS_SHARE * memory:
        line += f", more than {WEIGHTS_SHARE:.0%}, but less than any other way would; use more devices"
    elif before:
        other, more = before[-1]
        line += (
            f", where {named(other)} would take {data_size(more)} (at most {WEIGHTS_SHARE:.0%} is for them)"
        )
    return line if problem is None else f"{line}. Not every way divides: {problem}"
