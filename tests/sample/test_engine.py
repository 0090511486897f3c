"""Laws of sampling: a completion depends on its own prompt, key and index alone, and its logprobs are the
trainer's.
"""

import dataclasses
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl.config.shared import MeshSection, SampleSection
from jaxrl.device.mesh import make_mesh, shard_batch, shardings_for
from jaxrl.errors import InputError
from jaxrl.sample.buckets import length_bucket
from jaxrl.sample.decode import Decoder
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request, Row
from jaxrl.types import StopReason
from jaxrl.update.batch import SFTBatch
from jaxrl.update.step import make_score_fn
from tests.tiny import one_device, policy_and_trees, ragged_sequences

POLICY, TRAINABLE, FROZEN = policy_and_trees()
PROMPTS = ragged_sequences(6, seed=3)
KEY = jax.random.key(4)
SETTINGS = {"temperature": 0.7, "max_new_tokens": 10, "max_prompt_tokens": 16, "slots": 64, "window": 4}


def letters(ids):
    return "".join(chr(48 + i) for i in ids)


def make_engine(eos=(), mesh=None, **changes):
    policy, sample = dataclasses.replace(POLICY, mesh=mesh), SampleSection(**{**SETTINGS, **changes})
    return Engine(policy, sample, eos, letters, mesh or one_device())


def requests_for(prompts, num_samples=2, first=0):
    return [Request(prompt, 100 + first + i, num_samples) for i, prompt in enumerate(prompts)]


def completions(engine, requests, key=KEY, trainable=TRAINABLE, frozen=FROZEN):
    """(request, index) -> completion, each exactly once."""
    found = {}
    for sampled in engine.run(trainable, frozen, requests, key):
        assert (sampled.request, sampled.index) not in found
        found[sampled.request, sampled.index] = sampled.completion
    assert set(found) == {(r, i) for r, request in enumerate(requests) for i in range(request.num_samples)}
    return found


def ids_of(found):
    return {place: completion.completion_ids for place, completion in found.items()}


@pytest.fixture(scope="module")
def plain():
    """What the settings above give for all prompts, two samples each: what the other runs are compared
    with.
    """
    return completions(make_engine(), requests_for(PROMPTS))


def assert_same_completions(found, expected):
    assert ids_of(found) == ids_of(expected)
    for place, completion in found.items():
        np.testing.assert_allclose(completion.sampler_logprobs, expected[place].sampler_logprobs, atol=1e-5)


@pytest.mark.parametrize("slots", [2, 4])
def test_the_number_of_slots_changes_nothing(plain, slots):
    assert_same_completions(completions(make_engine(slots=slots), requests_for(PROMPTS)), plain)


def test_alone_is_as_in_a_batch(plain):
    for number in (0, 3):
        alone = completions(make_engine(), requests_for([PROMPTS[number]], first=number))
        assert_same_completions(alone, {(0, i): plain[number, i] for i in range(2)})


def test_the_order_of_the_requests_changes_nothing(plain):
    found = completions(make_engine(), requests_for(PROMPTS)[::-1])
    assert_same_completions({(5 - r, i): c for (r, i), c in found.items()}, plain)


@pytest.mark.parametrize("window", [1, 3, 9])
def test_windows_are_seamless(plain, window):
    assert_same_completions(completions(make_engine(window=window), requests_for(PROMPTS)), plain)


@pytest.mark.mesh
@pytest.mark.parametrize(
    "axes",
    [
        {"data": 2},
        {"fsdp": 4},
        {"tensor": 4},
        {"dcn_data": 2, "fsdp": 2},
        {"data": 2, "fsdp": 2, "tensor": 2},
    ],
)
def test_a_mesh_changes_nothing(axes, plain):
    mesh = make_mesh(MeshSection(**axes))
    trainable, frozen = (jax.device_put(tree, shardings_for(tree, mesh)) for tree in (TRAINABLE, FROZEN))
    found = completions(make_engine(mesh=mesh), requests_for(PROMPTS), trainable=trainable, frozen=frozen)
    assert_same_completions(found, plain)


