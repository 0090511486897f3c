"""An evaluation as a stage: a row of the table, and alarms that are in the stream before the row is."""

import io
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from jaxrl.config.file import parse_yaml, validate_config
from jaxrl.files.run_folder import RunFolder
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.tasks import make_task
from jaxrl.track.console import Console
from jaxrl.track.evaluations import row_from_verdicts
from jaxrl.track.logger import RunLogger
from jaxrl.train import evaluation as evaluation_module
from jaxrl.train.evaluation import evaluation
from jaxrl.types import Completion, StopReason, Trajectory, Verdict
from tests.tiny import policy_and_trees

CONFIG = """
name: tiny
model: {architecture: {d_model: 16, num_layers: 1, num_heads: 2, num_kv_heads: 1, d_ff: 32}}
task: {name: tiny, game: letter, test: 10}
stages:
  - {kind: eval, name: before}
  - {kind: eval, name: after}
"""
EOS, CUT = StopReason.EOS, StopReason.MAX_TOKENS


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """evaluated(correct of 10 answers by stage, stop reason) -> (events, rows, console), without a model."""

    def evaluated(correct: list[int], stop: StopReason):
        config = validate_config(parse_yaml(CONFIG) | {"runs_dir": str(tmp_path)}, "tiny")
        problems = make_task(config.stages[0].task).problems("test")
        verdicts = {
            stage.name: [Verdict(float(i < count), i < count, True) for i in range(10)]
            for stage, count in zip(config.stages, correct)
        }

        def evaluate(*arguments):
            name = arguments[-1]
            completion = Completion([1], [2], [0.0], stop, "a")
            return row_from_verdicts(name, verdicts[name]), [
                Trajectory.one_turn(problem, completion, verdict, 0)
                for problem, verdict in zip(problems, verdicts[name])
            ]

        monkeypatch.setattr(evaluation_module, "Engine", lambda *_: None)
        monkeypatch.setattr(evaluation_module, "open_pool", lambda *_: nullcontext())
        monkeypatch.setattr(evaluation_module, "baseline_rows", lambda *_: [])
        monkeypatch.setattr(evaluation_module, "evaluate", evaluate)
        policy, trainable, frozen = policy_and_trees()
        weights = PolicyWeights(policy, trainable, frozen, False)
        stream = io.StringIO()
        with RunLogger(RunFolder(tmp_path), console=Console(stream)) as logger:
            run = SimpleNamespace(
                config=config,
                folder=tmp_path,
                mesh=None,
                tokenizer=SimpleNamespace(decode=None),
                eos_ids=(),
                logger=logger,
                console=Console(stream),
                key=lambda *_: None,
                make_task=make_task,
            )
            for index, stage in enumerate(config.stages):
                assert evaluation(run, stage, index, weights) is weights
        events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        rows = json.loads((tmp_path / "eval.json").read_text())
        return events, rows, stream.getvalue()

    return evaluated


def test_policies_that_are_better_and_stop_are_silent(evaluated):
    events, rows, told = evaluated([3, 5], EOS)
    assert events == [] and "warning" not in told
    assert [(row["name"], row["correct"]) for row in rows] == [("before", 3), ("after", 5)]


def test_alarms_of_an_evaluation_are_kept_and_told(evaluated):
    events, _, told = evaluated([5, 0], CUT)
    assert [(event["stage"], event["step"], event["kind"], event["level"]) for event in events] == [
        ("before", 0, "truncated", "alarm"),
        ("after", 0, "truncated", "alarm"),
        ("after", 0, "equal rewards", "alarm"),
        ("after", 0, "worse", "alarm"),
    ]
    for event in events:
        assert f"warning: {event['stage']}, step 0: {event['sentence']}" in told
    assert "after answers worse than before: 0.0% against 50.0%, beyond chance" in told


def test_a_row_that_an_earlier_start_made_is_not_made_again(evaluated):
    first = evaluated([5, 0], CUT)[:2]
    assert evaluated([1, 9], EOS)[:2] == first
