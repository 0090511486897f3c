"""Looking ahead: what a stage would stumble over is refused before a run writes anything, and so is training
on an evaluation.
"""

import json
from typing import ClassVar

import pytest

from jaxrl.config.file import parse_yaml, validate_config
from jaxrl.config.shared import MeshSection
from jaxrl.data.tokenizer import CHATML, num_tokens, train_tokenizer
from jaxrl.device.mesh import make_mesh
from jaxrl.errors import InputError
from jaxrl.policy.describe import describe
from jaxrl.tasks import TASKS
from jaxrl.train.preflight import preflight
from jaxrl.types import Problem
from tests.data.thinking_templates import THINKING
from tests.tiny import one_device

CONFIG = """
name: test
model: {architecture: {d_model: 32, num_heads: 4, max_positions: 64}}
lora: {rank: 2}
task: {name: knowledge_graph}
sample: {max_prompt_tokens: 32, max_new_tokens: 8}
stages: []
"""
SFT = {"kind": "sft", "seq_len": 32}
RSFT = {"kind": "rsft", "rows": 4, "seq_len": 32}
GRPO, PPO = {"kind": "grpo"}, {"kind": "ppo"}
EVAL = {"kind": "eval", "name": "final"}


class Overlapping:
    """A task of three splits, whose problems are (uid, text); `splits` is set by the test."""

    splits: ClassVar[dict[str, list[tuple[str, str]]]] = {}
    failure_reward = 0.0

    def __init__(self, section):
        pass

    def problems(self, split):
        return [Problem(uid, ({"role": "user", "content": text},), {}) for uid, text in self.splits[split]]

    def demonstration(self, problem):
        return None if problem.uid == "silent" else "yes"

    def baselines(self):
        return {}


@pytest.fixture
def check(monkeypatch):
    """Preflight of stages on a task with these splits."""
    monkeypatch.setitem(TASKS, "knowledge_graph", Overlapping)
    tokenizer = train_tokenizer(["red green blue yes"])

    def check(
        stages,
        train=(("a", "red"), ("b", "green")),
        test=(("c", "blue"), ("d", "blue red")),
        mesh=None,
        **sections,
    ):
        monkeypatch.setattr(Overlapping, "splits", {"train": list(train), "val": [], "test": list(test)})
        config = validate_config(parse_yaml(CONFIG) | sections | {"stages": stages}, "test")
        return preflight(
            config, tokenizer, describe(config.model, len(tokenizer), mesh or one_device())
        ).sft_rows

    return check


# ------------------------------------------------------------------------------------ training on evaluations


@pytest.mark.parametrize("stage", [SFT, RSFT, GRPO, PPO])
@pytest.mark.parametrize("leak, mark", [(("d", "green red"), "uid"), (("e", "blue red"), "messages")])
@pytest.mark.parametrize("order", [1, -1])
def test_a_problem_of_an_evaluation_is_never_trained_on(check, stage, leak, mark, order):
    check([stage, EVAL])
    with pytest.raises(
        InputError,
        match=(
            f"stage {stage['kind']} would train on problem '{leak[0]}', which eval stage final asks too .the"
            f" same {mark}.*; set "
        ),
    ):
        check([stage, EVAL][::order], train=[("a", "red"), leak])


@pytest.mark.parametrize("stage", [SFT, RSFT, GRPO])
def test_what_is_not_asked_or_asked_openly_may_be_trained_on(check, stage):
    shared = [("a", "red"), ("d", "blue red")]
    check([stage], train=shared)
    check([stage, EVAL | {"split": "train"}], train=shared)
    check([stage, EVAL | {"limit": 1}], train=shared)
    with pytest.raises(InputError, match="eval stage other asks"):
        check([stage, EVAL | {"limit": 1}, EVAL | {"name": "other"}], train=shared)


def test_problems_without_a_demonstration_are_not_trained_on(check):
    check([SFT, EVAL], train=[("a", "red"), ("silent", "blue red")])


def test_records_are_held_against_evaluations_and_not_the_task_beside_them(check, tmp_path):
    stage = SFT | {"data": {"file": str(tmp_path / "data.jsonl")}, "val_fraction": 0}
    (tmp_path / "data.jsonl").write_text('{"prompt": "red", "completion": "yes"}\n')
    check([stage, EVAL], train=[("d", "blue red")])
    (tmp_path / "data.jsonl").write_text(
        '{"prompt": "red", "completion": "yes"}\n{"prompt": "blue red", "completion": "no"}\n'
    )
    with pytest.raises(
        InputError,
        match="would train on problem 'record 2', which eval stage final asks too .the same messages",
    ):
        check([stage, EVAL])


# --------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("stage", [GRPO, PPO])
@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_filters_whose_ids_would_not_fit_are_refused_with_what_to_change(check, stage, settings, monkeypatch):
    monkeypatch.setattr("jaxrl.train.memory_plan.device_memory", lambda device: 1 << 17)
    check([stage])
    message = (
        rf"stage {stage['kind']}: top_k, top_p or min_p need a bit for each of \d+ ids and each token of an"
        r" update.*; raise algo.updates_per_batch"
    )
    with pytest.raises(InputError, match=message):
        check([stage | {"sample": settings}])
    check([stage | {"sample": settings, "algo": {"problems_per_batch": 2, "group_size": 2}}])
    check([RSFT | {"sample": settings}])


