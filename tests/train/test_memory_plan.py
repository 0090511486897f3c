"""What an update is said to need, against compiled programs; what is chosen where it fits and where not."""

import dataclasses

import jax
import optax
import pytest

from jaxrl.config.file import validate_config
from jaxrl.config.shared import MeshSection, ModelSection
from jaxrl.device.memory import device_memory, host_memory
from jaxrl.device.mesh import make_mesh
from jaxrl.model.policy import Policy
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.policy.load import load_base
from jaxrl.train import memory_plan as module
from jaxrl.train.memory_plan import COPIES, USABLE, excluded_bytes, plan_stage, plan_update
from jaxrl.update.batch import SFTBatch
from jaxrl.update.state import init_state
from jaxrl.update.step import make_sft_step
from tests.tiny import CONFIG, LORA, one_device

MODEL = dataclasses.replace(
    CONFIG, vocab_size=512, d_model=128, num_layers=6, num_heads=4, head_dim=32, d_ff=384, max_positions=512
)
ROWS, SEQ_LEN = 8, 256


def shapes(lora=LORA, remat="none", config=MODEL, dtype="float32"):
    """(policy, trainable, frozen), arrays as shapes alone."""
    policy = Policy(config, lora, dtype, remat)
    held = lambda key: jax.tree.map(lambda x: x.astype(dtype if lora else "float32"), policy.init_model(key))
    model = {"model": jax.eval_shape(held, jax.random.key(0))}
    return (
        (policy, {"lora": jax.eval_shape(policy.init_lora, jax.random.key(0))}, model)
        if lora
        else (policy, model, {})
    )


@pytest.fixture
def device_of(monkeypatch):
    """Sets the bytes that every device has."""
    return lambda size: monkeypatch.setattr(module, "device_memory", lambda device: int(size / USABLE))


@pytest.mark.parametrize("remat", ["none", "selective", "full"])
@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "all"])
def test_the_estimate_is_near_what_the_compiled_step_holds_and_not_below(lora, remat):
    policy, trainable, frozen = shapes(lora, remat)
    tx = optax.adamw(1e-3)
    state = jax.eval_shape(lambda trainable: init_state(trainable, tx, jax.random.key(0), {}), trainable)
    integers, flags = (jax.ShapeDtypeStruct((1, ROWS, SEQ_LEN), dtype) for dtype in ("int32", "bool"))
    batch = SFTBatch(jax.ShapeDtypeStruct((), "int32"), integers, integers, integers, flags)
    held = (
        make_sft_step(policy, tx, state, one_device()).lower(state, frozen, batch).compile().memory_analysis()
    )
    needed = plan_update(remat, policy, trainable, frozen, ROWS, SEQ_LEN, one_device()).needed
    assert 0.9 < needed / (held.temp_size_in_bytes + held.argument_size_in_bytes) < 2


def test_auto_is_selective_where_that_fits_and_full_elsewhere(device_of):
    def chosen(available: int) -> str:
        device_of(available)
        return plan_update("auto", *shapes(), ROWS, SEQ_LEN, one_device()).remat

    selective, full = (
        plan_update(remat, *shapes(), ROWS, SEQ_LEN, one_device()) for remat in ("selective", "full")
    )
    assert full.needed < selective.needed
    assert chosen(selective.needed + 9) == "selective" and chosen(selective.needed - 9) == "full" == chosen(0)
    for asked in ("none", "selective", "full"):
        assert plan_update(asked, *shapes(), ROWS, SEQ_LEN, one_device()).remat == asked, (
            "what was asked for, fit or not"
        )


