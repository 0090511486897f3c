"""Compile for accelerators that this machine does not have, and read off what the program would do there.

The compilers come with the extra `aot`: libtpu for TPU, the CUDA plugin for GPU. Nothing is executed, and
GEMMs are not autotuned, so bytes and launches on GPU are those of the compiler's own guesses; there are no
times.

Compile in a process that does nothing else: libtpu takes over the handlers of SIGTERM and other signals, and
environment variables and jax's own settings are set here for compiling alone.
"""

import importlib.util
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl.compiled import hlo
from jaxrl.config.shared import MeshSection, OptimSection
from jaxrl.device.mesh import ROWS, make_mesh, rows_sharding, with_shardings
from jaxrl.errors import InputError
from jaxrl.model.cache import KVCache, make_layer
from jaxrl.model.decoding import DecodeWeights, decode_weights
from jaxrl.model.policy import Policy
from jaxrl.sample.decode import Decoder, DecodeState, Draw
from jaxrl.types import Tree
from jaxrl.update.batch import SFTBatch
from jaxrl.update.state import TrainState, init_state, make_optimizer
from jaxrl.update.step import make_sft_step

TPUS = {"v5e": "v5e:2x4", "v6e": "v6e:2x4"}  # short names: eight chips, of which fewer may be used
GPUS = {  # (name, memory in MiB, its bandwidth in GB/s), SXM
    "h100": ("NVIDIA H100 80GB HBM3", 81_559, 3_350),
    "h200": ("NVIDIA H200", 143_771, 4_800),
}
TARGETS = (*TPUS, *GPUS)
ONE = MeshSection()
# What libtpu would otherwise ask of a machine with TPUs, and its log files; several processes may compile at
# once.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}


@dataclass(frozen=True)
class Program:
    """A compiled program. Bytes are per device; alias_bytes are of results that take an argument's buffer."""

    module: hlo.Module
    argument_bytes: int
    alias_bytes: int
    temp_bytes: int
    seconds: float


@dataclass(frozen=True)
class WindowReport:
    """What the compiled decode window does, per device.

    bytes, launches: of one step. given_bytes: of the bytes, those of weights and cache; the rest goes between
      launches.
    weight_bytes, cache_bytes: what a step must read.
    moves, collectives: of the instructions in the steps' loop, those that only copy, cut or rearrange weights
      or cache (`hlo.Module.moves`, from the size of the smallest matrix on), and those between devices.
    """

    bytes: int
    given_bytes: int
    weight_bytes: int
    cache_bytes: int
    launches: int
    moves: list[str]
    collectives: list[str]
    alias_bytes: int
    temp_bytes: int
    seconds: float

    @property
    def over_floor(self) -> float:
        """bytes / (weights + cache)"""
        return self.bytes / (self.weight_bytes + self.cache_bytes)


def missing_compiler(target: str) -> str | None:
    """What is not installed that compiling for a target needs."""
    package = "jax_cuda12_plugin" if target in GPUS else "libtpu"
    return (
        None
        if importlib.util.find_spec(package)
        else f"compiling for {target} needs {package}: pip install -e '.[aot]'"
    )


