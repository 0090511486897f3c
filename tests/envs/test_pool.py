"""The environment pool's promises: one answer for each turn, one episode lost for each misdeed, the others
brought back as they were.
"""

import os
import re
import time

import pytest

from jaxrl.envs.pool import EnvironmentPool
from jaxrl.errors import InputError
from jaxrl.types import Verdict
from tests.envs.strange import OtherMessages, Strange, problem

MISDEEDS = {
    "exit": r"crash: exit code 3",
    "segv": r"crash: killed by SIG(SEGV|BUS)",
    "raise": r"exception: RuntimeError: broken",
    "nan": r"exception: ValueError: reward is nan, not a finite number.*",
    "dict": r"exception: TypeError: step returned dict, not StepResult",
    "done tired": r"exception: ValueError: 'tired' is not a valid StopReason",
}


def make_pool(world=None, workers=2, timeout_s=60.0, **settings):
    return EnvironmentPool(world or Strange(), workers, timeout_s, **settings)


def play(pool, scripts):
    """Play scripts side by side: {number: its answers}, by the order of the scripts."""
    numbers = [pool.begin(problem(n)) for n in range(len(scripts))]
    left = {number: list(texts) for number, texts in zip(numbers, scripts)}
    answers = {number: [] for number in numbers}
    for number in numbers:
        pool.step(number, left[number].pop(0))
    while came := pool.wait():
        for answer in came:
            answers[answer.episode].append(answer)
            if answer.error is None and not answer.result.done:
                if left[answer.episode]:
                    pool.step(answer.episode, left[answer.episode].pop(0))
                else:
                    pool.end(answer.episode)
    return [answers[number] for number in numbers]


def observed(n, texts):
    """What `Strange` answers to texts that do nothing."""
    return [f"{n}: {texts[: i + 1]}" for i in range(len(texts))]


def test_every_turn_has_its_answer():
    scripts = [[f"a{n}", "b", "cc", "done"] for n in range(40)]
    with make_pool() as pool:
        for n, answers in enumerate(play(pool, scripts)):
            assert [a.result.observation for a in answers] == observed(n, scripts[n])
            assert [a.result.reward for a in answers] == [len(text) for text in scripts[n]]
            assert (answers[-1].result.done, answers[-1].result.stop_reason) == (True, "env_done")
        assert pool.counts == dict.fromkeys(pool.counts, 0) and not pool._episodes
        assert sum(pool._living.values()) == 0


