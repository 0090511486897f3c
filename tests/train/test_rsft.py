"""Whole RSFT stages with a very small model: what they learn from, what they leave behind, and that stopping
them changes nothing.
"""

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from jaxrl.commands import run as run_module
from jaxrl.commands.run import run
from jaxrl.config.experiment import RSFTStage
from jaxrl.config.file import make_section, parse_yaml, validate_config
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupted
from jaxrl.rollout.winners import choose_winners, load_winners
from jaxrl.train import rsft as rsft_module
from jaxrl.train.rsft import problems_asked
from tests.docs_pages import undocumented_in
from tests.end_to_end.runs import lines
from tests.sample.watching import watch_decode_weights

SHARED = """
lora: {rank: 4, alpha: 8, dropout: 0.1}
task:
  {name: knowledge_graph, entities: 24, relations: 4, letters: fixed, hops: [1], eval_hops: [2], train: 60,
   val: 0, test: 16}
sample: {max_prompt_tokens: 48, max_new_tokens: 12, slots: 64, window: 4}
verify: {workers: 1}
"""
BASE = """
name: base
model: {architecture: {d_model: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, d_ff: 64}}
stages: [{kind: sft, lora: null, steps: 40, rows: 16, seq_len: 64, optim: {learning_rate: 5.0e-3, b2: 0.98}}]
"""
RSFT = """
name: rsft
model: {path: BASE}
optim: {learning_rate: 3.0e-3, schedule: linear}
checkpoint: {every: 2}
stages:
  - {kind: rsft, iterations: 2, problems: 24, samples_per_problem: 4, epochs: 2, rows: 8, microbatch: 4,
     seq_len: 64}
  - {kind: eval, name: after, sample: {temperature: 0}}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """A model directory: the policy after a little SFT, right on about a quarter of the problems."""
    values = parse_yaml(BASE + SHARED) | {"runs_dir": str(tmp_path_factory.mktemp("base"))}
    return str(run(validate_config(values, "base"), io.StringIO()) / "model")


@pytest.fixture
def load(base, tmp_path):
    return lambda **changes: rsft_config(base, tmp_path, **changes)


def rsft_config(base: str, folder: Path, **changes):
    """The config above, with changes to its RSFT stage."""
    values = parse_yaml(RSFT.replace("BASE", base) + SHARED) | {"runs_dir": str(folder)}
    values["stages"][0] |= changes
    return validate_config(values, "rsft")


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed."""
    return run(rsft_config(base, tmp_path_factory.mktemp("whole")), io.StringIO())


