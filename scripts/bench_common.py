"""What the benchmarks share: true shapes, the work that is measured, and the least arithmetic and traffic it
needs.

Python and NumPy only: the peers' worker reads this file in an environment without jax and without jaxrl.

    floor = sum over programs that must follow each other of max(FLOPs / peak, bytes / bandwidth)

The programs: the prefill, every decode step, a scoring pass, an update. Of one program, with n tokens whose
queries read c positions of keys and values in all, and s tokens that meet the head:

    FLOPs = 2 n (linear + lora) + 4 L N H c + 2 s V D      forward
    FLOPs = n (4 linear + 6 lora) + 12 L N H c + 4 s V D   update: frozen weights get no gradient of their own
    FLOPs = 6 n linear + 12 L N H c + 6 s V D              update of the whole model (`--no-lora`)
    bytes = weights + KV of c positions                    a decode step: live rows only, each to its own
                                                           length
    bytes = weights + KV written                           prefill, every prompt once

Axes: P prompts, G samples of each, N0 tokens of a prompt (`prompt_len`), M new tokens at most, L layers, N
heads, K key/value heads, H head width, D width, F feed-forward width, V vocabulary, R adapter rank.
"""

import argparse
import json
import os
import random
import resource
import sys
from dataclasses import dataclass, fields

import numpy as np

