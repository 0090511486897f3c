"""Every kernel of the table is the same function: against attention with its mask written out, values and
gradients.
"""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.config.shared import MeshSection
from jaxrl.device.mesh import make_mesh, over_rows_and_heads
from jaxrl.errors import InputError
from jaxrl.ops import causal_attention as module
from jaxrl.ops.causal_attention import KERNELS, causal_attention, choose_kernel
from tests.ops.plain_attention import attention, segment_mask
from tests.tiny import max_difference

B, N, K, H = 2, 4, 2, 8
ROWS = {  # segment ids, of rows that are longer than a block of queries, and of no round length
    "packed": np.array([[1] * 100 + [2] * 60 + [3] * 30 + [0] * 13, [1] * 203]),
    "one segment": np.array([[1] * 150 + [0] * 53, [1] * 1 + [0] * 202]),
    "short": np.array([[1] * 3 + [2] * 2, [1] * 5]),
}


def arrays(T: int, dtype="float32"):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, T, heads, H)), dtype) for heads in (N, K, K)]


def value_and_gradients(function, segment_ids, q, k, v):
    """The result where a token is, and the gradients of a sum over it that weighs every number
    differently.
    """
    weights = np.random.default_rng(1).normal(size=q.shape) * (segment_ids > 0)[..., None, None]

    def loss(q, k, v):
        out = function(q, k, v)
        return jnp.sum(out.astype(jnp.float32) * weights), out * (segment_ids > 0)[..., None, None]

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return [out, *gradients]


def check(kernel, rows, dtype="float32", packed=True, tolerance=2e-5):
    segment_ids = ROWS[rows]
    q, k, v = arrays(segment_ids.shape[1], dtype)
    written_out = value_and_gradients(
        lambda *x: attention(*x, segment_mask(segment_ids)), segment_ids, q, k, v
    )
    found = value_and_gradients(
        lambda *x: causal_attention(*x, segment_ids, kernel, packed), segment_ids, q, k, v
    )
    for expected, got in zip(written_out, found, strict=True):
        assert got.dtype == dtype
        assert max_difference(got.astype(jnp.float32), expected.astype(jnp.float32)) < tolerance * float(
            jnp.abs(expected).max()
        )


@pytest.fixture
def interpreted(monkeypatch):
    """Splash, run by Pallas's interpreter."""
    monkeypatch.setitem(KERNELS, "splash", partial(module.splash, interpret=True))