def test_an_id_that_the_tokenizer_does_not_have_stops_nothing(check):
    tokens = num_tokens(train_tokenizer(["red green blue yes"]))
    check([GRPO | {"sample": {"stop_ids": [tokens - 1]}}])
    with pytest.raises(InputError, match=rf"sample.stop_ids \[{tokens}\] are outside the model's vocabulary"):
        check([GRPO | {"sample": {"stop_ids": [tokens]}}])


def test_a_system_prompt_makes_no_other_question_of_one(check, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"prompt": "blue red", "completion": "no", "system": "green"}\n')
    with pytest.raises(InputError, match="would train on problem 'record 1'"):
        check([SFT | {"data": {"file": str(tmp_path / "data.jsonl")}, "val_fraction": 0}, EVAL])


def test_questions_that_are_system_prompts_alone_are_not_all_the_same(check, monkeypatch):
    problem = lambda uid, text: Problem(uid, ({"role": "system", "content": text},), {})
    monkeypatch.setattr(
        Overlapping, "problems", lambda self, split: [problem(uid, text) for uid, text in self.splits[split]]
    )
    check([GRPO, EVAL])
    with pytest.raises(InputError, match="would train on problem 'a'"):
        check([GRPO, EVAL], test=[("c", "red")])


# --------------------------------------------------------------------------------------------- chat templates


def rows_of(template, records, tmp_path, **model):
    """The SFT rows of these records under a chat template."""
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    stage = SFT | {"data": {"file": str(tmp_path / "data.jsonl")}, "val_fraction": 0, "seq_len": 256}
    values = parse_yaml(CONFIG)
    values["model"] = {"architecture": values["model"]["architecture"] | {"max_positions": 256}} | model
    tokenizer = train_tokenizer(["red green blue yes"])
    tokenizer.chat_template = template
    config = validate_config(values | {"stages": [stage]}, "test")
    description = describe(config.model, len(tokenizer), one_device())
    return preflight(config, tokenizer, description).sft_rows["sft"][0]


def test_a_training_template_serves_unless_it_is_turned_off(tmp_path):
    turn = [{"role": "user", "content": "red"}, {"role": "assistant", "content": "yes", "thinking": "blue"}]
    (template,) = THINKING["Qwen3"]
    assert rows_of(template, [{"messages": turn * 2}], tmp_path).loss_mask.any()
    with pytest.raises(
        InputError, match="stage sft, record 1: message 3: the chat template breaks the prefix property"
    ):
        rows_of(template, [{"messages": turn * 2}], tmp_path, training_template=False)


def test_a_record_that_the_template_does_not_render_is_named(tmp_path):
    good = {"prompt": "red", "completion": "yes"}
    with pytest.raises(
        InputError, match="stage sft, record 2: message 0: the chat template does not render `tools`"
    ):
        rows_of(CHATML, [good, good | {"tools": [{"name": "look"}]}, good], tmp_path)


# ------------------------------------------------------------------------------------------------------- RSFT


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"microbatch": 3}, "stage rsft: rows=4 is not a multiple of microbatch=3"),
        ({"problems": 3}, "stage rsft: problems=3 are more than the 2 of the task's train split"),
        ({"seq_len": 10}, r"do not fit a row of seq_len=10; set it to at least \d+"),
        ({"sample": {"max_new_tokens": 64}, "seq_len": 128}, "more than the model's 64 positions"),
        ({"sample": {"max_prompt_tokens": 2}}, r"prompt 0 has \d+ tokens and sample.max_prompt_tokens is 2"),
        (
            {"sample": {"stop_ids": [9999]}},
            r"stage rsft: sample.stop_ids \[9999\] are outside the model's vocabulary",
        ),
    ],
)
def test_rsft_settings_that_cannot_work_are_named(check, changes, message):
    check([RSFT | {"problems": 2}])
    with pytest.raises(InputError, match=message):
        check([RSFT | changes])


@pytest.mark.parametrize("stage", [RSFT, GRPO, PPO])
def test_nothing_to_train_on_is_named(check, stage):
    with pytest.raises(InputError, match=f"stage {stage['kind']}: the task's train split is empty"):
        check([stage], train=[])


@pytest.mark.mesh
@pytest.mark.parametrize(
    "changes",
    [
        RSFT | {"rows": 5},
        RSFT | {"microbatch": 1},
        GRPO | {"algo": {"microbatch": 1}},
        PPO | {"algo": {"microbatch": 1}},
    ],
)
def test_rows_are_spread_over_the_mesh(check, changes):
    with pytest.raises(InputError, match="cannot be split over 2 row shards"):
        check([changes], mesh=make_mesh(MeshSection(data=2)))


def test_a_variable_that_the_verifier_needs_must_be_set(check, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "x")
    check([GRPO, EVAL], verify={"pass_env": ["JUDGE_KEY"]})
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(InputError, match="pass_env names JUDGE_KEY, not set"):
        check([GRPO, EVAL], verify={"pass_env": ["JUDGE_KEY"]})
