"""Laws of the batch that lives: however rows come, go, move and go on, each draws what it would draw
alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.config.shared import MeshSection
from jaxrl.device.compilations import Compilations
from jaxrl.device.memory import explain_out_of_memory
from jaxrl.device.mesh import make_mesh, shardings_for
from jaxrl.errors import InputError
from jaxrl.sample import session as session_module
from jaxrl.sample.decode import Decoder
from jaxrl.sample.rows import Request
from jaxrl.sample.slots import Batch
from jaxrl.types import StopReason
from tests.sample.test_engine import (
    FROZEN,
    KEY,
    POLICY,
    PROMPTS,
    SETTINGS,
    TRAINABLE,
    completions,
    letters,
    make_engine,
)
from tests.tiny import one_device, ragged_sequences

BUDGETS = [int(b) for b in np.clip(np.random.default_rng(0).lognormal(1.6, 0.9, 64), 1, 24)]
LONG = {**SETTINGS, "max_new_tokens": 24, "temperature": 1.0}
MANY = ragged_sequences(16, seed=5)


def requests_with_budgets(engine, budgets=BUDGETS):
    """64 rows of 16 prompts, each with a budget of its own."""
    own = lambda budget: engine.sample.model_copy(update={"max_new_tokens": budget})
    return [
        Request(MANY[i // 4], i // 4, 1, first_index=i % 4, sample=own(budget))
        for i, budget in enumerate(budgets)
    ]


@pytest.fixture(scope="module")
def full():
    """All 64 rows to their full 24 tokens, in one batch that is never laid out anew."""
    engine = make_engine(**LONG, compact=False)
    return completions(engine, [Request(MANY[i // 4], i // 4, 1, first_index=i % 4) for i in range(64)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compact": False},
        {"slots": 4},
        {"slots": 20, "window": 8},
        {"slots": 5, "compact": False},
        {"kv_gib": 1e-4},
    ],
)
def test_rows_with_budgets_of_their_own_draw_the_same_tokens_however_they_are_batched(full, changes):
    engine = make_engine(**LONG | changes)
    found = completions(engine, requests_with_budgets(engine))
    for i, budget in enumerate(BUDGETS):
        assert found[i, 0].completion_ids == full[i, 0].completion_ids[:budget]
        np.testing.assert_allclose(
            found[i, 0].sampler_logprobs, full[i, 0].sampler_logprobs[:budget], atol=1e-5
        )
        assert found[i, 0].stop_reason is StopReason.MAX_TOKENS


def test_compaction_saves_steps_of_rows_and_refilling_fills_them():
    steps = {}
    for name, changes in {"static": {"compact": False}, "compact": {}, "refill": {"slots": 16}}.items():
        engine = make_engine(**LONG | changes)
        completions(engine, requests_with_budgets(engine))
        steps[name] = engine.counts["row_steps"]
        assert engine.counts["prefilled"] >= 16
    assert (
        sum(BUDGETS) <= steps["compact"] < 0.8 * steps["static"] and steps["refill"] < 0.8 * steps["static"]
    )


@pytest.mark.mesh
def test_over_a_mesh_rows_come_and_go_alike(full):
    mesh = make_mesh(MeshSection(data=4))
    trainable, frozen = (jax.device_put(tree, shardings_for(tree, mesh)) for tree in (TRAINABLE, FROZEN))
    engine = make_engine(mesh=mesh, **LONG | {"slots": 16, "window": 8})
    found = completions(engine, requests_with_budgets(engine), trainable=trainable, frozen=frozen)
    for i, budget in enumerate(BUDGETS):
        assert found[i, 0].completion_ids == full[i, 0].completion_ids[:budget]


def test_a_prompt_is_prefilled_once_for_all_its_rows():
    engine = make_engine()
    completions(engine, [Request(PROMPTS[0], 1, 3), Request(PROMPTS[0], 2, 2), Request(PROMPTS[1], 3)])
    assert engine.counts["prefilled"] == 2


def test_rows_stream_out_before_the_last_has_ended():
    engine = make_engine(**LONG)
    own = engine.sample.model_copy(update={"max_new_tokens": 2})
    order = [
        s.request
        for s in engine.run(TRAINABLE, FROZEN, [Request(MANY[0], 0), Request(MANY[1], 1, sample=own)], KEY)
    ]
    assert order == [1, 0]


# -------------------------------------------------------------------------------------- settings of their own


def test_each_request_is_drawn_as_it_asks():
    engine = make_engine()
    settings = [
        {},
        {"temperature": 0.0},
        {"top_k": 1},
        {"top_p": 1e-6},
        {"min_p": 0.999},
        {"temperature": 2.0},
    ]
    own = [engine.sample.model_copy(update=changes) for changes in settings]
    mixed = completions(engine, [Request(PROMPTS[0], 7, sample=sample) for sample in own])
    for r, changes in enumerate(settings):
        alone = completions(make_engine(**changes), [Request(PROMPTS[0], 7)])
        assert mixed[r, 0].completion_ids == alone[0, 0].completion_ids
    greedy = mixed[1, 0].completion_ids
    assert mixed[2, 0].completion_ids == mixed[3, 0].completion_ids == mixed[4, 0].completion_ids == greedy
    assert mixed[0, 0].completion_ids != greedy


def test_a_stop_id_of_one_request_does_not_stop_another():
    plain = completions(make_engine(), [Request(PROMPTS[0], 7)])[0, 0].completion_ids
    engine = make_engine()
    stops = engine.sample.model_copy(update={"stop_ids": (plain[3], 63)})
    found = completions(engine, [Request(PROMPTS[0], 7, sample=stops), Request(PROMPTS[0], 7)])
    assert (
        found[0, 0].completion_ids == plain[: plain.index(plain[3]) + 1]
        and found[0, 0].stop_reason is StopReason.EOS
    )
    assert found[1, 0].completion_ids == plain


def test_int8_and_merged_weights_sample_from_a_policy_nearby(full):
    requests = [Request(MANY[i // 4], i // 4, 1, first_index=i % 4) for i in range(64)]
    for changes, near in [
        ({"merge_lora": True}, 1e-4),
        ({"weight_dtype": "int8"}, 0.5),
        ({"kv_dtype": "int8"}, 0.5),
    ]:
        found = completions(make_engine(**LONG | changes), requests)
        # the second token is the first that is drawn from the weights and the cache of decoding
        second = [
            (found[p].sampler_logprobs[1], full[p].sampler_logprobs[1])
            for p in full
            if found[p].completion_ids[:2] == full[p].completion_ids[:2]
        ]
        assert len(second) > 40
        assert 0 < max(abs(ours - plain) for ours, plain in second) < near


# ------------------------------------------------------------------------------------------------------ turns


def talk(engine, keeps, replies=((5, 9, 3), (11,), (2, 2, 7, 30, 31)), stop_at=None):
    """Three answers to what is said in between, for every prompt; without `keeps` every turn begins from its
    text.
    """
    session = engine.session(TRAINABLE, FROZEN, KEY)
    owner, heard = {}, {}
    for uid, prompt in enumerate(PROMPTS):
        owner[session.add(Request(prompt, uid, keep=keeps))] = (uid, 0)
    for sampled in session.run():
        uid, turn = owner[sampled.request]
        heard[uid, turn] = sampled.completion
        if turn < len(replies):
            said = sampled.completion.prompt_ids + sampled.completion.completion_ids + list(replies[turn])
            owner[session.add(Request(said, uid, keep=keeps))] = (uid, turn + 1)
    return heard, session.counts


@pytest.mark.parametrize("changes", [{}, {"window": 3, "slots": 3}, {"stop": ("5", "R")}, {"compact": False}])
def test_going_on_from_the_cache_is_beginning_from_the_text(changes):
    settings = {"max_prompt_tokens": 64} | changes
    expected, counts = talk(make_engine(**settings), keeps=False)
    assert counts["continued"] == 0 and counts["prefilled"] == 24
    found, counts = talk(make_engine(**settings), keeps=True)
    assert found == {
        place: dataclasses.replace(c, sampler_logprobs=pytest.approx(c.sampler_logprobs, abs=1e-5))
        for place, c in expected.items()
    }
    assert counts == counts | {"continued": 18, "prefilled": 6}


@pytest.mark.mesh
def test_over_a_mesh_turns_go_on_alike():
    mesh = make_mesh(MeshSection(data=2, tensor=2))
    trainable, frozen = (jax.device_put(tree, shardings_for(tree, mesh)) for tree in (TRAINABLE, FROZEN))
    expected, _ = talk(make_engine(max_prompt_tokens=64), keeps=False)
    engine = make_engine(max_prompt_tokens=64, mesh=mesh)
    session = engine.session(trainable, frozen, KEY)
    session.add(Request(PROMPTS[2], 2, keep=True))
    (first,) = [s.completion for s in session.run()]
    session.add(Request(first.prompt_ids + first.completion_ids + [5, 9, 3], 2))
    (second,) = [s.completion for s in session.run()]
    assert second.completion_ids == expected[2, 1].completion_ids and session.counts["continued"] == 1


def test_a_prompt_that_does_not_extend_what_was_said_begins_anew():
    engine = make_engine(max_prompt_tokens=64)
    session = engine.session(TRAINABLE, FROZEN, KEY)
    session.add(Request(PROMPTS[0], 1, keep=True))
    (first,) = [s.completion for s in session.run()]
    other = first.prompt_ids + first.completion_ids[:-1] + [(first.completion_ids[-1] + 1) % 64, 4]
    session.add(Request(other, 1))
    (second,) = [s.completion for s in session.run()]
    assert session.counts["continued"] == 0
    assert (
        second.completion_ids
        == completions(make_engine(max_prompt_tokens=64), [Request(other, 1)])[0, 0].completion_ids
    )


# ------------------------------------------------------------------------------------------- memory, programs


def test_a_cache_budget_without_room_for_one_row_is_refused():
    with pytest.raises(
        InputError,
        match=(
            r"a row of 32 tokens needs .* GiB of cache.*raise sample.kv_gib, or lower sample.max_new_tokens"
        ),
    ):
        completions(make_engine(kv_gib=1e-7), [Request(PROMPTS[0], 1)])


def test_a_request_that_is_refused_leaves_no_trace():
    engine = make_engine(kv_gib=1e-4)
    expected = completions(engine, [Request(PROMPTS[0], 0), Request(PROMPTS[1], 1)])
    session = engine.session(TRAINABLE, FROZEN, KEY)
    numbers = [session.add(Request(PROMPTS[0], 0))]
    for refused in (
        Request([99], 5),
        Request([1], 5, sample=engine.sample.model_copy(update={"max_new_tokens": 4000})),
    ):
        with pytest.raises(InputError):
            session.add(refused)
    numbers.append(session.add(Request(PROMPTS[1], 1)))
    assert numbers == [0, 1]
    assert {s.request: s.completion.completion_ids for s in session.run()} == {
        r: c.completion_ids for (r, _), c in expected.items()
    }


def test_memory_that_runs_out_names_the_setting_to_change():
    sentence = "sampling does not fit into the memory of the device.*; lower it"
    with pytest.raises(InputError, match=sentence), explain_out_of_memory("sampling", lambda: "lower it"):
        jnp.zeros((1 << 46,)).block_until_ready()
    huge = jax.jit(lambda x: jnp.cumsum(jnp.outer(x, x), axis=0)[-1])
    sentence = r"\(it asked for \d+ bytes more\); lower it"
    with pytest.raises(InputError, match=sentence), explain_out_of_memory("sampling", lambda: "lower it"):
        # as a window reads the caches that were laid out
        jax.jit(jnp.sin)(huge(jnp.ones(1 << 22))).block_until_ready()
    with pytest.raises(ZeroDivisionError), explain_out_of_memory("sampling", lambda: ""):
        raise ZeroDivisionError


def test_after_a_first_run_nothing_is_compiled():
    engine = make_engine(**LONG | {"slots": 16})
    completions(engine, requests_with_budgets(engine))
    keys = [jax.random.key(seed) for seed in range(2)]
    with Compilations() as compilations:
        for key in keys:
            completions(make_engine(**LONG | {"slots": 16}), requests_with_budgets(engine), key=key)
    assert not compilations.programs and Decoder.window._cache_size() > 0


def test_kept_rows_stay_within_the_slots_and_give_way_to_those_that_wait(monkeypatch):
    """32 conversations in four places: a row that goes on overtakes, and a row kept for nobody costs no
    place.
    """
    engine = make_engine(**LONG | {"max_prompt_tokens": 64, "slots": 4})
    widths = []
    window = Batch.window
    monkeypatch.setattr(
        Batch, "window", lambda self, *args: widths.append(len(self.slots)) or window(self, *args)
    )
    session = engine.session(TRAINABLE, FROZEN, KEY)
    for uid in range(32):
        own = engine.sample.model_copy(update={"max_new_tokens": (2, 4, 8, 16)[uid % 4]})
        session.add(Request(MANY[uid % 16], uid, sample=own, keep=True))
    turns = {}
    for sampled in session.run():
        uid = sampled.request if sampled.request < 32 else turns[sampled.request]
        if sampled.request < 32 and uid % 8 != 7:  # every eighth is kept and never goes on
            turns[
                session.add(
                    Request(
                        sampled.completion.prompt_ids + sampled.completion.completion_ids + [5],
                        uid,
                        sample=session.engine.sample,
                    )
                )
            ] = uid
    assert len(turns) == 28 and session.counts["continued"] > 20
    assert set(widths) <= {1, 2, 4}


def test_the_usual_shape_does_not_overrule_the_budget():
    from jaxrl.sample.engine import Engine

    engine = Engine(
        POLICY, make_engine(kv_gib=8e-5).sample, (), letters, one_device(), usual_prompts=16, usual_samples=4
    )
    completions(engine, [Request(PROMPTS[0], 1, 4)])
    assert engine.counts["row_steps"] / engine.counts["steps"] <= engine.capacity(32) < 64


def test_a_caller_that_leaves_early_loses_nothing():
    session = make_engine().session(TRAINABLE, FROZEN, KEY)
    for uid in range(3):
        session.add(Request(PROMPTS[uid], uid))
    first = next(iter(session.run()))
    assert {first.request, *(sampled.request for sampled in session.run())} == {0, 1, 2}


def test_running_out_of_memory_while_sampling_says_how_many_rows_there_were(monkeypatch):
    def window(self, *_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123456 bytes."
        )

    monkeypatch.setattr(Batch, "window", window)
    with pytest.raises(
        InputError, match="asked for 123456 bytes more.*4 rows were decoded together: set sample.slots to 2"
    ):
        completions(make_engine(), [Request(PROMPTS[0], 1, 4)])
    with pytest.raises(InputError, match="lower sample.max_new_tokens"):
        completions(make_engine(), [Request(PROMPTS[0], 1)])


def test_weights_that_have_diverged_are_told():
    broken = jax.tree.map(lambda x: x * jnp.nan, TRAINABLE)
    with pytest.raises(InputError, match="logits are not finite"):
        completions(make_engine(), [Request(PROMPTS[0], 1)], trainable=broken)


class Clock:
    """Stands for `time`: moved by whoever works, and a little by every look at it."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1e-6
        return self.now


def test_times_tell_the_devices_work_from_the_callers(monkeypatch):
    clock, engine = Clock(), make_engine(**LONG)
    monkeypatch.setattr(session_module, "time", clock)
    for _ in engine.run(TRAINABLE, FROZEN, requests_with_budgets(engine)[:12], KEY):
        jax.block_until_ready(jax.live_arrays())  # the device has done what it was given
        clock.now += 0.05
    wall = clock.now
    assert set(engine.times) == {"prefill_s", "decode_s", "idle_s"}
    assert engine.times["idle_s"] > 0.2 and sum(engine.times.values()) <= wall
    assert (
        engine.take_times()["time/idle_s"] == engine.times["idle_s"]
        and engine.take_times()["time/decode_s"] == 0
    )