@pytest.fixture
def calls(monkeypatch):
    """cuDNN cannot run here. JAX's own XLA attention does what it is asked, and what it is asked is kept."""
    real, calls = jax.nn.dot_product_attention, []

    def stand_in(*args, implementation, **settings):
        calls.append((args, settings, implementation))
        return real(*args, implementation="xla", **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    return calls


@pytest.mark.parametrize("rows", ROWS)
def test_xla_is_attention_with_its_mask_written_out(rows):
    check("xla", rows)


def test_xla_in_bfloat16_is_as_near_as_its_rounding():
    check("xla", "packed", "bfloat16", tolerance=2e-2)


def test_many_blocks_are_one(monkeypatch):
    monkeypatch.setattr("jaxrl.ops.flash.BLOCK", 16)
    check("xla", "packed")


@pytest.mark.parametrize("rows", ROWS)
def test_splash_is_attention_with_its_mask_written_out(rows, interpreted):
    check("splash", rows)


@pytest.mark.mesh
def test_splash_over_a_mesh_is_splash(interpreted):
    segment_ids = ROWS["packed"]
    q, k, v = arrays(segment_ids.shape[1])
    whole = value_and_gradients(lambda *x: causal_attention(*x, segment_ids, "splash"), segment_ids, q, k, v)
    mesh = make_mesh(MeshSection(data=2, fsdp=1, tensor=2))
    for rows in (B, 1):  # a single row cannot be spread
        attend = over_rows_and_heads(partial(causal_attention, kernel="splash"), mesh, rows, heads=K)
        some = [x[:rows] for x in (q, k, v)]
        spread = value_and_gradients(lambda *x: attend(*x, segment_ids[:rows]), segment_ids[:rows], *some)
        for expected, got in zip(whole, spread, strict=True):
            np.testing.assert_allclose(got, expected[:rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "rows, packed", [("packed", True), ("one segment", True), ("short", True), ("one segment", False)]
)
def test_what_cudnn_is_asked_is_attention_with_its_mask_written_out(rows, packed, calls):
    check("cudnn", rows, packed=packed)
    (((q, k, v), settings, implementation),) = calls
    assert (
        implementation == "cudnn"
        and settings["is_causal"]
        and q.shape[2:] == (N, H)
        and k.shape[2:] == v.shape[2:] == (K, H)
    )
    if packed:
        assert set(settings) == {"is_causal", "mask"} and settings["mask"].dtype == bool
        assert settings["mask"].shape == (B, 1, q.shape[1], q.shape[1]) and q.shape[1] % 2 == 0, (
            "one mask for all heads, of even length"
        )
    else:
        assert set(settings) == {"is_causal", "query_seq_lengths", "key_value_seq_lengths"}, (
            "no mask: memory grows with T alone"
        )


def test_lengths_for_cudnn_are_those_of_the_rows_and_never_zero(calls):
    q, k, v = arrays(6)
    causal_attention(q, k, v, np.array([[1] * 4 + [0] * 2, [0] * 6]), "cudnn", packed=False)
    lengths = calls[0][1]["query_seq_lengths"]
    assert (
        lengths.tolist() == [4, 1]
        and lengths.dtype == jnp.int32
        and lengths is calls[0][1]["key_value_seq_lengths"]
    )


def test_xla_leaves_half_of_the_square_out_and_keeps_nothing_of_its_size():
    T = 1024
    shapes = [jax.ShapeDtypeStruct((1, T, heads, H), "float32") for heads in (N, K, K)]
    ids = jax.ShapeDtypeStruct((1, T), "int32")
    kept = jax.eval_shape(lambda ids, *x: jax.vjp(lambda *x: causal_attention(*x, ids), *x)[1], ids, *shapes)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == T * (2 * N * H + 2 * K * H + N + 1), (
        "q, o, k, v, normaliser, ids"
    )

    def products(attend):
        compiled = (
            jax.jit(jax.grad(lambda ids, *x: jnp.sum(attend(ids, *x)), (1, 2, 3)))
            .lower(ids, *shapes)
            .compile()
        )
        return compiled.cost_analysis()["flops"] / (2 * N * T * T * H)

    blocks = products(lambda ids, *x: causal_attention(*x, ids))
    whole = products(lambda ids, *x: attention(*x, segment_mask(ids)))
    assert 6 * 36 / 64 < blocks < 6 * 44 / 64 < 6 < whole, (
        "six products over 36 of 64 blocks, and elementwise work"
    )


# -------------------------------------------------------------------------------------------- which is chosen

CPU, TPU = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="tpu")
HOPPER, AMPERE, TURING, AMD = (
    SimpleNamespace(platform="gpu", compute_capability=c) for c in ("9.0", "8.0", "7.5", "gfx942")
)


@pytest.mark.parametrize(
    "device, dtype, head_dim, chosen",
    [
        (CPU, "float32", 64, "xla"),
        (CPU, "bfloat16", 64, "xla"),
        (TPU, "bfloat16", 64, "splash"),
        (TPU, "float32", 8, "splash"),
        (HOPPER, "bfloat16", 64, "cudnn"),
        (HOPPER, "bfloat16", 256, "cudnn"),
        (HOPPER, "float32", 64, "xla"),
        (HOPPER, "bfloat16", 12, "xla"),
        (AMPERE, "bfloat16", 128, "cudnn"),
        (AMPERE, "bfloat16", 256, "xla"),
        (TURING, "bfloat16", 64, "xla"),
        (AMD, "bfloat16", 64, "xla"),
    ],
)
def test_auto_takes_the_kernel_of_the_device_where_it_can(device, dtype, head_dim, chosen):
    assert (
        choose_kernel("auto", device, dtype, head_dim)
        == chosen
        == choose_kernel(chosen, device, dtype, head_dim)
    )
    assert choose_kernel("xla", device, dtype, head_dim) == "xla"


@pytest.mark.parametrize(
    "asked, device, dtype, head_dim, reason",
    [
        ("cudnn", CPU, "bfloat16", 64, "it is for NVIDIA GPUs, and this is cpu"),
        ("cudnn", AMD, "bfloat16", 64, "it is for NVIDIA GPUs"),
        ("cudnn", TURING, "bfloat16", 64, "it needs compute capability 8.0, and this device has 7.5"),
        ("cudnn", HOPPER, "float32", 64, "16-bit numbers only, and model.dtype is float32"),
        ("cudnn", AMPERE, "bfloat16", 192, "a multiple of 8 up to 128, and is 192"),
        ("splash", HOPPER, "bfloat16", 64, "it is a TPU kernel, and this is gpu"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused_with_the_reason(asked, device, dtype, head_dim, reason):
    with pytest.raises(
        InputError, match=f"model.attention={asked} cannot be used: .*{reason}.*; set it to auto or xla"
    ):
        choose_kernel(asked, device, dtype, head_dim)
