"""The attention of whole rows, in training and prefill: one operation, and a table of the kernels that do it.

    out[t] = sum_s softmax_s(q[t] . k[s] / sqrt(H)) v[s]    over the s <= t of t's own segment

Axes: B rows, T tokens, N query heads, K key/value heads, H width. Decoding attends over a cache instead:
`cached_attention.py`.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.checks import check_shapes
from jaxrl.errors import InputError
from jaxrl.ops.flash import flash_attention

LANES = 128  # what splash takes lengths in multiples of


def causal_attention(
    q: Array, k: Array, v: Array, segment_ids: Array, kernel: str = "xla", packed: bool = True
) -> Array:
    """Attention of every token over its own segment up to itself.

    Args:
      q: [B, T, N, H].  k, v: [B, T, K, H].
      segment_ids: [B, T] int32; 0 is padding, whose results are arbitrary and finite.
      kernel: a key of `KERNELS`.
      packed: whether rows may hold several segments. False promises one, from position 0 on, with padding
        after it.
    Returns:
      [B, T, N, H] in q's dtype.
    """
    check_shapes(q=(q, "B T N H"), k=(k, "B T K H"), v=(v, "B T K H"), segment_ids=(segment_ids, "B T"))
    return KERNELS[kernel](q, k, v, segment_ids, packed)


def choose_kernel(asked: str, device: jax.Device, dtype: str, head_dim: int) -> str:
    """The kernel for a device: the one asked for; for `auto` the fastest for device, dtype and head width.

    Raises:
      InputError: a kernel that was asked for and cannot run.
    """
    cudnn = _why_not_cudnn(device, dtype, head_dim)
    splash = None if device.platform == "tpu" else f"it is a TPU kernel, and this is {device.platform}"
    if asked == "auto":
        return "splash" if splash is None else "cudnn" if cudnn is None else "xla"
    reason = {"xla": None, "cudnn": cudnn, "splash": splash}[asked]
    if reason is not None:
        raise InputError(f"model.attention={asked} cannot be used: {reason}; set it to auto or xla")
    return asked


def _why_not_cudnn(device: jax.Device, dtype: str, head_dim: int) -> str | None:
    capability = str(getattr(device, "compute_capability", ""))  # `gfx...` on AMD
    if device.platform != "gpu" or not capability[:1].isdigit():
        return f"it is for NVIDIA GPUs, and this is {device.platform}"
    if float(capability) < 8.0:
        return f"it needs compute capability 8.0, and this device has {capability}"
    if dtype != "bfloat16":
        return f"it knows 16-bit numbers only, and model.dtype is {dtype}"
    widest = 256 if float(capability) >= 9.0 else 128
    if head_dim % 8 or head_dim > widest:
        return f"head_dim must be a multiple of 8 up to {widest}, and is {head_dim}"
    return None


# ---------------------------------------------------------------------------------------------------- kernels


def _xla(q: Array, k: Array, v: Array, segment_ids: Array, packed: bool) -> Array:
    return flash_attention(q, k, v, segment_ids)


def _cudnn(q: Array, k: Array, v: Array, segment_ids: Array, packed: bool) -> Array:
    """cuDNN's flash attention.

    Its public interface knows one length per row, right for rows that are not packed, and no segments: for
    packed rows they are a mask [B, 1, T, T], which it adds as a bias in q's dtype and whose gradient it
    computes in vain. That is one array of T^2 16-bit numbers per row, for all heads and layers together,
    where plain XLA has a float32 one for every head of every layer. (The form that takes segments is private
    to JAX and for Hopper only.)
    """
    if not packed:
        lengths = jnp.maximum(jnp.sum(segment_ids > 0, axis=1, dtype=jnp.int32), 1)
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            is_causal=True,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            implementation="cudnn",
        )
    T = q.shape[1]
    # with a bias the backward pass wants even lengths
    q, k, v, segment_ids = (_pad(x, 2) for x in (q, k, v, segment_ids))
    same_segment = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=same_segment, is_causal=True, implementation="cudnn")[
        :, :T
    ]


def splash(q: Array, k: Array, v: Array, segment_ids: Array, packed: bool, interpret: bool = False) -> Array:
    """Splash attention for TPU (Pallas): blocks above the diagonal are skipped, segments are compared inside
    the kernel.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    T, scale = q.shape[1], q.shape[3] ** -0.5
    q, k, v, segment_ids = (_pad(x, LANES) for x in (q * jnp.asarray(scale, q.dtype), k, v, segment_ids))
    kernel = _splash_kernel(q.shape[2], q.shape[1], interpret)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out = jax.vmap(kernel)(q, k, v, SegmentIds(segment_ids, segment_ids))
    return out.swapaxes(1, 2)[:, :T]


@lru_cache(maxsize=16)
def _splash_kernel(num_heads: int, T: int, interpret: bool) -> Callable[..., Array]:
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        BlockSizes,
        CausalMask,
        MultiHeadMask,
        make_splash_mha_single_device,
    )

    block = next(size for size in (512, 384, 256, LANES) if T % size == 0)
    sizes = BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    with jax.ensure_compile_time_eval():  # the mask's tables are constants, whatever is being traced
        mask = MultiHeadMask([CausalMask((T, T))] * num_heads)
        return make_splash_mha_single_device(
            mask, block_sizes=sizes, residual_checkpoint_name="attention", interpret=interpret
        )


def _pad(x: Array, multiple: int) -> Array:
    """Zeros after the last token, up to a multiple: padding, also as a segment id."""
    missing = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2))) if missing else x


KERNELS = {"xla": _xla, "cudnn": _cudnn, "splash": splash}
