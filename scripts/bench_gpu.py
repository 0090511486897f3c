"""What others publish of their speed on one GPU, measured here, with the floors of the chip beside it.

    bash scripts/bench_gpu.sh                              # makes its environment first
    python scripts/bench_gpu.py --minutes 12 --out bench_gpu.json
    python scripts/bench_gpu.py --parts decode --model Qwen3-0.6B/     # a checkpoint's weights
    python scripts/bench_gpu.py --toy                      # tiny models, on CPU: does the script work?

    sft      one LoRA step, Qwen2.5-1.5B, 16 rows of 2,048 tokens
    grpo     one step, Llama-3.2-1B, the whole model trained: 32 problems x 16 samples, 112 + 400 tokens (all
             of the 512 that NeMo-RL's test allows), a verifier in the pool, a KL term and so a scoring pass,
             one update
    decode   nano-vllm's benchmark, Qwen3-0.6B: 256 requests, prompts and outputs uniform in 100 - 1,024 by
             its seed, 133,966 tokens; no adapters

Weights are random unless `--model` is given: what is computed does not depend on them, and no row ends before
its budget. Each part is a process of its own, so that peaks of memory are its own and a part that fails or
overruns leaves the others alone. The parts with few programs to compile come first. A part that has not
`LEAST_S` left when its turn comes is left out, one that is cut off keeps the runs it has made, and after each
part `--out` holds all that there is. A second start finds its programs on disk and needs less.

In the table: the median of the runs after one warm-up, the fastest and slowest, and what of set-up and
warm-up was the compiler's. `floor` is the least time that the work can take on the chip by its published
rates,

    floor = sum over programs that follow each other of max(FLOPs / peak, bytes / bandwidth)

with the FLOPs and bytes of `bench_common.py` (of a decode step: all weights, and keys and values of every
live row as far as it is; of an update: the products; the scoring pass of `grpo` is left out), and `mfu` FLOPs
/ (peak * median). A chip that is not in `CHIPS` has its rates measured, and the table says so.
"""

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_common import Work

# Part of `device_kind` -> FLOP/s in bfloat16 without sparsity, bytes/s of memory: NVIDIA's data sheets, SXM.
CHIPS = {"A100-SXM4-80GB": (312e12, 2_039e9), "H100 80GB HBM3": (989e12, 3_350e9), "H200": (989e12, 4_800e9)}
LEAST_S = 60.0  # to load jax, make the weights and compile something
MARGIN_S = 15.0  # that a part keeps to start and to end in
PACKAGES = ("jaxrl", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "nvidia-cudnn-cu12")


@dataclass(frozen=True)
class Part:
    """A measurement: the work, the settings beside its defaults, and in words what others have."""

    work: Work
    settings: dict[str, dict[str, Any]]
    runs: int
    beside: str


Result = dict[str, Any]


