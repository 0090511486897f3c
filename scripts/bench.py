"""How fast is jaxrl on this device, and how far from what the device can do? One JSON line.

    python scripts/bench.py sample --shape smollm-135m --prompts 4 --group 8 --prompt-len 128 --new 128
    python scripts/bench.py sft    --shape smollm-135m --rows 4 --seq-len 256 --dtype float32
    python scripts/bench.py grpo   --shape smollm-135m --lengths lognormal --set algo.updates_per_batch=2

Random weights of the true shape, or a checkpoint's (`--model DIR`), with LoRA adapters of rank 16 on all
linears that do something, or with none (`--no-lora`). No row ends by itself: each emits the tokens of its
budget. `sample` is one call of the engine; `sft` one optimiser step on full rows; `grpo` and `ppo` one whole
step: rollout, a trivial verifier in the pool's processes, credit (with a KL term or PPO a scoring pass),
packing, one update.

The line:
    tokens_per_s     of the median run after a warm-up
    compilations     programs that XLA built (or took from its cache on disk) in set-up and warm-up, and in
                     the measured runs, where there must be none: else exit code 1
    programs         all of these by name, and for how many shapes each was built
    peak_memory_gib  the device's own count, or the process's where the device has none (CPU); taken before
                     the floor
    compile_s        of set_up_s (weights) and warm_up_s, the seconds in the compiler or reading its cache
    mfu              the FLOPs of the formulas over peak * median
    parts            seconds of the median run, the engine's own within `rollout_s`, and what the engine
                     counted
    load             the machine's load average before: on a busy machine the times mean little
    share_of_floor   floor_s / median, by the formulas of `bench_common.py` and two numbers measured here:

    peak       FLOP/s of a square matmul in the benchmark's dtype, the best of several sizes
    bandwidth  bytes/s of a sum over an array much larger than any cache

A model that fits into the cache (`tiny`) is not bound by this bandwidth; its floor is the arithmetic's, and
far away.
"""

import argparse
import json
import os
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from bench_common import ALPHA, RANK, Work, add_work_arguments, costs, judge, load, peak_rss_gib, work_of
from jax.sharding import Mesh

from jaxrl.config.algo import GRPOSection, PPOSection
from jaxrl.config.experiment import Config, SFTStage
from jaxrl.config.file import make_section, parse_yaml
from jaxrl.config.shared import LoraSection, MeshSection, OptimSection, SampleSection, VerifySection
from jaxrl.data.packing import PackedRows
from jaxrl.device.compilations import Compilations, set_up_jax
from jaxrl.device.mesh import make_mesh, path_name, shard_batch, shardings_for
from jaxrl.errors import InputError
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.ops.causal_attention import choose_kernel
from jaxrl.policy.hand_over import enter_stage
from jaxrl.policy.load import load_policy
from jaxrl.rollout.collate import collate
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.train.experience import Scorers, fields_of, give_credit, minibatches
from jaxrl.train.finetune import as_batch
from jaxrl.train.rl import make_critic, make_reference
from jaxrl.types import Completion, Group, Problem, Trajectory, Verdict
from jaxrl.update.microbatch import policy_microbatch, sft_microbatch
from jaxrl.update.state import make_actor_critic_optimizer, make_optimizer, place_state, policy_part
from jaxrl.update.step import make_critic_fn, make_grpo_step, make_ppo_step, make_score_fn, make_sft_step
from jaxrl.verify.pool import VerifierPool

