"""Laws of the weights that stay with an engine: made once for the same arrays, never used for others, and
gone when they should be.
"""

import gc
import weakref

import jax
import numpy as np
import pytest

from jaxrl.sample.rows import Request
from tests.sample.test_engine import FROZEN, KEY, PROMPTS, TRAINABLE, completions, make_engine
from tests.sample.watching import watch_decode_weights
from tests.tiny import noisy

REQUESTS = [Request(prompt, uid, 2) for uid, prompt in enumerate(PROMPTS[:2])]


@pytest.fixture
def made(monkeypatch) -> list[weakref.ref]:
    """What `decode_weights` has made so far, of all engines."""
    return watch_decode_weights(monkeypatch)


def copies(tree):
    """Equal numbers in arrays of their own."""
    return jax.tree.map(lambda x: x + 0, tree)


def is_gone(ref: weakref.ref) -> bool:
    gc.collect()
    return ref() is None


def test_a_resident_engine_draws_what_a_fresh_one_draws(made):
    """With the first weights, with others, and with the first again."""
    moved = noisy(TRAINABLE, 7)
    resident = make_engine()
    for trainable in (TRAINABLE, TRAINABLE, moved, TRAINABLE):
        again = completions(resident, REQUESTS, trainable=trainable)
        assert again == completions(make_engine(), REQUESTS, trainable=trainable)
    assert completions(resident, REQUESTS) != completions(resident, REQUESTS, trainable=moved)
    assert len(made) == 4 + 4, "four fresh engines, and the weights changed hands four times"


def test_the_same_arrays_are_made_ready_once_whatever_holds_them(made):
    engine = make_engine()
    for _ in range(2):
        trainable = {"lora": {"layers": dict(TRAINABLE["lora"]["layers"])}}  # as `policy_part` gives them
        completions(engine, REQUESTS, trainable=trainable)
    session = engine.session(TRAINABLE, FROZEN, KEY)
    for uid in range(2):
        session.add(Request(PROMPTS[uid], uid))
        assert len(list(session.run())) == 1
    assert len(made) == 1


def test_equal_numbers_in_other_arrays_are_made_ready_anew_and_the_old_ones_let_go_first(made, monkeypatch):
    engine = make_engine()
    completions(engine, REQUESTS)
    spy = engine.resident.make

    def before_it(*args):
        assert is_gone(made[-1])
        return spy(*args)

    monkeypatch.setattr(engine.resident, "make", before_it)
    completions(engine, REQUESTS, trainable=copies(TRAINABLE))
    completions(engine, REQUESTS, frozen=copies(FROZEN))
    assert len(made) == 3


def test_after_release_nothing_is_held_and_the_next_run_makes_it_again(made):
    engine, trainable, frozen = make_engine(), copies(TRAINABLE), copies(FROZEN)
    given = [weakref.ref(leaf) for leaf in jax.tree.leaves((trainable, frozen))]
    expected = completions(engine, REQUESTS, trainable=trainable, frozen=frozen)
    assert not is_gone(made[0])
    engine.release()
    assert is_gone(made[0])
    assert completions(engine, REQUESTS, trainable=trainable, frozen=frozen) == expected
    engine.release()
    del trainable, frozen
    assert all(map(is_gone, given))


def test_a_session_that_was_left_early_holds_none_and_goes_on(made):
    engine, trainable, frozen = make_engine(), copies(TRAINABLE), copies(FROZEN)
    expected = {(s.request, s.index): s.completion for s in engine.run(trainable, frozen, REQUESTS, KEY)}
    session = engine.session(trainable, frozen, KEY)
    for request in REQUESTS:
        session.add(request)
    run = session.run()
    first = next(run)
    run.close()
    engine.release()
    assert is_gone(made[0])
    found = {(s.request, s.index): s.completion for s in (first, *session.run())}
    assert found == expected and len(made) == 2


def test_an_engine_keeps_no_model_alive_and_dies_with_what_it_made(made):
    engine, trainable = make_engine(), copies(TRAINABLE)
    completions(engine, REQUESTS, trainable=trainable)
    del trainable
    assert is_gone(made[0])
    completions(engine, REQUESTS)
    gc.disable()  # by counting references alone: nothing waits for the collector
    try:
        del engine
        assert made[1]() is None
    finally:
        gc.enable()


def test_weights_that_an_update_took_over_are_not_sampled_from(made):
    """Donated arrays are still there as objects, and deleted."""
    engine, trainable = make_engine(), copies(TRAINABLE)
    completions(engine, REQUESTS, trainable=trainable)
    after = jax.jit(lambda tree: jax.tree.map(lambda x: 1.5 * x, tree), donate_argnums=0)(trainable)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(trainable))
    with pytest.raises((RuntimeError, ValueError), match="deleted"):
        completions(engine, REQUESTS, trainable=trainable)
    expected = completions(make_engine(), REQUESTS, trainable=after)
    assert completions(engine, REQUESTS, trainable=after) == expected


def test_arrays_that_can_change_in_place_are_read_anew_every_time(made):
    engine, trainable = make_engine(), jax.tree.map(np.array, TRAINABLE)
    first = completions(engine, REQUESTS, trainable=trainable)
    for leaf in jax.tree.leaves(trainable):
        leaf *= 3
    moved = jax.tree.map(lambda x: 3 * x, TRAINABLE)
    found = completions(engine, REQUESTS, trainable=trainable)
    assert found == completions(make_engine(), REQUESTS, trainable=moved) != first
