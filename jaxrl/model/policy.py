"""The policy: the stack of layers as pure functions over two trees, what is trained and what is frozen.

    trainable = {"lora": {...}}   frozen = {"model": {...}}      with adapters
    trainable = {"model": {...}}  frozen = {}                    without (everything is trained)

Layers are stacked on axis 0 of every leaf, and the forward pass scans over them (one layer is compiled). What
decoding reads is made of the same trees by `decoding.py`. Axes: B rows, T tokens, D width, V vocabulary.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from jaxrl.config.shared import LoraSection
from jaxrl.device.mesh import gather_weights, over_rows_and_heads, spread_rows
from jaxrl.model.config import ModelConfig
from jaxrl.model.remat import rematerialise
from jaxrl.model.rope import rope_angles
from jaxrl.model.transformer import Block, rms_norm
from jaxrl.ops.causal_attention import causal_attention
from jaxrl.types import Tree


@dataclass(frozen=True)
class Policy:
    """Static and hashable: what a jitted function needs to know of the model beside its arrays.

    config: sizes. lora: the adapters, None without. dtype: of the arithmetic.
    remat: what the backward pass makes again, see `remat.py`.
    attention: a kernel of `ops/causal_attention.py`.
    mesh: the devices, for kernels that the compiler cannot spread over them by itself, and for weights that
      are cut over them: each is gathered where it is used. None: the compiler is told nothing.
    num_tokens: ids that the tokenizer has; the model's vocabulary may be larger, and what lies beyond is
      never sampled, nor has it a part in the policy that RL trains. None: all ids.
    """

    config: ModelConfig
    lora: LoraSection | None = None
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"
    mesh: Mesh | None = None
    num_tokens: int | None = None

    # --------------------------------------------------------------------------------------------- parameters

    def init_model(self, key: Array) -> Tree:
        """Fresh base parameters, float32. Kernels N(0, 1/d_in), embeddings N(0, 1/D), norms 1, biases 0."""
        c = self.config
        layers_key, embed_key, head_key = jax.random.split(key, 3)
        layers = jax.vmap(lambda k: _init_block(c, None, k)[1])(jax.random.split(layers_key, c.num_layers))

        def embedding(key: Array) -> Tree:
            return {"kernel": c.d_model**-0.5 * jax.random.normal(key, (c.vocab_size, c.d_model))}

        model = {"embed": embedding(embed_key), "layers": layers, "norm": {"scale": jnp.ones(c.d_model)}}
        return model if c.tie_embeddings else {**model, "head": embedding(head_key)}

    def init_lora(self, key: Array) -> Tree:
        """Fresh adapters, float32: A uniform, B zero, so that the policy starts as the base."""
        keys = jax.random.split(key, self.config.num_layers)
        return {"layers": jax.vmap(lambda k: _init_block(self.config, self.lora, k)[0])(keys)}

    def head(self, trainable: Tree, frozen: Tree) -> Array:
        """The output embedding [V, D] in the arithmetic's dtype."""
        name = "embed" if self.config.tie_embeddings else "head"
        kernel = {**frozen, **trainable}["model"][name]["kernel"].astype(self.dtype)
        return self._gathered({name: {"kernel": kernel}})[name]["kernel"]

    # ------------------------------------------------------------------------------------------------ forward

    def apply(
        self,
        trainable: Tree,
        frozen: Tree,
        tokens: Array,
        positions: Array,
        segment_ids: Array,
        dropout_key: Array | None = None,
    ) -> Array:
        """Last hidden states (after the final norm): [B, T] each -> [B, T, D]."""
        return self._forward(trainable, frozen, tokens, positions, segment_ids, dropout_key, keep_kv=False)[0]

    def prefill(
        self, trainable: Tree, frozen: Tree, tokens: Array, segment_ids: Array
    ) -> tuple[Array, Array, Array]:
        """Left-aligned prompts [P, T] -> last hidden states [P, T, D], keys and values [L, P, T, K, H]."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, (k, v) = self._forward(trainable, frozen, tokens, positions, segment_ids, None, keep_kv=True)
        return hidden, k, v

    def logits(self, trainable: Tree, frozen: Tree, hidden: Array) -> Array:
        """hidden [..., D] -> float32 logits [..., V]."""
        head = self.head(trainable, frozen)
        return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)

    # -------------------------------------------------------------------------------------------------- parts

    def _forward(self, trainable, frozen, tokens, positions, segment_ids, dropout_key, keep_kv):
        params = {**frozen, **trainable}
        angles = rope_angles(self.config, positions)
        packed = not keep_kv  # prompts stand one in a row

        def attend(q: Array, k: Array, v: Array):
            return self._attention(q, k, v, segment_ids, packed), (k, v) if keep_kv else None

        def layer(x: Array, inputs):
            weights, key = inputs
            return self._block(weights)(x, angles, attend, key)

        drops = dropout_key is not None and self.lora is not None and self.lora.dropout > 0
        keys = jax.random.split(dropout_key, self.config.num_layers) if drops else None
        x, kept = jax.lax.scan(
            rematerialise(layer, self.remat), self._embed(params, tokens), (self._layers(params), keys)
        )
        return self._final_norm(params, x), kept

    def _attention(self, q: Array, k: Array, v: Array, segment_ids: Array, packed: bool) -> Array:
        attend = partial(causal_attention, kernel=self.attention, packed=packed)
        if self.attention != "xla" and self.mesh is not None and self.mesh.size > 1:
            attend = over_rows_and_heads(attend, self.mesh, rows=q.shape[0], heads=k.shape[2])
        return attend(q, k, v, segment_ids)

    def _layers(self, params: Tree) -> tuple[Tree, Tree]:
        """(adapters, base) of all layers, in the order in which `_block` takes them."""
        return (params["lora"]["layers"] if self.lora else {}), params["model"]["layers"]

    def _block(self, weights: tuple[Tree, Tree]) -> Block:
        """The layer of a slice of the stacks. Called in what the backward pass does again, so that a gathered
        layer is not kept for it.
        """
        adapters, base = weights
        # matrices in the arithmetic's dtype, before they are sent
        stacked = jax.tree.map(lambda x: x[None].astype(self.dtype) if x.ndim == 2 else x[None], base)
        base = jax.tree.map(lambda x: x[0], self._gathered({"layers": stacked})["layers"])
        return nnx.merge(_block_graph(self.config, self.lora), adapters, base)

    def _embed(self, params: Tree, tokens: Array) -> Array:
        # cast last: the gradient of a token that comes often is a sum
        embed = self._gathered({"embed": params["model"]["embed"]})["embed"]["kernel"]
        x = embed[tokens].astype(self.dtype)
        return x if self.mesh is None else spread_rows(x, self.mesh)

    def _gathered(self, model: Tree) -> Tree:
        return model if self.mesh is None else gather_weights(model, self.mesh)

    def _final_norm(self, params: Tree, x: Array) -> Array:
        return rms_norm(x, params["model"]["norm"]["scale"], self.config.rms_eps)


def _init_block(config: ModelConfig, lora: LoraSection | None, key: Array) -> tuple[Tree, Tree]:
    """(adapters, base) of one layer."""
    _, adapters, base = nnx.split(Block(config, lora, nnx.Rngs(params=key)), nnx.LoRAParam, ...)
    return nnx.to_pure_dict(adapters), nnx.to_pure_dict(base)


@lru_cache
def _block_graph(config: ModelConfig, lora: LoraSection | None):
    """The structure of a layer without its arrays; made once."""
    block = nnx.eval_shape(lambda: Block(config, lora, nnx.Rngs(params=0)))
    return nnx.split(block, nnx.LoRAParam, ...)[0]
