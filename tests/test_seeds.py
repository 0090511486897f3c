"""The script that measures a config's spread: which runs it starts, what it does with those that fail or are
there already.
"""

import importlib.util
import sys
from datetime import datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxrl.config.file import dump_config, load_config
from jaxrl.data.tokenizer import num_tokens
from jaxrl.policy.load import load_base
from jaxrl.policy.tokenizer import load_run_tokenizer
from jaxrl.track.evaluations import row_from_verdicts, save_rows
from jaxrl.types import Verdict
from tests.tiny import one_device

CONFIG = """
name: tiny
model: {architecture: {d_model: 32}}
task: {name: knowledge_graph}
expect: {runs: 1, accuracy: {last: [0, 1]}}
stages:
  - {kind: eval, name: first}
  - {kind: eval, name: last}
"""


@pytest.fixture
def seeds(monkeypatch):
    file = Path(__file__).resolve().parents[1] / "scripts" / "seeds.py"
    spec = importlib.util.spec_from_file_location("seeds", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "seeds", module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def started(seeds, monkeypatch, tmp_path):
    """Runs that are not run: (overrides, perturbation) of each start. `right`: correct answers of 100 after,
    by the run's name.
    """
    starts, right = [], {}

    def spend(command, perturbation):
        overrides = command[5:]
        starts.append((overrides, perturbation))
        config = load_config(command[4], overrides)
        folder = tmp_path / "runs" / config.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(dump_config(config))
        rows = [
            row_from_verdicts(name, [Verdict(float(i < count), i < count, True) for i in range(100)])
            for name, count in (("first", 20), ("last", right.get(config.name, 99)))
        ]
        save_rows(folder / "eval.json", rows)
        return {
            "exit_code": 2 if config.name in right and right[config.name] < 0 else 0,
            "wall_s": 3.0,
            "cpu_s": 5.0,
            "peak_mib": 700.0,
        }

    monkeypatch.setattr(seeds, "spend", spend)
    monkeypatch.setattr(seeds, "make_noisy_model", lambda config, folder: True)
    return starts, right


@pytest.fixture
def words(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    lists = [
        "--seeds",
        "0",
        "5",
        f"runs_dir={tmp_path / 'runs'}",
        "--perturb",
        "fusion",
        "noise",
        "task.test=7",
    ]
    return [str(tmp_path / "config.yaml"), *lists]


def test_every_seed_is_run_as_it_is_and_with_every_perturbation(seeds, started, words, tmp_path, capsys):
    starts, _ = started
    assert seeds.main(words) == 0
    assert [perturbation for _, perturbation in starts] == ["", "fusion", "noise"] * 2
    assert all(
        {"task.test=7", "expect=null", f"task.graph_seed={seed}"} <= set(own)
        for (own, _), seed in zip(starts, "000555")
    )
    assert (
        f"model.path={tmp_path / 'runs' / 'tiny-seed5-noise-start'}" in starts[5][0]
        and "model.architecture=null" in starts[5][0]
    )
    assert "6 of 6 runs came to their end: 99.0% at worst" in capsys.readouterr().out


def test_the_worst_comes_first_a_failure_before_all_and_the_exit_code_says_so(seeds, started, words, capsys):
    _, right = started
    right |= {"tiny-seed5": 97, "tiny-seed0-fusion": 24, "tiny-seed5-noise": -1}
    assert seeds.main(words) == 1
    out = capsys.readouterr().out
    names = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| tiny")]
    assert names[:3] == ["tiny-seed5-noise", "tiny-seed0-fusion", "tiny-seed5"] and len(names) == 6
    assert (
        "exit code 2" in out and "5 of 6 runs came to their end: 24.0% at worst, 99.0% in the middle" in out
    )
    assert "intervals apart in 4" in out


def test_what_is_there_is_not_run_again_and_what_failed_or_changed_is(seeds, started, words, capsys):
    starts, right = started
    right["tiny-seed0-noise"] = -1
    assert seeds.main(words) == 1
    del right["tiny-seed0-noise"], starts[:]
    assert seeds.main(words) == 0
    assert len(starts) == 1 and "name=tiny-seed0-noise" in starts[0][0]
    assert seeds.main([*words, "task.test=8"]) == 0 and len(starts) == 7


def test_a_config_at_fault_is_one_sentence(seeds, started, words, capsys):
    assert seeds.main([*words, "model.architecture.d_modle=3"]) == 2
    assert "did you mean 'd_model'" in capsys.readouterr().err


def test_the_noise_is_a_bit_or_two_of_every_weight_and_the_model_is_one_to_start_from(seeds, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "config.yaml")
    seeds.noisy_model(config, tmp_path / "start")
    mesh = one_device()
    tokenizer, _ = load_run_tokenizer(config, tmp_path / "start", datetime(2026, 1, 1))
    fresh = load_base(config.model, num_tokens(tokenizer), mesh, config.seed)
    model = config.model.model_copy(update={"architecture": None, "path": str(tmp_path / "start")})
    noisy = load_base(model, num_tokens(tokenizer), mesh, config.seed)
    away = [
        jnp.abs(b / a - 1).max()
        for a, b in zip(*(jax.tree.leaves(x.frozen["model"]) for x in (fresh, noisy)), strict=True)
        if a.ndim > 1
    ]
    assert min(away) > 0 and max(away) < 10 * seeds.NOISE
