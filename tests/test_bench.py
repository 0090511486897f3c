"""The benchmarks: their floors against counts made in another way, the work they share with the peers, and
that they run.
"""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl.errors import InputError
from tests import tiny

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SMALL = "--shape tiny --prompts 2 --group 2 --prompt-len 9 --new 7 --rows 2 --seq-len 16 --runs 2".split()


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(SCRIPTS))
    import bench

    yield bench
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def common(bench):
    return sys.modules["bench_common"]


def make_work(common, what: str = "sample", **changes):
    work = common.Work(
        what,
        "tiny",
        2,
        3,
        prompt_len=5,
        new=6,
        lengths="lognormal",
        rows=2,
        seq_len=8,
        microbatch=None,
        dtype="bfloat16",
    )
    return replace(work, **changes)


def run_script(script: str, *flags: str, timeout: float = 3000) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *flags], capture_output=True, text=True, timeout=timeout
    )


# -------------------------------------------------------------------------------------------- shapes and work


@pytest.mark.parametrize(
    "shape",
    ["tiny", "smollm-135m", "qwen2.5-0.5b", "qwen3-0.6b", "llama3.2-1b", "qwen2.5-1.5b", "llama3.1-8b"],
)
def test_shapes_have_the_parameters_that_the_models_have(bench, common, shape):
    work = make_work(common, shape=shape)
    policy = bench.make_policy(work, tiny.one_device())
    model, lora = (jax.eval_shape(init, jax.random.key(0)) for init in (policy.init_model, policy.init_lora))
    kernels = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(model["layers"])
        if "'kernel'" in jax.tree_util.keystr(path)
    ]
    assert sum(kernels) == work.sizes.linear
    assert sum(leaf.size for leaf in jax.tree.leaves(lora)) == work.sizes.lora
    assert ("head" not in model) == work.sizes.tied
    millions = {
        "tiny": 0.509,
        "smollm-135m": 134.515,
        "qwen2.5-0.5b": 494.033,
        "qwen3-0.6b": 596.050,
        "llama3.2-1b": 1235.814,
        "qwen2.5-1.5b": 1543.714,
        "llama3.1-8b": 8030.261,
    }[shape]
    # as published
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) / 1e6 == pytest.approx(millions, abs=1e-3)


def test_budgets_are_fixed_or_lognormal_and_always_the_same(common):
    work = make_work(common, new=1000, prompts=4, group=2000)
    budgets = work.budgets()
    assert np.array_equal(budgets, work.budgets()) and budgets.min() >= 1 and budgets.max() == 1000
    # exp(mu), mu = log(mean) - sigma^2 / 2
    assert np.median(budgets) == pytest.approx(300 * np.exp(-0.5), rel=0.05)
    assert np.log(budgets[budgets < 1000]).std() == pytest.approx(1.0, abs=0.15)
    assert set(replace(work, lengths="fixed").budgets()) == {1000}


def test_prompts_leave_the_ids_of_padding_and_end_alone(common):
    ids = np.array(make_work(common, prompts=50, prompt_len=50).prompt_ids())
    assert ids.shape == (50, 50) and ids.min() > max(common.PAD, common.END) and ids.max() < 512


def test_uniform_lengths_are_the_draw_that_others_publish(common):
    """nano-vllm prints 133,966 output tokens for its seed and sizes."""
    work = make_work(
        common, shape="qwen3-0.6b", prompts=256, group=1, prompt_len=1024, new=1024, lengths="uniform"
    )
    assert work.tokens() == work.budgets().sum() == 133_966
    lengths, ids = work.prompt_lengths(), work.prompt_ids()
    assert lengths.sum() == 142_827 and lengths.min() >= 100 and lengths.max() <= 1024
    assert max(map(max, ids)) <= 10_000 and work.budgets().min() >= 100 and work.budgets().max() <= 1024


# ----------------------------------------------------------------------------------------------------- floors


def count_forward(s, reads: list[int], scored: int) -> float:
    """FLOPs, one token and one matrix at a time. reads: positions that each token attends to."""
    total = 0
    for positions in reads:
        for _ in range(s.L):
            total += sum(2 * i * o + 2 * i * 16 + 2 * 16 * o for i, o in s.linears)
            # scores, and values by their weights
            total += 2 * s.N * s.H * positions + 2 * s.N * positions * s.H
    return total + scored * 2 * s.D * s.V


