"""Reading compiled programs: texts counted by hand, and programs compiled here whose least traffic is
known.
"""

import jax
import jax.numpy as jnp
import pytest

from jaxrl.compiled import hlo

# As XLA writes it for a GPU: two layers' matrices w0, w1 [8, 8] bf16 (128 bytes), a cache [4, 8] bf16 (64
# bytes), x [1, 8] bf16.
GPU = """
HloModule jit_window, is_scheduled=true, input_output_alias={ {}: (0, {}, may-alias) }

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.9 = f32[] add(%a, %b)
}

%joined (p0: bf16[8,8], p1: bf16[8,8]) -> bf16[8,16] {
  %p0 = bf16[8,8]{1,0} parameter(0)
  %p1 = bf16[8,8]{1,0} parameter(1)
  ROOT %concatenate.1 = bf16[8,16]{1,0} concatenate(%p0, %p1), dimensions={1}
}

%gemm (p0.1: bf16[1,8], p1.1: bf16[8,16]) -> f32[2,1,16] {
  %p0.1 = bf16[1,8]{1,0} parameter(0)
  %p1.1 = bf16[8,16]{1,0} parameter(1)
  ROOT %dot.1 = f32[2,1,16]{2,1,0} dot(%p0.1, %p1.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%put (p0.2: bf16[4,8], p1.2: f32[2,1,16], p2: s32[]) -> bf16[4,8] {
  %p0.2 = bf16[4,8]{1,0} parameter(0)
  %p1.2 = f32[2,1,16]{2,1,0} parameter(1)
  %zero = f32[] constant(0)
  %reduce.1 = f32[1,16]{1,0} reduce(%p1.2, %zero), dimensions={0}, to_apply=%sum
  %convert.1 = bf16[1,16]{1,0} convert(%reduce.1)
  %slice.1 = bf16[1,8]{1,0} slice(%convert.1), slice={[0:1], [8:16]}
  %p2 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %dynamic-update-slice.1 = bf16[4,8]{1,0} dynamic-update-slice(%p0.2, %slice.1, %p2, %none)
}

%body (arg: (s32[], bf16[4,8], bf16[1,8], bf16[8,8], bf16[8,8])) \
-> (s32[], bf16[4,8], bf16[1,8], bf16[8,8], /*index=4*/bf16[8,8]) {
  %arg = (s32[], bf16[4,8]{1,0}, bf16[1,8]{1,0}, bf16[8,8]{1,0}, /*index=4*/bf16[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %cache = bf16[4,8]{1,0} get-tuple-element(%arg), index=1
  %x = bf16[1,8]{1,0} get-tuple-element(%arg), index=2
  %w0 = bf16[8,8]{1,0} get-tuple-element(%arg), index=3
  %w1 = bf16[8,8]{1,0} get-tuple-element(%arg), index=4
  %wrapped_concatenate = bf16[8,16]{1,0} fusion(%w0, %w1), kind=kLoop, calls=%joined
  %gemm_fusion = f32[2,1,16]{2,1,0} fusion(%x, %wrapped_concatenate), \
kind=kCustom, calls=%gemm, backend_config={"kind":"__triton_gemm"}
  %put_fusion = bf16[4,8]{1,0} fusion(%cache, %gemm_fusion, %i), kind=kLoop, calls=%put
  %bitcast.1 = bf16[32]{0} bitcast(%put_fusion)
  %copied = bf16[4,8]{0,1} copy(%put_fusion)
  %library = (bf16[1,8]{1,0}, s8[999]{0}) custom-call(%copied, %w0), custom_call_target="__cublas$gemm"
  %y = bf16[1,8]{1,0} get-tuple-element(%library), index=0
  %small = bf16[8,1]{0,1} transpose(%y), dimensions={1,0}
  %gathered = bf16[32,8]{1,0} all-gather(%put_fusion), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %out = (s32[], bf16[4,8]{1,0}, bf16[1,8]{1,0}, bf16[8,8]{1,0}, /*index=4*/bf16[8,8]{1,0}) \
tuple(%next, %put_fusion, %y, %w0, %w1)
}

%test (arg.1: (s32[], bf16[4,8], bf16[1,8], bf16[8,8], bf16[8,8])) -> pred[] {
  %arg.1 = (s32[], bf16[4,8]{1,0}, bf16[1,8]{1,0}, bf16[8,8]{1,0}, bf16[8,8]{1,0}) parameter(0)
  ROOT %less = pred[] custom-call(%arg.1), custom_call_target="opaque"
}

ENTRY %main (cache.1: bf16[4,8], x.1: bf16[1,8], w0.1: bf16[8,8], w1.1: bf16[8,8]) -> bf16[4,8] {
  %cache.1 = bf16[4,8]{1,0} parameter(0), metadata={op_name="state.cache (the first)"}
  %x.1 = bf16[1,8]{1,0} parameter(1)
  %w0.1 = bf16[8,8]{1,0} parameter(2)
  %w1.1 = bf16[8,8]{1,0} parameter(3)
  %start = s32[] constant(0)
  %init = (s32[], bf16[4,8]{1,0}, bf16[1,8]{1,0}, bf16[8,8]{1,0}, /*index=4*/bf16[8,8]{1,0}) \
tuple(%start, %cache.1, %x.1, %w0.1, %w1.1)
  %while.1 = (s32[], bf16[4,8], bf16[1,8], bf16[8,8], bf16[8,8]) while(%init), \
body=%body, condition=%test, {"known_trip_count":{"n":"32"}}
  ROOT %result = bf16[4,8]{1,0} get-tuple-element(%while.1), index=1
}
"""