def target_mesh(target: str, section: MeshSection = ONE) -> Mesh:
    """A mesh over the devices of a target, as `make_mesh` makes one of devices that exist.

    Args:
      target: one of TARGETS, or a TPU topology by its name: `v5p:4x4x4`. Of GPUs there are as many as asked
        for. `section.dcn_data` is the number of slices.
    Raises:
      InputError: an unknown target, one whose compiler is not installed, or more chips than it has.
    """
    if target not in TARGETS and not re.fullmatch(r"v\d\w*:\d+x\d+(x\d+)?", target):
        raise InputError(
            f"target {target!r} is unknown; choose one of {', '.join(TARGETS)}, or a TPU topology such as"
            " v5p:4x4x4"
        )
    if missing := missing_compiler(target):
        raise InputError(missing)
    jax.config.update("jax_platforms", "cpu")  # the CUDA plugin fails where it looks for a GPU and finds none
    needed = math.prod(section.model_dump().values())
    if target in GPUS:
        devices = topologies.get_topology_desc(
            platform="cuda", topology=f"1x1x{needed}", target_config=_hopper(*GPUS[target])
        ).devices
    else:
        for name, value in LIBTPU.items():
            os.environ.setdefault(name, value)
        name = TPUS.get(target, target)
        slices = {"num_slices": section.dcn_data} if section.dcn_data > 1 else {}
        devices = topologies.get_topology_desc(name, platform="tpu", **slices).devices
        if needed > len(devices):
            raise InputError(f"{needed} devices are more than the {len(devices)} of {name}; ask for fewer")
    # nothing runs, so a part of a target need not have a device of every process
    has_all = needed % len({device.process_index for device in devices}) == 0
    return make_mesh(section, devices if has_all else devices[:needed])


