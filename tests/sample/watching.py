"""Seeing from outside what engines make of their weights, and how long it lives."""

import weakref

import pytest

from jaxrl.sample import engine


def watch_decode_weights(patch: pytest.MonkeyPatch) -> list[weakref.ref]:
    """A list that grows by an array of each set of decode weights that an engine made from now on makes."""
    plain, made = engine.decode_weights, []

    def spy(*args, **kwargs):
        weights = plain(*args, **kwargs)
        made.append(weakref.ref(weights.layers[0].linears["o",].kernel))
        return weights

    patch.setattr(engine, "decode_weights", spy)
    return made