@pytest.mark.parametrize("temperature", [0.7, 0.0])
def test_logprobs_are_those_of_the_trainer(plain, temperature):
    found = plain if temperature else completions(make_engine(temperature=0.0), requests_for(PROMPTS))
    rows = [(c.prompt_ids + c.completion_ids, len(c.prompt_ids), c.sampler_logprobs) for c in found.values()]
    tokens, segment_ids = np.zeros((1, len(rows), 24), np.int32), np.zeros((1, len(rows), 24), np.int32)
    for b, (ids, _, _) in enumerate(rows):
        tokens[0, b, : len(ids)], segment_ids[0, b, : len(ids)] = ids, 1
    positions = np.broadcast_to(np.arange(24, dtype=np.int32), tokens.shape)
    batch = shard_batch(SFTBatch(np.int32(1), tokens, positions, segment_ids, segment_ids > 0), one_device())
    scored = np.asarray(make_score_fn(POLICY, one_device(), temperature or 1.0)(TRAINABLE, FROZEN, batch))[0]
    for b, (ids, start, logprobs) in enumerate(rows):
        np.testing.assert_allclose(logprobs, scored[b, start : len(ids)], atol=1e-4)
        assert all(logprob < 0 for logprob in logprobs)


def test_samples_differ_by_index_uid_and_key_and_by_nothing_else(plain):
    prompt = [PROMPTS[0]]
    engine = make_engine()
    again = ids_of(completions(engine, requests_for(prompt)))
    assert again == {(0, i): plain[0, i].completion_ids for i in range(2)}
    assert again[0, 0] != again[0, 1]
    assert ids_of(completions(engine, requests_for(prompt, first=1)))[0, 0] != again[0, 0]
    assert ids_of(completions(engine, requests_for(prompt), key=jax.random.key(5)))[0, 0] != again[0, 0]
    # the first two stay what they were
    more = ids_of(completions(engine, requests_for(prompt, num_samples=5)))
    assert {place: more[place] for place in again} == again and len(
        {tuple(ids) for ids in more.values()}
    ) == 5


def test_greedy_is_the_likeliest_token_and_top_k_1_is_greedy():
    greedy = completions(make_engine(temperature=0.0), requests_for(PROMPTS))
    assert ids_of(completions(make_engine(top_k=1), requests_for(PROMPTS))) == ids_of(greedy)
    assert all(greedy[r, 0].completion_ids == greedy[r, 1].completion_ids for r in range(len(PROMPTS)))
    ids = PROMPTS[0] + greedy[0, 0].completion_ids
    tokens = np.array([ids])
    hidden = POLICY.apply(TRAINABLE, FROZEN, tokens, np.arange(len(ids))[None], np.ones_like(tokens))
    likeliest = np.asarray(POLICY.logits(TRAINABLE, FROZEN, hidden)).argmax(-1)[0]
    start = len(PROMPTS[0])
    assert likeliest[start - 1 : -1].tolist() == ids[start:]


def test_ids_that_no_token_has_are_never_drawn(plain):
    """And the logprobs remain those of the model, unless what is drawn is to be learnt from; every second
    sample is greedy.
    """
    assert any(i >= 20 for c in plain.values() for i in c.completion_ids)
    policy, sample = replace(POLICY, num_tokens=20), make_engine().sample
    greedy = sample.model_copy(update={"temperature": 0.0})
    requests = [Request(prompt, i, 2, sample=greedy if i % 2 else sample) for i, prompt in enumerate(PROMPTS)]
    told, recorded = (
        completions(Engine(policy, sample, (), letters, one_device(), records=records), requests)
        for records in (False, True)
    )
    assert ids_of(told) == ids_of(recorded) and all(i < 20 for c in told.values() for i in c.completion_ids)
    tokens = np.array(
        [c.prompt_ids + c.completion_ids + [0] * (30 - len(c.prompt_ids) - 10) for c in told.values()]
    )
    hidden = POLICY.apply(
        TRAINABLE, FROZEN, tokens, np.broadcast_to(np.arange(30), tokens.shape), np.ones_like(tokens)
    )
    for ((number, index), completion), logits in zip(
        told.items(), np.asarray(POLICY.logits(TRAINABLE, FROZEN, hidden), np.float64)
    ):
        start, said = len(completion.prompt_ids), np.array(completion.completion_ids)[:, None]
        scaled = logits[start - 1 : start + 9] / (1 if number % 2 else 0.7)
        chosen = np.take_along_axis(scaled, said, 1)[:, 0]
        np.testing.assert_allclose(
            completion.sampler_logprobs, chosen - np.log(np.exp(scaled).sum(-1)), atol=1e-4
        )
        among_tokens = 0 if number % 2 else chosen - np.log(np.exp(scaled[:, :20]).sum(-1))
        np.testing.assert_allclose(recorded[number, index].sampler_logprobs, among_tokens, atol=1e-4)
    assert all(c.excluded is None for c in (*told.values(), *recorded.values())), "nothing was filtered"
    with pytest.raises(InputError, match=r"sample.stop_ids \[20\] are outside the model's vocabulary, 0..19"):
        Engine(policy, SampleSection(**SETTINGS, stop_ids=(20,)), (), letters, one_device()).check(
            "prompt 0", Request([1], 0)
        )


