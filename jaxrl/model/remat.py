"""Which results of a layer are kept for the backward pass; the others it makes again.

The values of `model.remat`:

    none       all that autodiff asks for
    selective  the results of matrix products and of attention, and the residual stream: KEPT. Made again are
               norms, rotations, the gate's silu and its product: arithmetic that costs less than to store and
               read the results
    full       the layer's input alone; the whole layer is computed a second time
"""

from collections.abc import Callable

import jax

from jaxrl.config.shared import LoraSection
from jaxrl.model.config import ModelConfig

# Names that `jax.ad_checkpoint.checkpoint_name` gives in transformer.py, ops/low_rank.py and the attention
# kernels.
KEPT = ("qkv", "attention", "middle", "low_rank", "mlp")


def rematerialise(layer: Callable, remat: str) -> Callable:
    """The layer, with what its backward pass may keep limited as `remat` says."""
    if remat == "none":
        return layer
    return jax.checkpoint(layer, prevent_cse=False, policy=_keep if remat == "selective" else None)


def _keep(primitive, *args, **params) -> bool:
    # cuDNN's results have no name; its softmax statistics are kept, too, or the backward pass would run it
    # again.
    return primitive.name.startswith("dot_product_attention_fwd") or _keep_names(primitive, *args, **params)


_keep_names = jax.checkpoint_policies.save_only_these_names(*KEPT)


def kept_bytes(config: ModelConfig, lora: LoraSection | None, dtype: str, remat: str) -> int:
    """Bytes that one layer keeps of one token between its forward and its backward pass.

        full       s D
        selective  s (2 D + 2 N H + 2 K H + 2 F + R * adapted layers) + 4 N: input, residual stream, q, k, v,
                   attention's result, gate, up, low rank; attention's normaliser
        none       8 s (D + N H + K H + F), an upper bound: each of these is kept up to eight times, before
                   and after each piece of elementwise arithmetic

    s is the size of a number of `dtype`. The first two are what autodiff keeps, exactly; what XLA adds is
    elsewhere.
    """
    D, F, R = config.d_model, config.d_ff, lora.rank if lora else 0
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    size = {"float32": 4, "bfloat16": 2}[dtype]
    if remat == "full":
        return size * D
    if remat == "selective":
        return (
            size * (2 * D + 2 * q + 2 * kv + 2 * F + R * (len(lora.targets) if lora else 0))
            + 4 * config.num_heads
        )
    return 8 * size * (D + q + kv + F)
