"""Adapters in and out of PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

PEFT and the servers that read its format pass over keys they do not know and then serve the base alone; so
keys are checked here in both directions, and what an adapter asks for beyond plain LoRA is refused. Axes: L
layers, R rank.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.config.file import make_section
from jaxrl.config.shared import LORA_TARGETS, LoraSection
from jaxrl.errors import InputError
from jaxrl.files.disk import read_json
from jaxrl.files.place import COPY, refuse_url
from jaxrl.model.config import ModelConfig
from jaxrl.weights.files import check_tensors, open_tensors, save_tensors, saving
from jaxrl.weights.names import LAYER, MODULES, Tree, leaf_at, nest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's wrapper around the model that our table names
TARGETS = {module.rpartition(".")[2]: ours for ours, module in MODULES.items()}  # q_proj -> q

# What may stand in an adapter_config.json without changing what its tensors mean. Every other key must be
# empty.
READ = frozenset(
    "peft_type r lora_alpha lora_dropout target_modules use_rslora bias init_lora_weights".split()
)
HARMLESS = frozenset(
    "arrow_config auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config "
    "inference_mode megatron_core peft_version qalora_group_size revision runtime_config task_type".split()
)
# Ways of starting A and B that leave the base as it was; the others (pissa, olora, loftq, ...) subtract from
# it.
PLAIN_INITS = (True, False, "gaussian", "orthogonal", "eva", None)


def save_adapter(
    lora_tree: Tree, lora_section: LoraSection, config: ModelConfig, folder: str | Path, base_path: str | None
) -> None:
    """Write an adapter that PEFT loads on the base model.

    Args:
      lora_tree: `{"layers": {target: {"lora_a": [L, in, R], "lora_b": [L, R, out]}}}` for the section's
        targets; stored in the dtype it has.
      base_path: directory or hub name of the base, for those who load it by the adapter alone.
    Raises:
      InputError: a folder that cannot be written.
    """
    _check_tree(lora_tree, lora_section, config)
    tensors = {
        name: np.ascontiguousarray(np.asarray(leaf_at(lora_tree, path)[layer]).T)
        for name, (path, layer, _) in _adapter_tensors(lora_section, config).items()
    }
    alpha = lora_section.alpha
    values: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_path,
        "r": lora_section.rank,
        # PEFT declares an integer, and computes with either
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora_section.dropout,
        "use_rslora": lora_section.rslora,
        "target_modules": [MODULES[target].rpartition(".")[2] for target in lora_section.targets],
        "bias": "none",
        "fan_in_fan_out": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "inference_mode": True,
        "init_lora_weights": True,
    }
    with saving(Path(folder), last=CONFIG, replaces=(WEIGHTS,)) as temporary:
        save_tensors(tensors, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_adapter(folder: str | Path, config: ModelConfig) -> tuple[Tree, LoraSection]:
    """An adapter of PEFT's, for the model of `config`.

    Returns:
      (the adapter's tree as float32 NumPy arrays, what is trained being held in float32; the section that
      describes it).
    Raises:
      InputError: missing or broken files, keys or shapes that are not those of this model, or anything that
        LoraSection cannot represent.
    """
    folder = Path(folder)
    section = read_adapter_section(folder)
    if not (folder / WEIGHTS).is_file() and (folder / "adapter_model.bin").is_file():
        raise InputError(
            f"{folder} holds adapter_model.bin and not {WEIGHTS}; save the adapter again as safetensors"
        )
    tensors = open_tensors([folder / WEIGHTS])
    expected = _adapter_tensors(section, config)
    shapes = {name: shape for name, (_, _, shape) in expected.items()}
    check_tensors(
        folder, tensors, shapes, "the adapter is not one for this model; check its base_model_name_or_path"
    )
    leaves: dict[str, list[np.ndarray]] = {}
    for name, (path, _, _) in expected.items():  # layers come in order
        leaves.setdefault(path, []).append(tensors[name][0][:].T.astype(np.float32))
    return nest({path: np.stack(layers) for path, layers in leaves.items()}), section


def read_adapter_section(folder: str | Path) -> LoraSection:
    """The LoraSection that an adapter's `adapter_config.json` stands for; no weight is read.

    Raises:
      InputError: a missing or broken file, or anything that LoraSection cannot represent.
    """
    refuse_url(folder, COPY)
    path = Path(folder) / CONFIG
    values = read_json(path, "check the path, or fetch the file again")
    if values.get("peft_type") != "LORA":
        raise _refusal(path, values, "peft_type", "LORA")
    if values.get("bias", "none") != "none":
        raise _refusal(path, values, "bias", "none")
    if values.get("init_lora_weights") not in PLAIN_INITS:
        raise _refusal(
            path,
            values,
            "init_lora_weights",
            "ways of starting that leave the base unchanged (convert it to plain LoRA)",
        )
    for key, value in values.items():
        if key not in READ | HARMLESS and value not in (None, False, {}, [], ""):
            raise _refusal(path, values, key, "unset or empty")
    modules = values.get("target_modules")
    if modules == "all-linear":
        modules = list(TARGETS)
    if not isinstance(modules, list) or not modules or not all(module in TARGETS for module in modules):
        raise _refusal(path, values, "target_modules", f"a list of names out of {', '.join(TARGETS)}")
    return make_section(
        LoraSection,
        str(path),
        rank=values.get("r"),
        alpha=values.get("lora_alpha"),
        dropout=values.get("lora_dropout", 0.0),
        targets=[TARGETS[module] for module in modules],
        rslora=values.get("use_rslora", False),
    )


def _refusal(path: Path, values: dict[str, Any], key: str, supported: str) -> InputError:
    return InputError(
        f"{path}: {key} is {values.get(key)!r}, which jaxrl cannot represent; supported: {supported}"
    )


def _adapter_tensors(
    section: LoraSection, config: ModelConfig
) -> dict[str, tuple[str, int, tuple[int, int]]]:
    """Every tensor of the adapter's file: name -> (our path, layer, their shape: A [R, in], B [out, R])."""
    tensors: dict[str, tuple[str, int, tuple[int, int]]] = {}
    sizes = config.linear_sizes
    for target in LORA_TARGETS:
        if target not in section.targets:
            continue
        d_in, d_out = sizes[target]
        for layer in range(config.num_layers):
            module = PREFIX + LAYER.format(i=layer) + MODULES[target]
            tensors[f"{module}.lora_A.weight"] = (f"layers/{target}/lora_a", layer, (section.rank, d_in))
            tensors[f"{module}.lora_B.weight"] = (f"layers/{target}/lora_b", layer, (d_out, section.rank))
    return tensors


def _check_tree(lora_tree: Tree, section: LoraSection, config: ModelConfig) -> None:
    """ValueError unless the tree has the section's targets, of the config's sizes: a defect of the caller."""
    targets = set(lora_tree["layers"])
    if targets != set(section.targets):
        raise ValueError(
            f"the adapter tree has {sorted(targets)} and its section the targets {sorted(section.targets)}"
        )
    for path, _, shape in _adapter_tensors(section, config).values():
        found, wanted = tuple(leaf_at(lora_tree, path).shape), (config.num_layers, *shape[::-1])
        if found != wanted:
            raise ValueError(f"adapter leaf {path} has the shape {found}, and should have {wanted}")
