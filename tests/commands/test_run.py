"""The order of a start: described, looked through, loaded; nothing is written before."""

import dataclasses

import pytest

from jaxrl.cli import main
from jaxrl.commands.run import task_maker
from jaxrl.config.tasks import CustomSection, TinySection
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.weights.hf_config import write_hf_config
from tests.tiny import CONFIG

TWO_STAGES = """
name: two
model: {{path: {model}}}
task: {{name: tiny, game: echo}}
sample: {{max_prompt_tokens: 128, max_new_tokens: 4}}
lora: {{rank: 2}}
stages:
  - {{kind: grpo, steps: 1}}
  - {{kind: eval, task: {{name: math, test_file: {last}}}}}
"""


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """A start from a model directory without weights: (exit code, what it said)."""
    monkeypatch.chdir(tmp_path)
    train_tokenizer(["copy a b c"]).save_pretrained("model")
    write_hf_config(
        dataclasses.replace(CONFIG, qkv_bias=False, vocab_size=512), tmp_path / "model", "float32"
    )
    (tmp_path / "test.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')

    def start(last):
        (tmp_path / "two.yaml").write_text(TWO_STAGES.format(model=tmp_path / "model", last=last))
        code = main(["run", "two.yaml", "compilation_cache=null"])
        return code, capsys.readouterr().err

    return start


def test_a_typo_is_found_before_a_weight_is_fetched_from_the_hub(tmp_path, start, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.extend(allow_patterns)
        return str(tmp_path / "model")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for last, fetched in (("tset.jsonl", False), ("test.jsonl", True)):
        (tmp_path / "two.yaml").write_text(TWO_STAGES.format(model="some/model", last=last))
        assert main(["run", "two.yaml", "compilation_cache=null"]) == 2
        assert ("*.safetensors" in asked) == fetched and "*.json" in asked


def test_a_typo_in_the_last_stage_is_found_before_a_weight_is_looked_for(start, tmp_path):
    code, said = start("tset.jsonl")
    assert code == 2 and "tset.jsonl" in said and "safetensors" not in said
    code, said = start("test.jsonl")
    assert code == 2 and "safetensors" in said and not (tmp_path / "runs" / "two" / "config.yaml").exists()


def test_own_tasks_are_made_once_and_a_users_for_everyone_who_asks(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Task:\n    def verify(self, problem, text):\n        return 1.0\n"
    )
    make = task_maker()
    tiny, mine = TinySection(name="tiny"), CustomSection(name="custom", file=str(tmp_path / "mine.py"))
    assert make(tiny) is make(TinySection(name="tiny")) and make(mine) is not make(mine)
