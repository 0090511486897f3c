"""A run goes on with the files that it began with, or not at all."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from jaxrl.commands.run import refuse_other_config
from jaxrl.config.experiment import STAGES
from jaxrl.config.file import dump_config, validate_config
from jaxrl.config.shared import ModelSection
from jaxrl.config.tasks import AnyTaskSection
from jaxrl.errors import InputError
from jaxrl.train import inputs as inputs_module
from jaxrl.train.inputs import INPUTS, TASK_FILES, TASK_PROGRAMS, check_inputs, keep_inputs, read_inputs

FILES = (
    "model/config.json",
    "model/model.safetensors",
    "model/tokenizer.json",
    "model/chat_template.jinja",
    "model/additional_chat_templates/tools.jinja",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "tokenizer/tokenizer.json",
    "own.jinja",
    "sft.jsonl",
    "saved/train/data.arrow",
    "kg.json",
    "questions.jsonl",
    "examples.jsonl",
    "train.jsonl",
    "test.jsonl.gz",
    "words.txt",
    "val.parquet",
)
PROGRAMS = {
    "task.py": "import helper\nfrom parts import more\n",
    "helper.py": "import json\ndef f():\n    import late\n",
    "late.py": "",
    "parts/__init__.py": "",
    "parts/more.py": "from . import deep\nfrom .deeper.end import x\n",
    "parts/deep.py": "",
    "parts/deeper/__init__.py": "",
    "parts/deeper/end.py": "x = 1\n",
    "brief.py": "from task import Task\n",
}
NO_FILES = (".", "model", "long " * 999, "\0")  # texts of a user's options that name none
OTHER = ("unused.py", "model/notes.md", "other.jsonl")
VALUES = {
    "name": "x",
    "runs_dir": "runs",
    "model": {"path": "model", "adapter": "adapter", "tokenizer": "tokenizer", "chat_template": "own.jinja"},
    "task": {
        "name": "knowledge_graph",
        "graph": "kg.json",
        "eval_file": "questions.jsonl",
        "examples_file": "examples.jsonl",
    },
    "stages": [
        {"kind": "sft", "data": {"file": "sft.jsonl"}},
        {"kind": "sft", "name": "more", "data": {"hub": "saved"}},
        {
            "kind": "eval",
            "name": "a",
            "task": {"name": "math", "train_file": "train.jsonl", "test_file": "test.jsonl.gz"},
        },
        {"kind": "eval", "name": "b", "task": {"reward": "brief.py:reward"}},
        {
            "kind": "eval",
            "name": "c",
            "task": {
                "name": "custom",
                "file": "task.py",
                "val": "val.parquet",
                "options": {"a": [{"b": "words.txt"}, *NO_FILES]},
            },
        },
    ],
}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """(config, folder) of a run that has begun, in a folder with all its files."""
    monkeypatch.chdir(tmp_path)
    for name in (*FILES, *OTHER):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"what is in {name}")
    for name, text in PROGRAMS.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text + "#\n")
    config, folder = validate_config(VALUES, "test"), Path("runs/x")
    begin(config, folder)
    return config, folder


def inputs_of(config, folder):
    """The inputs as a run finds them when it starts."""
    return read_inputs(check_inputs(config, folder), config, folder)


def begin(config, folder):
    folder.mkdir(parents=True)
    keep_inputs(inputs_of(config, folder), config, folder)
    (folder / "config.yaml").write_text("")


def test_every_file_that_a_run_reads_is_kept_and_no_other(begun):
    _, folder = begun
    assert {file["path"] for file in json.loads((folder / INPUTS).read_text())["files"].values()} == {
        *FILES,
        *PROGRAMS,
    }


@pytest.mark.parametrize("name", [*FILES, *PROGRAMS])
def test_a_file_that_has_changed_is_named(name, begun):
    """One byte, with the size and the time of before; then the file is gone; then it is back, and the run
    goes on.
    """
    config, folder = begun
    text, before = Path(name).read_bytes(), os.stat(name)
    Path(name).write_bytes(text[:-1] + b"~")
    os.utime(name, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        InputError,
        match=f"(?s)other files than there are now:\n  {name} has changed .*put back what was there",
    ) as error:
        check_inputs(config, folder)
    assert str(error.value).count("\n") == 2
    if "import" not in PROGRAMS.get(name, ""):  # without a program, what it imports is not known either
        os.remove(name)
        with pytest.raises(InputError, match=f"\n  {name} is gone\n"):
            check_inputs(config, folder)
    Path(name).write_bytes(text)
    check_inputs(config, folder)


def test_a_file_that_was_not_there_is_named(begun):
    config, folder = begun
    Path("model/generation_config.json").write_text("{}")
    with pytest.raises(InputError, match="\n  model/generation_config.json is new\n"):
        check_inputs(config, folder)


def test_files_that_were_copied_touched_or_do_not_matter_change_nothing(begun):
    config, folder = begun
    kept = check_inputs(config, folder)
    Path("unused.py").write_text("other")
    os.rename("model", "elsewhere")
    os.symlink("elsewhere", "model")
    text = Path("sft.jsonl").read_bytes()
    os.remove("sft.jsonl")
    Path("sft.jsonl").write_bytes(text)
    os.utime("kg.json", ns=(1, 1))
    now = check_inputs(config, folder)
    assert now.began == kept.began and {n: f.digest for n, f in now.files.items()} == {
        n: f.digest for n, f in kept.files.items()
    }


def test_files_that_lie_elsewhere_are_the_same_files_and_others_in_their_place_are_not(begun):
    """The config names another place; whether it is the same run, the digests decide."""
    config, folder = begun
    (folder / "config.yaml").write_text(dump_config(config))
    os.mkdir("moved")
    for name in ("model", "sft.jsonl", "kg.json", "words.txt", "saved", *PROGRAMS, "parts"):
        if "/" not in name:
            os.rename(name, f"moved/{name}")
    values = json.loads(json.dumps(VALUES))
    values["model"]["path"] = "moved/model"
    values["task"]["graph"] = "moved/kg.json"
    values["stages"][0]["data"]["file"], values["stages"][1]["data"]["hub"] = "moved/sft.jsonl", "moved/saved"
    values["stages"][3]["task"]["reward"] = "moved/brief.py:reward"
    values["stages"][4]["task"] |= {
        "file": "moved/task.py",
        "options": {"a": [{"b": "moved/words.txt"}, *NO_FILES]},
    }
    values |= {"runs_dir": "moved/runs", "name": "renamed"}  # the folder itself
    values |= {"mesh": {"fsdp": 4}, "gpu": {"memory_fraction": 0.5}}  # another machine
    config = validate_config(values, "test")
    refuse_other_config(folder, config)
    check_inputs(config, folder)
    Path("moved/parts/deep.py").write_text("other")
    with pytest.raises(InputError, match="\n  moved/parts/deep.py has changed "):
        check_inputs(config, folder)
    values["stages"][3]["task"]["reward"] = "moved/brief.py:other"  # another function of the same file
    with pytest.raises(InputError, match=r"(?s)another config.*\+    reward: moved/brief.py:other"):
        refuse_other_config(folder, validate_config(values, "test"))
    values["stages"][0]["data"]["file"] = "gone.jsonl"  # no digest of it: the names are compared
    with pytest.raises(InputError, match="(?s)another config.*gone.jsonl"):
        refuse_other_config(folder, validate_config(values, "test"))


def test_a_file_whose_stamp_is_the_one_kept_is_not_read(begun, monkeypatch):
    config, folder = begun
    os.utime("kg.json", ns=(1, 1))
    read = []
    monkeypatch.setattr(
        inputs_module, "sha256_of_all", lambda paths: [read.append(str(p)) or "other" for p in paths]
    )
    with pytest.raises(InputError, match="kg.json has changed"):
        check_inputs(config, folder)
    assert set(read) == {"kg.json"}


def test_the_tokenizer_that_a_run_has_made_is_an_input_of_its_going_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "name": "x",
        "model": {"architecture": {}},
        "stages": [{"kind": "eval", "task": {"name": "tiny"}}],
    }
    config, folder = validate_config(values, "test"), Path("runs/x")
    found = inputs_of(config, folder)
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer/tokenizer.json").write_text("made")
    keep_inputs(found, config, folder)
    (folder / "config.yaml").write_text("")
    check_inputs(config, folder)
    (folder / "tokenizer/tokenizer.json").write_text("Made")
    with pytest.raises(InputError, match="runs/x/tokenizer/tokenizer.json has changed"):
        check_inputs(config, folder)


def test_of_a_new_run_the_weights_of_the_base_alone_are_left_for_later(begun):
    config, _ = begun
    early = check_inputs(config, Path("runs/new"))
    late = read_inputs(early, config, Path("runs/new"))
    left = {file.path for name, file in late.files.items() if name not in early.files}
    assert (
        left
        == {path for path in FILES if path.startswith("model/") and path.endswith(".safetensors")}
        != set()
    )
    assert {name: late.files[name] for name in early.files} == early.files


def test_a_run_without_inputs_goes_on_with_a_word_and_keeps_them_from_then_on(begun, caplog):
    config, folder = begun
    os.remove(folder / INPUTS)
    os.utime(folder / "config.yaml", (1_000_000, 1_000_000))
    found = inputs_of(config, folder)
    assert "kept no digests of its inputs" in caplog.text and found.began == datetime.fromtimestamp(1_000_000)
    keep_inputs(found, config, folder)
    assert check_inputs(config, folder) == found


def test_a_start_that_died_before_its_config_was_written_is_not_believed(begun):
    config, folder = begun
    os.remove(folder / "config.yaml")
    Path("sft.jsonl").write_text("other")
    keep_inputs(inputs_of(config, folder), config, folder)
    (folder / "config.yaml").write_text("")
    check_inputs(config, folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b.replace(b"20", b"19", 1),
        lambda b: b[:-9],
        lambda b: b"[1]",
        lambda b: b"\xff" + b,
        lambda b: b"{}",
    ],
)
def test_inputs_that_are_not_as_they_were_written_are_one_clear_error(damage, begun):
    config, folder = begun
    (folder / INPUTS).write_bytes(damage((folder / INPUTS).read_bytes()))
    with pytest.raises(InputError, match=f"{INPUTS} cannot be used: .*restore it, or delete it"):
        check_inputs(config, folder)


def test_every_text_of_a_config_is_known_to_be_a_file_or_not_to_be_one():
    """A new key that names a file must be among the inputs, or be said not to be one here."""
    known = {
        *TASK_FILES,
        *TASK_PROGRAMS,
        "name",
        "hub_config",
        "hub_split",
        "hub_test_split",
        "packages",
        "dataset",
    }
    sections = {s for base in AnyTaskSection.__subclasses__() for s in (base, *base.__subclasses__())} | {
        AnyTaskSection
    }
    sections |= {s for section in sections for s in section.__subclasses__()}
    texts = {
        key
        for section in sections
        for key, field in section.model_fields.items()
        if str in _types(field.annotation)
    }
    assert texts - known == set()
    assert {key for key, f in ModelSection.model_fields.items() if str in _types(f.annotation)} == {
        "path",
        "adapter",
        "tokenizer",
        "chat_template",
    }
    stage_texts = {
        key
        for stage in STAGES.values()
        for key, field in stage.model_fields.items()
        if str in _types(field.annotation)
    }
    assert stage_texts - {"name"} == set()


def _types(annotation) -> set:
    inner = getattr(annotation, "__args__", ())
    return {annotation} | {t for a in inner for t in _types(a)} if not isinstance(annotation, str) else set()
