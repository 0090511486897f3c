"""A base model from a directory, a hub name, or made anew, each leaf in its sharding; and its adapter."""

from dataclasses import replace
from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxrl.config.shared import ArchitectureSection, ModelSection
from jaxrl.device.mesh import shardings_for
from jaxrl.errors import InputError
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.ops.causal_attention import choose_kernel
from jaxrl.policy.hand_over import PolicyWeights, cast
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.peft import load_adapter
from jaxrl.weights.safetensors import load_model


def model_folder(path: str) -> Path:
    """A directory as it is; a hub name as the folder it was downloaded to.

    Raises:
      InputError: if there is no such directory and the hub does not answer.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
        return Path(snapshot_download(path, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model {path!r} is not a directory here, and the hub did not give it ({reason}); check the path"
            " or the network"
        ) from None


def load_base(section: ModelSection, vocab_size: int, mesh: Mesh, seed: int) -> PolicyWeights:
    """The base model, each leaf made or read directly in its sharding, in the arithmetic's dtype, and its
    adapter if it has one.

    Args:
      vocab_size: of the tokenizer (0: it is not known). The policy keeps to it where the model's own is
        larger.
    Raises:
      InputError: files that are missing or broken, a tokenizer or an adapter that is not for this model, an
        attention kernel that is not for this device.
    """
    if section.path is None:
        config = fresh_model_config(section.architecture, vocab_size)
    else:
        folder = model_folder(section.path)
        config = read_hf_config(folder)
        if vocab_size > config.vocab_size:
            raise InputError(
                f"the tokenizer has {vocab_size} tokens and the model in {folder} {config.vocab_size}"
                " embeddings; set model.tokenizer to the tokenizer that belongs to the model"
            )
    attention = choose_kernel(section.attention, mesh.devices.flat[0], section.dtype, config.head_dim)
    # each stage chooses anew, see `memory_plan.py`
    remat = "selective" if section.remat == "auto" else section.remat
    policy = Policy(config, None, section.dtype, remat, attention, mesh, vocab_size or None)
    abstract = jax.eval_shape(policy.init_model, jax.random.key(0))
    shardings = shardings_for(abstract, mesh)
    if section.path is None:
        init = lambda key: cast(policy.init_model(key), section.dtype)
        model = jax.jit(init, out_shardings=shardings)(jax.random.key(seed))
    else:
        model = load_model(folder, config, shardings, section.dtype)
    if section.adapter is not None:
        lora, lora_section = load_adapter(section.adapter, config)
        return PolicyWeights(
            replace(policy, lora=lora_section),
            {"lora": jax.device_put(lora, shardings_for(lora, mesh))},
            {"model": model},
        )
    return PolicyWeights(policy, {}, {"model": model}, is_new_base=section.path is None)


def fresh_model_config(architecture: ArchitectureSection, vocab_size: int) -> ModelConfig:
    """Sizes of a fresh model: a Qwen3 (q/k norm) or a Llama. The vocabulary is rounded up so that meshes can
    cut it.
    """
    a = architecture
    return ModelConfig(
        family="qwen3" if a.qk_norm else "llama",
        vocab_size=-(-vocab_size // 8) * 8,
        d_model=a.d_model,
        num_layers=a.num_layers,
        num_heads=a.num_heads,
        num_kv_heads=a.num_kv_heads,
        head_dim=a.head_dim or a.d_model // a.num_heads,
        d_ff=a.d_ff,
        rope_theta=a.rope_theta,
        qk_norm=a.qk_norm,
        tie_embeddings=a.tie_embeddings,
        max_positions=a.max_positions,
    )
