"""What a policy is, before a weight is read: its sizes, its kernels, and the shapes of its arrays."""

from dataclasses import dataclass, replace

import jax
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.shared import ArchitectureSection, ModelSection
from jaxrl.device.mesh import with_shardings
from jaxrl.errors import InputError
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.ops.causal_attention import choose_kernel
from jaxrl.policy.folder import model_folder
from jaxrl.policy.hand_over import PolicyWeights, cast
from jaxrl.types import Tree
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.peft import read_adapter_section


@dataclass(frozen=True)
class PolicyDescription:
    """The policy of a `model` section. `policy`: with the adapters of `model.adapter`, if it names any."""

    section: ModelSection
    policy: Policy
    mesh: Mesh

    def init_model(self, key: Array) -> Tree:
        """A fresh base, in the dtype that it is held in."""
        return cast(self.policy.init_model(key), self.section.dtype)

    def model_shapes(self) -> Tree:
        """The base's arrays as shapes, in the dtype and the shardings that they will have."""
        return with_shardings(jax.eval_shape(self.init_model, jax.random.key(0)), self.mesh)

    def shapes(self) -> PolicyWeights:
        """What `load` will give, with shapes for arrays."""
        trainable = {}
        if self.policy.lora is not None:
            lora = jax.eval_shape(self.policy.init_lora, jax.random.key(0))
            trainable = {"lora": with_shardings(lora, self.mesh)}
        return PolicyWeights(self.policy, trainable, {"model": self.model_shapes()}, self.is_new_base)

    @property
    def is_new_base(self) -> bool:
        """Whether the base is made here."""
        return self.section.path is None


def describe(section: ModelSection, vocab_size: int, mesh: Mesh) -> PolicyDescription:
    """The policy of a `model` section, from the files that describe it; no weight is read or fetched.

    Args:
      vocab_size: of the tokenizer (0: it is not known). The policy keeps to it where the model's own is
        larger.
    Raises:
      InputError: files that are missing or broken, a tokenizer that is not for this model, an attention
        kernel that is not for this device.
    """
    if section.path is None:
        config = fresh_model_config(section.architecture, vocab_size)
    else:
        folder = model_folder(section.path, with_weights=False)
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
    if section.adapter is not None:
        policy = replace(policy, lora=read_adapter_section(section.adapter))
    return PolicyDescription(section, policy, mesh)


def fresh_model_config(architecture: ArchitectureSection, vocab_size: int) -> ModelConfig:
    """Sizes of a fresh model: a Qwen3 (q/k norm) or a Llama. The vocabulary is rounded up: meshes cut it."""
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