# As for a TPU: no trip count is noted, arrays with S(1) lie in vector memory, and copies between the memories
# run beside the work.
TPU = """
HloModule jit_window, is_scheduled=true

%inner_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %k = s32[]{:T(128)} get-tuple-element(%p), index=0
  %v = f32[8]{0:T(128)} get-tuple-element(%p), index=1
  %v2 = f32[8]{0:T(128)} negate(%v)
  %step = s32[]{:T(128)} constant(1)
  %k2 = s32[]{:T(128)S(6)} add(%k, %step)
  ROOT %t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%k2, %v2)
}

%inner_condition (p.1: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %p.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %k.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%k.1, %limit), direction=LT, \
metadata={op_name="jit(window)/while/cond/lt"}
}

ENTRY %main (w: bf16[4,16,128], table: f32[8]) -> f32[8] {
  %w = bf16[4,16,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %table = f32[8]{0:T(128)} parameter(1)
  %slice-start = ((bf16[4,16,128]{2,1,0:T(8,128)(2,1)}), bf16[1,16,128]{2,1,0:T(8,128)(2,1)S(1)}, \
s32[]{:S(2)}) slice-start(%w)
  %slice-done = bf16[1,16,128]{2,1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start)
  %copy-start = (bf16[1,16,128]{2,1,0:T(8,128)(2,1)}, bf16[1,16,128]{2,1,0:T(8,128)(2,1)S(1)}, \
u32[]{:S(2)}) copy-start(%slice-done)
  %copy-done = bf16[1,16,128]{2,1,0:T(8,128)(2,1)} copy-done(%copy-start)
  %whole = bf16[2,16,128]{2,1,0:T(8,128)(2,1)S(1)} custom-call(%slice-done, %slice-done), \
custom_call_target="ConcatBitcast"
  %zero = s32[]{:T(128)} constant(0)
  %put = bf16[4,16,128]{2,1,0:T(8,128)(2,1)} dynamic-update-slice(%w, %slice-done, %zero, %zero, %zero)
  %cut = bf16[1,16,128]{2,1,0:T(8,128)(2,1)} slice(%w), slice={[3:4], [0:16], [0:128]}
  %copy.1 = s32[]{:T(128)} copy(%zero)
  %init = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%copy.1, %table)
  %while.2 = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%init), condition=%inner_condition, body=%inner_body
  ROOT %last = f32[8]{0:T(128)} get-tuple-element(%while.2), index=1
}
"""


@pytest.fixture(scope="module")
def gpu():
    return hlo.parse(GPU)


def test_a_step_of_the_gpu_program_counted_by_hand(gpu):
    body = gpu.loop(32)
    assert body == "body"
    counted = {
        i.name: (sum(gpu._reads(c, i).values()), sum(gpu._writes(c, i))) for c, i, _ in gpu.executed(body)
    }
    assert counted == {
        "wrapped_concatenate": (128 + 128, 256),
        "gemm_fusion": (16 + 256, 128),
        "put_fusion": (64 + 4, 16),  # half of the partial sums, the index; of the cache only the new row
        "copied": (64, 64),
        "library": (64 + 128, 16),  # not the workspace
        "small": (16, 16),
        "gathered": (64, 512),
        "next": (4 + 4, 4),
    }
    assert gpu.traffic(body) == sum(map(sum, counted.values()))
    assert gpu.launches(body) == len(counted)


