import jax
import pytest

from jaxrl.device.mesh import path_name
from jaxrl.model.policy import Policy
from jaxrl.weights.hf_config import read_hf_config
from jaxrl.weights.names import TABLE, hf_tensors, is_stacked, leaf_at, leaf_shapes, nest
from tests.weights.goldens import CONFIGS, GOLDEN, MODELS, read_tensors


@pytest.mark.parametrize("name", CONFIGS)
def test_the_leaves_are_those_of_the_policy(name):
    """`leaf_shapes` and the layers written in Flax say the same, for every combination of switches."""
    abstract = jax.eval_shape(Policy(CONFIGS[name]).init_model, jax.random.key(0))
    leaves = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    assert leaf_shapes(CONFIGS[name]) == leaves


@pytest.mark.parametrize("name", CONFIGS)
def test_every_leaf_is_covered_exactly_once(name):
    config = CONFIGS[name]
    shapes, tensors = leaf_shapes(config), hf_tensors(config)
    places = [(path, layer) for path, layer, _ in tensors.values()]
    expected = [
        (path, i)
        for path, shape in shapes.items()
        for i in (range(shape[0]) if is_stacked(path) else (None,))
    ]
    assert places == expected and len(set(places)) == len(places)


@pytest.mark.parametrize("name", MODELS)
def test_the_tensors_are_those_that_transformers_wrote(name):
    found = {tensor: array.shape for tensor, array in read_tensors(GOLDEN / name).items()}
    assert {
        tensor: shape for tensor, (_, _, shape) in hf_tensors(read_hf_config(GOLDEN / name)).items()
    } == found


def test_names_in_the_table_differ():
    assert len({name for name, _ in TABLE.values()}) == len(TABLE)


def test_nest_and_leaf_at():
    tree = nest({"a/b": 1, "a/c": 2, "d": 3})
    assert tree == {"a": {"b": 1, "c": 2}, "d": 3}
    assert leaf_at(tree, "a/c") == 2