def test_floor_of_sampling_counts_live_rows_and_their_positions(common):
    work = make_work(common)
    s, budgets = work.sizes, [int(b) for b in work.budgets()]
    assert len(set(budgets)) > 1
    prefill, *steps = common.costs(work)
    assert prefill.flops == count_forward(s, [1, 2, 3, 4, 5] * work.prompts, scored=work.prompts)
    weights = 2 * (s.linear + s.V * s.D) + 4 * s.lora
    kv = 2 * 2 * s.L * s.K * s.H
    assert prefill.bytes == weights + 10 * kv
    assert len(steps) == max(budgets) - 1  # the first token is the prefill's
    for t, step in enumerate(steps, start=1):
        reads = [5 + t for b in budgets if b > t]
        assert (step.flops, step.bytes) == (count_forward(s, reads, len(reads)), weights + kv * sum(reads))
    assert sum(sum(b > t for b in budgets) for t in range(1, 6)) + work.num_samples == work.tokens()


def test_floor_of_sampling_counts_each_prompt_by_its_own_length(common):
    work = make_work(common, lengths="uniform", group=1, prompt_len=130, new=120, prompts=3, lora=False)
    s, lengths, budgets = work.sizes, work.prompt_lengths(), work.budgets()
    assert len(set(lengths)) > 1
    prefill, *steps = common.costs(work)
    weights, kv = 2 * (s.linear + s.V * s.D), 2 * 2 * s.L * s.K * s.H
    assert prefill.bytes == weights + kv * lengths.sum()
    assert prefill.flops == 2 * lengths.sum() * s.linear + 2 * 3 * s.V * s.D + 4 * s.L * s.N * s.H * sum(
        sum(range(1, n + 1)) for n in lengths
    )
    for t, step in enumerate(steps, start=1):
        reads = [n + t for n, b in zip(lengths, budgets) if b > t]
        assert step.bytes == weights + kv * sum(reads)


def test_floor_of_a_whole_models_update_has_three_products_for_every_matrix(common):
    work = make_work(common, "sft", lora=False)
    s, (update,) = work.sizes, common.costs(work)
    attention = sum(3 * 4 * s.N * s.H * positions * s.L for positions in range(1, 9)) * 2
    assert update.flops == 6 * 16 * s.linear + attention + 6 * 14 * s.V * s.D
    assert update.bytes == 2 * 2 * (s.linear + s.V * s.D) + 24 * (s.linear + s.V * s.D)


def test_floor_of_an_update_has_no_gradient_of_frozen_weights(common):
    work = make_work(common, "sft")
    s, (update,) = work.sizes, common.costs(work)
    reads = [*range(1, 9)] * 2
    # adapters alone have a third product
    per_token = sum(2 * i * o * 2 + 2 * 16 * (i + o) * 3 for i, o in s.linears) * s.L
    attention = sum(2 * 2 * s.N * s.H * positions * 3 * s.L for positions in reads)
    # a row's first token is not scored
    assert update.flops == per_token * 16 + attention + 14 * 2 * 2 * s.D * s.V
    assert common.Cost(flops=8.0, bytes=3.0).seconds(peak=4.0, bandwidth=1.0) == 3.0
    whole = {what: len(common.costs(replace(work, what=what))) for what in ("sample", "grpo", "ppo")}
    assert whole["grpo"] == whole["sample"] + 1 and whole["ppo"] == whole["sample"] + 2


# ---------------------------------------------------------------------------------------------------- running


