"""The one place that knows about devices: the mesh, the table of parameter shardings, where batches go.

Axes of the mesh: `data` (rows; weights copied), `fsdp` (rows; weights cut), `tensor` (heads and features
cut).
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl.config.shared import MeshSection
from jaxrl.device.arrays import put
from jaxrl.errors import InputError

P = PartitionSpec
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


def make_mesh(section: MeshSection) -> Mesh:
    """The mesh over the first data * fsdp * tensor devices.

    Raises:
      InputError: if there are fewer devices than that.
    """
    shape = (section.data, section.fsdp, section.tensor)
    needed, devices = int(np.prod(shape)), jax.devices()
    if needed > len(devices):
        raise InputError(
            f"mesh data={section.data} fsdp={section.fsdp} tensor={section.tensor} needs {needed} devices "
            f"and jax sees {len(devices)} ({devices[0].platform}); lower the mesh axes"
        )
    # Auto: the compiler places what this table leaves open. (make_mesh's own default asks every operation to
    # be explicit.)
    return jax.make_mesh(
        shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices[:needed]
    )


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
    """Inside jit: weights whole over `fsdp`, still cut over `tensor`.

    Decoding reads every weight at every step; gathered once per window, nothing is gathered inside its loop.
    """
    if mesh.shape["fsdp"] == 1:
        return tree

    def gather(path: Any, leaf: Array) -> Array:
        whole = P(*(None if axis == "fsdp" else axis for axis in _spec(path, leaf, mesh)))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, whole))

    return jax.tree_util.tree_map_with_path(gather, tree)


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
