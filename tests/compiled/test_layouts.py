"""What devices send one another in a compiled update and a compiled window: layers of weights that are cut,
sums of activations where matrices are cut, and of the vocabulary never more than maxima and sums.

Compiled for eight CPU devices: how a program is cut is decided before the accelerator matters.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

import jaxrl.ops.logprobs as logprobs
from jaxrl.compiled import aot, hlo
from jaxrl.config.shared import MeshSection
from jaxrl.device.mesh import make_mesh, shardings_for
from jaxrl.model.decoding import _make_layer, decode_weights
from jaxrl.sample.decode import Decoder
from tests.tiny import CONFIG, policy_and_trees

pytestmark = pytest.mark.mesh

WIDE = dataclasses.replace(CONFIG, vocab_size=520)  # 260 on each of two devices: no round number of blocks
T, PER_DEVICE = 23, 2


def sent(module, name=None, depth=0):
    """(loops around it, collective)"""
    for instruction in module.computations[name or module.entry].instructions.values():
        if instruction.opcode == "while":
            yield from sent(module, instruction.called("body")[0], depth + 1)
        elif instruction.opcode == "call":
            yield from sent(module, instruction.called("to_apply")[0], depth)
        elif instruction.opcode.removesuffix("-start") in hlo.COLLECTIVES:
            yield depth, instruction


def sizes(instruction):
    return [buffer.dims for buffer in instruction.buffers]


@pytest.fixture(scope="module")
def update():
    """The collectives of an update over fsdp 4 and tensor 2, whose logits take several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logprobs, "CHUNK_ELEMENTS", PER_DEVICE * WIDE.vocab_size * 5)
        mesh = make_mesh(MeshSection(fsdp=4, tensor=2))
        policy, _, _ = policy_and_trees(config=WIDE, mesh=mesh, remat="full")
        step, args = aot.update_args(policy, mesh, rows=4 * PER_DEVICE, length=T)
        return list(sent(hlo.parse(step.lower(*args).compile().as_text())))


def test_no_device_is_sent_anothers_rows(update):
    """Activations are summed over `tensor`, [rows of the device, T, ...], and never gathered."""
    rows = [dims for _, i in update for dims in sizes(i) if T in dims]
    assert rows and {dims[0] for dims in rows} == {PER_DEVICE}
    assert not [i for _, i in update if "all-gather" in i.opcode and any(T in dims for dims in sizes(i))]


def test_a_layer_is_gathered_where_it_is_used_and_no_other_with_it(update):
    """In the loop over layers, forward and backward: matrices of one layer."""
    gathered = [dims for depth, i in update if depth == 2 and "all-gather" in i.opcode for dims in sizes(i)]
    assert all(math.prod(dims[:-2]) == 1 for dims in gathered)
    layer = sum(d_in * d_out for d_in, d_out in WIDE.linear_sizes.values()) // 2  # cut over tensor
    assert layer <= sum(map(math.prod, gathered)) <= 3 * layer


def test_the_head_is_gathered_once_and_not_by_chunk(update):
    """Embedding and head are one array here, whole over fsdp and cut over tensor."""
    of_head = [depth for depth, i in update for dims in sizes(i) if "all-gather" in i.opcode and 260 in dims]
    assert of_head and max(of_head) <= 1 and len(of_head) <= 2


def test_logits_stay_where_they_are_made(update):
    assert not [i for _, i in update if any(dims[-1:] in ((260,), (520,)) for dims in sizes(i))]


def test_a_token_is_drawn_from_a_vocabulary_that_is_cut_without_gathering_it():
    mesh = make_mesh(MeshSection(data=4, tensor=2))
    policy, *trees = policy_and_trees(config=WIDE, mesh=mesh)
    weights = decode_weights(policy, *(jax.device_put(x, shardings_for(x, mesh)) for x in trees), mesh)
    rows, length = 16, 20
    _, cache, state = aot.decode_window_args(policy, mesh, rows, length)
    program = Decoder.window.lower(Decoder(policy, mesh, records=True), weights, cache, state, 3).compile()
    largest = max(math.prod(dims) for _, i in sent(hlo.parse(program.as_text())) for dims in sizes(i))
    assert 0 < largest < rows // 4 * 260


def test_the_form_of_decoding_is_made_layer_by_layer():
    """What is gathered for a layer are matrices of that layer, each once."""
    mesh = make_mesh(MeshSection(fsdp=4, tensor=2))
    policy, *trees = policy_and_trees(config=WIDE, mesh=mesh)
    trainable, frozen = (jax.device_put(x, shardings_for(x, mesh)) for x in trees)
    stacks = {"lora": trainable["lora"], "model": {"layers": frozen["model"]["layers"]}}
    program = _make_layer.lower(policy, stacks, jnp.int32(0), mesh, False, False).compile()
    gathered = [dims for _, i in sent(hlo.parse(program.as_text())) for dims in sizes(i)]
    layer = sum(d_in * d_out for d_in, d_out in WIDE.linear_sizes.values()) // 2
    assert sum(map(math.prod, gathered)) == layer and len(gathered) == len(WIDE.linear_sizes)