@pytest.mark.parametrize(
    "what, more",
    [
        ("sample", []),
        ("sample", ["--lengths", "lognormal"]),
        ("sft", []),
        ("grpo", ["--microbatch", "2"]),
        ("ppo", []),
    ],
)
def test_a_benchmark_measures_what_it_says(bench, common, what, more, monkeypatch):
    monkeypatch.setattr(bench, "measured_peak", lambda dtype: 1e9)
    monkeypatch.setattr(bench, "measured_bandwidth", lambda: 1e15)  # arithmetic binds
    parser = bench.argparse.ArgumentParser()
    common.add_work_arguments(parser, tuple(bench.BENCHES))
    bench.add_engine_arguments(parser)
    arguments = parser.parse_args([what, *SMALL, *more, "--set", "window=4"])
    work = common.work_of(arguments)
    line = json.loads(json.dumps(bench.measure(work, bench.settings_of(arguments), runs=2)))
    assert line["compilations"]["warm_up"] > 0 and line["compilations"]["runs"] == 0
    new = int(work.budgets().sum())
    assert line["tokens"] == {"sample": new, "sft": 32}.get(what, new + 4 * 9)
    median = line["seconds"]["median"]
    assert line["tokens_per_s"] == pytest.approx(line["tokens"] / median, rel=1e-3)
    assert line["floor_s"] == pytest.approx(sum(cost.flops for cost in common.costs(work)) / 1e9, rel=1e-3)
    assert line["share_of_floor"] == pytest.approx(line["floor_s"] / median, rel=2e-3)
    assert 0.1 < line["peak_memory_gib"] < 100
    if what in ("grpo", "ppo"):
        assert line["parts"]["rollout_s"] > line["parts"]["decode_s"] > 0 and line["parts"]["update_s"] > 0
    if what != "sft":
        assert line["parts"]["prefilled"] == 2  # every prompt once, whatever its samples' budgets


def test_rows_that_do_not_emit_their_budget_are_found(bench, common):
    work = make_work(common, lengths="fixed")
    short = [bench.Completion([1], [2] * 6, [0.0] * 6, "max_tokens")] * 5 + [
        bench.Completion([1], [2] * 5, [0.0] * 5, "max_tokens")
    ]
    with pytest.raises(RuntimeError, match=r"emitted \[6, 6, 6, 6, 6, 5\] tokens"):
        bench.check_tokens(work, short)


def test_settings_are_of_the_engine_or_of_the_algorithm(bench, common):
    parser = bench.argparse.ArgumentParser()
    bench.add_engine_arguments(parser)
    settings = bench.settings_of(
        parser.parse_args(["--no-compact", "--set", "window=16", "algo.clip_high=1e-4"])
    )
    assert settings == {"sample": {"compact": False, "window": 16}, "algo": {"clip_high": 1e-4}}
    for wrong in ("window", "model.dtype=float32"):
        with pytest.raises(InputError, match="is neither key=value of the sample section"):
            bench.settings_of(parser.parse_args(["--set", wrong]))
    with pytest.raises(InputError, match="unknown key 'windw'"):
        bench.sample_section(make_work(common), {"sample": {"windw": 3}, "algo": {}})


# ------------------------------------------------------------------------------------------------------ peers


def test_what_the_peers_read_needs_neither_jax_nor_jaxrl():
    code = (
        "import bench_common, bench_peers, sys; print([m for m in ('jax', 'jaxrl', 'torch') if m in"
        " sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_without_the_peers_packages_the_reason_is_told():
    if all(find_spec(name) for name in ("torch", "peft", "trl")):
        pytest.skip("the peers are installed here")
    result = run_script("bench_peers.py", "sft", *SMALL)
    assert result.returncode == 1 and "--peer-python" in result.stderr and "torch" in result.stderr
    assert "worker `peer` ended with exit code 2" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "what, more", [("sample", ["--lengths", "lognormal"]), ("sft", []), ("grpo", ["--microbatch", "2"])]
)
def test_both_sides_do_the_same_work_in_turns(what, more):
    if not all(find_spec(name) for name in ("torch", "peft", "trl")):
        pytest.skip("the peers (torch, transformers, peft, trl) are not installed here")
    result = run_script("bench_peers.py", what, *SMALL, *more)
    assert result.returncode == 0, result.stderr
    *pairs, medians = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [pair["pair"] for pair in pairs] == [1, 2]
    assert medians["ratio"] == pytest.approx(np.median([pair["ratio"] for pair in pairs]), abs=2e-3)
    assert medians["peer_tokens_per_s"] > 0 < medians["ours_tokens_per_s"]
