"""Episodes: what is sampled and what worlds answer, turn by turn, whatever the order in which they do."""

import dataclasses
import zlib

import jax
import numpy as np
import pytest

from jaxrl.config.shared import SampleSection
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.tokenizer import CHATML, train_tokenizer
from jaxrl.envs.base import StepResult
from jaxrl.envs.pool import EnvironmentPool
from jaxrl.rollout.collate import make_sample
from jaxrl.rollout.collect import collect
from jaxrl.rollout.episodes import Limits, episode_verdict, play
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.types import StopReason
from jaxrl.verify.pool import VerifierPool
from tests.rollout import judge
from tests.rollout.worlds import Colours, OneTurn, problem
from tests.tiny import CONFIG, one_device, policy_and_trees

KEY = jax.random.key(1)
G = 3
LIMITS = Limits(context=120)
PROBLEMS = [problem(number) for number in range(5)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["red green blue"])


@pytest.fixture(scope="module")
def make_engine(tokenizer):
    """Every third token ends a turn, so that most of them end."""
    policy, *trees = policy_and_trees(None, dataclasses.replace(CONFIG, vocab_size=len(tokenizer)))
    settings = {"max_new_tokens": 6, "window": 3, "stop_ids": tuple(range(0, len(tokenizer), 3))}

    def make(**changes):
        sample = SampleSection(**settings | changes)
        return Engine(policy, sample, (tokenizer.eos_token_id,), tokenizer.decode, one_device()), *trees

    return make


def played(engine_and_trees, tokenizer, world, limits=LIMITS, problems=PROBLEMS, group_size=G):
    engine, trainable, frozen = engine_and_trees
    with EnvironmentPool(world, workers=2, timeout_s=60.0) as pool:
        return play(engine, pool, tokenizer, problems, group_size, trainable, frozen, KEY, 7, limits)


@pytest.fixture(scope="module")
def groups(make_engine, tokenizer):
    return played(make_engine(), tokenizer, Colours())


def episodes(groups):
    return [(t, i) for group in groups for i, t in enumerate(group.trajectories)]


def ids_of_turns(trajectory):
    return [
        (turn.completion.prompt_ids, turn.completion.completion_ids, turn.reward, turn.observation)
        for turn in trajectory.turns
    ]


def ids_of(groups):
    return [ids_of_turns(t) for t, _ in episodes(groups)]


def test_groups_are_complete_and_in_order(groups):
    assert [group.problem for group in groups] == PROBLEMS
    assert {(len(group.trajectories), t.policy_version) for group in groups for t in group.trajectories} == {
        (G, 7)
    }
    assert {len(t.turns) for t, _ in episodes(groups)} == {1, 2, 3}, "no case"
    assert {t.stop_reason for t, _ in episodes(groups)} == {StopReason.ENV_DONE, StopReason.MAX_TOKENS}
    for t, _ in episodes(groups):
        was_cut = t.turns[-1].completion.stop_reason is StopReason.MAX_TOKENS
        assert t.is_cut == was_cut == (t.stop_reason is StopReason.MAX_TOKENS)


def test_an_episode_replayed_from_its_tokens_gives_the_same_prompts_rewards_and_masks(groups, tokenizer):
    for t, _ in episodes(groups):
        environment = Colours().environment(t.problem)
        text = tokenizer.apply_chat_template(environment.start(), tokenize=False, add_generation_prompt=True)
        rewards, mask, ids = [], [], tokenizer(text, add_special_tokens=False)["input_ids"]
        mask += [False] * len(ids)
        for turn in t.turns:
            assert turn.completion.prompt_ids == ids
            result = environment.step(turn.completion.text)
            rewards.append(result.reward)
            ids, mask = (
                ids + turn.completion.completion_ids,
                mask + [True] * len(turn.completion.completion_ids),
            )
            observed = (
                f"<|im_end|>\n<|im_start|>user\n{result.observation}<|im_end|>\n<|im_start|>assistant\n"
            )
            if turn.completion.completion_ids[-1] == tokenizer.eos_token_id:
                observed = observed.removeprefix("<|im_end|>")
            more = tokenizer(observed, add_special_tokens=False)["input_ids"]
            ids, mask = ids + more, mask + [False] * len(more)
        (row,) = t.rows
        sample = make_sample(row)
        n = len(sample.tokens)
        assert sample.tokens.tolist() == ids[:n] and sample.completion_mask.tolist() == mask[:n]
        assert not any(mask[n:])
        assert [turn.reward for turn in t.turns] == rewards and t.verdict.reward == sum(rewards)