RANK, ALPHA = 16, 32
# ids that prompts leave free: the peers need a token to pad with and one to end a row at its budget
PAD, END = 0, 1
LOGNORMAL_MEAN, LOGNORMAL_SIGMA = 0.3, 1.0  # of the cap; the width of log(length)
UNIFORM_LEAST, UNIFORM_IDS = 100, 10_000  # of nano-vllm's benchmark: the shortest length, the largest id


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, under the letters above."""

    D: int
    L: int
    N: int
    K: int
    H: int
    F: int
    V: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the seven matrices of a layer."""
        D, F, q, kv = self.D, self.F, self.N * self.H, self.K * self.H
        return [(D, q), (D, kv), (D, kv), (q, D), (D, F), (D, F), (F, D)]

    @property
    def linear(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.L * sum(i * o for i, o in self.linears)

    @property
    def lora(self) -> int:
        """Numbers in the adapters of all layers."""
        return self.L * sum(RANK * (i + o) for i, o in self.linears)


SHAPES = {
    "tiny": Shape(128, 3, 4, 2, 32, 256, 512, tied=True, qk_norm=True),  # configs/quickstart.yaml
    "smollm-135m": Shape(576, 30, 9, 3, 64, 1536, 49152, tied=True),
    "qwen2.5-0.5b": Shape(896, 24, 14, 2, 64, 4864, 151936, tied=True, qkv_bias=True),
    "qwen3-0.6b": Shape(1024, 28, 16, 8, 128, 3072, 151936, tied=True, qk_norm=True),
    "llama3.2-1b": Shape(2048, 16, 32, 8, 64, 8192, 128256, tied=True),
    "qwen2.5-1.5b": Shape(1536, 28, 12, 2, 128, 8960, 151936, tied=True, qkv_bias=True),
    "llama3.1-8b": Shape(4096, 32, 32, 8, 128, 14336, 128256, tied=False),
}


@dataclass(frozen=True)
class Work:
    """What is measured. Everything in it is drawn from fixed seeds: both sides of a comparison do the
    same.

    prompt_len, new: tokens of each prompt and of each row, or with other `lengths` than fixed the most.
    lora: whether there are adapters, which are then what is trained; else the whole model is.
    model: a checkpoint of the shape; null draws the weights.
    """

    what: str
    shape: str
    prompts: int
    group: int
    prompt_len: int
    new: int
    lengths: str
    rows: int
    seq_len: int
    microbatch: int | None
    dtype: str
    lora: bool = True
    model: str | None = None

    @property
    def sizes(self) -> Shape:
        return SHAPES[self.shape]

    @property
    def num_samples(self) -> int:
        return self.prompts * self.group

    @property
    def piece(self) -> int:
        """Rows of a microbatch."""
        whole = self.rows if self.what == "sft" else self.num_samples
        return min(self.microbatch or whole, whole)

    @property
    def adapters(self) -> int:
        """Numbers in the adapters."""
        return self.sizes.lora if self.lora else 0

    def prompt_ids(self) -> list[list[int]]:
        """P prompts of random ids."""
        if self.lengths == "uniform":
            return self._uniform()[0]
        drawn = np.random.default_rng([0, 1])
        return drawn.integers(END + 1, self.sizes.V, (self.prompts, self.prompt_len)).tolist()

    def prompt_lengths(self) -> np.ndarray:
        """[P] tokens of each prompt."""
        return np.array([len(ids) for ids in self.prompt_ids()])

    def sft_ids(self) -> np.ndarray:
        """[rows, seq_len] random ids."""
        return np.random.default_rng([0, 2]).integers(END + 1, self.sizes.V, (self.rows, self.seq_len))

    def budgets(self) -> np.ndarray:
        """[P * G] tokens that each row emits: M; lognormal with mean 0.3 M before it is clipped to 1..M; or
        uniform.
        """
        if self.lengths == "fixed":
            return np.full(self.num_samples, self.new)
        if self.lengths == "uniform":
            return np.array(self._uniform()[1])
        mu = np.log(LOGNORMAL_MEAN * self.new) - LOGNORMAL_SIGMA**2 / 2
        drawn = np.random.default_rng([0, 3]).lognormal(mu, LOGNORMAL_SIGMA, self.num_samples)
        return np.clip(np.rint(drawn), 1, self.new).astype(int)

    def _uniform(self) -> tuple[list[list[int]], list[int]]:
        """Prompts of 100 to N0 ids and budgets of 100 to M tokens, drawn in the order of nano-vllm's
        `bench.py`: with its 256 prompts and caps of 1,024 its very draw, 133,966 tokens in all.
        """
        draw = random.Random(0).randint
        length = lambda most: draw(min(UNIFORM_LEAST, most), most)
        most_id = min(UNIFORM_IDS, self.sizes.V - 1)
        prompts = [[draw(0, most_id) for _ in range(length(self.prompt_len))] for _ in range(self.prompts)]
        return prompts, [length(self.new) for _ in range(self.num_samples)]

    def tokens(self) -> int:
        """What tokens/s counts: new tokens when sampling, else all tokens that the update reads."""
        if self.what == "sft":
            return self.rows * self.seq_len
        new = int(self.budgets().sum())
        return new if self.what == "sample" else new + self.group * int(self.prompt_lengths().sum())

    def describe(self) -> dict:
        """The settings that concern this work, for the JSON line."""
        own = {"sft": ("rows", "seq_len")}.get(
            self.what, ("prompts", "group", "prompt_len", "new", "lengths")
        )
        said = {name: getattr(self, name) for name in ("what", "shape", "dtype", "lora", *own)}
        if self.what != "sft":
            said["mean_new"] = round(float(self.budgets().mean()), 1)
        said |= {"weights": self.model or "random"}
        return said | ({"microbatch": self.piece} if self.what != "sample" else {})


def add_work_arguments(parser: argparse.ArgumentParser, choices: tuple[str, ...]) -> None:
    """The flags that describe the work; `work_of` reads them."""
    parser.add_argument("what", choices=choices)
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--prompts", type=_positive, default=4, metavar="P")
    parser.add_argument("--group", type=_positive, default=8, metavar="G", help="samples of each prompt")
    parser.add_argument(
        "--prompt-len", type=_positive, default=128, metavar="N", help="tokens of a prompt (uniform: at most)"
    )
    parser.add_argument(
        "--new", type=_positive, default=128, metavar="M", help="new tokens of a row, at most"
    )
    parser.add_argument(
        "--lengths",
        choices=["fixed", "lognormal", "uniform"],
        default="fixed",
        help="M each; lognormal with mean 0.3 M; or prompts and rows uniform from 100 on, as nano-vllm draws",
    )
    parser.add_argument("--rows", type=_positive, default=4, help="of sft")
    parser.add_argument("--seq-len", type=_positive, default=256, help="of sft")
    parser.add_argument(
        "--microbatch",
        type=_positive,
        metavar="ROWS",
        help="rows per gradient piece; default: ours as a run chooses, the peer's all",
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--no-lora", dest="lora", action="store_false", help="no adapters: the whole model is trained"
    )
    parser.add_argument(
        "--model", metavar="DIR", help="ours: a checkpoint of the shape, in place of random weights"
    )
    parser.add_argument(
        "--runs", type=_positive, default=5, help="measured after one run of warm-up; default: %(default)s"
    )


def work_of(arguments: argparse.Namespace) -> Work:
    return Work(**{field.name: getattr(arguments, field.name) for field in fields(Work)})


def reward(completion_ids) -> float:
    """The reward of the RL benchmarks: the share of even ids. It differs within a group, so that every row
    teaches.
    """
    return sum(i % 2 == 0 for i in completion_ids) / len(completion_ids)


def judge(_, text: str):
    """The verifier that gives this reward, for jaxrl's pool: the text of a completion is its ids."""
    from jaxrl.types import Verdict

    return Verdict(reward(list(map(int, text.split()))), correct=False, format_ok=True)


# ----------------------------------------------------------------------------------------------------- floors


@dataclass(frozen=True)
class Cost:
    """The least that one program has to do."""

    flops: float
    bytes: float

    def seconds(self, peak: float, bandwidth: float) -> float:
        """On a device of `peak` FLOP/s and `bandwidth` byte/s."""
        return max(self.flops / peak, self.bytes / bandwidth)


def costs(work: Work) -> list[Cost]:
    """The programs of one run, in their order."""
    if work.what == "sft":
        return [_update(work, np.full(work.rows, work.seq_len), scored=work.rows * (work.seq_len - 1))]
    budgets, starts = work.budgets(), np.repeat(work.prompt_lengths(), work.group)
    live = lambda t: starts[budgets > t] + t  # positions that each live row reads, its own token's included
    sampling = [_prefill(work), *(_decode(work, live(t)) for t in range(1, budgets.max()))]
    learning = [_update(work, starts + budgets, scored=budgets.sum())]
    n, c, _ = _totals(starts + budgets)
    # PPO: old logprobs and values, in one pass
    scoring = [Cost(_forward(work, n, c, budgets.sum()), _weight_bytes(work))]
    return {"sample": sampling, "grpo": sampling + learning, "ppo": sampling + scoring + learning}[work.what]


def _forward(work: Work, n: float, c: float, scored: float) -> float:
    s = work.sizes
    return 2 * n * (s.linear + work.adapters) + 4 * s.L * s.N * s.H * c + 2 * scored * s.V * s.D


def _totals(lengths: np.ndarray) -> tuple[float, float, int]:
    """Tokens of causal sequences, positions that they read, and how many there are."""
    lengths = lengths.astype(float)
    return lengths.sum(), (lengths * (lengths + 1) / 2).sum(), len(lengths)


def _weight_bytes(work: Work) -> float:
    s = work.sizes
    return _item_size(work) * (s.linear + s.V * s.D) + 4 * work.adapters  # adapters are held in float32


def _kv_bytes(work: Work) -> float:
    """Keys and values of one position."""
    return 2 * work.sizes.L * work.sizes.K * work.sizes.H * _item_size(work)


def _prefill(work: Work) -> Cost:
    n, c, count = _totals(work.prompt_lengths())
    return Cost(_forward(work, n, c, count), _weight_bytes(work) + n * _kv_bytes(work))


def _decode(work: Work, positions: np.ndarray) -> Cost:
    """One step of rows that read so many positions each."""
    live, c = len(positions), int(positions.sum())
    return Cost(_forward(work, live, c, live), _weight_bytes(work) + c * _kv_bytes(work))


def _update(work: Work, lengths: np.ndarray, scored: float) -> Cost:
    s, (n, c, _) = work.sizes, _totals(lengths)
    products, trained = (4, s.lora) if work.lora else (6, s.linear + s.V * s.D)
    flops = n * (products * s.linear + 6 * work.adapters) + 12 * s.L * s.N * s.H * c
    # what is trained and its two moments, in float32, read and written
    return Cost(flops + products * scored * s.V * s.D, 2 * _weight_bytes(work) + 6 * 4 * trained)


def _item_size(work: Work) -> int:
    return {"float32": 4, "bfloat16": 2}[work.dtype]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


# ---------------------------------------------------------------------------------------- processes and pipes


def peak_rss_gib() -> float:
    """The most memory that this process has held, in GiB."""
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    )


def load() -> float:
    """Processes that wanted a core in the last minute; a word on stderr if that is too many for timings to
    mean much.
    """
    busy = round(os.getloadavg()[0], 2)
    if busy > 0.5:
        print(
            f"load average {busy}: others use this machine; timings of threads that wait for each other "
            "suffer most",
            file=sys.stderr,
        )
    return busy


class Channel:
    """A worker's end of the pipe to `bench_peers.py`. Whatever else the process prints goes to stderr."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self) -> None:
        """Until another run is asked for; ends the process when nobody is left to ask."""
        if not sys.stdin.readline():
            sys.exit(0)

    def tell(self, **message) -> None:
        print(json.dumps(message), file=self._out, flush=True)
