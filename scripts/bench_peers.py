"""The same work in jaxrl and in transformers + PEFT + TRL, in turns: how much faster, in how much memory?

    python scripts/bench_peers.py sample --shape smollm-135m --prompts 4 --group 8 --prompt-len 128 --new 128
    python scripts/bench_peers.py sft    --shape smollm-135m --rows 4 --seq-len 256
    python scripts/bench_peers.py grpo   --shape smollm-135m --peer-python other-venv/bin/python

The peers are an extra (`pip install 'jaxrl[peers]'`), or live in an environment of their own, named by
--peer-python. Each side is one process that holds its model; after a warm-up on both, one run of the peer and
one of ours alternate. Prints a JSON line for each pair, one with the medians, and a table. The ratio is the
median over pairs of the peer's seconds / ours.

What the peer runs, on the same random ids, budgets, microbatches (if --microbatch is given) and number of
threads (all cores, both):

    sample  model.generate(do_sample=True, num_return_sequences=G), without adapters unless --peer-adapters;
            ours has them
    sft     PEFT LoRA, forward, backward, clip, AdamW
    grpo    trl.GRPOTrainer on a PEFT model, one optimiser step of its training loop; no KL term, gradient
            checkpointing off (TRL's default is on, and slower)

A logits processor ends each row at its budget and not before; `generate` then pads it until the longest row
has ended. Both sides count the tokens they emitted, and the comparison stops if a count is not the work's.
TRL has no PPO trainer any more, so that there is none here. Memory is the peak of each process, or of the GPU
where torch and jax both use one; there, leave jax room with XLA_PYTHON_CLIENT_MEM_FRACTION.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench_common import (
    ALPHA,
    END,
    PAD,
    RANK,
    Channel,
    Work,
    add_work_arguments,
    load,
    peak_rss_gib,
    reward,
    work_of,
)

PACKAGES = ("torch", "transformers", "peft", "trl")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_work_arguments(parser, ("sample", "sft", "grpo"))
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter of the peers; default: this one",
    )
    parser.add_argument("--peer-adapters", action="store_true", help="sample: the peer has LoRA adapters too")
    parser.add_argument("--no-compact", action="store_true", help="ours: as in bench.py")
    parser.add_argument(
        "--set", dest="overrides", nargs="*", default=[], metavar="key=value", help="ours: as in bench.py"
    )
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = work_of(arguments)
    if work.lengths == "uniform" or work.model is not None or not work.lora:
        parser.error(
            "the peers know prompts of one length, random weights and adapters only: leave out --lengths "
            "uniform, --model and --no-lora"
        )
    if work.what == "grpo" and (work.group < 2 or work.num_samples % work.piece):
        parser.error(
            "a group of one sample has nothing to compare, and TRL cuts P * G rows evenly: raise --group, or "
            "change --microbatch"
        )
    if arguments.worker == "ours":
        return our_worker(work, arguments)
    if arguments.worker == "peer":
        return peer_worker(work, arguments)
    return compare(work, arguments)


# --------------------------------------------------------------------------------------------- the comparison


class Worker:
    """A process that does a run whenever it is asked to."""

    def __init__(self, name: str, python: str):
        self.name = name
        command = [python, __file__, *sys.argv[1:], "--worker", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def listen(self) -> dict:
        """The next message."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"the worker `{self.name}` ended with exit code {self.process.wait()}; its messages are above"
            )
        return json.loads(line)

    def run(self) -> dict:
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self.listen()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(work: Work, arguments: argparse.Namespace) -> int:
    busy = load()
    peer, ours = Worker("peer", arguments.peer_python), None
    try:
        # set up and warmed up; one after the other, so that neither is disturbed
        about = peer.listen()["about"]
        ours = Worker("ours", sys.executable)
        ours.listen()
        pairs = []
        for number in range(1, arguments.runs + 1):
            theirs, own = peer.run(), ours.run()
            for name, told in (("peer", theirs), ("ours", own)):
                if told["tokens"] != work.tokens():
                    raise SystemExit(
                        f"{name} did {told['tokens']} tokens, and the work is {work.tokens()}: not the same "
                        "work"
                    )
            pairs.append((theirs, own))
            seconds = {"peer_s": round(theirs["seconds"], 4), "ours_s": round(own["seconds"], 4)}
            print(
                json.dumps(
                    {"pair": number, **seconds, "ratio": round(theirs["seconds"] / own["seconds"], 3)}
                ),
                flush=True,
            )
    finally:
        for worker in (peer, ours):
            if worker is not None:
                worker.close()
    report(work, pairs, {"peer": about, "load": busy})
    return 0