def test_a_turn_is_what_the_sampler_says_to_its_prompt_alone(groups, make_engine):
    """By (key, uid, index) and the place of its tokens: no cache, no other row, no world has a part in it."""
    engine, trainable, frozen = make_engine()
    for t, index in episodes(groups)[::2]:
        for turn in t.turns:
            uid = zlib.crc32(t.problem.uid.encode())
            request = Request(turn.completion.prompt_ids, uid, first_index=index)
            (sampled,) = engine.run(trainable, frozen, [request], KEY)
            assert sampled.completion.completion_ids == turn.completion.completion_ids
            np.testing.assert_allclose(
                sampled.completion.sampler_logprobs, turn.completion.sampler_logprobs, atol=1e-5
            )


def test_later_turns_go_on_from_the_caches_of_their_rows(make_engine, tokenizer):
    engine, *trees = make_engine()
    groups = played((engine, *trees), tokenizer, Colours())
    later = sum(len(t.turns) - 1 for t, _ in episodes(groups))
    assert engine.counts["continued"] == later > 10 and engine.counts["prefilled"] == len(PROBLEMS)
    reused = sum(
        len(turn.completion.prompt_ids) + len(turn.completion.completion_ids) - 1
        for t, _ in episodes(groups)
        for turn in t.turns[:-1]
    )
    assert engine.counts["reused"] == reused


@pytest.mark.parametrize("changes, delays", [({}, (0.0, 0.3, 0.1)), ({"slots": 4}, (0.1, 0.0))])
def test_the_order_of_answers_and_the_room_for_rows_change_nothing(
    groups, make_engine, tokenizer, changes, delays
):
    again = played(make_engine(**changes), tokenizer, Colours(delays=delays))
    assert ids_of(again) == ids_of(groups)
    assert [t.verdict for t, _ in episodes(again)] == [t.verdict for t, _ in episodes(groups)]
    for (one, _), (other, _) in zip(episodes(groups), episodes(again)):
        for a, b in zip(one.turns, other.turns):
            np.testing.assert_allclose(
                a.completion.sampler_logprobs, b.completion.sampler_logprobs, atol=1e-5
            )


def test_a_task_is_a_world_of_one_turn(make_engine, tokenizer):
    """Bit by bit, but for the name of what ended it."""
    engine, trainable, frozen = make_engine(slots=8)
    arguments = (tokenizer, [*PROBLEMS, PROBLEMS[0]], G, trainable, frozen, KEY, 7)
    with VerifierPool(judge.verify, workers=1, timeout_s=60.0, failure_reward=-2.0) as pool:
        expected = collect(engine, pool, *arguments)
    with EnvironmentPool(OneTurn(judge.verify, -2.0), workers=1, timeout_s=60.0) as pool:
        found = play(engine, pool, *arguments, Limits(context=120, max_turns=1))
    for (one, _), (other, _) in zip(episodes(expected), episodes(found), strict=True):
        assert other.is_cut == one.is_cut and other.turns[0].observation == one.verdict.detail
        turns = (dataclasses.replace(other.turns[0], observation=""),)
        assert dataclasses.replace(other, turns=turns, ended=None) == one


def test_a_world_that_fails_costs_its_own_episode(groups, make_engine, tokenizer):
    again = played(make_engine(), tokenizer, Colours(crashes=(1, 2)))
    failed = 0
    for (one, _), (other, _) in zip(episodes(groups), episodes(again), strict=True):
        if one.problem.data["n"] in (1, 2) and len(one.turns) > 1:
            failed += 1
            assert other.verdict.error == "exception: RuntimeError: the world is broken"
            assert (other.verdict.reward, other.verdict.correct) == (-3.0, False)
            assert other.stop_reason is StopReason.FAILED and len(other.turns) == 2
            assert sum(turn.reward for turn in other.turns) == pytest.approx(-3.0)
            assert other.turns[0].reward == one.turns[0].reward
        else:
            assert other.verdict == one.verdict
    assert failed > 1