def test_what_was_left_out_ends_where_a_stop_text_ends_the_completion():
    row = Row(0, 0, [1], (0, 0), SampleSection(stop=("ef",)), (), keep=False)
    row.take([49, 50, 51], [-1.0, -2.0, -3.0], ["a", "b", "c"], letters)
    assert row.stop_reason is None and row.excluded == ["a", "b", "c"]
    row.take([53, 54, 55, 56], [-4.0, -5.0, -6.0, -7.0], ["d", "e", "f", "g"], letters)
    completion = row.completion(letters)
    assert (completion.text, completion.completion_ids, completion.excluded) == (
        "abc",
        [49, 50, 51, 53, 54],
        ["a", "b", "c", "d", "e"],
    )


# ---------------------------------------------------------------------------------------------- where it ends


def test_max_tokens_are_never_exceeded(plain):
    assert all(len(c.completion_ids) == 10 and c.stop_reason is StopReason.MAX_TOKENS for c in plain.values())
    assert all(c.text == letters(c.completion_ids) and len(c.sampler_logprobs) == 10 for c in plain.values())
    one = completions(make_engine(max_new_tokens=1, window=1), requests_for(PROMPTS))
    assert ids_of(one) == {place: c.completion_ids[:1] for place, c in plain.items()}


def test_a_sampled_eos_ends_the_completion_and_belongs_to_it(plain):
    at_once, inside = plain[0, 0].completion_ids[0], plain[1, 0].completion_ids[5]
    at_the_limit, last = next(
        (place, c.completion_ids[9])
        for place, c in plain.items()
        if not {at_once, inside, c.completion_ids[9]} & set(c.completion_ids[:9])
    )
    eos = (at_once, inside, last)
    found = completions(make_engine(eos=eos), requests_for(PROMPTS))
    assert len(found[0, 0].completion_ids) == 1
    assert len(found[at_the_limit].completion_ids) == 10 and found[at_the_limit].stop_reason is StopReason.EOS
    reasons = set()
    for place, completion in found.items():
        whole = plain[place].completion_ids
        ends = [t for t, token in enumerate(whole) if token in eos]
        kept = whole[: ends[0] + 1] if ends else whole
        assert completion.completion_ids == kept
        np.testing.assert_allclose(
            completion.sampler_logprobs, plain[place].sampler_logprobs[: len(kept)], atol=1e-5
        )
        assert completion.stop_reason is (StopReason.EOS if ends else StopReason.MAX_TOKENS)
        assert completion.text == letters(kept[:-1] if ends else kept)
        reasons.add(completion.stop_reason)
    assert reasons == {StopReason.EOS, StopReason.MAX_TOKENS}


