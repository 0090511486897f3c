"""`jaxrl generate` and `jaxrl verify` of worlds: teachers' episodes are training data, and replayed they earn
what they earned.
"""

import json
from pathlib import Path

import pytest

from jaxrl.cli import main
from jaxrl.config.experiment import DataSection
from jaxrl.data.chat import render_for_training
from jaxrl.data.records import read_records
from jaxrl.data.tokenizer import train_tokenizer
from tests.envs.worlds import NAMES

pytestmark = pytest.mark.sandbox  # a pool judges
worlds = pytest.mark.parametrize("name", NAMES)
SMALL = {"webshop": ["products=200"]}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def generate(name, *words, n=6, seed=3):
    return main(
        [
            "generate",
            name,
            "--n",
            str(n),
            "--seed",
            str(seed),
            "--out",
            "in.jsonl",
            *SMALL.get(name, []),
            *words,
        ]
    )


def verify(name, *words):
    return main(["verify", name, "--input", "in.jsonl", "--out", "out.jsonl", "--workers", "1", *words])


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write(rows):
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@worlds
@pytest.mark.parametrize(
    "words",
    [
        ["policy=random", "shaping=0.5"],
        ["policy=heuristic", "format=agenttraj", "action_format=code_as_action", "split=test"],
        ["format=agenttraj", "compat=agentgym"],
    ],
    ids=" ".join,
)
def test_untouched_records_earn_what_they_earned(files, name, words):
    assert generate(name, *words) == 0
    assert verify(name) == 0
    rows, judged = read("in.jsonl"), read("out.jsonl")
    assert [row["reward"] for row in judged] == [row["reward"] for row in rows]
    assert [row["correct"] for row in judged] == [row["metadata"]["success"] for row in rows]
    assert all(row["error"] is None and row["format_ok"] for row in judged)
    assert all(row["env"] == name and row["seed"] == 3 for row in rows)
    if "policy=random" in words:
        assert len({row["reward"] for row in rows}) > 1


@worlds
def test_a_turn_that_is_changed_changes_the_reward(files, name):
    generate(name, n=3)
    rows = read("in.jsonl")
    assert all(row["reward"] == 1.0 for row in rows)
    rows[0]["messages"][-1]["content"] = "Action: nothing"
    del rows[1]["messages"][-1]
    rows[2]["messages"].append({"role": "assistant", "content": "Action: more"})
    write(rows)
    assert verify(name) == 0
    assert [(row["reward"], row["correct"]) for row in read("out.jsonl")] == [
        (0, False),
        (0, False),
        (1, True),
    ]
    details = [row["detail"].partition(" turns, ")[2] for row in read("out.jsonl")]
    assert details == ["not ended", "not ended", "env_done, 1 turns not played"]


@worlds
@pytest.mark.parametrize("compat", ["null", "agentgym"])
def test_what_is_generated_is_training_data(files, name, compat):
    generate(name, f"compat={compat}")
    records = read_records(DataSection(file="in.jsonl"))
    texts = [message["content"] for record in records for message in record]
    tokenizer = train_tokenizer(texts)
    for record, row in zip(records, read("in.jsonl"), strict=True):
        ids, mask = render_for_training(tokenizer, record)
        trained = tokenizer.decode([token for token, is_trained in zip(ids, mask, strict=True) if is_trained])
        turns = [m["content"] for m in row["messages"] if m["role"] == "assistant" and m.get("train", True)]
        assert all(turn in trained for turn in turns) and len(turns) == trained.count("Action:")
        assert "OK." not in trained


@worlds
def test_agentgym_s_form_is_its_own(files, name):
    generate(name, "format=agenttraj", n=2)
    for number, row in enumerate(read("in.jsonl")):
        turns = row["conversations"]
        assert row["item_id"] == f"{name}_{number}"
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert [turn["loss"] for turn in turns] == [None, False, *[None, True] * (len(turns) // 2 - 1)]


@worlds
def test_the_same_command_writes_the_same_bytes(files, name):
    generate(name, "policy=random")
    first = Path("in.jsonl").read_bytes()
    generate(name, "policy=random")
    assert Path("in.jsonl").read_bytes() == first
    generate(name, "policy=random", n=4)
    assert first.startswith(Path("in.jsonl").read_bytes())
    generate(name, "policy=random", seed=4)
    assert Path("in.jsonl").read_bytes() != first


def test_wrong_commands_and_records_are_named(files, capsys):
    for words, said in [
        (["policy=wizard"], "unknown policy 'wizard' of textcraft; it has: expert, heuristic, random"),
        (["format=csv"], "textcraft: format: "),
        (["split=dev"], "textcraft: split: "),
        (["depht=3"], "did you mean 'depth'?"),
        (["max_turns=0"], "env.textcraft.max_turns"),
    ]:
        assert generate("textcraft", *words) == 2
        assert said in capsys.readouterr().err
    generate("textcraft", n=1)
    (row,) = read("in.jsonl")
    for change, said in [
        ({"env": "webshop"}, "in.jsonl, line 1: field 'env' is 'webshop'; it should hold 'textcraft'"),
        ({"metadata": {}}, "in.jsonl, line 1: field 'problem' is missing"),
        ({"messages": [{"role": "user"}]}, "in.jsonl, line 1: field 'messages' holds a turn without a text"),
        ({"metadata": row["metadata"] | {"settings": {"max_turns": 0}}}, "max_turns"),
    ]:
        write([row | change])
        assert verify("textcraft") == 2
        assert said in capsys.readouterr().err
    write([row | {"env": "webshop"}, row])
    assert verify("textcraft", "--skip-bad") == 0
    assert "1 rows: 1 right, 0 wrong, 0 errors; 1 bad records skipped" in capsys.readouterr().out
    assert verify("textcraft", "--skip-bad", "max_turns=1") == 0  # what is said wins over the record
    assert [row["correct"] for row in read("out.jsonl")] == [False]
    assert main(["generate", "agentgym", "--n", "1", "--out", "o", "url=http://127.0.0.1:1"]) == 2
    assert "agentgym: http://127.0.0.1:1/create does not answer: " in capsys.readouterr().err
    assert main(["generate", "no world", "--n", "1", "--out", "o"]) == 2
    assert "the worlds, whose episodes are generated and verified too: agentgym, " in capsys.readouterr().err
