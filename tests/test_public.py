"""The public names: told in docs/python.md, and fetched when they are asked for."""

import ast
import importlib
from pathlib import Path

import pytest

import jaxrl
from tests.test_floors import TREES

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", jaxrl.__all__)
def test_a_public_name_is_the_one_of_its_room_and_is_explained(name):
    value = getattr(jaxrl, name)
    assert name in dir(jaxrl) and getattr(importlib.import_module(value.__module__), name) is value
    assert f"`{name}`" in PAGE or f"`{name}(" in PAGE


def test_type_checkers_are_told_the_same_names():
    (block,) = [node for node in TREES["__init__"].body if isinstance(node, ast.If)]
    told = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert told == {name: (getattr(jaxrl, name).__module__, name) for name in jaxrl.__all__}


def test_what_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match="module 'jaxrl' has no attribute 'make_ppo_step'"):
        _ = jaxrl.make_ppo_step
    with pytest.raises(ImportError, match="cannot import name 'make_ppo_step'"):
        from jaxrl import make_ppo_step  # noqa: F401


def test_no_public_name_hides_a_room():
    rooms = {name.split("/")[0] for name in TREES}
    assert rooms.isdisjoint(jaxrl.__all__)
