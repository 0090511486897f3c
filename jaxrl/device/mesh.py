"""The one place that knows about devices: the mesh, the table of parameter shardings, where batches go.

Axes of the mesh: `data` (rows; weights copied), `fsdp` (rows; weights cut), `tensor` (heads, features and
vocabulary cut). Several slices of a TPU stand one after the other on `data`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl.config.shared import MeshSection
from jaxrl.device.arrays import put
from jaxrl.errors import InputError

P = PartitionSpec
AXES = ("data", "fsdp", "tensor")  # neighbours on the last one talk most
ROWS = ("data", "fsdp")  # the mesh axes that rows are spread over

# First match wins; a parameter that no pattern matches is an error. Adapters are small: they are copied
# everywhere, and so are the optimiser's moments of them.
RULES: list[tuple[str, PartitionSpec]] = [
    (r"layers/\w+/lora_[ab]$", P()),
    (r"value_head/", P()),
    (r"(embed|head)/kernel$", P("tensor", "fsdp")),  # [V, D]
    (r"layers/(q|k|v|gate|up)/kernel$", P(None, "fsdp", "tensor")),  # [L, D, out]
    (r"layers/(o|down)/kernel$", P(None, "tensor", "fsdp")),  # [L, in, D]
    (r"layers/(q|k|v|gate|up)/bias$", P(None, "tensor")),  # [L, out]
    (r"layers/(o|down)/bias$", P()),
    (r"/scale$", P()),
    (r"(^|/)(step|key|count)$", P()),  # scalars of the train state and the optimiser
]


def make_mesh(section: MeshSection, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a section whose axes are all given, [dcn_data * data, fsdp, tensor].

    Args:
      devices: those of all processes; None: what jax sees. Fewer may be needed, and then as many of each
        process: one that had none could not take part.
    Raises:
      InputError: if there are too few devices, or processes or slices cannot have as many each.
    """
    slices, *shape = _given(section)
    devices = jax.devices() if devices is None else devices
    needed = slices * math.prod(shape)
    if needed > len(devices):
        raise InputError(
            f"mesh {_in_words(section)} needs {needed} devices and jax sees {len(devices)} "
            f"({devices[0].platform}); lower the mesh axes"
        )
    used = _of_every_process(section, needed, devices)
    is_whole = needed == len(devices)
    arranged = [_arrange(shape, part, is_whole) for part in _slices(slices, used)]
    # Auto: the compiler places what this table leaves open. (make_mesh's own default asks every operation to
    # be explicit.)
    return Mesh(np.concatenate(arranged), AXES, axis_types=(AxisType.Auto,) * 3)


def _given(section: MeshSection) -> list[int]:
    """dcn_data, data, fsdp and tensor. InputError if one is still to be chosen (`train/layout.py` does)."""
    sizes = [section.dcn_data, section.data, section.fsdp, section.tensor]
    if None in sizes:
        raise InputError("a mesh is made of numbers, and is not chosen here; give mesh.data, fsdp and tensor")
    return [size for size in sizes if size is not None]


def num_slices(devices: Sequence[jax.Device]) -> int:
    """How many TPU slices, joined by a slower network, devices are of; GPUs and CPUs count as one."""
    return len({_slice_of(device) for device in devices}) if devices[0].platform == "tpu" else 1


def _slice_of(device: jax.Device) -> int:
    return getattr(device, "slice_index", 0)


def _of_every_process(
    section: MeshSection, needed: int, devices: Sequence[jax.Device]
) -> Sequence[jax.Device]:
    """The first devices of each process, as many of each."""
    if needed == len(devices):
        return devices
    by_process = defaultdict(list)
    for device in devices:
        by_process[device.process_index].append(device)
    each, rest = divmod(needed, len(by_process))
    if rest or each > min(map(len, by_process.values())):
        data, rest = divmod(len(devices) * (section.data or 1) * (section.dcn_data or 1), needed)
        fits = {"data": len(devices), "fsdp": 1, "tensor": 1} if rest else {"data": data}
        raise InputError(
            f"mesh {_in_words(section)} needs {needed} of {len(devices)} devices, not as many of each"
            f" of {len(by_process)} processes; use all devices, for example"
            f" {_in_words(section.model_copy(update={'dcn_data': 1, **fits}))}, or start fewer processes"
        )
    return [device for own in by_process.values() for device in own[:each]]


def _slices(asked: int, devices: Sequence[jax.Device]) -> list[Sequence[jax.Device]]:
    """The devices of each slice; where the machine knows of one only, equal parts in their order."""
    slices = num_slices(devices)
    if slices == 1:
        size = len(devices) // asked
        return [devices[i * size : (i + 1) * size] for i in range(asked)]
    if slices != asked:
        raise InputError(
            f"jax sees {slices} slices and mesh.dcn_data is {asked}; set it to {slices}, and mesh.data, fsdp"
            f" and tensor to the {len(devices) // slices} devices of one slice"
        )
    by_slice = defaultdict(list)
    for device in devices:
        by_slice[_slice_of(device)].append(device)
    return [by_slice[index] for index in sorted(by_slice)]