def test_turns_and_context_are_bounded(groups, make_engine, tokenizer):
    twice = played(make_engine(), tokenizer, Colours(), Limits(context=120, max_turns=2))
    short = played(make_engine(), tokenizer, Colours(), Limits(context=60))
    reasons = set()
    for (one, _), (two, _), (less, _) in zip(*map(episodes, (groups, twice, short)), strict=True):
        assert ids_of_turns(two) == ids_of_turns(one)[:2]
        assert ids_of_turns(less) == ids_of_turns(one)[: len(less.turns)]
        if len(one.turns) > 2:
            assert two.stop_reason is StopReason.MAX_TURNS and two.is_cut
            assert two.verdict.reward == sum(turn.reward for turn in two.turns)
        if len(less.turns) < len(one.turns):
            assert less.stop_reason is StopReason.CONTEXT_FULL and less.is_cut
            assert len(one.turns[len(less.turns)].completion.prompt_ids) + 6 > 60
        assert all(len(row.prompt_ids) + len(row.completion_ids) <= 60 for row in less.rows)
        reasons |= {two.stop_reason, less.stop_reason}
    assert {StopReason.MAX_TURNS, StopReason.CONTEXT_FULL} <= reasons, "no case"


def test_a_template_that_takes_back_begins_rows_with_noise_of_their_own(make_engine, tokenizer):
    forgetful = train_tokenizer(["red green blue"])
    forgetful.chat_template = CHATML.replace(
        "{{ message['content'] }}",
        "{{ message['content'] if loop.last or message['role'] == 'user' else 'red' }}",
    )
    one_row = played(make_engine(), forgetful, Colours(), Limits(context=120, rows=1))
    assert all(len(t.turns) == 1 for t, _ in episodes(one_row))
    assert {t.stop_reason for t, _ in episodes(one_row)} >= {StopReason.CONTEXT_FULL}
    engine, trainable, frozen = make_engine()
    groups = played((engine, trainable, frozen), forgetful, Colours(), Limits(context=120, rows=3))
    assert {len(t.rows) for t, _ in episodes(groups)} == {1, 2, 3}
    assert all(len(t.rows) == len(t.turns) for t, _ in episodes(groups))
    for t, index in episodes(groups)[::3]:
        for r, row in enumerate(t.rows):
            uid = zlib.crc32((t.problem.uid if r == 0 else f"{t.problem.uid}/{r}").encode())
            (sampled,) = engine.run(trainable, frozen, [Request(row.prompt_ids, uid, first_index=index)], KEY)
            assert sampled.completion.completion_ids == row.completion_ids


def test_what_is_said_of_a_whole_episode():
    steps = [
        StepResult("a", 1.0, metrics={"parse_errors": 1.0, "x": 2.0}),
        StepResult("b", 0.5, True, "env_done", {"parse_errors": 0.0, "x": 1.0, "success": 1.0}),
    ]
    verdict = episode_verdict(steps, StopReason.ENV_DONE, None, -1.0)
    assert (verdict.reward, verdict.correct, verdict.format_ok) == (1.5, True, False)
    assert (verdict.parts, verdict.detail) == ({"parse_errors": 1.0, "x": 3.0}, "b")
    silent = [dataclasses.replace(step, metrics={}) for step in steps]
    assert episode_verdict(silent, StopReason.ENV_DONE, None, -1.0).correct
    assert not episode_verdict(silent, StopReason.MAX_TURNS, None, -1.0).correct


def test_prompts_are_those_of_the_problems(groups, tokenizer):
    for t, _ in episodes(groups):
        assert t.turns[0].completion.prompt_ids == render_for_sampling(tokenizer, t.problem.messages)