Tree = dict
Settings = dict[str, dict]  # what --set says, by section
# number of the run -> seconds of its parts, and what the engine counted
Run = Callable[[int], dict[str, float]]
Bench = Callable[[Work, Settings], AbstractContextManager[Run]]
Rates = tuple[float, float, str]  # peak in FLOP/s, bandwidth in bytes/s, and where the two are from


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_work_arguments(parser, tuple(BENCHES))
    add_engine_arguments(parser)
    arguments = parser.parse_args()
    try:
        set_up_jax(Config.model_fields["compilation_cache"].default)
        line = measure(work_of(arguments), settings_of(arguments), arguments.runs)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(line))
    return 1 if line["compilations"]["runs"] else 0


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that only jaxrl understands; `settings_of` reads them."""
    parser.add_argument(
        "--no-compact", action="store_true", help="finished rows go on taking part in decoding"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="of the sample section, or algo.key",
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    settings: Settings = {"sample": {"compact": False} if arguments.no_compact else {}, "algo": {}}
    for override in arguments.overrides:
        dotted, equals, text = override.partition("=")
        section, _, key = dotted.rpartition(".")
        if not equals or (section or "sample") not in settings:
            raise InputError(
                f"--set {override} is neither key=value of the sample section nor algo.key=value; write for "
                "example window=16"
            )
        settings[section or "sample"][key] = parse_yaml(text)
    return settings


def measure(
    work: Work,
    settings: Settings,
    runs: int,
    rates: Callable[[str], Rates] | None = None,
    goes_on: Callable[[dict], bool] = lambda line: True,
) -> dict:
    """The JSON line.

    Args:
      rates: of the device, by dtype; measured where it is not given.
      goes_on: whether there is time for one more run, asked after each with what is known by then.
    """
    work, busy = with_microbatch(work), load()
    results: list[tuple[float, dict[str, float]]] = []
    started = time.perf_counter()
    with Compilations() as compilations, BENCHES[work.what](work, settings) as run:
        set_up_s = time.perf_counter() - started
        warm_up_s, _ = timed(run, 0)
        warm_up = {
            "set_up_s": set_up_s,
            "warm_up_s": warm_up_s,
            "compile_s": compilations.seconds,
            "compilations": {"warm_up": compilations.take(), "runs": 0},
        }
        while len(results) < runs and goes_on(rounded(warm_up | summary(work, results))):
            results.append(timed(run, len(results) + 1))
        warm_up["compilations"]["runs"] = compilations.take()
    memory, memory_of = peak_memory_gib()

    del run  # its weights make room
    peak, bandwidth, source = (rates or measured_rates)(work.dtype)
    device = jax.devices()[0]
    line = work.describe() | {
        "device": device.device_kind if device.platform != "cpu" else f"{os.cpu_count()} CPU cores",
        "load": busy,
        "tokens": work.tokens(),
        **summary(work, results),
        "peak_memory_gib": memory,
        "memory_of": memory_of,
        **warm_up,
        "programs": dict(compilations.programs.most_common()),
        **beside_floor(work, results, peak, bandwidth),
        "rates": source,
        "peak_gflop_per_s": peak / 1e9,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "set": settings,
    }
    return rounded(line)


def summary(work: Work, results: list[tuple[float, dict[str, float]]]) -> dict:
    """What the runs took; without any, that there were none."""
    if not results:
        return {"runs": 0}
    in_order = sorted(results, key=lambda result: result[0])
    seconds = [result[0] for result in in_order]
    median = statistics.median(seconds)
    return {
        "runs": len(results),
        "tokens_per_s": work.tokens() / median,
        "seconds": {"median": median, "min": seconds[0], "max": seconds[-1]},
        "parts": in_order[len(results) // 2][1],
    }


def beside_floor(work: Work, results: list, peak: float, bandwidth: float) -> dict:
    """The least time of the work on a device of `peak` FLOP/s and `bandwidth` bytes/s, and the median beside
    it.

        floor = sum over programs of max(FLOPs / peak, bytes / bandwidth)     mfu = FLOPs / (peak * median)
    """
    floor = sum(cost.seconds(peak, bandwidth) for cost in costs(work))
    arithmetic = sum(cost.flops / peak for cost in costs(work))
    # floor_arithmetic_s is equal to floor_s where bytes never bind
    floors = {"floor_s": floor, "floor_arithmetic_s": arithmetic, "floor_tokens_per_s": work.tokens() / floor}
    if not results:
        return floors
    median = statistics.median(seconds for seconds, _ in results)
    return floors | {"share_of_floor": floor / median, "mfu": arithmetic / median}


class Parts(dict):
    """Seconds by name. A lap books the time since the one before."""

    def __init__(self):
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self[name] = self.get(name, 0.0) + now - self.last
        self.last = now


def timed(run: Run, number: int) -> tuple[float, dict[str, float]]:
    """(seconds, seconds of the parts) of one run."""
    started = time.perf_counter()
    parts = run(number)
    return time.perf_counter() - started, parts


# --------------------------------------------------------------------------------------------- the benchmarks


@contextmanager
def sample_bench(work: Work, settings: Settings) -> Iterator[Run]:
    """One call of the engine."""
    policy, trainable, frozen, mesh = open_policy(work)
    engine, requests = make_engine(work, sample_section(work, settings), policy, mesh)

    def run(number: int) -> dict[str, float]:
        check_tokens(work, roll_out(work, engine, requests, trainable, frozen, number))
        return engine.times | engine.counts

    yield run


@contextmanager
def sft_bench(work: Work, _: Settings) -> Iterator[Run]:
    """One optimiser step."""
    policy, trainable, frozen, mesh = open_policy(work)
    tx = make_optimizer(OptimSection(), 1000)
    state = place_state(trainable, tx, jax.random.key(1), mesh)
    step = make_sft_step(policy, tx, state, mesh)
    positions = np.broadcast_to(np.arange(work.seq_len, dtype=np.int32), (work.rows, work.seq_len))
    rows = PackedRows(work.sft_ids().astype(np.int32), positions, np.ones_like(positions), positions > 0)

    def run(_: int) -> dict[str, float]:
        nonlocal state
        state, metrics = step(state, frozen, shard_batch(as_batch(rows, work.piece), mesh))
        check_finite(jax.device_get(metrics))
        return {}

    yield run


@contextmanager
def rl_bench(work: Work, settings: Settings) -> Iterator[Run]:
    """One step of GRPO or PPO as `jaxrl/train/rl.py` does it, without tasks, checkpoints and logs."""
    policy, trainable, frozen, mesh = open_policy(work)
    sample, seq_len = sample_section(work, settings), work.prompt_len + work.new
    values = {
        "problems_per_batch": work.prompts,
        "group_size": work.group,
        "microbatch": work.piece,
        "updates_per_batch": 1,
    }
    score = make_score_fn(policy, mesh, sample.temperature)
    if work.what == "ppo":
        algo = make_section(PPOSection, "--set algo", **{**values, "ppo_epochs": 1, **settings["algo"]})
        critic = make_critic(algo, policy.config.d_model, trainable, jax.random.key(2))
        tx = make_actor_critic_optimizer(OptimSection(), algo, 1000)
        make_step, score_sampled = make_ppo_step, make_critic_fn(policy, mesh, sample.temperature)
    else:
        algo = make_section(GRPOSection, "--set algo", **{**values, **settings["algo"]})
        critic, tx = {}, make_optimizer(OptimSection(), 1000)
        make_step, score_sampled = make_grpo_step, score
    state = place_state(trainable | critic, tx, jax.random.key(1), mesh, make_reference(algo, trainable))
    update = make_step(policy, tx, algo, sample, state, mesh)
    scorers = Scorers(mesh, seq_len, algo, frozen, score_sampled, score)
    engine, requests = make_engine(work, sample, policy, mesh)
    pool = VerifierPool(judge, VerifySection().workers, timeout_s=10.0, failure_reward=0.0)

    def run(number: int) -> dict[str, float]:
        nonlocal state
        parts, tickets = Parts(), {}
        weights = policy_part(state.trainable), frozen
        submit = lambda row, text: tickets.update({row: pool.submit(problem_of(row // work.group), text)})
        completions = roll_out(work, engine, requests, *weights, number, submit)
        parts.lap("rollout_s")
        verdicts = pool.gather(tickets[row] for row in range(work.num_samples))
        parts.lap("verify_wait_s")
        groups = make_groups(work, completions, verdicts)
        experience = give_credit(groups, [], scorers, state, algo.kl_coef, sample.max_new_tokens)
        parts.lap("credit_s")
        for samples in minibatches(experience, algo, (0, number)):
            batch = collate(
                samples,
                algo.rows_per_update,
                seq_len,
                policy_microbatch(algo, seq_len, mesh),
                fields_of(algo),
            )
            parts.lap("collate_s")
            state, metrics = update(state, frozen, shard_batch(batch, mesh))
            check_finite(jax.device_get(metrics))
            parts.lap("update_s")
        check_tokens(work, completions)
        return parts | engine.times | engine.counts

    with pool:
        yield run


BENCHES: dict[str, Bench] = {"sample": sample_bench, "sft": sft_bench, "grpo": rl_bench, "ppo": rl_bench}


# ------------------------------------------------------------------------------------------------ their parts


def with_microbatch(work: Work) -> Work:
    """The work with the microbatch that a run would choose, where none is set."""
    if work.microbatch is not None or work.what == "sample":
        return work
    mesh = make_mesh(MeshSection())
    if work.what == "sft":
        rows = sft_microbatch(SFTStage(kind="sft", rows=work.rows, seq_len=work.seq_len), mesh)
    else:
        algo = GRPOSection(problems_per_batch=work.prompts, group_size=work.group)
        rows = policy_microbatch(algo, work.prompt_len + work.new, mesh)
    return replace(work, microbatch=rows)


def make_policy(work: Work, mesh: Mesh) -> Policy:
    """The model of the shape, with adapters on all linears or none, and the kernels that a run would
    choose.
    """
    s = work.sizes
    config = ModelConfig(
        family="qwen3" if s.qk_norm else "qwen2" if s.qkv_bias else "llama",
        vocab_size=s.V,
        d_model=s.D,
        num_layers=s.L,
        num_heads=s.N,
        num_kv_heads=s.K,
        head_dim=s.H,
        d_ff=s.F,
        qkv_bias=s.qkv_bias,
        qk_norm=s.qk_norm,
        tie_embeddings=s.tied,
        max_positions=max(4096, work.prompt_len + work.new),
    )
    lora = LoraSection(rank=RANK, alpha=ALPHA) if work.lora else None
    attention = choose_kernel("auto", mesh.devices.flat[0], work.dtype, config.head_dim)
    # what `auto` takes where it fits
    return Policy(config, lora, work.dtype, "selective", attention, mesh)


def open_policy(work: Work) -> tuple[Policy, Tree, Tree, Mesh]:
    """(policy, trainable, frozen, mesh): random weights, or those of a checkpoint, as a stage would hold
    them.
    """
    mesh = make_mesh(MeshSection())
    policy = make_policy(work, mesh)
    if work.model is None:
        return policy, *random_weights(work, policy, mesh), mesh
    loaded = load_policy(work.model, None, work.dtype, mesh)
    sizes = lambda c: (c.linear_sizes, c.num_layers, c.num_heads, c.vocab_size, c.tie_embeddings)
    if sizes(loaded.policy.config) != sizes(policy.config):
        raise InputError(f"--model {work.model} is not of the shape {work.shape}; give its own --shape")
    if work.what == "sample" and not work.lora:
        return loaded.policy, {}, loaded.frozen, mesh
    weights = enter_stage(loaded, policy.lora, work.dtype, mesh, jax.random.key(4))
    return replace(weights.policy, remat="selective"), weights.trainable, weights.frozen, mesh


def random_weights(work: Work, policy: Policy, mesh: Mesh) -> tuple[Tree, Tree]:
    """(trainable, frozen); leaves one by one, so that making them is not the peak of memory."""

    def make(path, leaf, sharding, dtype: str) -> jax.Array:
        name = path_name(path)
        if name.endswith(("scale", "bias")):
            return jnp.full(leaf.shape, name.endswith("scale"), dtype, device=sharding)
        fan_in = leaf.shape[-1] if name.startswith(("model/embed", "model/head")) else leaf.shape[-2]
        std = 0.01 if name.endswith("lora_b") else fan_in**-0.5
        fill = jax.jit(
            lambda key: (std * jax.random.normal(key, leaf.shape)).astype(dtype), out_shardings=sharding
        )
        return jax.block_until_ready(fill(jax.random.key(zlib.crc32(name.encode()))))

    def draw(name: str, init: Callable, dtype: str) -> Tree:
        tree = {name: jax.eval_shape(init, jax.random.key(0))}
        return jax.tree_util.tree_map_with_path(partial(make, dtype=dtype), tree, shardings_for(tree, mesh))

    if work.lora:
        return draw("lora", policy.init_lora, "float32"), draw("model", policy.init_model, work.dtype)
    if work.what == "sample":
        return {}, draw("model", policy.init_model, work.dtype)
    return draw("model", policy.init_model, "float32"), {}  # what is trained is held in float32


def sample_section(work: Work, settings: Settings) -> SampleSection:
    """Temperature 1, nothing filtered; --set has the last word."""
    sizes = {"max_prompt_tokens": work.prompt_len, "max_new_tokens": work.new}
    return make_section(SampleSection, "--set", **{**sizes, **settings["sample"]})


def make_engine(
    work: Work, sample: SampleSection, policy: Policy, mesh: Mesh
) -> tuple[Engine, list[Request]]:
    """An engine in which no token ends a row, and the requests: one per prompt, or one per row where budgets
    differ.
    """
    say = lambda ids: " ".join(map(str, ids))
    engine = Engine(policy, sample, (), say, mesh, work.prompts, work.group)
    prompts = work.prompt_ids()
    if work.lengths == "fixed":
        return engine, [Request(ids, uid, work.group) for uid, ids in enumerate(prompts)]
    own = [sample.model_copy(update={"max_new_tokens": int(budget)}) for budget in work.budgets()]
    places = [(p, g) for p in range(work.prompts) for g in range(work.group)]
    return engine, [Request(prompts[p], p, first_index=g, sample=own[p * work.group + g]) for p, g in places]


def roll_out(
    work: Work,
    engine: Engine,
    requests: list[Request],
    trainable: Tree,
    frozen: Tree,
    number: int,
    submit: Callable[[int, str], None] = lambda row, text: None,
) -> list[Completion]:
    """The completions of all rows, in the order of the rows; each is submitted as it ends."""
    per_request = work.num_samples // len(requests)
    completions: dict[int, Completion] = {}
    for sampled in engine.run(trainable, frozen, requests, jax.random.fold_in(jax.random.key(3), number)):
        row = sampled.request * per_request + sampled.index
        completions[row] = sampled.completion
        submit(row, sampled.completion.text)
    engine.release()  # as before updates: every run makes the weights of decoding
    return [completions[row] for row in range(work.num_samples)]


def problem_of(prompt: int) -> Problem:
    return Problem(str(prompt), (), {})


def make_groups(work: Work, completions: list[Completion], verdicts: list[Verdict]) -> list[Group]:
    def group(p: int) -> Group:
        rows = range(p * work.group, (p + 1) * work.group)
        judged = (
            Trajectory.one_turn(problem_of(p), completions[row], verdicts[row], policy_version=0)
            for row in rows
        )
        return Group(problem_of(p), tuple(judged))

    return [group(p) for p in range(work.prompts)]


def check_tokens(work: Work, completions: list[Completion]) -> None:
    lengths = [len(completion.completion_ids) for completion in completions]
    if lengths != work.budgets().tolist():
        raise RuntimeError(
            f"the rows emitted {lengths} tokens, and their budgets are {work.budgets().tolist()}"
        )


def check_finite(metrics: dict) -> None:
    if metrics["skipped"] > 0:
        raise RuntimeError(f"an update was skipped, since its loss or gradient is not finite: {metrics}")


# ------------------------------------------------------------------------------------------------- the device


def peak_memory_gib() -> tuple[float, str]:
    """The most memory held so far, in GiB, and whose count it is."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30, "device"
    return peak_rss_gib(), "process"


