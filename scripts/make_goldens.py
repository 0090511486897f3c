"""Write the golden models of tests/golden: tiny random Hugging Face models with the logits that their own
code gives.

Run by hand, once, in an environment of its own (torch is no dependency of jaxrl); the files are kept in the
repository:

    pip install torch transformers safetensors peft numpy
    python scripts/make_goldens.py --out tests/golden

Each folder is what `save_pretrained` writes (one in two shards, one in bfloat16) plus `logits.npz`: `tokens`
[2, T] int32, `logits` [2, T, V] float32. Norm scales and biases are random too, so that no tensor can be left
out unnoticed. Two models have a PEFT adapter beside them (`adapter/`, `adapter_logits.npz`), with a B that is
not zero. The seeds are fixed.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

T, V, ADAPTER_T = 24, 96, 12
COMMON = {"vocab_size": V, "num_hidden_layers": 2, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # short, so that within T tokens all three branches are taken
}
ALL_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama(hidden: int, heads: int, kv_heads: int, ff: int, **others) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=ff,
        max_position_embeddings=64,
        **COMMON,
        **others,
    )


def configs() -> dict:
    """The models by folder name; each differs from the others in what a reader could get wrong."""
    linear = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.5}
    plain = {"rope_type": "default", "rope_theta": 500.0}
    return {
        "llama2": llama(32, 4, 4, 48),
        "llama3": llama(32, 4, 2, 48, rope_parameters=LLAMA3_ROPE),
        "llama_linear": llama(32, 4, 2, 40, rope_parameters=linear, attention_bias=True, mlp_bias=True),
        "smollm": llama(36, 3, 1, 48, tie_word_embeddings=True, rope_parameters=plain),
        "qwen2": Qwen2Config(
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            tie_word_embeddings=True,
            max_position_embeddings=64,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
            **COMMON,
        ),
        "qwen3": Qwen3Config(
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
            intermediate_size=32,
            tie_word_embeddings=True,
            max_position_embeddings=64,
            **COMMON,
        ),
    }


def random_model(config, generator: torch.Generator) -> PreTrainedModel:
    """Every parameter random: scales around one, kernels wide enough for attention to be far from uniform."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise if "embed" in name else 1.5 * noise / parameter.shape[1] ** 0.5)
    return model


def write_logits(model, path: Path, length: int, rng: np.random.Generator) -> None:
    tokens = rng.integers(0, V, (2, length)).astype(np.int32)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens).long(), use_cache=False).logits
    np.savez(path, tokens=tokens, logits=logits.float().numpy())


def write_adapter(
    model, folder: Path, generator: torch.Generator, rng: np.random.Generator, **settings
) -> None:
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    values = json.loads(path.read_text())
    values["target_modules"].sort()  # PEFT writes a set, in another order every time
    values["base_model_name_or_path"] = None  # it would be the place where this script was run
    path.write_text(json.dumps(values, indent=2) + "\n")
    write_logits(adapted, folder / "adapter_logits.npz", ADAPTER_T, rng)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("tests/golden"), help="folder to write to; default: %(default)s"
    )
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(configs().items()):
        generator, rng, folder = torch.Generator().manual_seed(seed), np.random.default_rng(seed), out / name
        shutil.rmtree(folder, ignore_errors=True)
        model = random_model(config, generator)
        if name == "smollm":
            model = model.bfloat16()
        model.save_pretrained(folder, max_shard_size="48KB" if name == "llama3" else "5GB")
        # What was rounded is read back in float32. Not `.float()`: that would keep rotary frequencies rounded
        # to bfloat16.
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        write_logits(model, folder / "logits.npz", T, rng)
        if name == "qwen3":
            write_adapter(model, folder, generator, rng, r=2, lora_alpha=6, target_modules=ALL_TARGETS)
        if name == "smollm":
            targets = ["q_proj", "v_proj"]
            write_adapter(
                model, folder, generator, rng, r=4, lora_alpha=3, target_modules=targets, use_rslora=True
            )
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes them readable to their owner alone
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder}: {size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
