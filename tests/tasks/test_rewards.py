"""Rewards put together: a weighted sum by hand, and a user's function on top of a task's own verdict."""

import math
import re
from pathlib import Path

import pytest

from jaxrl.config.file import make_task_section
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.rewards import weighted
from jaxrl.types import Verdict
from jaxrl.verify.pool import VerifierPool

BRIEF = Path(__file__).resolve().parents[2] / "examples" / "brief.py"


def make(*overrides):
    return make_task(make_task_section("tiny", ["game=count", *overrides]))


def shaped_by(folder, body, *overrides):
    file = folder / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom jaxrl.types import Verdict\ndef reward(problem, text,"
        f" verdict):\n    {body}\n"
    )
    return make(f"reward={file}", *overrides)


def judge(task, text, ask="3"):
    """In a verifier process."""
    problem = task.problem({"prompt": "say", "ask": ask})
    with VerifierPool(task.verify, 1, 10.0, task.failure_reward) as pool:
        (verdict,) = pool.gather([pool.submit(problem, text)])
    return verdict


def test_a_weighted_sum_by_hand():
    verdict = weighted(
        {"right": True, "words": 3, "fit": 0.5},
        {"right": 2.0, "words": -0.1, "fit": 1.0},
        correct=True,
        detail="so",
    )
    assert verdict == Verdict(pytest.approx(2.2), True, True, {"right": 1.0, "words": 3.0, "fit": 0.5}, "so")
    assert weighted({}, {}, correct=False, format_ok=False) == Verdict(0.0, False, False)


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "x": 1.0}])
def test_a_part_without_a_weight_is_an_error(weights):
    with pytest.raises(
        ValueError, match=r"the parts are \['a', 'b'\] and the weights .*; give each part its weight"
    ):
        weighted({"a": 1.0, "b": 1.0}, weights, correct=True)


def test_the_example():
    assert judge(make(f"reward={BRIEF}"), "tick tick tick") == Verdict(
        0.97, True, True, {"task": 1.0, "words": 3.0}
    )
    assert judge(make(f"reward={BRIEF}:reward"), "tick").reward == pytest.approx(0.5 - 0.01)


def test_a_number_sets_the_reward_and_leaves_the_rest(tmp_path):
    plain = judge(make(), "tick tick")
    verdict = judge(shaped_by(tmp_path, "return 10 * verdict.reward + len(text)"), "tick tick")
    assert verdict == Verdict(
        7.5 + 9, plain.correct, plain.format_ok, plain.parts | {"task": 0.75}, plain.detail
    )


def test_a_verdict_replaces_the_tasks(tmp_path):
    assert judge(shaped_by(tmp_path, "return Verdict(2.0, True, True)"), "nothing") == Verdict(
        2.0, True, True
    )


@pytest.mark.parametrize(
    "body, error",
    [
        ("return 'much'", r"ValueError: .*mine.py returned 'much', neither a number nor a Verdict"),
        ("return None", r"TypeError: .*mine.py returned None, neither a number nor a Verdict"),
        ("1 / 0", r"ZeroDivisionError: .* \(mine.py, line 4\)"),
    ],
)
def test_what_is_no_reward_is_an_error_of_the_sample(tmp_path, body, error):
    verdict = judge(shaped_by(tmp_path, body, "failure_reward=-7.0"), "tick")
    assert re.fullmatch(f"exception: {error}", verdict.error) and verdict.reward == -7.0


def test_without_a_verdict_there_is_nothing_to_shape(tmp_path):
    task = shaped_by(tmp_path, "return 5.0")
    missing = Verdict(math.nan, False, False, error="sandbox: no memory")
    task.verify.verify = lambda problem, text: missing
    assert task.verify(None, "") is missing


def test_the_tasks_failure_reward_can_be_set_and_is_the_tasks_own_if_not():
    assert (make().failure_reward, make("failure_reward=-3.5").failure_reward, make().failure_reward) == (
        -1.0,
        -3.5,
        -1.0,
    )


def test_files_and_functions_that_are_not_there():
    with pytest.raises(InputError, match="none.py is not a Python file"):
        make("reward=none.py")
    with pytest.raises(InputError, match="brief.py has no 'rewrad'"):
        make(f"reward={BRIEF}:rewrad")


@pytest.mark.parametrize(
    "arguments", ["completions, **kwargs", "prompts, completions, **kwargs", "problem, text, *, x"]
)
def test_a_function_with_other_arguments_is_refused_before_anything_is_sampled(tmp_path, arguments):
    (tmp_path / "theirs.py").write_text(f"def reward({arguments}): return [1.0]")
    with pytest.raises(
        InputError, match=r"theirs.py: its arguments are \(.*as reward\(problem, text, verdict\)"
    ):
        make(f"reward={tmp_path / 'theirs.py'}")