def report(work: Work, pairs: list[tuple[dict, dict]], about: dict) -> None:
    """The line of medians and the table."""
    from jaxrl.track.format import text_table

    ratios = [theirs["seconds"] / own["seconds"] for theirs, own in pairs]
    line = (
        work.describe()
        | about
        | {"runs": len(pairs), "tokens": work.tokens(), "ratio": round(statistics.median(ratios), 3)}
    )
    rows = []
    for name, told in zip(("peer", "ours"), zip(*pairs)):
        median = statistics.median(run["seconds"] for run in told)
        speed, memory = work.tokens() / median, max(run["peak_memory_gib"] for run in told)
        line |= {
            f"{name}_s": round(median, 4),
            f"{name}_tokens_per_s": round(speed, 1),
            f"{name}_peak_memory_gib": round(memory, 3),
        }
        rows.append([name, f"{speed:,.0f}", f"{median:.3f}", f"{memory:.2f}"])
    print(json.dumps(line))
    rows.append(["ratio", f"{line['ratio']:.2f}", f"{min(ratios):.2f} – {max(ratios):.2f}", ""])
    print("\n" + text_table([f"{work.what} {work.shape}", "tokens/s", "seconds", "peak GiB"], rows))


# ------------------------------------------------------------------------------------------------- our worker


def our_worker(work: Work, arguments: argparse.Namespace) -> int:
    import bench

    from jaxrl.config.experiment import Config
    from jaxrl.device.compilations import set_up_jax
    from jaxrl.errors import InputError

    channel = Channel()
    set_up_jax(Config.model_fields["compilation_cache"].default)
    try:
        with bench.BENCHES[work.what](bench.with_microbatch(work), bench.settings_of(arguments)) as run:
            for number in range(arguments.runs + 1):
                seconds, _ = bench.timed(run, number)
                memory, _ = bench.peak_memory_gib()
                # run() has counted
                channel.tell(seconds=seconds, tokens=work.tokens(), peak_memory_gib=memory)
                channel.wait()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


# -------------------------------------------------------------------------------------------------- the peers


def peer_worker(work: Work, arguments: argparse.Namespace) -> int:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        where = "pip install 'jaxrl[peers]', or name an interpreter that has them with --peer-python"
        print(f"{sys.executable} lacks {', '.join(missing)}; {where}", file=sys.stderr)
        return 2
    return PEERS[work.what](work, arguments)


def serve(run: Callable[[], int], runs: int) -> int:
    """A warm-up, then a run whenever one is asked for; `run` returns the tokens it has done."""
    channel = Channel()
    for _ in range(runs + 1):
        started = time.perf_counter()
        tokens = run()
        wait_for_device()
        tell(channel, time.perf_counter() - started, tokens)
        channel.wait()
    return 0


def tell(channel: Channel, seconds: float, tokens: int) -> None:
    channel.tell(seconds=seconds, tokens=tokens, peak_memory_gib=peak_memory_gib(), about=about_peer())


def sample_peer(work: Work, arguments: argparse.Namespace) -> int:
    """`transformers.generate`."""
    import torch

    model = make_model(work).eval()
    if arguments.peer_adapters:
        model = adapt(model).eval()
    model.generate = ending_at_budgets(model.generate, work)
    prompts = torch.tensor(work.prompt_ids(), device=model.device)

    @torch.no_grad()
    def run() -> int:
        out = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            num_return_sequences=work.group,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=work.new,
            eos_token_id=END,
            pad_token_id=PAD,
        )
        new = out[:, work.prompt_len :]
        return int(((new == END).int().argmax(dim=1) + 1).sum())  # each row up to its end

    return serve(run, arguments.runs)


