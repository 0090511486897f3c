"""Collecting: groups in the order of the problems, every verdict beside the text that it is about."""

import dataclasses
import zlib

import jax
import pytest

from jaxrl.config.shared import SampleSection
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.rollout.collect import collect
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.types import Problem, StopReason
from jaxrl.verify.pool import VerifierPool
from tests.rollout import judge
from tests.tiny import CONFIG, one_device, policy_and_trees

KEY = jax.random.key(1)
G = 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["red green blue"])


@pytest.fixture(scope="module")
def engine_and_trees(tokenizer):
    policy, trainable, frozen = policy_and_trees(None, dataclasses.replace(CONFIG, vocab_size=len(tokenizer)))
    # 15 rows: two batches, groups that lie in both
    sample = SampleSection(max_new_tokens=6, window=3, slots=8)
    return (
        Engine(policy, sample, (tokenizer.eos_token_id,), tokenizer.decode, one_device()),
        trainable,
        frozen,
    )


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(judge.verify, workers=2, timeout_s=30.0, failure_reward=-2.0) as pool:
        yield pool


def problem(number):
    return Problem(
        f"p{number}",
        ({"role": "user", "content": ("red", "green", "blue")[number % 3] * (number + 1)},),
        {"n": number},
    )


PROBLEMS = [problem(number) for number in range(5)]


@pytest.fixture(scope="module")
def groups(engine_and_trees, pool, tokenizer):
    engine, trainable, frozen = engine_and_trees
    return collect(engine, pool, tokenizer, PROBLEMS, G, trainable, frozen, KEY, policy_version=7)


def test_groups_are_complete_and_in_order(groups, tokenizer):
    assert [group.problem for group in groups] == PROBLEMS
    for group in groups:
        assert len(group.trajectories) == G
        for trajectory in group.trajectories:
            assert trajectory.problem is group.problem and trajectory.policy_version == 7
            assert trajectory.rows[0].prompt_ids == render_for_sampling(tokenizer, group.problem.messages)


def test_a_verdict_belongs_to_its_text(groups):
    failed = 0
    for trajectory in (t for group in groups for t in group.trajectories):
        about = f"{trajectory.problem.uid}/{trajectory.rows[0].text}"
        number = zlib.crc32(about.encode())
        if number % 5 == 0:
            assert (
                trajectory.verdict.error.startswith("exception: ValueError")
                and trajectory.verdict.reward == -2.0
            )
            failed += 1
        else:
            assert (trajectory.verdict.detail, trajectory.verdict.reward) == (about, number % 97)
    assert failed < len(PROBLEMS) * G


def test_completions_are_those_of_the_engine(groups, engine_and_trees, tokenizer):
    engine, trainable, frozen = engine_and_trees
    requests = [
        Request(render_for_sampling(tokenizer, p.messages), zlib.crc32(p.uid.encode()), G) for p in PROBLEMS
    ]
    for sampled in engine.run(trainable, frozen, requests, KEY):
        assert groups[sampled.request].trajectories[sampled.index].rows == [sampled.completion]
    texts = {t.rows[0].text for group in groups for t in group.trajectories}
    assert len(texts) > G  # samples differ
    for completion in (t.rows[0] for group in groups for t in group.trajectories):
        spoken = (
            completion.completion_ids[:-1]
            if completion.stop_reason is StopReason.EOS
            else completion.completion_ids
        )
        assert completion.text == tokenizer.decode(spoken)


def test_a_trajectory_does_not_depend_on_the_other_problems(groups, engine_and_trees, pool, tokenizer):
    engine, trainable, frozen = engine_and_trees
    chosen = [PROBLEMS[3], PROBLEMS[1]]
    again = collect(engine, pool, tokenizer, chosen, 2, trainable, frozen, KEY, policy_version=0)
    for group, before in zip(again, (groups[3], groups[1]), strict=True):
        for trajectory, earlier in zip(group.trajectories, before.trajectories):
            assert trajectory.rows[0].completion_ids == earlier.rows[0].completion_ids
            assert trajectory.verdict == earlier.verdict


def test_no_problems_give_no_groups(engine_and_trees, pool, tokenizer):
    engine, trainable, frozen = engine_and_trees
    assert collect(engine, pool, tokenizer, [], G, trainable, frozen, KEY, 0) == []


def test_a_problem_that_comes_again_in_a_batch_goes_on_with_its_samples(engine_and_trees, pool, tokenizer):
    """Its groups are the samples 0 .. G - 1 and G .. 2 G - 1 of one stream."""
    engine, trainable, frozen = engine_and_trees
    twice = collect(
        engine, pool, tokenizer, [PROBLEMS[0], PROBLEMS[1], PROBLEMS[0]], G, trainable, frozen, KEY, 0
    )
    prompt_ids = render_for_sampling(tokenizer, PROBLEMS[0].messages)
    stream = engine.run(
        trainable, frozen, [Request(prompt_ids, zlib.crc32(PROBLEMS[0].uid.encode()), 2 * G)], KEY
    )
    expected = {sampled.index: sampled.completion.completion_ids for sampled in stream}
    found = [t.rows[0].completion_ids for group in (twice[0], twice[2]) for t in group.trajectories]
    assert found == [expected[index] for index in range(2 * G)]
