"""The benchmark for one GPU: its toy measures what it says, and it keeps to its time."""

import json
import math
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture(scope="module")
def bench_gpu():
    sys.path.insert(0, str(SCRIPTS))
    import bench_gpu

    yield bench_gpu
    sys.path.remove(str(SCRIPTS))


def numbers(value) -> list[float]:
    if isinstance(value, dict):
        return [x for part in value.values() for x in numbers(part)]
    if isinstance(value, list):
        return [x for part in value for x in numbers(part)]
    return [value] if isinstance(value, int | float) else []


# --------------------------------------------------------------------------------------------------- the work


def test_the_parts_are_those_that_others_publish(bench_gpu):
    sft, grpo, decode = (part.work for part in bench_gpu.make_parts(toy=False, model=None).values())
    assert (sft.shape, sft.lora, sft.tokens()) == ("qwen2.5-1.5b", True, 32_768)
    assert (grpo.shape, grpo.prompts, grpo.group, grpo.prompt_len + grpo.new) == ("llama3.2-1b", 32, 16, 512)
    assert (decode.shape, decode.tokens(), decode.lora) == ("qwen3-0.6b", 133_966, False)


def test_the_floor_of_nano_vllms_shape_on_an_h200_is_the_published_bound(bench_gpu):
    """About 39,000 tokens/s, by a sum of bytes made in another place."""
    work = bench_gpu.make_parts(toy=False, model=None)["decode"].work
    peak, bandwidth = bench_gpu.CHIPS["H200"]
    costs = sys.modules["bench_common"].costs(work)
    floor = sum(cost.seconds(peak, bandwidth) for cost in costs)
    assert work.tokens() / floor == pytest.approx(39_000, rel=0.06)


@pytest.mark.parametrize("name", ["sft", "grpo", "decode"])
def test_a_part_at_toy_size(bench_gpu, name, monkeypatch, capsys):
    monkeypatch.setattr("jaxrl.device.compilations.set_up_jax", lambda folder: None)
    part = bench_gpu.make_parts(toy=True, model=None)[name]
    assert bench_gpu.measure_part(name, part, 3000.0, toy=True) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    # after the warm-up, after each run but the last, and at the end
    assert [line["runs"] for line in lines] == [0, 1, 2]
    line = lines[-1]
    assert all(map(math.isfinite, numbers(line)))
    assert line["compilations"]["warm_up"] > 0 and line["compilations"]["runs"] == 0
    assert line["compile_s"] > 0 and line["warm_up_s"] > 0
    seconds = line["seconds"]
    assert 0 < line["floor_s"] < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert line["share_of_floor"] < 1 and 0 < line["mfu"] < 1
    # that rows emit their budgets is checked in every run; here what is counted of them
    new = int(part.work.budgets().sum())
    prompts = part.work.group * int(part.work.prompt_lengths().sum())
    assert line["tokens"] == {"sft": 2 * 16, "grpo": new + prompts, "decode": new}[name]
    assert line["tokens_per_s"] == pytest.approx(line["tokens"] / seconds["median"], rel=1e-3)
    if name == "grpo":
        parts = line["parts"]
        assert min(parts[key] for key in ("rollout_s", "credit_s", "update_s")) > 0
        whole = sum(parts[key] for key in ("rollout_s", "verify_wait_s", "credit_s", "collate_s", "update_s"))
        assert 0.8 * seconds["min"] < whole <= 1.001 * seconds["max"]


# ----------------------------------------------------------------------------------------------------- budget