def test_a_stop_string_cuts_after_the_token_that_completes_it(plain):
    text = plain[0, 0].text
    stops = (text[2:4], plain[1, 1].text[6])  # one over two tokens and two windows, one of a single token
    found = completions(make_engine(stop=stops), requests_for(PROMPTS))
    for place, completion in found.items():
        whole = plain[place].text
        ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
        kept = min(ends, default=len(whole))
        assert completion.completion_ids == plain[place].completion_ids[:kept]
        assert len(completion.sampler_logprobs) == kept
        if ends:
            assert completion.stop_reason is StopReason.STOP_STRING
            assert not any(stop in completion.text for stop in stops) and whole.startswith(completion.text)
            assert len(completion.text) in {kept - len(stop) for stop in stops}
        else:
            assert completion.stop_reason is StopReason.MAX_TOKENS and completion.text == whole
    assert (
        found[0, 0].stop_reason is StopReason.STOP_STRING
        and found[1, 1].stop_reason is StopReason.STOP_STRING
    )


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "prompt, changes, reason",
    [
        ([], {}, "prompt 1 has no tokens"),
        ([1] * 17, {}, "prompt 1 has 17 tokens and sample.max_prompt_tokens is 16"),
        ([1, 64], {}, r"outside 0\.\.63"),
        ([1, -1], {}, r"outside 0\.\.63"),
        ([1, [2]], {}, r"outside 0\.\.63, or something that is none"),
        ([1, 2.0], {}, r"outside 0\.\.63, or something that is none"),
        ([1, None], {}, r"outside 0\.\.63, or something that is none"),
        (
            [1],
            {"stop_ids": (3, 64)},
            r"prompt 0: sample\.stop_ids \[64\] are outside the model's vocabulary, 0\.\.63",
        ),
        ([1] * 16, {"max_new_tokens": 4081}, "4096 positions"),
    ],
)
def test_a_prompt_that_cannot_be_completed_is_refused_before_anything_runs(prompt, changes, reason):
    with pytest.raises(InputError, match=reason):
        next(make_engine(**changes).run(TRAINABLE, FROZEN, [Request([1], 0), Request(prompt, 1)], KEY))


@pytest.mark.parametrize(
    "asked, reason",
    [
        ({"num_samples": 0}, "0 samples of uid 1 from index 0"),
        ({"uid": 2**32}, "a uid and indices of 32 bits"),
        ({"first_index": -1}, "from index -1"),
        ({"first_index": 2**32 - 1, "num_samples": 2}, "a uid and indices of 32 bits"),
        ({"sample": {"max_new_tokens": 0}}, "prompt 0: max_new_tokens: .*greater than or equal to 1"),
        ({"sample": {"top_p": 0.0}}, "prompt 0: top_p: .*greater than 0"),
        ({"sample": {"top_k": 2**31}}, "prompt 0: top_k: .*less than 2147483648"),
        ({"sample": {"stop": ("",)}}, "prompt 0: stop.0: .*at least 1 character"),
        ({"sample": {"stop_ids": (2**40,)}}, "outside the model's vocabulary"),
    ],
)
def test_a_request_that_no_config_may_make_is_refused(asked, reason):
    """`model_copy` checks nothing, so what a request brings along is looked at again."""
    engine = make_engine()
    if "sample" in asked:
        asked = {"sample": engine.sample.model_copy(update=asked["sample"])}
    with pytest.raises(InputError, match=reason):
        next(engine.run(TRAINABLE, FROZEN, [Request(**{"prompt_ids": [1], "uid": 1, **asked})], KEY))


def test_no_requests_give_no_completions():
    assert completions(make_engine(), []) == {}


# --------------------------------------------------------------------------------------------------- programs


def test_programs_are_compiled_once_per_shape(plain):
    engine = make_engine()
    completions(engine, requests_for(PROMPTS))
    before = Decoder.prefill._cache_size(), Decoder.window._cache_size()
    for seed in range(3):
        prompts = ragged_sequences(6, seed=seed)
        completions(make_engine(), requests_for(prompts), key=jax.random.key(seed))
    assert (Decoder.prefill._cache_size(), Decoder.window._cache_size()) == before


def test_length_buckets_by_hand():
    assert [length_bucket(n) for n in (1, 16, 17, 64, 65, 80, 81, 127, 128, 129, 161)] == [
        16,
        16,
        32,
        64,
        80,
        80,
        96,
        128,
        128,
        160,
        192,
    ]
    for n in range(1, 5000, 7):
        assert n <= length_bucket(n) <= max(16, 1.25 * n + 15) and length_bucket(n) % 16 == 0
