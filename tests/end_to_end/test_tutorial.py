"""The tutorial, with its own files in an empty folder, in fewer steps."""

import json
import os
import re
import runpy

import pytest

from jaxrl.cli import main
from tests.docs_pages import PAGES

FILES = dict(
    re.findall(r"[Ss]ave(?: it)? as\s+`(\S+)`.*?^```\w+\n(.*?)^```", PAGES["tutorial.md"], re.M | re.S)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the user is, with the files of the tutorial and what they make."""
    folder, before = tmp_path_factory.mktemp("tutorial"), os.getcwd()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    os.chdir(folder)
    try:
        runpy.run_path("make_data.py")
        yield folder
    finally:
        os.chdir(before)


def test_the_files_are_those_that_are_named():
    assert list(FILES) == ["make_data.py", "last.py", "sft.yaml", "brief.py", "grpo.yaml"]


def test_a_typo_costs_nothing(folder, capsys):
    assert main(["run", "sft.yaml", "sample.max_new_token=6"]) == 2
    (shown,) = re.findall(r"^error: .*\?", PAGES["tutorial.md"], re.MULTILINE)
    assert capsys.readouterr().err.startswith(shown) and not (folder / "runs").exists()


def test_a_reward_is_tried_without_a_model(folder):
    prompt = json.dumps("last of owl red bear")
    lines = [f'{{"prompt": {prompt}, "completion": "{word}"}}\n' for word in ("bear", "red", "bear bear")]
    (folder / "in.jsonl").write_text("".join(lines))
    command = "verify custom --input in.jsonl --out judged.jsonl file=last.py reward=brief.py"
    assert command in PAGES["tutorial.md"] and main(command.split()) == 0
    judged = [json.loads(line) for line in (folder / "judged.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in judged] == [1.0, 0.0, -0.1]


def test_own_data_then_own_reward_then_its_use(folder):
    assert main(["run", "sft.yaml", "stages.0.steps=2", "stages.1.limit=4"]) == 0
    assert main(["run", "grpo.yaml", "stages.1.steps=1", "stages.0.limit=4", "stages.2.limit=4"]) == 0
    chat = {"messages": [{"role": "user", "content": "last of owl red bear"}]}
    (folder / "prompts.jsonl").write_text(json.dumps(chat) + "\n")
    model = ["--model", "runs/own-data/model", "--adapter", "runs/own-reward/adapter"]
    assert (
        main(["sample", *model, "--prompts", "prompts.jsonl", "--out", "out.jsonl", "--max-new-tokens", "6"])
        == 0
    )
    assert json.loads((folder / "out.jsonl").read_text())["completion_ids"]
