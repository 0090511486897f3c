"""What does the decode window do on accelerators that are not here? Compiled for them, read from the compiled
program.

    pip install -e '.[aot]'    # the compilers: 0.4 GB to download, 1.2 GB on disk
    python scripts/compiled.py
    python scripts/compiled.py --targets h100 --merge-lora --option xla_gpu_dot_merger_threshold_mb=0

One line for each target, per device and decode step. `GB` is traffic with main memory, and `/ floor` that
over the bytes of weights and cache; `given GB` is the part of it that is weights and cache, the rest goes
from one launch to the next. `launches` are kernels on GPU. `alias` is the share of the cache that is updated
in place. Below the table stand the results of copies and rearrangements of weights or cache inside the loop,
and of what devices send each other there. Exit code 1 if there are any. The 28 layers of qwen2.5-1.5b take
about 15 s to compile for a TPU and 8 s for a GPU.
"""

import argparse
import sys
from collections import Counter

from bench_common import ALPHA, RANK, SHAPES

from jaxrl.compiled.aot import TARGETS, WindowReport, compile_window
from jaxrl.config.shared import LoraSection
from jaxrl.errors import InputError
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.track.format import markdown_table

HEADER = [
    "target",
    "GB",
    "/ floor",
    "given GB",
    "launches",
    "per layer",
    "alias",
    "temporary MB",
    "compiled in",
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--rows", type=int, default=64, help="on each device")
    parser.add_argument("--length", type=int, default=1024, help="cache positions")
    parser.add_argument("--devices", type=int, default=1, help="over which rows are spread")
    parser.add_argument("--merge-lora", dest="merge", action="store_true")
    parser.add_argument("--int8-weights", action="store_true")
    parser.add_argument("--int8-cache", action="store_true")
    parser.add_argument(
        "--option",
        nargs="+",
        default=[],
        metavar="key=value",
        help="of XLA, e.g. xla_gpu_dot_merger_threshold_mb=0",
    )
    arguments = parser.parse_args()
    if wrong := [option for option in arguments.option if "=" not in option]:
        parser.error(f"--option {wrong[0]}: must be key=value")
    options = {
        key: int(value) if value.isdigit() else value
        for key, _, value in (option.partition("=") for option in arguments.option)
    }
    forms = {name: getattr(arguments, name) for name in ("merge", "int8_weights", "int8_cache")}
    policy = policy_of(arguments.shape, arguments.layers)
    rows, found = [], []
    for target in arguments.targets:
        try:
            report = compile_window(
                target,
                policy,
                arguments.rows,
                arguments.length,
                data=arguments.devices,
                options=options,
                **forms,
            )
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
        rows.append([target, *cells(report, policy.config.num_layers)])
        # without the names
        kinds = Counter(line.partition(": ")[2] for line in (*report.moves, *report.collectives))
        found += [f"{target}: {count} x {shapes}" for shapes, count in kinds.items()]
    print(markdown_table(HEADER, rows))
    print("\n".join(["", *found]) if found else "\nnothing is copied, rearranged or sent in the loop")
    return 1 if found else 0


def policy_of(shape: str, layers: int | None) -> Policy:
    """A shape of the benchmarks with adapters of rank 16 on all linear layers, in bfloat16."""
    s = SHAPES[shape]
    config = ModelConfig(
        family="qwen3" if s.qk_norm else "qwen2" if s.qkv_bias else "llama",
        vocab_size=s.V,
        d_model=s.D,
        num_layers=layers or s.L,
        num_heads=s.N,
        num_kv_heads=s.K,
        head_dim=s.H,
        d_ff=s.F,
        qkv_bias=s.qkv_bias,
        qk_norm=s.qk_norm,
        tie_embeddings=s.tied,
    )
    return Policy(config, LoraSection(rank=RANK, alpha=ALPHA), "bfloat16")


def cells(report: WindowReport, layers: int) -> list[str]:
    return [
        f"{report.bytes / 1e9:.3f}",
        f"{report.over_floor:.3f}",
        f"{report.given_bytes / 1e9:.3f}",
        str(report.launches),
        f"{report.launches / layers:.1f}",
        f"{report.alias_bytes / report.cache_bytes:.1%}",
        f"{report.temp_bytes / 1e6:.0f}",
        f"{report.seconds:.0f} s",
    ]


if __name__ == "__main__":
    sys.exit(main())