def make_parts(toy: bool, model: str | None) -> dict[str, Part]:
    """The parts in their order. model: a checkpoint for the part `decode`."""

    def work(
        what: str, shape: str, prompts=1, group=1, prompt_len=1, new=1, rows=1, seq_len=1, **more
    ) -> Work:
        sizes = {"prompts": prompts, "group": group, "prompt_len": prompt_len, "new": new}
        sizes |= {"rows": rows, "seq_len": seq_len, "lengths": "fixed", "microbatch": None}
        dtype = "float32" if toy else "bfloat16"
        return Work(what=what, shape="tiny" if toy else shape, dtype=dtype, **(sizes | more))

    sft = {"rows": 2, "seq_len": 16} if toy else {"rows": 16, "seq_len": 2048}
    grpo = (2, 2, 9, 7) if toy else (32, 16, 112, 400)
    decode = (3, 1, 104, 102) if toy else (256, 1, 1024, 1024)
    uniform = {"lengths": "uniform", "lora": False, "model": model}
    return {
        "sft": Part(
            work("sft", "qwen2.5-1.5b", **sft),
            {"sample": {}, "algo": {}},
            runs=2 if toy else 5,
            beside="NeMo AutoModel's LoRA at 7B and 8B on an H100: MFU 0.41 - 0.43",
        ),
        "grpo": Part(
            work("grpo", "llama3.2-1b", *grpo, lora=False),
            {"sample": {}, "algo": {"kl_coef": 0.01}},
            runs=2 if toy else 3,
            beside="NeMo-RL's test allows 80 GPU-seconds (10 s on 8 H100); our aim on one H200: below 20 s",
        ),
        "decode": Part(
            work("sample", "qwen3-0.6b", *decode, **uniform),
            {"sample": {}, "algo": {}},
            runs=2 if toy else 3,
            beside="vLLM on an A100: 9,530 tokens/s, by bandwidth 20,000 - 23,000 on an H200, whose bound is "
            "about 39,000",
        ),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="for all parts (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.json"), metavar="FILE.json")
    parser.add_argument("--parts", nargs="+", choices=make_parts(True, None), help="these alone")
    parser.add_argument("--model", metavar="DIR", help="decode: a Qwen3-0.6B directory")
    parser.add_argument("--toy", action="store_true", help="tiny models, on whatever device there is")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # the process of one part
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    parts = make_parts(arguments.toy, arguments.model)
    if arguments.part is not None:
        return measure_part(arguments.part, parts[arguments.part], arguments.seconds, arguments.toy)
    chosen = {name: part for name, part in parts.items() if name in (arguments.parts or parts)}
    flags = ["--toy"] * arguments.toy + (["--model", arguments.model] if arguments.model else [])
    results = run_parts(
        chosen,
        60 * arguments.minutes,
        lambda name, seconds: run_part(name, seconds, flags),
        lambda results: write(arguments.out, about(arguments.minutes), results),
    )
    print(f"\n{table(results)}\n\nin full: {arguments.out}")
    return 0 if all(result.get("runs") for result in results) else 1


# -------------------------------------------------------------------------------------------------- the parts


