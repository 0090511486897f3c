"""`mesh: auto` takes the first layout that fits: weights copied, cut over `fsdp`, cut over `tensor`."""

import math

import jax
import pytest

import jaxrl.train.layout as module
from jaxrl.config.experiment import Config
from jaxrl.config.shared import MeshSection
from jaxrl.errors import InputError
from jaxrl.model.policy import Policy
from jaxrl.policy.describe import fresh_model_config
from jaxrl.train.layout import WEIGHTS_SHARE, choose_mesh

pytestmark = pytest.mark.mesh

VOCAB = 4096
SIZES = {"d_model": 128, "num_layers": 2, "num_heads": 8, "num_kv_heads": 8, "head_dim": 32, "d_ff": 512}
SFT = {"kind": "sft", "data": {"file": "x.jsonl"}, "rows": 16, "seq_len": 64}
GRPO = {"kind": "grpo", "algo": {"problems_per_batch": 4, "group_size": 8}, "seq_len": 64}
LORA = {"rank": 1, "alpha": 1.0, "targets": ["q"]}


@pytest.fixture
def chosen(monkeypatch):
    """(data, fsdp, tensor) and the reason, where devices have so many bytes."""

    def choose(memory, stage, lora=None, mesh="auto", dtype="bfloat16", **sizes):
        monkeypatch.setattr(module, "device_memory", lambda device: int(memory))
        config = Config.model_validate(
            {
                "name": "x",
                "model": {"architecture": SIZES | sizes, "dtype": dtype},
                "lora": lora,
                "mesh": mesh,
                "task": {"name": "tiny"},
                "stages": [stage],
            }
        )
        section, reason = choose_mesh(config.mesh, config.model, config.stages, VOCAB)
        assert section.dcn_data == 1
        return (section.data, section.fsdp, section.tensor), reason

    return choose


def weights() -> int:
    """Numbers of the model that `SIZES` says."""
    policy = Policy(
        fresh_model_config(
            Config.model_validate(
                {"name": "x", "model": {"architecture": SIZES}, "stages": [SFT]}
            ).model.architecture,
            VOCAB,
        )
    )
    shapes = jax.eval_shape(policy.init_model, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def room_for(nbytes: float) -> float:
    return nbytes / WEIGHTS_SHARE * 1.03  # norms are whole everywhere, and adapters


def test_what_fits_is_copied(chosen):
    layout, reason = chosen(room_for(20 * weights()), SFT)
    assert layout == (8, 1, 1) and reason.startswith("mesh auto: data 8; weights")


@pytest.mark.parametrize("parts, layout", [(2, (4, 2, 1)), (4, (2, 4, 1)), (8, (1, 8, 1))])
def test_what_does_not_is_cut_over_fsdp_and_no_further_than_needed(parts, layout, chosen):
    """All of the model is trained: five float32 copies."""
    found, reason = chosen(room_for(20 * weights() / parts), SFT)
    assert found == layout and f"fsdp {parts}; weights" in reason and "would take" in reason


def test_the_samplers_copy_is_whole_over_fsdp_so_tensor_cuts_it(chosen):
    """Base and copy in bfloat16: 2 + 2 bytes a weight; over fsdp 8 still 0.25 + 2."""
    assert chosen(room_for(4.1 * weights()), GRPO, LORA)[0] == (8, 1, 1)
    assert chosen(room_for(2.6 * weights()), GRPO, LORA)[0] == (2, 4, 1)
    assert chosen(room_for(1.6 * weights()), GRPO, LORA)[0] == (2, 2, 2)
    assert chosen(room_for(1.6 * weights()), SFT, LORA)[0] == (4, 2, 1), "nothing is sampled"


def test_what_does_not_divide_is_passed_over(chosen):
    little = room_for(20 * weights() / 8)
    assert chosen(little, SFT, d_model=132)[0][1] <= 4, "fsdp cuts the width"
    layout, reason = chosen(1e12, SFT | {"rows": 4, "microbatch": 4})
    assert layout == (4, 1, 2) and "divides: 4 rows cannot be split over 8" in reason
    with pytest.raises(InputError, match="rows cannot be split over 8 row shards"):
        chosen(1e12, SFT | {"rows": 3, "microbatch": 3}, d_ff=509, num_heads=1, num_kv_heads=1)


def test_where_nothing_fits_the_least_is_taken_and_said(chosen):
    layout, reason = chosen(1000, SFT)
    assert math.prod(layout) == 8 and layout[0] == 1 and "less than any other way would" in reason


def test_axes_that_are_given_are_kept(chosen):
    auto = {"data": None, "fsdp": None, "tensor": None}
    assert chosen(1e12, SFT, mesh=auto | {"tensor": 2})[0] == (4, 1, 2)
    assert chosen(1e12, SFT, mesh=auto | {"data": 2, "tensor": 1})[0] == (2, 4, 1)
    with pytest.raises(InputError, match="'data': 3.* cannot be completed to 8 devices; leave an axis null"):
        chosen(1e12, SFT, mesh=auto | {"data": 3})
    assert choose_mesh(MeshSection(data=3), None, (), 0) == (MeshSection(data=3), None), "nothing is open"
