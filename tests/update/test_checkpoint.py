"""Checkpoints: what comes back is what was saved, bit for bit, on any mesh; damage is noticed and
survived.
"""

import gc
import logging
import resource
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.config.shared import MeshSection, OptimSection
from jaxrl.device.mesh import make_mesh, shardings_for
from jaxrl.errors import InputError
from jaxrl.update import checkpoint
from jaxrl.update.checkpoint import CheckpointCorrupt, Checkpoints, checksums
from jaxrl.update.state import TrainState, abstract_state, make_optimizer, place_state
from tests.files.gcs import serving_here
from tests.tiny import noisy, one_device, policy_and_trees

# A read that fails inside Orbax leaves a coroutine behind, about which Python warns when it is collected.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning"
)
META = {"stage": "sft", "best": 0.5, "seen": [1, 2]}


@pytest.fixture(autouse=True)
def sweep():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def cube():
    return make_mesh(MeshSection(data=2, fsdp=2, tensor=2))


@pytest.fixture(scope="module")
def made_of():
    """What a state is made of, but for the mesh."""
    _, trainable, _ = policy_and_trees(None)
    return trainable, make_optimizer(OptimSection(), 10), jax.random.key(3)


@pytest.fixture(scope="module")
def abstract(made_of):
    return abstract_state(*made_of, one_device())