def test_a_misdeed_costs_its_own_episode_and_the_others_go_on_as_they_were():
    names = list(MISDEEDS)
    scripts = [["a", "sleep 0.01", names[n // 4] if n % 4 == 2 else "b", "c", "done"] for n in range(24)]
    with make_pool() as pool:
        for n, answers in enumerate(play(pool, scripts)):
            if n % 4 == 2:
                assert [a.error for a in answers[:-1]] == [None, None] and answers[-1].result is None
                assert re.fullmatch(MISDEEDS[names[n // 4]], answers[-1].error), answers[-1]
            else:
                assert [a.error for a in answers] == [None] * 5, answers
                assert [a.result.observation for a in answers] == observed(n, scripts[n])
        assert (pool.counts["crashes"], pool.counts["exceptions"], pool.counts["timeouts"]) == (2, 4, 0)
        assert pool.counts["brought_back"] > 0, "no case"


@pytest.mark.parametrize("misdeed", ["hang", "block"])
def test_what_never_ends_times_out_alone(misdeed):
    """`block` holds all threads of its process up, so that others are overdue with it."""
    scripts = [["a", misdeed if n == 3 else "b", "done"] for n in range(8)]
    with make_pool(workers=1, timeout_s=1.5) as pool:
        for n, answers in enumerate(play(pool, scripts)):
            errors = [a.error for a in answers]
            assert errors == ([None, "timeout"] if n == 3 else [None] * 3), (n, errors)
        assert pool.counts["timeouts"] == 1


def test_a_world_that_is_not_its_problems_alone_is_noticed(tmp_path):
    """Its worker dies once; the other episode of the worker was told that worker's number."""
    with make_pool(workers=1) as pool:
        first, second = pool.begin(problem(0)), pool.begin(problem(1))
        pool.step(first, "pid")
        (answer,) = pool.wait()
        pool.step(second, f"once {tmp_path / 'f'}")
        assert [a.error for a in pool.wait()] == ["crash: exit code 4"]
        pool.step(first, "b")
        (after,) = pool.wait()
        assert answer.error is None and "answers otherwise when the same turns are played" in after.error


def test_who_is_in_question_is_tried_again_alone(tmp_path):
    """A worker that dies once with several turns under way costs nobody anything."""
    scripts = [["sleep 0.3", "done"], [f"once {tmp_path / 'f'}", "done"], ["sleep 0.3", "done"]]
    with make_pool(workers=1) as pool:
        for n, answers in enumerate(play(pool, scripts)):
            assert [a.result.observation for a in answers] == observed(n, scripts[n])
        assert (tmp_path / "f").exists() and pool.counts["crashes"] == 0


def test_what_episodes_share_ends_with_the_one_to_blame_alone(tmp_path):
    """Others that had a part in it are brought back; so is one whose own fault comes once."""
    for machine, counts in (("always", 1), (str(tmp_path / "f"), 0)):
        scripts = [["a", f"machine {machine}", "done"], ["a", "sleep 0.2", "b", "done"], ["a", "b", "done"]]
        with make_pool(workers=1) as pool:
            first, *others = play(pool, scripts)
            error = "exception: WorldError: the machine has ended" if counts else None
            assert first[1].error == error and len(first) == (2 if counts else 3)
            for n, answers in enumerate(others, start=1):
                assert [a.result.observation for a in answers] == observed(n, scripts[n])
            assert pool.counts["exceptions"] == counts and pool.counts["brought_back"] > 0


def test_a_start_that_the_policy_has_not_read_is_an_error():
    with make_pool(OtherMessages(), workers=1) as pool:
        number = pool.begin(problem(0))
        pool.step(number, "a")
        (answer,) = pool.wait()
        assert "`start` does not return the problem's messages" in answer.error


def test_as_many_turns_and_episodes_at_once_as_the_world_allows():
    for limits, most in (({"turns_at_once": 1}, 1), ({"turns_at_once": 3}, 3), ({"episodes_at_once": 2}, 2)):
        with make_pool(Strange(**limits), workers=1) as pool:
            numbers = [pool.begin(problem(n)) for n in range(6)]
            for number in numbers:
                pool.step(number, "sleep 0.02")
            count = 0
            while came := pool.wait():
                assert len(pool._workers.processes[0].requests) <= most
                for answer in came:
                    count += answer.error is None
                    pool.end(answer.episode)
            assert count == 6


def test_a_batch_has_a_deadline():
    with make_pool(workers=1) as pool:
        slow, quick = pool.begin(problem(0)), pool.begin(problem(1))
        pool.step(slow, "hang")
        pool.step(quick, "a")
        assert [a.episode for a in pool.wait()] == [quick]
        assert pool.wait(until=time.monotonic() + 0.05) == []
        pool.give_up()
        assert [(a.episode, a.error) for a in pool.poll()] == [(slow, "timeout: the batch's")]
        pool.step(quick, "done")
        (answer,) = pool.wait()
        assert answer.result.observation == "1: ['a', 'done']"


def test_workers_see_no_secrets_but_those_that_are_named(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "tok-12345")
    monkeypatch.setenv("OTHER_TOKEN", "tok-67890")
    with make_pool(workers=1, pass_env=("MY_TOKEN",)) as pool:
        ((answer,), (other,)) = play(pool, [["secret MY_TOKEN"], ["secret OTHER_TOKEN"]])
    assert (answer.result.observation, other.result.observation) == ("[MY_TOKEN]", "None")


def test_workers_are_recycled_between_episodes():
    with make_pool(workers=1, recycle_after=2) as pool:
        pids = [play(pool, [["pid", "pid"]])[0] for _ in range(3)]
    assert all(first.result == second.result for first, second in pids)
    assert len({first.result.observation for first, _ in pids}) == 3


def test_workers_end_with_the_pool_and_closed_pools_say_so():
    with make_pool(workers=2) as pool:
        pids = [worker._process.pid for worker in pool._workers.processes]
        pool.step(pool.begin(problem(0)), "block")
        pool.poll()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        pool.begin(problem(0))


def test_worlds_that_cannot_be_sent_or_that_fail_too_often_are_one_clear_error():
    world = Strange(f=lambda: 0)
    with pytest.raises(
        InputError, match="world 'Strange' cannot be used in worker processes: it cannot be pickled"
    ):
        make_pool(world)
    with (
        make_pool(max_error_share=0.5) as pool,
        pytest.raises(InputError, match="75% of the last 64 samples"),
    ):
        pool.check([Verdict(-2.0, False, False, error="timeout" if n % 4 else None) for n in range(64)])
