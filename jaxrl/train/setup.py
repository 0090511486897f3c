"""What all stages share: the run's resources, and the policy as it is handed from one stage to the next."""

import logging
import os
import warnings
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.experiment import Config
from jaxrl.config.shared import ArchitectureSection, LoraSection, ModelSection
from jaxrl.data.chat import end_of_turn_id
from jaxrl.data.dates import fix_moment
from jaxrl.data.packing import Rows
from jaxrl.data.tokenizer import eos_ids, load_tokenizer, train_tokenizer
from jaxrl.device.compilations import Compilations
from jaxrl.device.mesh import shardings_for
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupt
from jaxrl.model.config import ModelConfig
from jaxrl.model.lora import merge_lora
from jaxrl.model.policy import Policy
from jaxrl.ops.causal_attention import choose_kernel
from jaxrl.tasks import make_task
from jaxrl.track.console import Console
from jaxrl.track.logger import RunLogger
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.peft import load_adapter
from jaxrl.weights.safetensors import load_model

log = logging.getLogger("jaxrl")
Tree = dict
ADAPTERS, DROPOUT, SAMPLING, CRITIC = range(4)  # the purposes of PRNG keys


@dataclass(frozen=True)
class Run:
    """The resources of one run, opened by `run.py` and used by every stage."""

    config: Config
    folder: Path
    mesh: Mesh
    tokenizer: object
    eos_ids: tuple[int, ...]
    sft_rows: dict[str, tuple[Rows, Rows | None]]  # by stage name
    logger: RunLogger
    console: Console
    interrupt: Interrupt
    compilations: Compilations

    def key(self, stage_index: int, purpose: int, step: int = 0) -> Array:
        """The PRNG key for a purpose at a step of a stage; the same in a resumed run."""
        key = jax.random.key(self.config.seed)
        for number in (stage_index, purpose, step):
            key = jax.random.fold_in(key, number)
        return key


@dataclass(frozen=True)
class Weights:
    """A policy with its arrays. `is_new_base`: the base is not the one that `model.path` names (made or
    trained here).
    """

    policy: Policy
    trainable: Tree
    frozen: Tree
    is_new_base: bool = False


def set_up_jax(compilation_cache: str | None) -> None:
    """Keep compiled programs on disk, so that the second start of a run compiles nothing; where the disk
    takes none, say so once.
    """
    if compilation_cache is None:
        return
    folder = Path(compilation_cache).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it is read-only, or not yours"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        log.warning(
            "compilation_cache %s cannot be written (%s): what is not in it yet is compiled at every start",
            folder,
            reason,
        )
        # JAX would say it of every program
        warnings.filterwarnings("ignore", "Error writing persistent compilation cache")


# -------------------------------------------------------------------------------------------------- tokenizer


def load_run_tokenizer(config: Config, run_folder: Path, began: datetime):
    """The run's tokenizer, which tells its templates the moment at which the run began, and the ids that end
    a completion.

    Without a directory to take it from, one is trained on the task's texts; `run.py` keeps it in the run
    folder.

    Raises:
      InputError: no tokenizer to be had, or one whose turns end in a token that sampling would not stop at.
    """
    source = config.model.tokenizer or config.model.path
    folder = model_folder(source) if source is not None else run_folder / "tokenizer"
    if source is not None or (run_folder / "config.yaml").exists():
        tokenizer = load_tokenizer(folder, config.model.chat_template)
    elif config.task is not None:
        task = make_task(config.task)
        tokenizer = train_tokenizer(task.texts(), whole=task.phrases())
    else:
        raise InputError(
            "a fresh model needs words for its tokenizer; set `task`, or give model.tokenizer a tokenizer"
            " directory"
        )
    fix_moment(tokenizer, began)
    ends = eos_ids(tokenizer, folder)
    end_of_turn = end_of_turn_id(tokenizer)
    if end_of_turn not in ends:
        raise InputError(
            f"the chat template of {folder} closes a turn with {tokenizer.decode([end_of_turn])!r} (id"
            f" {end_of_turn}), which is not among the ids that end a completion"
            f" ({', '.join(map(str, ends))}); name it in eos_token_id of generation_config.json"
        )
    return tokenizer, ends


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


# ------------------------------------------------------------------------------------------------------ model


def load_base(section: ModelSection, vocab_size: int, mesh: Mesh, seed: int) -> Weights:
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
        init = lambda key: _cast(policy.init_model(key), section.dtype)
        model = jax.jit(init, out_shardings=shardings)(jax.random.key(seed))
    else:
        model = load_model(folder, config, shardings, section.dtype)
    if section.adapter is not None:
        lora, lora_section = load_adapter(section.adapter, config)
        return Weights(
            replace(policy, lora=lora_section),
            {"lora": jax.device_put(lora, shardings_for(lora, mesh))},
            {"model": model},
        )
    return Weights(policy, {}, {"model": model}, is_new_base=section.path is None)


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


def enter_stage(weights: Weights, lora: LoraSection | None, dtype: str, mesh: Mesh, key: Array) -> Weights:
    """The policy that a stage with these adapters trains, starting from the one that the stage before left.

    The same adapters go on; other ones start at zero over the base with the old ones merged in (and rounded
    to `dtype`); without adapters the (merged) base itself is trained, in float32.
    """
    before = weights.policy
    policy = replace(before, lora=lora)
    if weights.trainable and _go_on(before.lora, lora):
        return replace(weights, policy=policy)
    model_dtype = jnp.dtype("float32" if lora is None else dtype)

    def plain_model(trainable: Tree, frozen: Tree) -> Tree:
        # merged in float32 and rounded once, if at all
        model = _cast({**frozen, **trainable}["model"], "float32")
        if before.lora is not None:
            model = merge_lora(model, trainable["lora"], before.lora)
        return _cast(model, model_dtype)

    if not weights.trainable and weights.frozen["model"]["norm"]["scale"].dtype == model_dtype:
        model = weights.frozen["model"]  # as it was loaded: no second copy on the devices
    else:
        shardings = shardings_for(jax.eval_shape(plain_model, weights.trainable, weights.frozen), mesh)
        model = jax.jit(plain_model, out_shardings=shardings)(weights.trainable, weights.frozen)
    is_new_base = weights.is_new_base or bool(weights.trainable) or lora is None
    if lora is None:
        return Weights(policy, {"model": model}, {}, is_new_base)
    lora_shardings = shardings_for(jax.eval_shape(policy.init_lora, key), mesh)
    adapters = jax.jit(policy.init_lora, out_shardings=lora_shardings)(key)
    return Weights(policy, {"lora": adapters}, {"model": model}, is_new_base)


def _go_on(before: LoraSection | None, lora: LoraSection | None) -> bool:
    """Do the arrays of `before` mean the same under `lora`? Dropout is not in them; PEFT names the targets in
    any order.
    """
    if before is None or lora is None:
        return before is lora
    same = {"dropout": before.dropout, "targets": before.targets}
    return set(before.targets) == set(lora.targets) and lora.model_copy(update=same) == before


def _cast(tree: Tree, dtype: str) -> Tree:
    return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), tree)
