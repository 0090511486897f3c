"""Whole experiments with a very small model: what a run leaves behind, and that stopping it changes
nothing.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jaxrl.cli import main
from jaxrl.commands.run import refuse_other_config, run
from jaxrl.config.file import load_config
from jaxrl.errors import InputError
from tests.docs_pages import undocumented_in
from tests.end_to_end.runs import lines

CONFIG = """
name: tiny
model:
  architecture: {d_model: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, d_ff: 64}
lora: {rank: 4, alpha: 8, dropout: 0.1}
task:
  {name: knowledge_graph, entities: 24, relations: 4, letters: fixed, hops: [2], train: 40, val: 0, test: 16}
sample: {max_prompt_tokens: 48, max_new_tokens: 17, slots: 16, window: 8}
optim: {learning_rate: 3.0e-3}
checkpoint: {every: 2}
verify: {workers: 1}
expect: {runs: 3, accuracy: {after: [0, 1]}}
stages:
  - {kind: sft, lora: null, task: {hops: [1], train: 60, val: 10, eval_hops: [2]}, steps: 6, rows: 24,
     seq_len: 64, eval_every: 3}
  - kind: grpo
    steps: 4
    algo: {problems_per_batch: 4, group_size: 4, microbatch: 4, kl_coef: 0.01, updates_per_batch: 2}
  - {kind: eval, name: after, sample: {temperature: 0}}
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(CONFIG)
    return file