def test_what_is_given_is_told_from_what_is_computed(gpu):
    """Weights and cache are read, joined, updated and copied; x comes in, y is computed."""
    joined, gemm, put, copied, library, gathered, count = (
        256 + 256,
        16 + 256,
        4 + 16,
        64 + 64,
        64 + 128,
        64 + 512,
        4,
    )
    assert gpu.given_traffic("body") == joined + gemm + put + copied + library + gathered + count


def test_moves_of_weights_and_caches_are_found_and_those_of_activations_are_not(gpu):
    names = lambda size: [i.name for i in gpu.moves("body", size)]
    assert names(64) == ["wrapped_concatenate", "copied", "gathered"]
    assert names(65) == ["wrapped_concatenate", "gathered"]
    assert names(1) == names(64)  # the transpose of y, of 16 bytes, is of something computed
    assert [str(i) for i in gpu.collectives("body")] == ["all-gather gathered: bf16[32,8]"]


@pytest.mark.parametrize(
    "was, becomes, found",
    [
        ("copy(%put_fusion)", "negate(%put_fusion)", []),
        ("copy(%put_fusion)", "convert(%put_fusion)", ["copied"]),
        ("copy(%put_fusion)", "dynamic-slice(%put_fusion, %i, %i)", ["copied"]),
        ("copy(%put_fusion)", "select(%next, %put_fusion, %gemm_fusion)", ["copied"]),
        ("copy(%put_fusion)", "select(%put_fusion, %gemm_fusion, %gemm_fusion)", []),
        ("bf16[4,8]{0,1} copy(%put_fusion)", "bf16[4,8]{0,1:S(1)} copy(%put_fusion)", []),  # into fast memory
    ],
)
def test_what_counts_as_a_move(was, becomes, found):
    text = GPU.replace(was, becomes).replace("all-gather(%put_fusion)", "all-gather(%y)")
    moves = [i.name for i in hlo.parse(text).moves("body", 64)]
    assert [name for name in moves if name != "wrapped_concatenate"] == found


def test_the_tpu_program_counted_by_hand():
    module = hlo.parse(TPU)
    layer, scalar, vector = 16 * 128 * 2, 4, 32
    counted = {
        i.name: (sum(module._reads(c, i).values()), sum(module._writes(c, i)), times)
        for c, i, times in module.executed("main")
    }
    assert counted == {
        "slice-start": (layer, 0, 1),  # into vector memory
        "copy-start": (0, layer, 1),  # out of it
        "put": (scalar, layer, 1),  # from it
        "cut": (layer, layer, 1),
        "copy.1": (scalar, scalar, 1),
        "v2": (vector, vector, 5),
        "k2": (2 * scalar, 0, 5),
    }
    assert module.traffic("main") == sum(
        (read + written) * times for read, written, times in counted.values()
    )
    assert [i.name for i in module.moves("main", layer)] == ["put", "cut"]
    assert module.loop(5) == "inner_body"


@pytest.mark.parametrize(
    "was, becomes",
    [
        ("direction=LT", "direction=NE"),
        ("constant(1)", "constant(2)"),
        ("constant(0)", "constant(3)"),
        ("%copy.1 = s32[]{:T(128)} copy(%zero)", "%copy.1 = s32[]{:T(128)} negate(%zero)"),
        ("%limit = s32[]{:T(128)} constant(5)", "%limit = s32[]{:T(128)} after-all()"),
    ],
)
def test_a_loop_that_does_not_say_how_often_it_goes_round_is_refused(was, becomes):
    assert was in TPU
    module = hlo.parse(TPU.replace(was, becomes))
    with pytest.raises(ValueError, match="loop while.2 in main goes round an unknown number of times"):
        module.traffic("main")
    assert [i.name for i in module.moves("main", 1000)] == ["put", "cut"]  # needs no count
    with pytest.raises(LookupError, match=r"0 loops go round 5 times; the loops go round \[None\] times"):
        module.loop(5)


def test_bytes_of_the_number_formats():
    sizes = {
        "pred[3]": 3,
        "bf16[2,4]{1,0}": 16,
        "f8e4m3fn[5]": 5,
        "s4[6]": 3,
        "f32[]": 4,
        "u64[2]": 16,
        "c64[1]": 8,
        "token[]": 0,
    }
    for shape, size in sizes.items():
        module = hlo.parse(f"ENTRY %main () -> {shape} {{\n  ROOT %x = {shape} iota()\n}}\n")
        assert module.computations["main"].root.buffers[0].nbytes == size, shape