@pytest.fixture(scope="module")
def state(made_of):
    """A state in which every number is its own."""
    state = place_state(*made_of, one_device())
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    moved = iter(noisy(floats, 11))
    laid_out = lambda x: jax.device_put(next(moved), x.sharding)  # as the state's own were
    return jax.tree.map(lambda x: laid_out(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


@pytest.fixture(scope="module")
def two_saved(state, tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2; the second has other numbers."""
    folder = tmp_path_factory.mktemp("two")
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(2, later(state), META)
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


def test_a_state_comes_back_bit_for_bit(copied, state, abstract):
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, meta = checkpoints.restore(abstract, 1)
        assert_same(restored, state)
        assert meta == META
        restored, _ = checkpoints.restore_latest(abstract)
        assert_same(restored, later(state))
    assert_same(jax.random.fold_in(restored.key, 7), jax.random.fold_in(state.key, 7))


def test_a_state_that_was_read_is_laid_out_like_one_that_was_made(copied, state, abstract, tmp_path):
    """And can be saved, described and read again: where it comes from does not show."""
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, _ = checkpoints.restore(abstract, 1)
        for made, read, said in zip(*map(jax.tree.leaves, (state, restored, abstract)), strict=True):
            assert (
                (made.shape, made.dtype, made.sharding)
                == (read.shape, read.dtype, read.sharding)
                == (said.shape, said.dtype, said.sharding)
            )
        checkpoints.save(3, restored, META)
        again, _ = checkpoints.restore(abstract, 3)
        assert_same(again, state)


@pytest.mark.mesh
def test_a_state_comes_back_on_another_mesh(copied, state, abstract, made_of, cube):
    on_cube = abstract_state(*made_of, cube)
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, _ = checkpoints.restore(on_cube, 1)
        assert_same(restored, state)
        assert [x.sharding for x in jax.tree.leaves(restored)] == [
            x.sharding for x in jax.tree.leaves(on_cube)
        ]
        checkpoints.save(3, restored, {})  # and back
        assert_same(checkpoints.restore(abstract, 3)[0], state)


def test_in_a_bucket_they_are_kept_alike_and_none_is_believed_that_is_there_by_half(monkeypatch, caplog):
    """A process may die while it writes one, which bears no mark of its end then, or while it takes one away,
    which may still bear it.
    """
    pytest.importorskip("gcsfs", reason="pip install 'jaxrl[gcs]'")
    made_of = ({"lora": {}}, make_optimizer(OptimSection(), 1), jax.random.key(0), one_device())
    state, abstract = place_state(*made_of), abstract_state(*made_of)
    folder = "gs://bucket/runs/run/checkpoints/0_sft"
    with serving_here(monkeypatch) as objects:
        with Checkpoints(folder, keep=1) as checkpoints:
            checkpoints.save(1, state, {"at": 1})
            checkpoints.save(2, state, {"at": 2})
            assert checkpoints.steps() == [2]
        assert {name.split("/")[4] for name in objects} == {"2"}
        for name, content in list(objects.items()):
            if name.endswith("/2/commit_success.txt"):
                objects[name.replace("/2/", "/4/")] = content
            else:
                objects[name.replace("/2/", "/3/")] = content
        with Checkpoints(folder, keep=1) as checkpoints:
            assert checkpoints.steps() == [2, 4]
            assert checkpoints.restore_latest(abstract)[1] == {"at": 2}
            assert "checkpoint gs://bucket/runs/run/checkpoints/0_sft/4 cannot be read" in caplog.text
            checkpoints.save(4, state, {"at": 4})
            assert checkpoints.restore_latest(abstract)[1] == {"at": 4}
        assert {name.split("/")[4] for name in objects} == {"4"}


def test_the_newest_and_the_best_are_kept(tmp_path):
    made_of = ({"lora": {}}, make_optimizer(OptimSection(), 1), jax.random.key(0), one_device())
    state, abstract = place_state(*made_of), abstract_state(*made_of)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, best in [(1, None), (2, 2), (3, 2), (4, 2), (5, 2)]:
            checkpoints.save(step, state, {"at": step}, best)
        assert checkpoints.steps() == [2, 4, 5]
    with Checkpoints(tmp_path, keep=2) as checkpoints:  # another process
        checkpoints.save(6, state, {"at": 6}, 2)
        assert checkpoints.steps() == [2, 5, 6]
        checkpoints.save(6, state, {"at": "again"}, 2)
        assert checkpoints.restore(abstract, 6)[1] == {"at": "again"}
        assert checkpoints.restore(abstract, 2)[1] == {"at": 2}
        checkpoints.save(7, state, {"at": 7}, 7)
        assert checkpoints.steps() == [6, 7], "what is no longer the best goes"


@pytest.mark.parametrize("where", ["trainable", "opt_state", "reference"])
def test_a_state_that_is_not_finite_is_not_saved_and_nothing_is_lost(copied, state, abstract, where):
    parts = vars(state) | {"reference": {"norm": jnp.ones(3)}}
    broken = TrainState(
        **parts | {where: jax.tree.map(lambda x: x.at[0].set(jnp.nan) if x.ndim else x, parts[where])}
    )
    with Checkpoints(copied, keep=1) as checkpoints:
        for step in (2, 3):
            with pytest.raises(InputError, match=f"step {step} is not saved .*not finite"):
                checkpoints.save(step, broken, META)
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore_latest(abstract)[0], later(state))


def test_of_a_save_that_fails_the_sentence_about_the_save_is_what_comes_out(state, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(InputError, match=r"^checkpoint .*/1 cannot be written: File too large"),
        Checkpoints(tmp_path, keep=1) as checkpoints,
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        try:
            checkpoints.save(1, state, META)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_checkpoint_is_none(tmp_path, abstract):
    with Checkpoints(tmp_path / "new", keep=1) as checkpoints:
        assert checkpoints.steps() == [] and checkpoints.restore_latest(abstract) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_flipped_bit_falls_back_to_the_older(copied, state, abstract, share, caplog):
    file = largest_file(copied / "2")
    flip_bit(file, int(share * 8 * file.stat().st_size))
    with Checkpoints(copied, keep=2) as checkpoints, caplog.at_level(logging.WARNING, "jaxrl"):
        restored, _ = checkpoints.restore_latest(abstract)
        assert_same(restored, state)
        assert "trying an older one" in caplog.text and "2" in caplog.text
        with pytest.raises(CheckpointCorrupt):
            checkpoints.restore(abstract, 2)


DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2],
    "other JSON": lambda content: b"[1]",
    "no text": lambda content: bytes(255 - x for x in content),
    "a folder": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_file_is_damaged_the_state_that_comes_back_is_a_saved_one(
    damage, two_saved, state, abstract, tmp_path, capfd, caplog
):
    """And the user hears of it in our sentence alone."""
    files = sorted(p.relative_to(two_saved) for p in (two_saved / "2").rglob("*") if p.is_file())
    for number, file in enumerate(files):
        folder = shutil.copytree(two_saved, tmp_path / str(number))
        if DAMAGE[damage] is None:
            (folder / file).unlink()
            (folder / file).mkdir()
        else:
            (folder / file).write_bytes(DAMAGE[damage]((folder / file).read_bytes()))
        try:
            with Checkpoints(folder, keep=2) as checkpoints:
                restored, meta = checkpoints.restore_latest(abstract)
        except InputError as error:  # Orbax does not open the folder at all
            assert (
                file.name == "_CHECKPOINT_METADATA"
                and f"{folder / file}: the metadata" in str(error)
                and "delete its step's folder" in str(error)
            )
            continue
        of_step = {
            leaf.tobytes(): kept
            for kept in (state, later(state))
            for leaf in [numbers(jax.tree.leaves(kept.trainable)[0])]
        }
        assert_same(restored, of_step[numbers(jax.tree.leaves(restored.trainable)[0]).tobytes()])
        assert meta == META, file
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err
    assert {record.name for record in caplog.records} == {"jaxrl"}


def failure(file, text):
    """An exception with a frame of this file in its traceback."""
    try:
        exec(compile(f"raise ValueError({text!r})", file, "exec"), {})
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "file, text, is_shown",
    [
        ("/lib/orbax/checkpoint/read.py", "no such key", False),
        ("/mine/fetch.py", "/a [tensorstore_spec='{}']", False),
        (
            "/mine/fetch.py",
            (
                'DATA_LOSS: Error reading shard entry {0} in "q.kernel/c/0" in OCDBT database at local file'
                ' "/a/"'
            ),
            False,
        ),
        ("/mine/fetch.py", "no such key", True),
    ],
)
def test_what_python_tells_later_of_orbaxs_event_loop_is_not_shown_and_of_others_it_is(
    file, text, is_shown, caplog, monkeypatch
):
    passed_on = []
    monkeypatch.setattr(checkpoint, "_unraisable_before", passed_on.append)
    error = failure(file, text)
    logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=error)
    checkpoint._unraisable(SimpleNamespace(exc_value=error, object=None))
    assert len(caplog.records) == len(passed_on) == is_shown


@pytest.mark.parametrize(
    "old, new", [('"best": 0.5', '"best": 0.7'), ('"meta"', '"mets"'), ('"format": 2', '"format": 1')]
)
def test_a_change_in_the_metadata_falls_back_to_the_older(copied, state, abstract, old, new):
    file = copied / "2" / "_CHECKPOINT_METADATA"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with Checkpoints(copied, keep=2) as checkpoints:
        restored, meta = checkpoints.restore_latest(abstract)
    assert_same(restored, state)
    assert meta == META


def test_nothing_but_damage_is_an_error(copied, abstract):
    for step in "12":
        file = largest_file(copied / step)
        flip_bit(file, 4 * file.stat().st_size)
    damaged = r"(: \S+ is not what was saved| cannot be read: )"  # as the bit falls among numbers or sizes
    message = rf"(?s)steps \[1, 2\].*delete that folder.*/2{damaged}.*/1{damaged}"
    with Checkpoints(copied, keep=2) as checkpoints, pytest.raises(InputError, match=message):
        checkpoints.restore_latest(abstract)


def test_a_leftover_of_an_interrupted_save_is_ignored(copied, state, abstract):
    half = shutil.copytree(copied / "2", copied / "3.orbax-checkpoint-tmp")
    largest_file(half).unlink()
    with Checkpoints(copied, keep=2) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore_latest(abstract)[0], later(state))
        checkpoints.save(3, state, META)
        assert checkpoints.steps() == [2, 3]


# -------------------------------------------------------------------------------------------------- checksums


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
    sums = jax.device_get(
        checksums({"a": jnp.array([[1, 2], [3, 2**31]], jnp.uint32), "b": jnp.array([True, False, True])})
    )
    assert sums["a"] == (1 * 1 + 2 * 3 + 3 * 5 + 2**31 * 7) % 2**32 and sums["b"] == 1 + 5


@pytest.mark.mesh
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