class Clock:
    """Seconds that pass only where somebody says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


MEASURED = {
    "runs": 3,
    "tokens_per_s": 5.0,
    "seconds": {"median": 2.0, "min": 1.0, "max": 3.0},
    "set_up_s": 1.0,
    "warm_up_s": 9.0,
    "compile_s": 8.0,
}


def run_with(bench_gpu, costs: dict[str, float], seconds: float):
    """(results, what was known after each part, the seconds that each part was given)."""
    clock, known, given = Clock(), [], {}

    def run(name: str, left: float) -> dict:
        given[name] = left
        clock.now += min(costs[name], left)
        return dict(MEASURED) if costs[name] <= left else {"cut_off": f"its {left:.0f} s were up"}

    parts = bench_gpu.make_parts(toy=True, model=None)
    results = bench_gpu.run_parts(
        parts, seconds, run, lambda results: known.append([r["part"] for r in results]), clock
    )
    return results, known, given


def test_with_time_for_all_parts_all_are_measured_and_each_is_written_at_once(bench_gpu):
    results, known, given = run_with(bench_gpu, {"sft": 100, "grpo": 200, "decode": 300}, 720)
    assert known == [["sft"], ["sft", "grpo"], ["sft", "grpo", "decode"]]
    assert given == {"sft": 720, "grpo": 620, "decode": 420}
    assert all(result["runs"] == 3 for result in results)


def test_what_no_longer_fits_is_left_out_and_named(bench_gpu):
    results, _, given = run_with(bench_gpu, {"sft": 100, "grpo": 570, "decode": 300}, 720)
    assert set(given) == {"sft", "grpo"}
    assert results[2]["left_out"] == "50 s were left, and it needs 60 at least"
    assert "decode: left out, 50 s were left" in bench_gpu.table(results)


def test_no_part_is_given_more_than_what_is_left(bench_gpu):
    results, known, given = run_with(bench_gpu, {"sft": 100, "grpo": 9999, "decode": 300}, 720)
    assert given == {"sft": 720, "grpo": 620} and len(known) == 3
    assert results[1]["cut_off"] == "its 620 s were up" and "left_out" in results[2]
    assert "grpo: no measured run (its 620 s were up)" in bench_gpu.table(results)


def test_a_part_stops_when_another_run_would_not_fit(bench_gpu, monkeypatch):
    """With no seconds given, the warm-up is all that is done: no number, and no overrun."""
    asked = {}

    def measure(work, settings, runs, rates, goes_on) -> dict:
        asked["more"] = goes_on({"runs": 1, "seconds": {"max": 1e9}}), goes_on({"runs": 0})
        return dict(MEASURED)

    monkeypatch.setattr("jaxrl.device.compilations.set_up_jax", lambda folder: None)
    monkeypatch.setattr(sys.modules.get("bench") or __import__("bench"), "measure", measure)
    part = bench_gpu.make_parts(toy=True, model=None)["sft"]
    bench_gpu.measure_part("sft", part, 3000.0, toy=True)
    assert asked["more"] == (False, True)
    bench_gpu.measure_part("sft", part, 0.0, toy=True)
    assert asked["more"] == (False, False)


def test_of_a_process_that_fails_the_last_whole_line_is_kept(bench_gpu, monkeypatch, tmp_path):
    script = tmp_path / "part.py"
    script.write_text(
        'print(\'{"runs": 0}\\n{"runs": 1}\\nhello\\n{"runs": 2\', end="", flush=True)\nexit(3)'
    )
    monkeypatch.setattr(bench_gpu, "__file__", str(script))
    assert bench_gpu.run_part("sft", 3000.0, []) == {
        "runs": 1,
        "cut_off": "its process ended with exit code 3",
    }


def test_a_process_whose_time_is_up_is_ended(bench_gpu, monkeypatch, tmp_path):
    script = tmp_path / "part.py"
    script.write_text("import time; time.sleep(10_000)")
    monkeypatch.setattr(bench_gpu, "__file__", str(script))
    assert bench_gpu.run_part("sft", 0.4, []) == {"cut_off": "its 0 s were up"}


# ----------------------------------------------------------------------------------------------- what is said


def test_a_time_below_the_floor_is_called_out(bench_gpu):
    result = {"part": "sft", **MEASURED, "floor_s": 2.5, "share_of_floor": 1.25, "mfu": 1.25}
    result |= {"peak_memory_gib": 1.0, "beside": "others"}
    assert "sft: FASTER THAN ITS FLOOR" in bench_gpu.table([result])
    honest = result | {"floor_s": 1.0, "share_of_floor": 0.5, "mfu": 0.5}
    assert "FLOOR" not in bench_gpu.table([honest])


def test_all_that_is_known_is_in_the_file(bench_gpu, tmp_path):
    out = tmp_path / "out.json"
    bench_gpu.write(out, bench_gpu.about(12.0), [{"part": "sft", "runs": 1}])
    kept = json.loads(out.read_text())
    assert kept["results"] == [{"part": "sft", "runs": 1}] and kept["versions"]["jax"] and kept["commit"]
    assert list(tmp_path.iterdir()) == [out]
