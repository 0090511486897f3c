"""The table of shardings covers every parameter there is, refuses what cannot be cut, and arrays are born
where they belong.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.config.algo import PPOSection
from jaxrl.config.shared import MeshSection, OptimSection
from jaxrl.device.mesh import (
    check_rows,
    gather_weights,
    make_mesh,
    num_row_shards,
    path_name,
    shard_batch,
    shardings_for,
)
from jaxrl.errors import InputError
from jaxrl.model.policy import Policy
from jaxrl.model.value_head import init_value_head
from jaxrl.update.state import init_state, make_actor_critic_optimizer, make_optimizer, place_state
from tests.tiny import CONFIG, LORA, one_device, policy_and_trees, policy_batch
from tests.weights.goldens import CONFIGS

TX = make_optimizer(OptimSection(weight_decay=0.1), 10)

pytestmark = pytest.mark.mesh


@pytest.fixture(scope="module")
def cube():
    return make_mesh(MeshSection(data=2, fsdp=2, tensor=2))


def abstract_trees(config, lora):
    """What is trained, the base, and the state over it, without arrays."""
    policy = Policy(config, lora)
    model = jax.eval_shape(policy.init_model, jax.random.key(0))
    trainable = (
        {"model": model} if lora is None else {"lora": jax.eval_shape(policy.init_lora, jax.random.key(0))}
    )
    return {"model": model}, jax.eval_shape(lambda t: init_state(t, TX, jax.random.key(0)), trainable)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
@pytest.mark.parametrize("name", [*CONFIGS, "tiny"])
def test_every_leaf_of_every_family_has_a_rule(name, lora, cube):
    for tree in abstract_trees({**CONFIGS, "tiny": CONFIG}[name], lora):
        shardings = shardings_for(tree, cube)
        assert jax.tree.structure(shardings) == jax.tree.structure(tree)
        for leaf, sharding in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings)):
            assert len(sharding.spec) <= len(leaf.shape)
            sharding.shard_shape(leaf.shape)  # raises where an axis is not cut evenly


def test_a_critic_and_a_reference_have_rules_and_so_have_their_moments(cube):
    _, state = abstract_trees(CONFIG, LORA)
    head = jax.eval_shape(lambda key: init_value_head(key, CONFIG.d_model), jax.random.key(0))
    trainable = state.trainable | {"value_head": head, "critic_lora": state.trainable["lora"]}
    tx = make_actor_critic_optimizer(OptimSection(), PPOSection(), 10)
    state = jax.eval_shape(lambda t: init_state(t, tx, jax.random.key(0), {"lora": t["lora"]}), trainable)
    assert state.reference and all(s.spec == P() for s in jax.tree.leaves(shardings_for(state, cube)))


def test_matrices_are_cut_and_small_things_are_copied(cube):
    config = dataclasses.replace(CONFIG, tie_embeddings=False, o_bias=True)
    frozen, state = abstract_trees(config, LORA)
    found = {
        path_name(p): s.spec for p, s in jax.tree_util.tree_flatten_with_path(shardings_for(frozen, cube))[0]
    }
    assert found["model/embed/kernel"] == found["model/head/kernel"] == P("tensor", "fsdp")
    assert found["model/layers/q/kernel"] == found["model/layers/up/kernel"] == P(None, "fsdp", "tensor")
    assert found["model/layers/o/kernel"] == found["model/layers/down/kernel"] == P(None, "tensor", "fsdp")
    assert found["model/layers/v/bias"] == P(None, "tensor") and found["model/layers/o/bias"] == P()
    assert found["model/norm/scale"] == found["model/layers/q_norm/scale"] == P()
    assert all(s.spec == P() for s in jax.tree.leaves(shardings_for(state, cube)))


def test_moments_lie_where_their_parameters_lie(cube):
    _, state = abstract_trees(CONFIG, None)
    found = {
        path_name(p): s.spec for p, s in jax.tree_util.tree_flatten_with_path(shardings_for(state, cube))[0]
    }
    parameters = {name: spec for name, spec in found.items() if name.startswith("trainable/")}
    assert len(parameters) > 10
    for moment in ("mu", "nu"):
        moments = {
            name.split(f"/{moment}/")[1]: spec for name, spec in found.items() if f"/{moment}/" in name
        }
        assert moments == {name.removeprefix("trainable/"): spec for name, spec in parameters.items()}


def test_a_parameter_without_a_rule_is_a_defect(cube):
    with pytest.raises(LookupError, match="model/layers/q/new"):
        shardings_for({"model": {"layers": {"q": {"new": jnp.zeros((2, 4))}}}}, cube)


@pytest.mark.parametrize(
    "change, section, setting",
    [
        ({"vocab_size": 63}, MeshSection(tensor=2), "mesh.tensor=2"),
        ({"d_model": 33}, MeshSection(fsdp=2), "mesh.fsdp=2"),
        ({"d_ff": 60}, MeshSection(tensor=8), "mesh.tensor=8"),
    ],
)
def test_an_axis_that_cannot_be_cut_is_named_with_its_setting(change, section, setting):
    frozen, _ = abstract_trees(dataclasses.replace(CONFIG, **change), LORA)
    with pytest.raises(InputError, match=setting):
        shardings_for(frozen, make_mesh(section))


def test_too_few_devices():
    with pytest.raises(InputError, match="data=2 fsdp=4 tensor=2 needs 16 devices and jax sees 8"):
        make_mesh(MeshSection(data=2, fsdp=4, tensor=2))


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    id: int
    process_index: int
    slice_index: int = 0
    platform: str = "gpu"
    device_kind: str = "gpu"


def mesh_of(devices: int, processes: int, **section) -> list:
    """The ids of a mesh over so many devices that so many processes have."""
    fakes = [FakeDevice(i, i * processes // devices) for i in range(devices)]
    return np.vectorize(lambda device: device.id)(make_mesh(MeshSection(**section), fakes).devices).tolist()


def test_every_process_has_a_part_in_the_mesh():
    assert mesh_of(8, 2, data=2, tensor=2) == [[[0, 1]], [[4, 5]]]
    assert mesh_of(8, 1, data=2, tensor=2) == [[[0, 1]], [[2, 3]]]
    assert mesh_of(8, 4, fsdp=8) == [[[0], [1], [2], [3], [4], [5], [6], [7]]]


@pytest.mark.parametrize(
    "section, fits",
    [({"data": 6}, "data=8 fsdp=1 tensor=1"), ({"data": 3, "fsdp": 2}, "data=4 fsdp=2 tensor=1"),
     ({"fsdp": 3}, "data=8 fsdp=1 tensor=1"), ({"tensor": 2}, "data=4 fsdp=1 tensor=2"),
     ({"dcn_data": 3, "tensor": 2}, "data=4 fsdp=1 tensor=2")],
)  # fmt: skip
def test_a_mesh_that_leaves_processes_out_is_refused_with_one_that_fits(section, fits):
    with pytest.raises(
        InputError, match=f"of 8 devices, not as many .* of 4 processes; .* example {fits}, or"
    ):
        mesh_of(8, 4, **section)
    sizes = dict(part.split("=") for part in fits.split())
    mesh_of(8, 4, **{name: int(size) for name, size in sizes.items()})


def test_slices_stand_outermost_on_data(cube):
    assert mesh_of(8, 2, dcn_data=2, data=2, tensor=2) == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]
    section = MeshSection(dcn_data=2, fsdp=2, tensor=2)
    assert make_mesh(section).devices.tolist() == cube.devices.tolist()


def test_a_mesh_that_is_still_open_is_not_guessed():
    with pytest.raises(InputError, match="give mesh.data, fsdp and tensor"):
        make_mesh(MeshSection.model_validate("auto"))


def test_rows_must_divide(cube):
    assert num_row_shards(cube) == 4 and num_row_shards(one_device()) == 1
    check_rows(8, cube, "rows")
    with pytest.raises(InputError, match="30 rows .* set algo.microbatch to a multiple of 4"):
        check_rows(30, cube, "algo.microbatch")


def test_arrays_are_born_in_their_shardings_with_the_values_of_one_device(cube):
    policy = Policy(CONFIG, LORA)
    key = jax.random.key(5)

    def born(mesh):
        trees = {}
        for name, init in {"model": policy.init_model, "lora": policy.init_lora}.items():
            shardings = shardings_for({name: jax.eval_shape(init, key)}, mesh)
            trees |= jax.jit(lambda k, init=init, name=name: {name: init(k)}, out_shardings=shardings)(key)
        return trees

    spread, alone = born(cube), born(one_device())
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(spread)[0], jax.tree.leaves(alone), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=path_name(path))
    q = spread["model"]["layers"]["q"]["kernel"]
    assert q.sharding.is_equivalent_to(NamedSharding(cube, P(None, "fsdp", "tensor")), 3)
    assert {shard.data.shape for shard in q.addressable_shards} == {(2, 16, 16)} and q.shape == (2, 32, 32)
    assert len(q.sharding.device_set) == 8


def test_placing_a_state_leaves_the_parameters_alive(cube):
    _, trainable, _ = policy_and_trees()
    state = place_state(trainable, TX, jax.random.key(0), cube)
    for leaf, sharding in zip(
        jax.tree.leaves(state), jax.tree.leaves(shardings_for(state, cube)), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    jax.tree.map(lambda x: x.delete(), state.trainable)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trainable))


def test_batches_are_spread_by_rows(cube):
    batch = policy_batch(2)
    placed = shard_batch(dataclasses.replace(batch, ref_logprobs=None), cube)
    assert placed.ref_logprobs is None and placed.num_microbatches.sharding.is_fully_replicated
    assert {shard.data.shape for shard in placed.tokens.addressable_shards} == {(2, 1, 24)}
    np.testing.assert_array_equal(placed.tokens, batch.tokens)


def test_gathered_weights_are_whole_over_fsdp_only(cube):
    _, _, frozen = policy_and_trees()
    placed = jax.device_put(frozen, shardings_for(frozen, cube))
    gathered = jax.jit(lambda tree: gather_weights(tree, cube))(placed)["model"]["layers"]
    assert gathered["q"]["kernel"].sharding.is_equivalent_to(NamedSharding(cube, P(None, None, "tensor")), 3)
    np.testing.assert_array_equal(gathered["q"]["kernel"], frozen["model"]["layers"]["q"]["kernel"])