def sft_peer(work: Work, arguments: argparse.Namespace) -> int:
    """A PEFT LoRA step of AdamW."""
    import torch

    model = adapt(make_model(work)).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    pieces = torch.tensor(work.sft_ids(), device=model.device).split(work.piece)

    def run() -> int:
        for ids in pieces:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss * (len(ids) / work.rows)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # as ours, which brings its metrics to the host
        return sum(ids.numel() for ids in pieces)

    return serve(run, arguments.runs)


def grpo_peer(work: Work, arguments: argparse.Namespace) -> int:
    """TRL's GRPOTrainer: its own training loop, in which a callback waits before each optimiser step until
    one is asked for.
    """
    import tempfile

    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    channel, emitted = Channel(), []

    def even_share(completion_ids, **_) -> list[float]:
        emitted.extend(len(ids) for ids in completion_ids)
        return [reward(ids) for ids in completion_ids]

    class Turns(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step > 0:  # the first step is the warm-up
                channel.wait()
            emitted.clear()
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            wait_for_device()
            tell(channel, time.perf_counter() - self.started, sum(emitted) + len(emitted) * work.prompt_len)

    folder = tempfile.TemporaryDirectory()  # nothing is saved, but the trainer wants one
    settings = GRPOConfig(
        output_dir=folder.name,
        max_steps=arguments.runs + 1,
        num_generations=work.group,
        max_completion_length=work.new,
        per_device_train_batch_size=work.piece,
        gradient_accumulation_steps=work.num_samples // work.piece,
        learning_rate=1e-4,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        loss_type="dapo",
        gradient_checkpointing=False,
        bf16=work.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    model = adapt(make_model(work))
    model.generate = ending_at_budgets(model.generate, work)
    texts = [" ".join(map(str, ids)) for ids in work.prompt_ids()]
    data = Dataset.from_dict({"prompt": texts * (arguments.runs + 1)})
    GRPOTrainer(
        model, even_share, settings, data, processing_class=make_tokenizer(work), callbacks=[Turns()]
    ).train()
    folder.cleanup()
    return 0


PEERS = {"sample": sample_peer, "sft": sft_peer, "grpo": grpo_peer}


def make_model(work: Work):
    """A random transformers model of the shape."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    s = work.sizes
    family = Qwen3Config if s.qk_norm else Qwen2Config if s.qkv_bias else LlamaConfig
    config = family(
        vocab_size=s.V,
        hidden_size=s.D,
        num_hidden_layers=s.L,
        num_attention_heads=s.N,
        num_key_value_heads=s.K,
        head_dim=s.H,
        intermediate_size=s.F,
        tie_word_embeddings=s.tied,
        max_position_embeddings=max(4096, work.prompt_len + work.new),
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, work.dtype))
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def adapt(model):
    """The model with LoRA adapters, whose B is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    return adapted


def ending_at_budgets(generate: Callable, work: Work) -> Callable:
    """`generate` in which row b emits END as token number budgets[b], and not before."""
    import torch

    budgets = torch.tensor(work.budgets())

    def end(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, END] = -torch.inf
        ending = torch.nonzero(budgets == ids.shape[1] - work.prompt_len + 1).flatten().to(scores.device)
        if len(ending):
            scores[ending] = -torch.inf
            scores[ending, END] = 0.0
        return scores

    return lambda *args, **settings: generate(*args, logits_processor=[end], **settings)


def make_tokenizer(work: Work):
    """Words are numbers: the text of a prompt is its ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {PAD: "<pad>", END: "<end>"}
    core = Tokenizer(
        models.WordLevel({words.get(i, str(i)): i for i in range(work.sizes.V)}, unk_token=words[PAD])
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=words[PAD], eos_token=words[END], padding_side="left"
    )


def about_peer() -> str:
    """Versions of what took part, and the threads."""
    import torch

    versions = [f"{name} {sys.modules[name].__version__}" for name in PACKAGES if name in sys.modules]
    return ", ".join(versions + ([] if torch.cuda.is_available() else [f"{torch.get_num_threads()} threads"]))


def wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_gib() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else peak_rss_gib()


if __name__ == "__main__":
    sys.exit(main())