def compile_for(mesh: Mesh, jitted: Callable, *args, options: dict[str, int | str] | None = None) -> Program:
    """Compile a jitted function for the devices of a mesh.

    Args:
      args: static arguments as they are, arrays as `jax.ShapeDtypeStruct`; those without a sharding have a
        copy on every device.
      options: XLA's, for this program alone, e.g. {"xla_gpu_dot_merger_threshold_mb": 0}.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    place = lambda x: (
        x.update(sharding=everywhere) if isinstance(x, jax.ShapeDtypeStruct) and x.sharding is None else x
    )
    # programs for other devices are written to it and cannot be read
    jax.config.update("jax_enable_compilation_cache", False)
    started = time.monotonic()
    compiled = jitted.trace(*jax.tree.map(place, args)).lower().compile(compiler_options=options or None)
    memory = compiled.memory_analysis()
    return Program(
        hlo.parse(compiled.as_text()),
        memory.argument_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        time.monotonic() - started,
    )


def decode_window_args(
    policy: Policy,
    mesh: Mesh,
    rows: int,
    length: int,
    merge: bool = False,
    int8_weights: bool = False,
    int8_cache: bool = False,
) -> tuple[DecodeWeights, KVCache, DecodeState]:
    """What `Decoder.window` takes beside its number of steps, without arrays: `rows` rows on all devices
    together, with caches of `length` positions and one stop id.
    """
    c, key = policy.config, jax.random.key(0)
    model = jax.eval_shape(lambda: jax.tree.map(lambda x: x.astype(policy.dtype), policy.init_model(key)))
    lora = {"lora": jax.eval_shape(policy.init_lora, key)} if policy.lora else {}
    weights = jax.eval_shape(
        lambda t, f: decode_weights(policy, t, f, mesh, merge, int8_weights), lora, {"model": model}
    )

    by_row = NamedSharding(mesh, PartitionSpec(ROWS))
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=by_row)
    kv = jax.ShapeDtypeStruct((rows, length, c.num_kv_heads, c.head_dim), policy.dtype)
    entry = jax.tree.map(
        lambda x: x.update(sharding=by_row), jax.eval_shape(lambda k, v: make_layer(k, v, int8_cache), kv, kv)
    )
    i32, f32 = jnp.int32, jnp.float32
    draw = Draw(
        keys=array(key.dtype),
        temperature=array(f32),
        top_k=array(i32),
        top_p=array(f32),
        min_p=array(f32),
        stop_ids=array(i32, 1),
    )
    cache = KVCache((entry,) * c.num_layers, start=array(i32), cursor=jax.ShapeDtypeStruct((), i32))
    return (
        weights,
        cache,
        DecodeState(last_tokens=array(i32), left=array(i32), is_done=array(jnp.bool_), draw=draw),
    )


def update_args(
    policy: Policy, mesh: Mesh, rows: int, length: int, microbatches: int = 2
) -> tuple[jax.stages.Wrapped, tuple[TrainState, Tree, SFTBatch]]:
    """An optimiser step of SFT and what it takes, without arrays: microbatches of `rows` rows on all devices
    together.
    """
    key, tx = jax.random.key(0), make_optimizer(OptimSection(), 10)
    held = lambda: jax.tree.map(lambda x: x.astype(policy.dtype), policy.init_model(key))
    trainable = {"lora": jax.eval_shape(policy.init_lora, key)}
    frozen = with_shardings({"model": jax.eval_shape(held)}, mesh)
    state = with_shardings(jax.eval_shape(lambda t: init_state(t, tx, key), trainable), mesh)
    shape, by_row = (microbatches, rows, length), rows_sharding(mesh, axis=1)
    integers, flags = (jax.ShapeDtypeStruct(shape, dtype, sharding=by_row) for dtype in (jnp.int32, bool))
    batch = SFTBatch(jax.ShapeDtypeStruct((), jnp.int32), integers, integers, integers, flags)
    return make_sft_step(policy, tx, state, mesh), (state, frozen, batch)


def compile_window(
    target: str,
    policy: Policy,
    rows: int,
    length: int,
    steps: int = 32,
    data: int = 1,
    merge: bool = False,
    int8_weights: bool = False,
    int8_cache: bool = False,
    options: dict[str, int | str] | None = None,
) -> WindowReport:
    """Compile the decode window of `rows` rows on each of `data` devices, and report on it.

    Args:
      length: cache positions, all of which are read. steps: of the window.
      merge, int8_weights, int8_cache: the forms of weights and cache, as in `config.SampleSection`.
    """
    mesh = target_mesh(target, MeshSection(data=data))
    weights, cache, state = decode_window_args(
        policy, mesh, rows * data, length, merge, int8_weights, int8_cache
    )
    decoder = Decoder(policy, mesh, int8_cache=int8_cache)
    program = compile_for(mesh, Decoder.window, decoder, weights, cache, state, steps, options=options)
    body, step = program.module.loop(steps), program.module
    itemsize = jnp.dtype(policy.dtype).itemsize
    smallest = min(d_in * d_out for d_in, d_out in policy.config.linear_sizes.values()) * (
        1 if int8_weights else itemsize
    )
    # what is taken from the embedding, and is no copy of weights
    embedded = rows * policy.config.d_model * itemsize
    return WindowReport(
        bytes=step.traffic(body),
        given_bytes=step.given_traffic(body),
        weight_bytes=_nbytes(weights) - _nbytes(weights.embed),  # of the embedding, B rows are read
        cache_bytes=_nbytes(cache.layers) // data,
        launches=step.launches(body),
        moves=[str(i) for i in step.moves(body, at_least=max(smallest, embedded + 1))],
        collectives=[str(i) for i in step.collectives(body)],
        alias_bytes=program.alias_bytes,
        temp_bytes=program.temp_bytes,
        seconds=program.seconds,
    )


def _nbytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _hopper(name: str, memory_mib: int, bandwidth: int) -> str:
    """A GPU of compute capability 9.0 with 132 multiprocessors, in the text form that XLA reads
    (GpuTargetConfigProto).
    """
    return f"""
      platform_name: "CUDA"
      device_description_str: "{name}"
      dnn_version_info {{ major: 9 minor: 8 }}
      gpu_device_info {{
        cuda_compute_capability {{ major: 9 }}
        core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
        device_memory_size: {memory_mib << 20}  memory_bandwidth: {bandwidth * 10**9}
        l2_cache_size: {50 << 20}  shared_memory_per_core: {228 << 10}
        shared_memory_per_block: {48 << 10}  shared_memory_per_block_optin: {227 << 10}
        threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
        registers_per_core_limit: {64 << 10}  registers_per_block_limit: {64 << 10}
        block_dim_limit_x: {2**31 - 1}  block_dim_limit_y: 65535  block_dim_limit_z: 65535
      }}
    """