@pytest.mark.mesh
def test_what_does_not_fit_is_told_with_a_microbatch_that_does(device_of):
    full = plan_update("full", *shapes(), ROWS, SEQ_LEN, one_device())
    assert full.fits and full.warning() is None
    device_of(full.needed - full.activations // 2 + 9)
    tight = plan_update("auto", *shapes(), ROWS, SEQ_LEN, one_device())
    assert "more than there is; set the microbatch to 4" in tight.warning()
    assert plan_update("auto", *shapes(), 4, SEQ_LEN, one_device()).fits
    spread = plan_update("full", *shapes(), ROWS, SEQ_LEN, make_mesh(MeshSection(data=4)))
    device_of(spread.needed - spread.activations // 4)
    assert (
        "set the microbatch to 4"
        in plan_update("auto", *shapes(), ROWS, SEQ_LEN, make_mesh(MeshSection(data=4))).warning()
    ), "not 6"
    device_of(full.needed - full.activations)
    assert (
        "hold the weights in bfloat16 or cut them over mesh.fsdp"
        in plan_update("auto", *shapes(), ROWS, SEQ_LEN, one_device()).warning()
    )


def test_the_line_says_what_is_chosen_and_what_it_takes(device_of):
    device_of(2**31)
    line = plan_update("auto", *shapes(), ROWS, SEQ_LEN, one_device()).line()
    assert line.startswith("remat selective: a microbatch of 8 x 256 tokens keeps ") and line.endswith(
        " of 2.0 GiB"
    )


@pytest.mark.mesh
def test_devices_share_the_rows_and_fsdp_the_weights():
    alone = plan_update("selective", *shapes(None), ROWS, SEQ_LEN, one_device())
    spread = plan_update("selective", *shapes(None), ROWS, SEQ_LEN, make_mesh(MeshSection(data=2)))
    cut = plan_update("selective", *shapes(None), ROWS, SEQ_LEN, make_mesh(MeshSection(fsdp=2)))
    assert spread.activations == cut.activations == alone.activations / 2
    weights = sum(x.size * 4 for x in jax.tree.leaves(shapes(None)[1]))
    # embedding, head and their gradient are whole while they are used; norms are whole everywhere
    gathered = 3 * 4 * MODEL.vocab_size * MODEL.d_model
    assert spread.needed - cut.needed == pytest.approx(COPIES * weights / 2 - gathered, rel=0.01)


def test_a_reference_is_one_more_copy_of_what_is_trained():
    without, with_one = (
        plan_update("full", *shapes(None), ROWS, SEQ_LEN, one_device(), references=n) for n in (0, 1)
    )
    assert with_one.needed - without.needed == sum(x.size * 4 for x in jax.tree.leaves(shapes(None)[1]))


STAGES = [
    {"kind": "sft", "rows": 8, "seq_len": 32, "microbatch": 4},
    {"kind": "rsft", "rows": 6, "seq_len": 48},
    {"kind": "grpo", "algo": {"problems_per_batch": 2, "group_size": 4, "microbatch": 3}},
    {"kind": "ppo", "seq_len": 64, "algo": {"problems_per_batch": 8}},
    {"kind": "sft", "rows": 9, "seq_len": 256},
]


@pytest.mark.parametrize("stage, rows, seq_len", list(zip(STAGES, (4, 6, 3, 4, 3), (32, 48, 40, 64, 256))))
def test_the_plan_of_a_stage_is_of_its_microbatch(stage, rows, seq_len):
    sizes = {
        "model": {"architecture": {}},
        "lora": {},
        "task": {"name": "tiny"},
        "sample": {"max_prompt_tokens": 30, "max_new_tokens": 10},
    }
    config = validate_config({"name": "test", **sizes, "stages": [stage]}, "test")
    weights = PolicyWeights(*shapes())
    plan = plan_stage("auto", config.stages[0], weights, one_device())
    assert (plan.rows, plan.seq_len, plan.remat) == (rows, seq_len, "selective")
    assert plan_stage("full", config.stages[0], weights, one_device()).remat == "full"


def test_a_filter_is_a_bit_for_each_id_and_token_of_an_update():
    def stage(sample):
        algo = {"problems_per_batch": 4, "group_size": 5, "updates_per_batch": 2, "microbatch": 4}
        stages = [{"kind": "grpo", "seq_len": 100, "algo": algo, "sample": sample}]
        return validate_config(
            {
                "name": "test",
                "model": {"architecture": {}},
                "lora": {},
                "task": {"name": "tiny"},
                "stages": stages,
            },
            "test",
        ).stages[0]

    filtered, plain = stage({"top_p": 0.9}), stage({})
    assert excluded_bytes(plain, 1001, one_device()) == 0
    assert excluded_bytes(filtered, 1001, one_device()) == 12 * 100 * 126  # 10 rows, in microbatches of 4
    plans = [plan_stage("full", each, PolicyWeights(*shapes()), one_device()) for each in (filtered, plain)]
    assert plans[0].needed - plans[1].needed == 2 * excluded_bytes(filtered, MODEL.vocab_size, one_device())


def test_the_memory_is_the_devices_or_the_hosts_or_the_containers(tmp_path):
    device = one_device().devices.flat[0]
    assert (
        device.memory_stats() is None and device_memory(device) == host_memory() // jax.local_device_count()
    )
    limit, missing = tmp_path / "memory.max", tmp_path / "missing"
    machine = host_memory(missing)
    for text, expected in (("max\n", machine), (f"{2**20}\n", 2**20), (f"{2**60}\n", machine)):
        limit.write_text(text)
        assert host_memory(limit) == expected


def test_the_first_policy_has_what_the_config_says_of_remat_and_attention():
    architecture = {"d_model": 32, "num_heads": 4}
    base = load_base(ModelSection(architecture=architecture), 8, one_device(), 0)
    assert (base.policy.attention, base.policy.remat, base.policy.mesh) == ("xla", "selective", one_device())
    assert (
        load_base(ModelSection(architecture=architecture, remat="none"), 8, one_device(), 0).policy.remat
        == "none"
    )
