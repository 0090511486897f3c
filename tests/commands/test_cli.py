"""The command line on golden models: one JSONL in, one out, the numbers of transformers, and bad input
answered in one message.
"""

import json
import shutil
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrl.cli import main
from jaxrl.commands.model import tokenizer_at
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.tokenizer import train_tokenizer
from tests.weights.goldens import GOLDEN, MODELS

V = 96


@pytest.fixture(autouse=True)
def keep_the_cache_of_the_tests(monkeypatch):
    monkeypatch.setattr("jaxrl.device.compilations.set_up_jax", lambda folder: None)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a copy of the models, that the tests only read."""
    folder = tmp_path_factory.mktemp("work")
    for name in MODELS:
        shutil.copytree(GOLDEN / name, folder / name)
    return folder


@pytest.fixture
def call(work, tmp_path):
    """call("sample", records, "--seed", 3) -> the records of the out file."""

    def call(command, records, *flags, model="qwen3"):
        given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        given.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        column = {"sample": "--prompts", "score": "--tokens"}[command]
        code = main(
            [command, "--model", str(work / model), column, str(given), "--out", str(out), *map(str, flags)]
        )
        assert code == 0
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    return call


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True)


def expected_logprobs(file):
    """[B, T] logprob of each token given those before it; 0 for the first."""
    golden = np.load(file)
    tokens, logprobs = golden["tokens"], log_softmax(golden["logits"])
    chosen = np.take_along_axis(logprobs[:, :-1], tokens[:, 1:, None], axis=-1)[..., 0]
    return tokens.tolist(), np.pad(chosen, ((0, 0), (1, 0)))


# ------------------------------------------------------------------------------------------------------ score


@pytest.mark.parametrize("name", ["qwen3", "llama3", "smollm"])
def test_scores_are_those_of_transformers(call, name):
    tokens, expected = expected_logprobs(GOLDEN / name / "logits.npz")
    scored = call("score", [{"tokens": ids} for ids in tokens], model=name)
    np.testing.assert_allclose([line["logprobs"] for line in scored], expected, atol=1e-4)


def test_an_adapter_changes_the_scores_to_those_of_peft(call, work):
    tokens, expected = expected_logprobs(GOLDEN / "qwen3" / "adapter_logits.npz")
    records = [{"tokens": ids} for ids in tokens]
    scored = call("score", records, "--adapter", work / "qwen3" / "adapter")
    np.testing.assert_allclose([line["logprobs"] for line in scored], expected, atol=1e-4)
    without = call("score", records)
    assert np.abs(np.array([line["logprobs"] for line in without]) - expected).max() > 0.1


def test_a_score_does_not_depend_on_the_other_lines_and_keeps_what_a_line_has(call):
    rng = np.random.default_rng(0)
    records = [
        {"tokens": rng.integers(0, V, n).tolist(), "id": f"ü{n}", "nested": {"a": [n]}}
        for n in [3, 30, 1, 17, *range(2, 20)]
    ]
    scored = call("score", records)
    assert [
        {key: line[key] for key in record} for line, record in zip(scored, records, strict=True)
    ] == records
    assert all(len(line["logprobs"]) == len(line["tokens"]) and line["logprobs"][0] == 0 for line in scored)
    (alone,) = call("score", records[:1])
    np.testing.assert_allclose(alone["logprobs"], scored[0]["logprobs"], atol=1e-5)


# ----------------------------------------------------------------------------------------------------- sample

PROMPTS = [[5, 9, 70], [11, 3, 44, 8, 60, 21, 7], [90]]


def test_greedy_samples_are_the_likeliest_tokens_by_score(call):
    samples = call(
        "sample", [{"prompt_ids": ids} for ids in PROMPTS], "--temperature", 0, "--max-new-tokens", 4
    )
    for line in samples:
        ids, said = line["prompt_ids"], line["completion_ids"]
        lines = [{"tokens": ids + said[:t] + [token]} for t in range(len(said)) for token in range(V)]
        last = np.array([scored["logprobs"][-1] for scored in call("score", lines)]).reshape(len(said), V)
        assert last.argmax(-1).tolist() == said
        np.testing.assert_allclose(np.exp(last).sum(-1), 1, atol=1e-4)
        np.testing.assert_allclose(line["logprobs"], last.max(-1), atol=1e-4)


def test_samples_keep_their_line_and_say_how_they_ended(call):
    records = [{"prompt_ids": ids, "name": f"n{n}", "logprobs": "old"} for n, ids in enumerate(PROMPTS)]
    samples = call("sample", records, "--seed", 1, "--max-new-tokens", 8)
    for line, record in zip(samples, records, strict=True):
        assert (line["prompt_ids"], line["name"]) == (record["prompt_ids"], record["name"])
        assert len(line["logprobs"]) == len(line["completion_ids"]) <= 8
        assert line["stop_reason"] == ("eos" if line["completion_ids"][-1] == 2 else "max_tokens")
        assert 2 not in line["completion_ids"][:-1]
    scored = call("score", [{"tokens": line["prompt_ids"] + line["completion_ids"]} for line in samples])
    for line, score in zip(samples, scored):
        np.testing.assert_allclose(line["logprobs"], score["logprobs"][len(line["prompt_ids"]) :], atol=1e-4)


def test_min_p_near_one_leaves_the_likeliest_token_alone(call):
    records = [{"prompt_ids": ids} for ids in PROMPTS]
    drawn, greedy = (
        call("sample", records, *flags, "--max-new-tokens", 6)
        for flags in (("--min-p", 0.99999), ("--temperature", 0))
    )
    assert [line["completion_ids"] for line in drawn] == [line["completion_ids"] for line in greedy]


def test_ids_that_the_tokenizer_does_not_have_are_never_drawn(call, monkeypatch):
    """And the logprobs are those of `score` all the same, filtered or not."""
    letters = SimpleNamespace(
        get_vocab=lambda: {chr(65 + i): i for i in range(30)}, eos_token_id=2, decode=str, chat_template=None
    )
    monkeypatch.setattr("jaxrl.commands.model.find_tokenizer", lambda folder: letters)
    records = [{"prompt_ids": ids} for ids in PROMPTS]
    for flags in ((), ("--top-p", 0.9), ("--temperature", 0)):
        samples = call("sample", records, *flags, "--max-new-tokens", 8)
        assert all(i < 30 for line in samples for i in line["completion_ids"])
        scored = call("score", [{"tokens": line["prompt_ids"] + line["completion_ids"]} for line in samples])
        for line, score in zip(samples, scored):
            np.testing.assert_allclose(
                line["logprobs"], score["logprobs"][len(line["prompt_ids"]) :], atol=1e-4
            )


@pytest.mark.parametrize("temperature", ["1e-9", "1e-30", "1e-60"])
def test_no_temperature_is_too_low(call, temperature):
    drawn, greedy = (
        call("sample", [{"prompt_ids": ids} for ids in PROMPTS], "--temperature", t, "--max-new-tokens", 6)
        for t in (temperature, 0)
    )
    assert [line["completion_ids"] for line in drawn] == [line["completion_ids"] for line in greedy]
    assert all(logprob == 0 for line in drawn for logprob in line["logprobs"]), "certain, and not infinite"


def test_equal_prompts_draw_independent_samples_that_do_not_depend_on_the_other_lines(call):
    records = [{"prompt_ids": ids} for ids in [PROMPTS[0]] * 5 + PROMPTS[1:]]
    flags = ("--seed", 7, "--max-new-tokens", 8)
    first = [line["completion_ids"] for line in call("sample", records, *flags)]
    assert len({tuple(ids) for ids in first[:5]}) == 5
    mixed = [line["completion_ids"] for line in call("sample", [records[i] for i in (6, 0, 5, 1)], *flags)]
    assert mixed == [first[6], first[0], first[5], first[1]]
    assert [line["completion_ids"] for line in call("sample", records, *flags, "--slots", 2)] == first
    other = [line["completion_ids"] for line in call("sample", records, "--seed", 8, "--max-new-tokens", 8)]
    assert all(a != b for a, b in zip(first[:5], other))


# -------------------------------------------------------------------------------------------------- bad input


def remove_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(name):
    def cut(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.fixture
def refuse(work, tmp_path, capsys):
    """The one message with which a command is refused; nothing is left where its output would have been."""

    def refuse(command, content, *flags, spoil=None, place=work / "qwen3", given=None, out=None):
        if spoil:
            place = shutil.copytree(work / "qwen3", tmp_path / "model")
            spoil(place)
        results = tmp_path / "results"
        (results / "folder").mkdir(parents=True)
        (tmp_path / "in.jsonl").write_bytes(content)
        column = {"sample": "--prompts", "score": "--tokens"}[command]
        argv = [
            command,
            "--model",
            place,
            column,
            given or tmp_path / "in.jsonl",
            "--out",
            out or results / "out.jsonl",
            *flags,
        ]
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as left:  # argparse's own way
            code = left.code
        error = capsys.readouterr().err
        assert code == 2 and error.count("error: ") == 1 and "Traceback" not in error
        assert [path.name for path in results.rglob("*")] == ["folder"] and not list(tmp_path.glob("*.tmp"))
        return error

    return refuse


GOOD = {"score": b'{"tokens": [1, 2, 3]}\n', "sample": b'{"prompt_ids": [1, 2, 3]}\n'}


@pytest.mark.parametrize("command", ["score", "sample"])
@pytest.mark.parametrize(
    "spoil, reason",
    [
        (remove_tensor, "model.layers.1.mlp.up_proj.weight"),
        (truncate("model.safetensors"), "not a whole safetensors file"),
        (remove("model.safetensors"), "model.safetensors"),
        (remove("config.json"), "config.json"),
        (truncate("config.json"), "config.json"),
    ],
    ids=["tensor missing", "weights cut", "no weights", "no config", "config cut"],
)
def test_a_broken_model_is_refused(refuse, command, spoil, reason):
    assert reason in refuse(command, GOOD[command], spoil=spoil)


def test_a_broken_generation_config_is_refused(refuse):
    assert "generation_config.json" in refuse(
        "sample", GOOD["sample"], spoil=truncate("generation_config.json")
    )


def test_a_missing_in_file_is_refused(refuse, tmp_path):
    assert "absent.jsonl cannot be read" in refuse("score", b"", given=tmp_path / "absent.jsonl")


def test_a_missing_model_folder_is_refused(refuse, tmp_path):
    assert "absent" in refuse("score", GOOD["score"], place=tmp_path / "absent")


@pytest.mark.parametrize("adapter", ["absent", "qwen3", "smollm/adapter"])
def test_an_adapter_that_does_not_fit_is_refused(refuse, work, adapter):
    refuse("score", GOOD["score"], "--adapter", work / adapter)


@pytest.mark.parametrize("place", ["absent/out.jsonl", "folder"])
def test_an_out_file_that_cannot_be_written_is_refused(refuse, tmp_path, place):
    assert "cannot be written" in refuse("score", GOOD["score"], out=tmp_path / "results" / place)


@pytest.mark.parametrize(
    "line, reason",
    [
        (b'{"tokens": [1, 2', "line 2, column"),
        (b"[1, 2]", "must be a JSON object"),
        (b'{"prompt_ids": [1]}', "column 'tokens'"),
        (b'{"tokens": []}', "at least one"),
        (b'{"tokens": "1 2"}', "list of token ids"),
        (b'{"tokens": [1, 2.0]}', "list of token ids"),
        (b'{"tokens": [1, true]}', "list of token ids"),
        (b'{"tokens": [1, 96]}', "outside 0..95"),
        (b'{"tokens": [-1, 1]}', "outside 0..95"),
        (b"\xff", "line 2, column 1: not UTF-8"),
        (b'{"tokens": [1], "weight": NaN}', "line 2: holds 'NaN'"),
    ],
)
def test_a_wrong_line_to_score_is_refused_by_its_number(refuse, line, reason):
    error = refuse("score", GOOD["score"] + line + b"\n")
    assert reason in error and "line 2" in error


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"{", "line 2, column"),
        (b'{"tokens": [1]}', "exactly one of `prompt`, `messages`, `prompt_ids`"),
        (b'{"prompt": "a", "prompt_ids": [1]}', "exactly one of"),
        (b'{"prompt": "a"}', "no tokenizer"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "no tokenizer"),
        (b'{"prompt_ids": []}', "at least one"),
        (b'{"prompt_ids": [96]}', "outside 0..95"),
        (b'{"prompt_ids": [1000000000000]}', "outside 0..95"),
        (b'{"prompt_ids": [-1]}', "outside 0..95"),
        (b'{"prompt_ids": [' + b"1, " * 60 + b"1]}", "64 positions"),
    ],
)
def test_a_wrong_line_to_complete_is_refused(refuse, line, reason):
    error = refuse("sample", GOOD["sample"] + line + b"\n", "--max-new-tokens", 8)
    assert reason in error and "line 2" in error


def test_a_prompt_is_named_by_its_line_where_equal_ones_stand_before_it(refuse):
    error = refuse(
        "sample", 3 * GOOD["sample"] + b'{"prompt_ids": [' + b"1, " * 60 + b"1]}\n", "--max-new-tokens", 8
    )
    assert "line 4: the prompt has 61 tokens" in error


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_file_is_refused(refuse, content):
    assert "has no lines" in refuse("score", content)


@pytest.mark.parametrize(
    "flags, reason",
    [
        ("--temperature -1", "sample: temperature"),
        ("--temperature nan", "sample: temperature"),
        ("--temperature warm", "--temperature"),
        ("--top-p 0", "sample: top_p"),
        ("--top-p 1.5", "sample: top_p"),
        ("--min-p 1.5", "sample: min_p"),
        ("--top-k -1", "sample: top_k"),
        ("--slots 0", "sample: slots"),
        ("--max-new-tokens 0", "sample: max_new_tokens"),
        ("--max-new-tokens 62", "64 positions"),
        ("--dtype float8", "--dtype"),
        ("--seed x", "--seed"),
        ("--seed -1", "--seed"),
        ("--seed 100000000000000000000", "--seed"),
        ("--stop .", "a stop text needs a tokenizer"),
        ("--unknown 1", "--unknown"),
    ],
)
def test_a_wrong_flag_is_refused(refuse, flags, reason):
    assert reason in refuse("sample", GOOD["sample"], "--max-new-tokens", 8, *flags.split())


def test_a_template_that_asks_for_the_date_is_told_the_one_given(tmp_path, caplog):
    tokenizer = train_tokenizer(["today"])
    tokenizer.chat_template = "{{ strftime_now('%d.%m.%Y') }} {{ messages[0].content }}<|im_end|>"
    tokenizer.save_pretrained(tmp_path)
    for moment, told in [(datetime(2020, 1, 2), "02.01.2020"), (None, f"{datetime.now():%d.%m}")]:
        found = tokenizer_at(moment, tmp_path)
        assert told in found.decode(render_for_sampling(found, [{"role": "user", "content": "today"}]))
    assert "asks for the date, and is told 2020-01-02 (--date)" in caplog.text
    assert tokenizer_at(None, GOLDEN / "qwen3") is None