def load(config_file: Path, folder: Path, *overrides: str):
    return load_config(config_file, [f"runs_dir={folder}", *overrides])


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed."""
    return run(load(config_file, tmp_path_factory.mktemp("whole")), io.StringIO())


def assert_same_run(folder: Path, whole: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(folder, name) == lines(whole, name)
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors", "eval.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_leaves_what_is_promised(whole):
    expected = {
        "config.yaml",
        "inputs.json",
        "metrics.jsonl",
        "samples.jsonl",
        "events.jsonl",
        "checkpoints",
        "adapter",
        "model",
        "tokenizer",
        "eval.json",
        "report.md",
    }
    assert expected == {path.name for path in whole.iterdir()}
    rows = lines(whole, "metrics.jsonl")
    assert [(row["stage"], row["step"]) for row in rows] == [("sft", i) for i in range(1, 7)] + [
        ("grpo", i) for i in range(1, 5)
    ]
    assert {"loss", "grad_norm", "kl/ref", "clip_fraction", "reward/mean", "sampler_mismatch/max"} <= set(
        rows[-1]
    )
    assert {"val/loss", "val/perplexity"} <= set(rows[2])
    built = [
        json.loads(line)["time/compilations"] for line in (whole / "metrics.jsonl").read_text().splitlines()
    ]
    assert built[0] > 0 and built[1] == 0 and built[6] > 0, "each stage's first step builds its programs"
    samples = [row for row in lines(whole, "samples.jsonl") if row["stage"] == "grpo"]
    assert len(samples) == 4 * 16 and {"prompt", "completion", "reward", "parts", "advantage"} <= set(
        samples[0]
    )
    assert [row["name"] for row in json.loads((whole / "eval.json").read_text())] == [
        "chance",
        "first_option",
        "nearest",
        "after",
    ]
    assert "after" in (whole / "report.md").read_text()


def test_every_metric_is_explained_in_docs(whole):
    assert undocumented_in(whole) == set()


def test_sampler_and_trainer_agree(config_file, tmp_path):
    """Without dropout and with one update per batch, the trainer recomputes what the sampler said, and the
    ratio is 1.
    """
    overrides = [
        "lora.dropout=0.0",
        "stages.1.algo.updates_per_batch=1",
        "stages.0.steps=2",
        "stages.1.steps=2",
    ]
    for row in lines(run(load(config_file, tmp_path, *overrides), io.StringIO()), "metrics.jsonl")[2:]:
        assert row["sampler_mismatch/max"] < 1e-4 and row["ratio/max"] == row["ratio/mean"] == 1


def test_the_same_command_again_changes_nothing_and_another_config_is_refused(whole, config_file):
    files = [
        path
        for path in whole.rglob("*")
        if path.is_file() and path.suffix in (".jsonl", ".json", ".safetensors", ".md", ".yaml")
    ]
    before = {path: path.read_bytes() for path in files}
    told = io.StringIO()
    run(load(config_file, whole.parent), told)
    for text in (told.getvalue(), (whole / "report.md").read_text()):
        assert "is in the normal range, 0.0% to 100.0% of the 3 runs that were measured" in text
    assert [path for path in files if path.read_bytes() != before[path]] == []
    with pytest.raises(InputError, match=r"(?s)another config.*-seed: 0.*\+seed: 1"):
        run(load(config_file, whole.parent, "seed=1"), io.StringIO())


def test_a_run_of_a_version_that_wrote_its_keys_in_another_order_goes_on(whole, config_file):
    """What is compared are the values; a key that the version did not know has its default."""
    file = whole / "config.yaml"
    before = file.read_text()
    older = yaml.safe_load(before)
    del older["verify"]["pass_env"], older["stages"][1]["algo"]["clip_low"]
    try:
        file.write_text(yaml.safe_dump(older, sort_keys=True))
        refuse_other_config(whole, load(config_file, whole.parent))
        file.write_text(before.replace("pass_env: []", "pass_env: [X]"))
        with pytest.raises(InputError, match="another config"):
            refuse_other_config(whole, load(config_file, whole.parent))
    finally:
        file.write_text(before)


def test_a_file_that_has_changed_is_named_before_a_weight_is_read(whole, config_file, capsys):
    """The tokenizer that the run has made, at its next start; what it has exported, where that is loaded."""
    arguments = ["run", str(config_file), f"runs_dir={whole.parent}"]
    with one_bit_flipped(whole / "tokenizer" / "tokenizer.json") as name:
        assert main(arguments) == 2 and f"{name} has changed" in capsys.readouterr().err
    arguments = [
        "eval",
        "--model",
        str(whole / "model"),
        "--adapter",
        str(whole / "adapter"),
        "--config",
        str(config_file),
    ]
    for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        with one_bit_flipped(whole / file) as name:
            assert main(arguments) == 2 and f"{name} is not as jaxrl wrote it" in capsys.readouterr().err


@contextlib.contextmanager
def one_bit_flipped(path: Path):
    right = path.read_bytes()
    path.write_bytes(right[:-9] + bytes([right[-9] ^ 1]) + right[-8:])
    yield path
    path.write_bytes(right)


def test_adapter_on_disk_scores_like_the_policy_of_the_run(whole, config_file, tmp_path, capsys):
    out = tmp_path / "eval.json"
    arguments = [
        "--model",
        str(whole / "model"),
        "--adapter",
        str(whole / "adapter"),
        "--config",
        str(config_file),
        "--out",
        str(out),
    ]
    assert main(["eval", *arguments]) == 0
    assert json.loads(out.read_text())[-1] == json.loads((whole / "eval.json").read_text())[-1]


def test_adapters_on_a_model_directory(whole, config_file, tmp_path):
    """`model.path`: the base is read, stays as it is, and the adapter says where it is."""
    base = str(whole / "model")
    overrides = [f"model={{path: {base}}}", "stages.0.lora={rank: 4}", "stages.0.steps=2", "stages.1.steps=1"]
    folder = run(load(config_file, tmp_path, *overrides), io.StringIO())
    assert not (folder / "model").exists() and not (folder / "tokenizer").exists()
    assert (
        json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == base
    )
    arguments = [
        "--model",
        base,
        "--adapter",
        str(folder / "adapter"),
        "--config",
        str(config_file),
        "--out",
        str(tmp_path / "eval.json"),
    ]
    assert main(["eval", *arguments]) == 0
    assert (
        json.loads((tmp_path / "eval.json").read_text())[-1]
        == json.loads((folder / "eval.json").read_text())[-1]
    )


def test_chat_lines_and_odd_characters_through_sample(whole, tmp_path):
    lines_in = [
        {"messages": [{"role": "user", "content": "a"}], "note": "x\u2028y"},
        {"prompt": "TRACE:", "id": 7},
    ]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines_in), encoding="utf-8"
    )
    out = tmp_path / "out.jsonl"
    arguments = [
        "--model",
        str(whole / "model"),
        "--prompts",
        str(tmp_path / "in.jsonl"),
        "--out",
        str(out),
        "--max-new-tokens",
        "5",
    ]
    assert main(["sample", *arguments]) == 0
    rows = [json.loads(line) for line in out.read_text().split("\n") if line]
    assert [row | given for row, given in zip(rows, lines_in)] == rows and all(
        len(row["logprobs"]) == len(row["completion_ids"]) for row in rows
    )


@pytest.mark.parametrize(
    "line",
    [
        '{"messages": "hi"}',
        '{"messages": []}',
        '{"messages": [{"role": "user"}]}',
        '{"prompt": "\\ud800"}',
        '{"prompt": 3}',
    ],
)
def test_broken_chat_lines_are_named(line, whole, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text(line + "\n")
    arguments = [
        "--model",
        str(whole / "model"),
        "--prompts",
        str(tmp_path / "in.jsonl"),
        "--out",
        str(tmp_path / "out.jsonl"),
    ]
    assert main(["sample", *arguments]) == 2
    assert "in.jsonl, line 1" in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()


@pytest.mark.mesh
@pytest.mark.parametrize("mesh", ["{data: 2, fsdp: 2, tensor: 2}", "auto"])
def test_eight_devices_give_the_same_numbers(mesh, whole, config_file, tmp_path):
    folder = run(load(config_file, tmp_path, f"mesh={mesh}"), told := io.StringIO())
    for ours, theirs in zip(
        lines(folder, "metrics.jsonl")[:6], lines(whole, "metrics.jsonl")[:6], strict=True
    ):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-2)
    if mesh == "auto":
        # the microbatch of 4 does not divide over 8
        choice = [line for line in told.getvalue().splitlines() if "mesh auto: data 4, tensor 2;" in line]
        run(load(config_file, tmp_path, "mesh=auto"), again := io.StringIO())
        assert choice and choice[0] in again.getvalue().splitlines(), "taken up again, it is chosen alike"


@pytest.mark.parametrize(
    "override, message",
    [
        pytest.param("mesh.data=5", "24 rows cannot be split over 5 row shards", marks=pytest.mark.mesh),
        ("mesh.data=16", "needs 16 devices"),
        ("sample.max_prompt_tokens=8", r"prompt \d+ has \d+ tokens and sample.max_prompt_tokens is 8"),
        ("stages.0.seq_len=16", "does not fit into a row of seq_len=16"),
        ("task.test=100000", "has only"),
        ("stages.1.seq_len=20", "do not fit a row of seq_len=20"),
        ("stages.0.data={file: nowhere.jsonl}", "nowhere.jsonl"),
        (("stages.2.name=chance", "expect=null"), "a baseline's row has that name"),
        ("model.architecture.max_positions=40", "more than the model's 40 positions"),
        ("name=..", "name"),
    ],
)
def test_settings_that_cannot_work_are_named(override, message, config_file, tmp_path):
    with pytest.raises(InputError, match=message):
        run(
            load(config_file, tmp_path, *([override] if isinstance(override, str) else override)),
            io.StringIO(),
        )
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_kill_at_any_moment_and_resume_is_uninterrupted(config_file, tmp_path, tmp_path_factory):
    """SIGKILL gives no chance to save: the run goes back to its last checkpoint and comes out the same."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    overrides = ["checkpoint.every=3", "stages.1.steps=8"]

    def start() -> subprocess.Popen:
        command = [sys.executable, "-m", "jaxrl.cli", "run", str(config_file), f"runs_dir={tmp_path}"]
        return subprocess.Popen([*command, *overrides], env=environment, stdout=subprocess.DEVNULL)

    undisturbed = run(load(config_file, tmp_path_factory.mktemp("undisturbed"), *overrides), io.StringIO())
    metrics = tmp_path / "tiny" / "metrics.jsonl"
    for kill_at in (("sft", 4), ("grpo", 2), ("grpo", 5)):
        process = start()
        deadline = time.monotonic() + 1200
        while process.poll() is None and time.monotonic() < deadline:
            reached = metrics.exists() and any(
                (r.get("stage"), r.get("step")) == kill_at for r in _readable(metrics)
            )
            if reached:
                process.kill()
            time.sleep(0.02)
        process.wait(timeout=600)
    run(load(config_file, tmp_path, *overrides), io.StringIO())
    assert_same_run(tmp_path / "tiny", undisturbed)


def _readable(path: Path) -> list[dict]:
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the line that is being written
            rows.append(json.loads(line))
    return rows


def test_ctrl_c_saves_and_leaves_with_130(config_file, tmp_path):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [
        sys.executable,
        "-m",
        "jaxrl.cli",
        "run",
        str(config_file),
        f"runs_dir={tmp_path}",
        "checkpoint.every=1000",
        "stages.0.steps=100000",
    ]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "tiny" / "metrics.jsonl"
    while not (metrics.exists() and len(_readable(metrics)) >= 5) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130 and "the state is saved" in errors
    saved = [
        int(path.name)
        for path in (tmp_path / "tiny" / "checkpoints" / "0_sft").iterdir()
        if path.name.isdigit()
    ]
    assert saved and max(saved) >= 5


def test_every_committed_config_states_its_command():
    for path in (Path(__file__).parents[2] / "configs").rglob("*.yaml"):
        assert (
            "jaxrl run"
            f" configs/{path.relative_to(path.parents[len(path.parts) - path.parts.index('configs') - 2])}"
            in path.read_text()
        )
        assert yaml.safe_load(path.read_text())["stages"]
