"""What docs/gpu.md says of the compiler's flags, on an SFT update under `fsdp: 4` compiled for H100s that are
not here.

Compiled in a process of its own, as in `test_aot.py`.
"""

import functools
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from jaxrl.compiled import aot
from jaxrl.config.shared import LoraSection, OptimSection
from jaxrl.device.mesh import replicated, rows_sharding, with_shardings
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.update.batch import SFTBatch
from jaxrl.update.state import abstract_state, make_optimizer
from jaxrl.update.step import make_sft_step

MISSING = aot.missing_compiler("h100")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
GPUS = 4
CONFIG = ModelConfig("llama", 2048, 512, 3, 4, 2, 128, 1024, tie_embeddings=True)


def compile_update(options: tuple[tuple[str, bool | int], ...] = ()) -> str:
    """The text of the compiled program."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    topology = topologies.get_topology_desc(
        platform="cuda", topology=f"1x1x{GPUS}", target_config=aot._hopper(*aot.GPUS["h100"])
    )
    devices = np.array(topology.devices).reshape(1, GPUS, 1)
    mesh = Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    policy = Policy(CONFIG, LoraSection(rank=8, alpha=16.0), "bfloat16", remat="selective", mesh=mesh)
    key = jax.random.key(0)
    base = jax.eval_shape(lambda: jax.tree.map(lambda x: x.astype(jnp.bfloat16), policy.init_model(key)))
    trainable = with_shardings({"lora": jax.eval_shape(policy.init_lora, key)}, mesh)
    frozen = with_shardings({"model": base}, mesh)
    tx = make_optimizer(OptimSection(), 100)
    state = abstract_state(trainable, tx, key, mesh, None)
    rows = lambda dtype: jax.ShapeDtypeStruct((2, 8, 1024), dtype, sharding=rows_sharding(mesh, axis=1))
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))
    batch = SFTBatch(count, *[rows(jnp.int32)] * 3, rows(jnp.bool_))
    step = make_sft_step(policy, tx, state, mesh)
    return step.trace(state, frozen, batch).lower().compile(compiler_options=dict(options) or None).as_text()


@pytest.fixture(scope="module")
def compiled():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield functools.cache(lambda *options: pool.submit(compile_update, options).result())


def kernels_between(text: str) -> list[int]:
    """Of every collective, how many kernels stand between its start and its end in the schedule."""
    lines, found = text.splitlines(), []
    kinds = "all-gather|all-reduce|reduce-scatter|collective-permute|async"
    for number, line in enumerate(lines):
        if started := re.match(rf"\s*(%?[\w.-]+) = .* (?:{kinds})-start\(", line):
            end = rf" (?:{kinds})-done\({re.escape(started[1])}\)"
            length = next(n for n, later in enumerate(lines[number:]) if re.search(end, later))
            between = lines[number + 1 : number + length]
            found.append(sum(bool(re.search(r" (fusion|custom-call|call)\(", x)) for x in between))
    return found


def instructions(text: str) -> list[str]:
    """The scheduled program without the places in Python that it comes from."""
    return [re.sub(r", metadata=\{[^}]*\}", "", line) for line in text.splitlines() if " = " in line]


def test_collectives_run_beside_kernels_without_being_asked_to(compiled):
    between = kernels_between(compiled())
    assert len(between) >= 4  # of each layer's weights at least, forward and backward
    assert sum(count > 0 for count in between) > len(between) / 2


def test_the_latency_hiding_scheduler_changes_nothing_more(compiled):
    by_itself = instructions(compiled())
    assert instructions(compiled(("xla_gpu_enable_latency_hiding_scheduler", True))) == by_itself
    # options do reach the compiler
    assert instructions(compiled(("xla_gpu_enable_triton_gemm", False))) != by_itself
