"""Shared by the tests of tpu/."""

import shutil

import pytest

from tests.tpu.world import World, make_tree


@pytest.fixture(scope="session")
def small_tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree") / "jaxrl")


@pytest.fixture
def world(small_tree, tmp_path, monkeypatch):
    world = World(tmp_path, small_tree, monkeypatch)
    yield world
    world.end()


@pytest.fixture
def own_tree(small_tree, tmp_path_factory):
    """A tree that a test may change."""
    return shutil.copytree(small_tree, tmp_path_factory.mktemp("own") / "jaxrl")