def run_parts(
    parts: dict[str, Part],
    seconds: float,
    run: Callable[[str, float], Result],
    write: Callable[[list[Result]], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """What is known of each part, in their order, within `seconds`; written after each.

    Args:
      run: measures a part in the seconds that it is given.
    """
    until = clock() + seconds
    results: list[Result] = []
    for name, part in parts.items():
        left = until - clock()
        if left < LEAST_S:
            result = {"left_out": f"{max(left, 0):.0f} s were left, and it needs {LEAST_S:.0f} at least"}
        else:
            result = run(name, left)
        results.append({"part": name, **result, "beside": part.beside})
        write(results)
        print(one_line(results[-1]), flush=True)
    return results


def run_part(name: str, seconds: float, flags: list[str]) -> Result:
    """The last line that the process of a part has told, which is killed when its time is up."""
    own = str(max(0.0, seconds - MARGIN_S))
    command = [sys.executable, __file__, "--part", name, "--seconds", own, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told, _ = process.communicate(timeout=seconds)
            reason = f"its process ended with exit code {process.returncode}" if process.returncode else None
        except subprocess.TimeoutExpired:
            process.kill()
            told, _ = process.communicate()
            reason = f"its {seconds:.0f} s were up"
    lines = [line for line in told.splitlines() if line.startswith("{") and line.endswith("}")]
    result = json.loads(lines[-1]) if lines else {}
    return result | ({"cut_off": reason} if reason else {})


def measure_part(name: str, part: Part, seconds: float, toy: bool) -> int:
    """The process of one part: a line after the warm-up and after each run, and one at the end."""
    until = time.monotonic() + seconds

    import bench
    import jax

    from jaxrl.config.experiment import Config
    from jaxrl.config.shared import GPUSection
    from jaxrl.device.compilations import set_up_jax
    from jaxrl.device.gpu import set_up_gpus

    set_up_jax(Config.model_fields["compilation_cache"].default)
    print("\n".join(set_up_gpus(GPUSection())), file=sys.stderr)
    if not toy and jax.default_backend() != "gpu":
        print(f"jax sees no GPU, but {jax.default_backend()}; --toy runs anywhere", file=sys.stderr)
        return 2

    def goes_on(line: Result) -> bool:
        print(json.dumps({"part": name, **line}), flush=True)
        return until - time.monotonic() > 1.2 * line.get("seconds", {"max": 0.0})["max"]

    rates = toy_rates if toy else published_rates
    line = bench.measure(part.work, part.settings, part.runs, rates, goes_on)
    print(json.dumps({"part": name, **line}), flush=True)
    return 0


def published_rates(dtype: str) -> tuple[float, float, str]:
    """(FLOP/s, bytes/s, source) of the device: of the data sheet for bfloat16 on a known chip, else
    measured.
    """
    import bench
    import jax

    kind = jax.devices()[0].device_kind
    known = [rates for name, rates in CHIPS.items() if name in kind]
    return (*known[0], "published") if known and dtype == "bfloat16" else bench.measured_rates(dtype)


def toy_rates(_: str) -> tuple[float, float, str]:
    return 1e13, 1e12, "made up for the toy"


# --------------------------------------------------------------------------------------------- what is said


def about(minutes: float) -> dict[str, Any]:
    """What was measured on: driver, versions, commit."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    commit = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return {
        "minutes": minutes,
        "gpus": answer(query),
        "commit": answer(commit),
        "python": sys.version.split()[0],
        "versions": versions,
    }


def answer(command: list[str]) -> str | None:
    """What a command prints; None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def write(out: Path, about: dict[str, Any], results: list[Result]) -> None:
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")
    part.replace(out)


def one_line(result: Result) -> str:
    """A part in a sentence, as soon as it is known."""
    if "left_out" in result:
        return f"{result['part']}: left out, {result['left_out']}"
    cut = f" ({result['cut_off']})" if "cut_off" in result else ""
    if not result.get("runs"):
        return f"{result['part']}: no measured run{cut}"
    return (
        f"{result['part']}: {result['seconds']['median']:.3f} s, {result['tokens_per_s']:,.0f} tokens/s{cut}"
    )


HEADER = "part | seconds | fastest – slowest | tokens/s | floor, s | x floor | mfu | compiler, s | GiB".split(
    " | "
)


def table(results: list[Result]) -> str:
    """The parts side by side; below it where the seconds of a GRPO step went, and what others have."""
    from jaxrl.track.format import markdown_table

    rows, notes = [], []
    for result in results:
        if not result.get("runs"):
            rows.append([result["part"], *["–"] * (len(HEADER) - 1)])
            notes.append(one_line(result))
            continue
        seconds, floor = result["seconds"], result.get("floor_s")
        rows.append(
            [
                f"{result['part']}, {result.get('shape', '?')}",
                f"{seconds['median']:.3f}",
                f"{seconds['min']:.3f} – {seconds['max']:.3f} ({result['runs']})",
                f"{result['tokens_per_s']:,.0f}",
                f"{floor:.3f}" if floor else "–",
                f"{seconds['median'] / floor:.1f}" if floor else "–",
                f"{result['mfu']:.3f}" if floor else "–",
                f"{result['compile_s']:.0f} of {result['set_up_s'] + result['warm_up_s']:.0f}",
                f"{result['peak_memory_gib']:.1f}" if floor else "–",
            ]
        )
        notes += remarks(result)
    return "\n".join([markdown_table(HEADER, rows), "", *(f"- {note}" for note in notes)])


def remarks(result: Result) -> list[str]:
    name, parts = result["part"], result.get("parts", {})
    said = []
    if "update_s" in parts:
        split = {
            "rollout": "rollout_s",
            "verdicts": "verify_wait_s",
            "score": "credit_s",
            "update": "update_s",
        }
        said.append(f"{name}: " + ", ".join(f"{word} {parts[key]:.3f} s" for word, key in split.items()))
    said.append(f"{name}, others: {result['beside']}")
    if "cut_off" in result:
        said.append(f"{name}: {result['cut_off']}; these are the runs it had made")
    if result.get("rates", "published") != "published":
        said.append(f"{name}: the rates of the floor are {result['rates']}, no data sheet's")
    if result.get("share_of_floor", 0) > 1:
        said.append(f"{name}: FASTER THAN ITS FLOOR: the rates are not this chip's, or work was left out")
    if result.get("compilations", {}).get("runs"):
        said.append(f"{name}: {result['compilations']['runs']} programs were compiled in the measured runs")
    return said


if __name__ == "__main__":
    sys.exit(main())
