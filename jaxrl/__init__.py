"""jaxrl: post-training of language models in JAX and Flax.

Importing it imports neither jax nor transformers: its public names (`docs/python.md`) are fetched from their
rooms when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {  # public name: the module that has it
    # an experiment
    "load_config": "config.file",
    "run": "commands.run",
    # a model
    "make_mesh": "device.mesh",
    "load_policy": "policy.load",
    "PolicyWeights": "policy.hand_over",
    "enter_stage": "policy.hand_over",
    "save_model": "weights.safetensors",
    "save_adapter": "weights.peft",
    # texts and ids
    "load_tokenizer": "data.tokenizer",
    "num_tokens": "data.tokenizer",
    "eos_ids": "data.tokenizer",
    "render_for_sampling": "data.chat",
    # sampling and scoring
    "Engine": "sample.engine",
    "Request": "sample.rows",
    "score_tokens": "commands.score",
    # updates
    "make_optimizer": "update.state",
    "place_state": "update.state",
    "make_sample": "rollout.collate",
    "group_credit": "rollout.credit",
    "collate": "rollout.collate",
    "shard_batch": "device.mesh",
    "make_grpo_step": "update.step",
    # settings
    "GRPOSection": "config.algo",
    "LoraSection": "config.shared",
    "MeshSection": "config.shared",
    "OptimSection": "config.shared",
    "SampleSection": "config.shared",
    # words
    "Completion": "types",
    "InputError": "errors",
    "Message": "types",
    "Problem": "types",
    "Verdict": "types",
}
__all__ = list(_PLACES)

if TYPE_CHECKING:  # the same again, for type checkers and editors
    from jaxrl.commands.run import run as run
    from jaxrl.commands.score import score_tokens as score_tokens
    from jaxrl.config.algo import GRPOSection as GRPOSection
    from jaxrl.config.file import load_config as load_config
    from jaxrl.config.shared import LoraSection as LoraSection
    from jaxrl.config.shared import MeshSection as MeshSection
    from jaxrl.config.shared import OptimSection as OptimSection
    from jaxrl.config.shared import SampleSection as SampleSection
    from jaxrl.data.chat import render_for_sampling as render_for_sampling
    from jaxrl.data.tokenizer import eos_ids as eos_ids
    from jaxrl.data.tokenizer import load_tokenizer as load_tokenizer
    from jaxrl.data.tokenizer import num_tokens as num_tokens
    from jaxrl.device.mesh import make_mesh as make_mesh
    from jaxrl.device.mesh import shard_batch as shard_batch
    from jaxrl.errors import InputError as InputError
    from jaxrl.policy.hand_over import PolicyWeights as PolicyWeights
    from jaxrl.policy.hand_over import enter_stage as enter_stage
    from jaxrl.policy.load import load_policy as load_policy
    from jaxrl.rollout.collate import collate as collate
    from jaxrl.rollout.collate import make_sample as make_sample
    from jaxrl.rollout.credit import group_credit as group_credit
    from jaxrl.sample.engine import Engine as Engine
    from jaxrl.sample.rows import Request as Request
    from jaxrl.types import Completion as Completion
    from jaxrl.types import Message as Message
    from jaxrl.types import Problem as Problem
    from jaxrl.types import Verdict as Verdict
    from jaxrl.update.state import make_optimizer as make_optimizer
    from jaxrl.update.state import place_state as place_state
    from jaxrl.update.step import make_grpo_step as make_grpo_step
    from jaxrl.weights.peft import save_adapter as save_adapter
    from jaxrl.weights.safetensors import save_model as save_model


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