def test_a_collective_of_several_arrays():
    module = hlo.parse("""
ENTRY %main (a: bf16[2,8], b: f32[4]) -> bf16[16,8] {
  %a = bf16[2,8]{1,0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %start = ((bf16[2,8]{1,0}, f32[4]{0}), (bf16[16,8]{1,0}, f32[32]{0})) all-gather-start(%a, %b), \
dimensions={0}
  %done = (bf16[16,8]{1,0}, f32[32]{0}) all-gather-done(%start)
  ROOT %whole = bf16[16,8]{1,0} get-tuple-element(%done), index=0
}
""")
    assert module.traffic("main") == 32 + 16 + 256 + 128 and module.launches("main") == 1
    assert (
        module.moves("main", 256)
        == module.collectives("main")
        == [module.computations["main"].instructions["start"]]
    )


def test_a_fusion_whose_results_are_nested_and_whose_root_is_not_its_last_line():
    module = hlo.parse("""
%fused (p: f32[2], q: f32[3], r: s32[4,2]) -> ((f32[3], s32[4,2]), f32[2]) {
  %p = f32[2]{0} parameter(0)
  %q = f32[3]{0} parameter(1)
  %r = s32[4,2]{1,0} parameter(2)
  %negate = f32[2]{0} negate(%p)
  %sort = (f32[3]{0}, s32[4,2]{1,0}) sort(%q, %r), dimensions={0}
  ROOT %pair = ((f32[3]{0}, s32[4,2]{1,0}), f32[2]{0}) tuple(%sort, %negate)
  %after = f32[2]{0} negate(%negate)
}

ENTRY %main (a: f32[2], b: f32[3], c: s32[4,2]) -> ((f32[3], s32[4,2]), f32[2]) {
  %a = f32[2]{0} parameter(0)
  %b = f32[3]{0} parameter(1)
  %c = s32[4,2]{1,0} parameter(2)
  ROOT %fusion = ((f32[3]{0}, s32[4,2]{1,0}), f32[2]{0}) fusion(%a, %b, %c), kind=kLoop, calls=%fused
}
""")
    assert module.traffic("main") == 2 * (8 + 12 + 32)


def test_a_text_that_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("not an HLO module")


# ---------------------------------------------------------------------------- programs compiled here, for CPU


def compiled_loop(step, *carry, donate=()):
    """`step` seven times over; what the loop does in one pass."""
    loop = jax.jit(
        lambda *carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, length=7)[0], donate_argnums=donate
    )
    module = hlo.parse(loop.lower(*carry).compile().as_text())
    return module, module.loop(7)


def test_a_matrix_product_reads_its_matrices_and_writes_its_result():
    x, w = jnp.zeros((64, 256)), jnp.zeros((256, 256))
    module, body = compiled_loop(lambda x, w: (jnp.tanh(x @ w), w), x, w)
    assert w.nbytes + 2 * x.nbytes <= module.traffic(body) <= w.nbytes + 6 * x.nbytes + 64
    assert module.given_traffic(body) <= w.nbytes + x.nbytes + 64
    assert module.moves(body, w.nbytes) == []


def test_a_cache_is_updated_in_place_and_one_that_is_not_is_noticed():
    x, cache = jnp.zeros((4, 8)), jnp.zeros((512, 4, 8))

    def in_place(x, cache, i):
        cache = jax.lax.dynamic_update_slice_in_dim(cache, x[None], i, 0)
        return jnp.tanh(cache.sum(0)), cache, i + 1

    def shifted(x, cache, i):
        cache = jnp.concatenate([cache[1:], x[None]])
        return jnp.tanh(cache.sum(0)), cache, i + 1

    module, body = compiled_loop(in_place, x, cache, 0, donate=(0, 1))
    assert cache.nbytes <= module.traffic(body) <= 1.1 * cache.nbytes
    assert module.moves(body, cache.nbytes // 2) == []
    module, body = compiled_loop(shifted, x, cache, 0, donate=(0, 1))
    assert module.traffic(body) >= 3 * cache.nbytes
    assert module.moves(body, cache.nbytes // 2)


def test_scanning_over_stacked_layers_counts_each_pass():
    x, w = jnp.zeros((8, 64)), jnp.zeros((5, 64, 64))
    layers = lambda x, w: (jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0], w)
    module, body = compiled_loop(layers, x, w)
    products = [n for _, i, n in module.executed(body) if max(b.nbytes for b in i.buffers) == x.nbytes]
    assert set(products) == {5}
    assert module.traffic(body) >= w.nbytes + 10 * x.nbytes