def _arrange(shape: list[int], devices: Sequence[jax.Device], is_whole: bool) -> np.ndarray:
    """Devices [data, fsdp, tensor] with neighbours next to each other, as far as the wiring has it. Of a part
    of a machine nothing is known, and they stay in their order.
    """
    if not is_whole:
        return np.array(devices).reshape(shape)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def _in_words(section: MeshSection) -> str:
    dcn = "" if section.dcn_data == 1 else f"dcn_data={section.dcn_data} "
    return f"{dcn}data={section.data} fsdp={section.fsdp} tensor={section.tensor}"


def num_row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are spread over."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_rows(rows: int, mesh: Mesh, setting: str) -> None:
    """InputError unless `rows` rows can be spread evenly; `setting` names what the user can change."""
    shards = num_row_shards(mesh)
    if rows % shards:
        raise InputError(
            f"{rows} rows cannot be split over {shards} row shards (mesh data={mesh.shape['data']} * "
            f"fsdp={mesh.shape['fsdp']}); set {setting} to a multiple of {shards}"
        )


def shardings_for(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a tree of (abstract) arrays, by the table.

    Raises:
      InputError: if an axis cannot be cut evenly over the mesh.
      LookupError: if no rule matches a path (a defect of the table).
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(path, leaf, mesh)), tree
    )


def with_shardings(shapes: Any, mesh: Mesh) -> Any:
    """A tree of shapes that know how their arrays will be cut, by the table."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings_for(shapes, mesh)
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, P())


def rows_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Rows, on axis `axis`, spread over the devices."""
    return NamedSharding(mesh, P(*(None,) * axis, ROWS))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Host arrays [M, B, T, ...] -> device arrays, B spread over the mesh; None and scalars as they fit."""

    by_row, whole = rows_sharding(mesh, axis=1), replicated(mesh)
    return put(batch, jax.tree.map(lambda leaf: by_row if np.ndim(leaf) >= 3 else whole, batch))


def gather_weights(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: weights whole over `fsdp`, still cut over `tensor`. Layers are stacked, of any number.

    Said of a slice of the stack, and in two steps, first as it lies and then as it is wanted: else the
    compiler gathers all layers for the sake of one, or moves activations to the weights.
    """
    if mesh.shape["fsdp"] == 1:
        return tree

    def gather(path: Any, leaf: Array) -> Array:
        lies = _spec(path, leaf, mesh)
        wanted = P(*(None if axis == "fsdp" else axis for axis in lies))
        for spec in (lies, wanted):
            leaf = jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))
        return leaf

    return jax.tree_util.tree_map_with_path(gather, tree)


def spread_rows(x: Array, mesh: Mesh) -> Array:
    """Inside jit: an array of rows [B, ...], cut by them where they can be spread evenly."""
    if x.shape[0] % num_row_shards(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, rows_sharding(mesh))


def over_rows(function: Callable, mesh: Mesh | None, rows: int) -> Callable:
    """A function of (arrays of rows [B, ...] or None, arrays that all rows share), run by every device of the
    rows on its own, as if there were no others; results are by row, too. Nothing is sent, but what the
    gradient of a shared array is summed from, at the end and once. `tensor` stays the compiler's.
    """
    if mesh is None or num_row_shards(mesh) == 1 or rows % num_row_shards(mesh):
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=(P(ROWS), P()), out_specs=P(ROWS), axis_names=set(ROWS), check_vma=False
    )


def over_rows_and_heads(attention: Callable, mesh: Mesh, rows: int, heads: int) -> Callable:
    """A function of q, k, v [B, T, heads, H] and ids [B, T], run by every device on its own rows and heads.

    For kernels that the compiler cannot cut. What cannot be spread evenly is done by all devices alike.
    """
    row_axes = ROWS if rows % num_row_shards(mesh) == 0 else None
    by_head = P(row_axes, None, "tensor" if heads % mesh.shape["tensor"] == 0 else None)
    return jax.shard_map(
        attention, mesh=mesh, in_specs=(by_head,) * 3 + (P(row_axes),), out_specs=by_head, check_vma=False
    )


def path_name(path: Any) -> str:
    """A tree path as `model/layers/q/kernel`."""
    return "/".join(
        str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path
    )


def _spec(path: Any, leaf: Any, mesh: Mesh) -> PartitionSpec:
    name = path_name(path)
    for pattern, spec in RULES:
        if re.search(pattern, name):
            for axis, mesh_axis in enumerate(spec):
                if mesh_axis is not None and leaf.shape[axis] % mesh.shape[mesh_axis]:
                    raise InputError(
                        f"{name} of shape {tuple(leaf.shape)}: axis {axis} ({leaf.shape[axis]}) cannot be "
                        f"cut over mesh.{mesh_axis}={mesh.shape[mesh_axis]}; choose a mesh.{mesh_axis} that "
                        "divides it"
                    )
            return spec
    raise LookupError(
        f"no sharding rule matches the parameter {name!r}; add one to jaxrl/device/mesh.py: RULES"
    )
