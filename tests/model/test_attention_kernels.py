"""The policy with each attention kernel: the same gradients, and none of them run again by selective
rematerialisation.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxrl.config.shared import MeshSection
from jaxrl.device.mesh import make_mesh, replicated, rows_sharding
from jaxrl.model.policy import Policy
from jaxrl.ops import causal_attention as module
from tests.tiny import CONFIG, LORA, policy_and_trees, relative_difference

B, T = 4, 24
TOKENS = jax.random.randint(jax.random.key(9), (B, T), 1, CONFIG.vocab_size)
SEGMENTS = np.repeat([[1, 2, 0]], [12, 8, 4], axis=1).repeat(B, axis=0)
POSITIONS = np.concatenate([np.arange(12), np.arange(8), np.zeros(4, int)])[None].repeat(B, axis=0)


def loss(policy, trainable, frozen, tokens=TOKENS):
    hidden = policy.apply(trainable, frozen, tokens, POSITIONS, SEGMENTS)
    return jnp.sum(hidden.astype(jnp.float32) ** 2 * (SEGMENTS > 0)[..., None])


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setitem(module.KERNELS, "splash", partial(module.splash, interpret=True))


@pytest.mark.mesh
def test_splash_in_the_scanned_stack_over_a_mesh_gives_the_gradient_of_xla(interpreted):
    mesh = make_mesh(MeshSection(data=2, tensor=2))
    policy, trainable, frozen = policy_and_trees(remat="selective")
    plain = jax.jit(jax.grad(lambda t: loss(policy, t, frozen)))(trainable)
    spread = Policy(CONFIG, LORA, "float32", "selective", "splash", mesh)
    everywhere = jax.device_put((trainable, frozen), replicated(mesh))
    tokens = jax.device_put(TOKENS, rows_sharding(mesh))
    gradient = jax.jit(jax.grad(lambda t, f, tokens: loss(spread, t, f, tokens)))(*everywhere, tokens)
    assert relative_difference(jax.device_get(gradient), jax.device_get(plain)) < 1e-5


@pytest.mark.mesh
def test_every_device_asks_cudnn_about_its_own_rows_and_heads(monkeypatch):
    """Training and prefill, traced and not run. Asked about arrays that are spread, it fails to compile."""
    asked = []

    def stand_in(q, k, v, **settings):
        lengths = settings.get("query_seq_lengths", settings.get("mask"))
        asked.append((q.shape, k.shape, lengths.shape[0]))
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    policy, trainable, frozen = policy_and_trees(
        attention="cudnn", mesh=make_mesh(MeshSection(fsdp=2, tensor=2))
    )
    for rows in (B, 1):  # a single row cannot be spread
        some = (TOKENS[:rows], POSITIONS[:rows], SEGMENTS[:rows])
        jax.eval_shape(policy.apply, trainable, frozen, *some)
        jax.eval_shape(policy.prefill, trainable, frozen, TOKENS[:rows], SEGMENTS[:rows] > 0)
    of_two, of_one = (((rows, T, 2, 8), (rows, T, 1, 8), rows) for rows in (2, 1))
    assert asked == [of_two, of_two, of_one, of_one]


def calls_of(jaxpr, name: str) -> int:
    """How many times a primitive stands in a program, inner programs included."""
    inner = sum(calls_of(sub, name) for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params))
    return inner + sum(equation.primitive.name == name for equation in jaxpr.eqns)


def test_selective_keeps_what_cudnns_backward_pass_needs_and_full_runs_it_again(monkeypatch):
    """Traced, not run: cuDNN is only said to be there."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
    for remat, forward in (("none", 1), ("selective", 1), ("full", 2)):
        policy, trainable, frozen = policy_and_trees(remat=remat, attention="cudnn", dtype="bfloat16")
        jaxpr = jax.make_jaxpr(jax.grad(lambda t: loss(policy, t, frozen)))(trainable).jaxpr
        assert calls_of(jaxpr, "dot_product_attention_fwd_wrapper") == forward, remat
        assert calls_of(jaxpr, "dot_product_attention_bwd_wrapper") == 1


def test_selective_keeps_what_splashs_backward_pass_needs():
    """Its result and its log-normalisers; what of the forward kernel is then left in the second pass is dead,
    and the compiler drops it.
    """
    for remat, is_kept in (("selective", True), ("full", False)):
        policy, trainable, frozen = policy_and_trees(remat=remat, attention="splash")
        between = jax.eval_shape(lambda t: jax.vjp(lambda t: loss(policy, t, frozen), t)[1], trainable)
        kept = [leaf.shape[1:] for leaf in jax.tree.leaves(between) if leaf.shape[:1] == (CONFIG.num_layers,)]
        padded = -(-T // module.LANES) * module.LANES
        for shape in ((B, CONFIG.num_heads, padded, CONFIG.head_dim), (B, CONFIG.num_heads, padded)):
            assert kept.count(shape) == is_kept


def test_prefill_promises_rows_of_one_prompt_and_training_does_not(monkeypatch):
    asked = []
    monkeypatch.setitem(module.KERNELS, "xla", lambda q, k, v, ids, packed: asked.append(packed) or q)
    policy, trainable, frozen = policy_and_trees()
    policy.prefill(trainable, frozen, TOKENS, (SEGMENTS == 1).astype(np.int32))
    policy.apply(trainable, frozen, TOKENS, POSITIONS, SEGMENTS)
    assert asked == [False, True]
