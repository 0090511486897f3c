"""The policy in the form that decoding reads: each layer's weights by themselves, and matrices with the same
input joined.

    [q | k | v | x A]  =  x [Wq | Wk | Wv | Aq | Ak | Av]
    q, k, v  +=  scale * (x A) B,   B block-diagonal

Decoding moves every weight for every token, so what counts is how few passes and how few programs' launches
that takes: stacked layers would be cut out of their stack (a copy of all weights per window), and adapters as
they are trained add 14 small products per layer. How long this form lives, and that a policy that has moved
on is not sampled from its old copy, is the matter of `sample/resident.py`.

Axes: B rows, T new tokens, S cache positions, D width, V vocabulary, R ranks of the joined adapters.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from jaxrl.device.mesh import gather_weights
from jaxrl.model.cache import KVCache, quantize, write
from jaxrl.model.lora import merge_lora
from jaxrl.model.policy import Policy
from jaxrl.model.rope import rope_angles
from jaxrl.model.transformer import LINEARS, layer_forward, lora_scale, rms_norm
from jaxrl.ops.cached_attention import cached_attention
from jaxrl.types import Tree

GROUPS = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))  # linear layers that read the same input


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Joined:
    """Linear layers with a common input, side by side. `a` is None where it stands beside the kernel."""

    kernel: Array  # [in, out], or [in, out + R]; int8 with `scale`
    scale: Array | None = None  # [out] float32, of int8 columns
    bias: Array | None = None  # [out]
    a: Array | None = None  # [in, R]
    b: Array | None = None  # [R, out], block-diagonal


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layer:
    linears: dict[tuple[str, ...], Joined]
    norms: dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeWeights:
    embed: Array  # [V, D]
    head: Joined  # kernel [V, D], with the scale [V] when int8
    norm: Array  # [D]
    layers: tuple[Layer, ...]


def decode_weights(
    policy: Policy, trainable: Tree, frozen: Tree, mesh: Mesh, merge: bool = False, int8: bool = False
) -> DecodeWeights:
    """The weights of a policy, laid out for decoding and whole over `fsdp`.

    Args:
      merge: add the adapters into the base, W + scale * A B rounded to the arithmetic's dtype, instead of
        beside it.
      int8: kernels and head as int8 with one float32 scale per output, W ~ scale * round(W / scale), scale =
        max |W| / 127.
    Returns:
      Joined over `GROUPS`; over a mesh with `tensor` above 1 each linear layer stays by itself, since heads
      are cut there.
    """
    params = {**frozen, **trainable}
    stacks = {name: {"layers": tree["layers"]} for name, tree in params.items()}
    layers = tuple(
        _make_layer(policy, stacks, jnp.int32(i), mesh, merge, int8) for i in range(policy.config.num_layers)
    )
    model = {name: leaf for name, leaf in params["model"].items() if name != "layers"}
    # else they are read where they are: a jitted function would copy what it only hands through
    if mesh.shape["fsdp"] > 1:
        model = jax.jit(gather_weights, static_argnums=1)({"model": model}, mesh)["model"]
    head = policy.head({}, {"model": model})
    joined = Joined(*jax.jit(quantize, static_argnums=1)(head, 1)) if int8 else Joined(head)
    return DecodeWeights(model["embed"]["kernel"], joined, model["norm"]["scale"], layers)


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _make_layer(policy: Policy, stacks: Tree, i: Array, mesh: Mesh, merge: bool, int8: bool) -> Layer:
    """Layer i out of the stacks; one program for all layers, and never two copies of more than one."""
    one = gather_weights(jax.tree.map(lambda stack: jax.lax.dynamic_slice_in_dim(stack, i, 1), stacks), mesh)
    if merge and policy.lora:
        one = {"model": merge_lora(one["model"], one["lora"], policy.lora)}
    one = jax.tree.map(lambda leaf: leaf[0], one)
    base, adapters = one["model"]["layers"], one.get("lora", {"layers": {}})["layers"]
    is_cut, dtype = mesh.shape["tensor"] > 1, jnp.dtype(policy.dtype)

    def join(names: tuple[str, ...]) -> Joined:
        adapted = [name for name in names if name in adapters]
        kernels = [base[name]["kernel"].astype(dtype) for name in names]
        a = [adapters[name]["lora_a"].astype(dtype) for name in adapted]
        b = [
            (adapters[name]["lora_b"].astype(dtype) if name in adapters else None, k.shape[1])
            for name, k in zip(names, kernels)
        ]
        bias = [base[name]["bias"].astype(dtype) for name in names if "bias" in base[name]]
        is_beside = adapted and not is_cut and not int8
        joined = Joined(
            _side_by_side(kernels + a if is_beside else kernels),
            bias=_side_by_side(bias) if bias else None,
            a=_side_by_side(a) if adapted and not is_beside else None,
            b=_block_diagonal(b) if adapted else None,
        )
        if int8:
            kernel, scale = quantize(joined.kernel, axis=0)
            joined = replace(joined, kernel=kernel, scale=scale)
        return joined

    groups = [(name,) for name in LINEARS] if is_cut else GROUPS
    return Layer(
        {names: join(names) for names in groups},
        {name: leaf["scale"] for name, leaf in base.items() if "scale" in leaf},
    )


def extend(
    policy: Policy, weights: DecodeWeights, tokens: Array, num_new: Array | None, cache: KVCache
) -> tuple[Array, KVCache]:
    """Feed new tokens to rows that have a cache.

    Args:
      tokens: [B, T] int32, right-aligned: they are written at the cursor's next T positions.
      num_new: [B] int32, how many of the T are the row's; the others' places in the cache keep what they
        held. None: all.
    Returns:
      the last token's hidden state after the final norm [B, D], and the cache with the cursor T further.
    """
    config, T = policy.config, tokens.shape[1]
    places = cache.cursor + jnp.arange(T)  # [T]
    angles = rope_angles(config, jnp.maximum(places - cache.start[:, None], 0))
    readable = cache.readable(places)  # [B, T, S]
    is_new = None if num_new is None else jnp.arange(T) >= T - num_new[:, None]  # [B, T]
    scale = lora_scale(policy.lora) if policy.lora else 0.0
    x = weights.embed[tokens].astype(policy.dtype)
    layers = []
    for layer, cached in zip(weights.layers, cache.layers, strict=True):

        def attend(q: Array, k: Array, v: Array, cached=cached):
            cached = write(cached, k, v, cache.cursor, is_new)
            return cached_attention(q, *cached, readable), cached

        def project(x: Array, *names: str, layer: Layer = layer) -> list[Array]:
            if names not in layer.linears:
                return [_apply(layer.linears[name,], x, scale) for name in names]
            joined = _apply(layer.linears[names], x, scale)
            ends = [
                sum(config.linear_sizes[name][1] for name in names[: n + 1]) for n in range(len(names) - 1)
            ]
            return jnp.split(joined, ends, axis=-1)

        def norm(x: Array, name: str, layer: Layer = layer) -> Array:
            return rms_norm(x, layer.norms[name], config.rms_eps) if name in layer.norms else x

        x, cached = layer_forward(x, angles, attend, project, norm, config.head_dim)
        layers.append(cached)
    hidden = rms_norm(x[:, -1], weights.norm, config.rms_eps)
    return hidden, replace(cache, layers=tuple(layers), cursor=cache.cursor + T)


def decode_logits(weights: DecodeWeights, hidden: Array) -> Array:
    """hidden [B, D] -> float32 logits [B, V]."""
    head = weights.head
    logits = jnp.einsum(
        "bd,vd->bv", hidden, head.kernel.astype(hidden.dtype), preferred_element_type=jnp.float32
    )
    return logits if head.scale is None else logits * head.scale


def _apply(joined: Joined, x: Array, scale: float) -> Array:
    y = x @ joined.kernel.astype(x.dtype)
    if joined.b is not None:
        out = joined.b.shape[1]
        if joined.a is not None:
            # The barrier keeps the GPU compiler from joining this with the product above, which would write
            # all weights anew.
            low = jax.lax.optimization_barrier(x) @ joined.a
        else:
            y, low = y[..., :out], y[..., out:]
    if joined.scale is not None:
        y = (y * joined.scale).astype(x.dtype)
    if joined.bias is not None:
        y = y + joined.bias
    return y if joined.b is None else y + scale * (low @ joined.b)


def _side_by_side(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def _block_diagonal(blocks: list[tuple[Array | None, int]]) -> Array:
    """[R, out] from (block [R_i, out_i] or None, out_i): zeros where a layer has no adapter, and off the
    blocks.
    """
    rows, before, total = [], 0, sum(out for _, out in blocks)
    for block, out in blocks:
        if block is not None:
            rows.append(jnp.pad(block, ((0, 0), (before, total - before - out))))
        before += out
    return jnp.concatenate(rows)