def measured_rates(dtype: str) -> Rates:
    return measured_peak(dtype), measured_bandwidth(), "measured here"


def measured_peak(dtype: str) -> float:
    """FLOP/s of the best square matmul."""
    sizes = (2048, 4096) if jax.devices()[0].platform == "cpu" else (4096, 8192, 16384)

    def speed(n: int) -> float:
        a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
        return 2 * n**3 / best_seconds(jax.jit(jnp.matmul), a, a)

    return max(map(speed, sizes))


def measured_bandwidth() -> float:
    """Bytes/s at which a large array is read."""
    gibibytes = 1 if jax.devices()[0].platform == "cpu" else 4
    x = jnp.ones((gibibytes << 16, 4096), jnp.float32)
    return x.nbytes / best_seconds(jax.jit(lambda x: x.sum(axis=1)), x)


def best_seconds(function: Callable, *arguments) -> float:
    """Seconds of one call, the best of five; on an accelerator four calls are queued, which hides the host's
    part.
    """
    jax.block_until_ready(function(*arguments))
    calls = 1 if jax.devices()[0].platform == "cpu" else 4
    found = []
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready([function(*arguments) for _ in range(calls)])
        found.append((time.perf_counter() - started) / calls)
    return min(found)


def rounded(value):
    """Floats to four digits that count, in whatever they stand."""
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
