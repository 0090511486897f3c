"""Checkpoints: what comes back is what was saved, bit for bit, on any mesh; damage is noticed and survived."""

import gc
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.checkpoint import CheckpointCorrupt, Checkpoints, abstract_like, checksums
from jaxrl.config_sections import MeshSection, OptimSection
from jaxrl.errors import InputError
from jaxrl.sharding import make_mesh, shardings_for
from jaxrl.train.state import make_optimizer, place_state
from tests.tiny import noisy, one_device, policy_and_trees

# A read that fails inside Orbax leaves a coroutine behind, about which Python warns when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
META = {"stage": "sft", "best": 0.5, "seen": [1, 2]}


@pytest.fixture(autouse=True)
def sweep():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def cube():
    return make_mesh(MeshSection(data=2, fsdp=2, tensor=2))


@pytest.fixture(scope="module")
def state():
    """A state in which every number is its own."""
    _, trainable, _ = policy_and_trees(None)
    state = place_state(trainable, make_optimizer(OptimSection(), 10), jax.random.key(3), one_device())
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    moved = iter(noisy(floats, 11))
    return jax.tree.map(lambda x: next(moved) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


@pytest.fixture(scope="module")
def two_saved(state, tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2; the second has other numbers."""
    folder = tmp_path_factory.mktemp("two")
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(1, state, META, 0.5)
        checkpoints.save(2, later(state), META, 0.25)
    return folder


@pytest.fixture
def copied(two_saved, tmp_path):
    return shutil.copytree(two_saved, tmp_path / "checkpoints")


def later(state):
    return jax.tree.map(lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


def numbers(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype and numbers(x).tobytes() == numbers(y).tobytes()


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_bit(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_state_comes_back_bit_for_bit(copied, state):
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, meta = checkpoints.restore(abstract_like(state), 1)
        assert_same(restored, state)
        assert meta == META
        restored, _ = checkpoints.restore_latest(abstract_like(state))
        assert_same(restored, later(state))
    assert_same(jax.random.fold_in(restored.key, 7), jax.random.fold_in(state.key, 7))


def test_a_state_comes_back_on_another_mesh(copied, state, cube):
    shardings = shardings_for(state, cube)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, _ = checkpoints.restore(abstract, 1)
        assert_same(restored, state)
        for leaf, sharding in zip(jax.tree.leaves(restored), jax.tree.leaves(shardings)):
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        checkpoints.save(3, restored, {})  # and back
        assert_same(checkpoints.restore(abstract_like(state), 3)[0], state)


def test_the_newest_and_the_best_are_kept(tmp_path):
    state = place_state({"lora": {}}, make_optimizer(OptimSection(), 1), jax.random.key(0), one_device())
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.best_step() is None
        for step, val_loss in [(1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, 4.0), (6, None)]:
            checkpoints.save(step, state, {"at": step}, val_loss)
        assert checkpoints.steps() == [2, 5, 6] and checkpoints.best_step() == 2
    with Checkpoints(tmp_path, keep=2) as checkpoints:  # another process
        assert checkpoints.steps() == [2, 5, 6] and checkpoints.best_step() == 2
        checkpoints.save(6, state, {"at": "again"}, None)
        assert checkpoints.restore(abstract_like(state), 6)[1] == {"at": "again"}
        assert checkpoints.restore(abstract_like(state), 2)[1] == {"at": 2}


def test_no_checkpoint_is_none(tmp_path, state):
    with Checkpoints(tmp_path / "new", keep=1) as checkpoints:
        assert checkpoints.steps() == [] and checkpoints.restore_latest(abstract_like(state)) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_flipped_bit_falls_back_to_the_older(copied, state, share, caplog):
    file = largest_file(copied / "2")
    flip_bit(file, int(share * 8 * file.stat().st_size))
    with Checkpoints(copied, keep=2) as checkpoints, caplog.at_level(logging.WARNING, "jaxrl"):
        restored, _ = checkpoints.restore_latest(abstract_like(state))
        assert_same(restored, state)
        assert "trying an older one" in caplog.text and "2" in caplog.text
        with pytest.raises(CheckpointCorrupt):
            checkpoints.restore(abstract_like(state), 2)


def test_whatever_file_is_cut_short_the_state_that_comes_back_is_a_saved_one(two_saved, state, tmp_path):
    files = sorted(p.relative_to(two_saved) for p in (two_saved / "2").rglob("*") if p.is_file())
    for number, file in enumerate(files):
        folder = shutil.copytree(two_saved, tmp_path / str(number))
        size = (folder / file).stat().st_size
        with (folder / file).open("r+b") as opened:
            opened.truncate(size // 2)
        if file.name == "metrics":  # Orbax reads all of them when it opens the folder
            with pytest.raises(InputError, match="metadata or metrics of a checkpoint cannot be read"):
                Checkpoints(folder, keep=2)
            continue
        with Checkpoints(folder, keep=2) as checkpoints:
            restored, meta = checkpoints.restore_latest(abstract_like(state))
        of_step = {leaf.tobytes(): kept for kept in (state, later(state)) for leaf in [numbers(jax.tree.leaves(kept.trainable)[0])]}
        assert_same(restored, of_step[numbers(jax.tree.leaves(restored.trainable)[0]).tobytes()])
        assert meta == META, file


@pytest.mark.parametrize("old, new", [('"best": 0.5', '"best": 0.7'), ('"meta"', '"mets"')])
def test_a_change_in_the_metadata_falls_back_to_the_older(copied, state, old, new):
    file = copied / "2" / "_CHECKPOINT_METADATA"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, meta = checkpoints.restore_latest(abstract_like(state))
    assert_same(restored, state)
    assert meta == META


def test_nothing_but_damage_is_an_error(copied, state):
    for step in "12":
        file = largest_file(copied / step)
        flip_bit(file, 4 * file.stat().st_size)
    with Checkpoints(copied, keep=2) as checkpoints, pytest.raises(InputError, match=r"steps \[1, 2\]"):
        checkpoints.restore_latest(abstract_like(state))


def test_a_leftover_of_an_interrupted_save_is_ignored(copied, state):
    half = shutil.copytree(copied / "2", copied / "3.orbax-checkpoint-tmp")
    largest_file(half).unlink()
    with Checkpoints(copied, keep=2) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore_latest(abstract_like(state))[0], later(state))
        checkpoints.save(3, state, META)
        assert checkpoints.steps() == [2, 3]


# ---------------------------------------------------------------------------------------------------------- checksums


def sample_tree():
    rng = np.random.default_rng(0)
    return {
        "float32": jnp.asarray(rng.normal(size=(4, 6, 8)), jnp.float32),
        "bfloat16": jnp.asarray(rng.normal(size=(16, 4)), jnp.bfloat16),
        "int32": jnp.asarray(rng.integers(-9, 9, 8), jnp.int32),
        "uint8": jnp.asarray(rng.integers(0, 255, 24), jnp.uint8),
        "bool": jnp.asarray(rng.random(8) < 0.5),
        "scalar": jnp.int32(7),
        "key": jax.random.key(3),
    }


def test_a_checksum_by_hand():
    sums = jax.device_get(checksums({"a": jnp.array([[1, 2], [3, 2**31]], jnp.uint32), "b": jnp.array([True, False, True])}))
    assert sums["a"] == (1 * 1 + 2 * 3 + 3 * 5 + 2**31 * 7) % 2**32 and sums["b"] == 1 + 5


def test_a_checksum_does_not_depend_on_the_sharding(state, cube):
    whole = jax.device_get(checksums(state))
    assert jax.device_get(checksums(jax.device_put(state, shardings_for(state, cube)))) == whole


def test_a_checksum_sees_every_flipped_bit():
    tree, rng = sample_tree(), np.random.default_rng(1)
    before = jax.device_get(checksums(tree))
    names = [name for name in tree if name not in ("key", "bool")]
    for _ in range(100):
        name = names[rng.integers(len(names))]
        raw = bytearray(np.asarray(tree[name]).tobytes())
        bit = rng.integers(8 * len(raw))
        raw[bit // 8] ^= 1 << bit % 8
        flipped = jnp.asarray(np.frombuffer(bytes(raw), tree[name].dtype).reshape(tree[name].shape))
        after = jax.device_get(checksums({**tree, name: flipped}))
        assert {other for other in tree if after[other] != before[other]} == {name}