def starts(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl that begin an iteration."""
    return [row for row in lines(folder, "metrics.jsonl") if "rsft/iteration" in row]


# ----------------------------------------------------------------------------------------------- what it does


def test_every_metric_is_explained_in_docs(whole):
    assert undocumented_in(whole) == set()


def test_every_iteration_trains_on_its_winners_and_says_so(whole):
    rows, first_rows = lines(whole, "metrics.jsonl"), starts(whole)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["rsft/iteration"] for row in first_rows] == [1, 2] and first_rows[0]["step"] == 1
    for i, row in enumerate(first_rows, start=1):
        winners, statistics = load_winners(whole / "checkpoints" / "0_rsft_winners" / f"{i}.jsonl")
        assert (
            statistics.asked == row["rsft/problems_asked"] <= 24
            and statistics.sampled == 4 * statistics.asked
        )
        assert len(winners) == row["rsft/winners"] == row["rsft/problems_solved"] > 0  # keep_top is 1
        assert row["rsft/reward_kept"] > row["reward/mean"] == statistics.reward_sampled
        assert row["sample/accuracy"] == statistics.correct / statistics.sampled
        assert all(winner.sample["correct"] and winner.sample["stop_reason"] == "eos" for winner in winners)
        assert {winner.sample["policy_version"] for winner in winners} == {row["step"] - 1}
        shown = [
            sample
            for sample in lines(whole, "samples.jsonl")
            if (sample["stage"], sample["step"]) == ("rsft", row["step"])
        ]
        assert [{"stage": "rsft", "step": row["step"], **winner.sample} for winner in winners[:16]] == shown


def test_every_iteration_has_a_schedule_of_its_own(whole):
    rates = [row["learning_rate"] for row in lines(whole, "metrics.jsonl")]
    second = starts(whole)[1]["step"] - 1
    for own in (rates[:second], rates[second:]):
        np.testing.assert_allclose(own, 3e-3 * np.linspace(1, 0, len(own) + 1)[:-1], rtol=1e-5)


def test_what_is_trained_on_are_the_ids_that_were_sampled(load, monkeypatch):
    seen = []
    fine_tune = rsft_module.fine_tune
    monkeypatch.setattr(
        rsft_module,
        "fine_tune",
        lambda step, state, frozen, rows, *rest: (
            seen.append(rows) or fine_tune(step, state, frozen, rows, *rest)
        ),
    )
    folder = run(load(iterations=1, epochs=1, packing=False), io.StringIO())
    winners, _ = load_winners(folder / "checkpoints" / "0_rsft_winners" / "1.jsonl")
    prompts_and_completions = {(tuple(winner.prompt_ids), tuple(winner.completion_ids)) for winner in winners}
    trained = set()
    for tokens, segments, mask in (
        (r.tokens[i], r.segment_ids[i], r.loss_mask[i]) for r in seen for i in range(len(r))
    ):
        trained.add((tuple(tokens[(segments > 0) & ~mask].tolist()), tuple(tokens[mask].tolist())))
    assert trained == prompts_and_completions


def test_given_steps_are_those_of_each_iteration(load):
    folder = run(load(steps=3), io.StringIO())
    assert [row["step"] for row in starts(folder)] == [1, 4] and len(lines(folder, "metrics.jsonl")) == 6


def test_the_base_can_be_trained_whole(load, monkeypatch):
    """With the memory of one model: what the sampler has made of it is gone when it is updated."""
    fine_tune, made = rsft_module.fine_tune, watch_decode_weights(monkeypatch)

    def watched(*args):
        assert made and all(weights() is None for weights in made)
        return fine_tune(*args)

    monkeypatch.setattr(rsft_module, "fine_tune", watched)
    folder = run(load(lora=None, iterations=1, steps=2), io.StringIO())
    assert (folder / "model" / "config.json").is_file() and not (folder / "adapter").exists()


def test_problems_of_an_iteration():
    problems = list(range(10))  # any objects will do
    section = {"name": "knowledge_graph"}

    def asked(count, iteration):
        return problems_asked(
            problems,
            make_section(RSFTStage, "test", kind="rsft", task=section, problems=count),
            seed=1,
            iteration=iteration,
        )

    assert asked(None, 0) == asked(None, 7) == problems
    assert sorted(asked(5, 0) + asked(5, 1)) == problems  # the permutation goes on
    for iteration in range(5):
        assert len(asked(7, iteration)) == len(set(asked(7, iteration)))


def test_it_learns_from_its_own_answers_what_no_demonstration_showed(tmp_path):
    """`echo` with demonstrations of random letters: SFT leaves the policy at chance, 1/8, its own correct
    answers teach the rest.
    """
    text = """
    name: echo
    model: {architecture: {d_model: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2, d_ff: 128}}
    task: {name: tiny, game: echo, train: 512, test: 128}
    sample: {max_prompt_tokens: 32, max_new_tokens: 6, slots: 256, window: 3}
    optim: {learning_rate: 3.0e-3, b2: 0.98}
    verify: {workers: 1}
    stages:
      - {kind: sft, steps: 60, rows: 32, seq_len: 32}
      - {kind: eval, name: before}
      - {kind: rsft, iterations: 2, steps: 60, rows: 16, seq_len: 64, optim: {schedule: cosine}}
      - {kind: eval, name: after}
    """
    folder = run(validate_config(parse_yaml(text) | {"runs_dir": str(tmp_path)}, "echo"), io.StringIO())
    accuracy = {row["name"]: row["accuracy"] for row in json.loads((folder / "eval.json").read_text())}
    assert accuracy["before"] < 0.3 and accuracy["after"] > 0.9


# ----------------------------------------------------------------------------------------------- few and none


def test_a_handful_of_winners_is_warned_of(load):
    stream = io.StringIO()
    run(load(problems=4, iterations=1, steps=1, samples_per_problem=8), stream)
    assert "rsft, iteration 1 of 1: only " in stream.getvalue() and "learnt by heart" in stream.getvalue()
    assert "winners for" in stream.getvalue() and "of 32 completions were correct" in stream.getvalue()


def nobody_wins(monkeypatch, iterations: set[int]) -> list[int]:
    """Rig the choice in these iterations; returns the list of the choices that are asked for from now on."""
    calls = []

    def choose(groups, keep_top, min_reward):
        calls.append(len(calls))
        return choose_winners([] if calls[-1] in iterations else groups, keep_top, min_reward)

    monkeypatch.setattr(rsft_module, "choose_winners", choose)
    return calls


def test_an_iteration_without_winners_trains_nothing_and_the_run_goes_on(load, monkeypatch):
    choices = nobody_wins(monkeypatch, {0, 2})
    stream = io.StringIO()
    folder = run(load(iterations=3, steps=2), stream)
    assert stream.getvalue().count("no winner, so this iteration trains nothing") == 2
    assert [(row["step"], row.get("rsft/iteration")) for row in lines(folder, "metrics.jsonl")] == [
        (1, 2),
        (2, None),
    ]
    run(load(iterations=3, steps=2), io.StringIO())
    assert len(choices) == 3  # that nobody won is known: nothing was sampled again


def test_no_winners_at_all_is_an_error(load, monkeypatch):
    nobody_wins(monkeypatch, {0, 1})
    with pytest.raises(
        InputError,
        match="stage rsft: no completion won in 2 iteration.*nothing was trained; put a stage before it",
    ):
        run(load(), io.StringIO())


# -------------------------------------------------------------------------------------- stopping and going on


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it but the closing of files."""


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def kill() -> None:
    raise Killed


def at_step(patch, step: int, stop) -> None:
    log = run_module.RunLogger.log

    def log_then(self, stage, at, metrics):
        log(self, stage, at, metrics)
        if (stage, at) == ("rsft", step):
            stop()

    patch.setattr(run_module.RunLogger, "log", log_then)


def at_winners(patch, iteration: int, stop) -> None:
    save = rsft_module.save_winners

    def save_then(path, *what):
        save(path, *what)
        if path.stem == str(iteration):
            stop()

    patch.setattr(rsft_module, "save_winners", save_then)


STOPS = [
    ("step 1", ctrl_c),
    ("step 3", kill),
    ("end of iteration 1", ctrl_c),
    ("winners 2", kill),
    ("step 1", kill),
    ("step 3", ctrl_c),
    ("end of iteration 1", kill),
    ("winners 1", ctrl_c),
    ("winners 1", kill),
    ("winners 2", ctrl_c),
]


@pytest.mark.parametrize("where, stop", STOPS)
def test_interrupted_and_resumed_is_uninterrupted(where, stop, whole, load, tmp_path, monkeypatch):
    """A checkpoint every two steps, so that a kill after the third takes a step back."""
    config, number = load(), where.split()[-1]
    with monkeypatch.context() as patch:
        if where.startswith("winners"):
            at_winners(patch, int(number), stop)
        else:
            at_step(patch, starts(whole)[1]["step"] - 1 if where.startswith("end") else int(number), stop)
        with pytest.raises((Interrupted, Killed)):
            run(config, io.StringIO())
    assert not (tmp_path / "rsft" / "adapter").exists()
    folder = run(config, io.StringIO())
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(folder, name) == lines(whole, name)
    for name in (
        "adapter/adapter_model.safetensors",
        "eval.json",
        "checkpoints/0_rsft_winners/1.jsonl",
        "checkpoints/0_rsft_winners/2.jsonl",
    ):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_same_command_again_changes_nothing(whole, base):
    files = [
        path
        for path in whole.rglob("*")
        if path.is_file() and path.suffix in (".jsonl", ".json", ".safetensors", ".md", ".yaml")
    ]
    before = {path: path.read_bytes() for path in files}
    run(rsft_config(base, whole.parent), io.StringIO())
    assert [path for path in files if path.read_bytes() != before[path]] == []


def test_lost_winners_of_a_half_trained_iteration_are_named(load, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 1, ctrl_c)
        with pytest.raises(Interrupted):
            run(load(), io.StringIO())
    config = load()
    file = Path(config.runs_dir) / "rsft" / "checkpoints" / "0_rsft_winners" / "1.jsonl"
    file.unlink()
    with pytest.raises(InputError, match=r"1\.jsonl, which checkpoint 1 was trained on, is missing; delete"):
        run(config, io.StringIO())
