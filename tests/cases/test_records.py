"""Fields of SFT records that change what is to be learnt (case 12): honoured, or refused by name."""

import shutil

import pytest

from jaxrl.cli import main
from jaxrl.config.experiment import DataSection
from jaxrl.data.chat import render_for_training
from jaxrl.data.records import read_records
from jaxrl.data.tokenizer import load_tokenizer
from jaxrl.errors import InputError
from tests.cases.run_case import CASES

CASE = "12-fields-dropped-in-silence"


def test_fields_of_a_record_are_in_what_is_trained_or_refused():
    """The case's own program, which renders the first record of each file."""
    if not (CASES / CASE).is_dir():
        pytest.skip(f"the case is not at {CASES}")
    tokenizer = load_tokenizer(CASES / CASE / "model")

    def texts(name):
        record, *_ = read_records(DataSection(file=str(CASES / CASE / f"{name}.jsonl")))
        ids, mask = render_for_training(tokenizer, record)
        return tokenizer.decode(ids), "".join(
            tokenizer.decode([i]) for i, trained in zip(ids, mask) if trained
        )

    assert texts("reasoning")[1] == "<think>\nbecause 0\n</think>\n\nis 0<|im_end|>"
    whole, trained = texts("weight")
    assert trained == "good 0<|im_end|>" and "bad 0" in whole
    assert texts("system")[0].startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nthe")
    # the model's template has no place for them
    with pytest.raises(InputError, match="does not render `tools`"):
        texts("tools")


def test_so_do_the_commands(tmp_path, monkeypatch):
    if not (CASES / CASE).is_dir():
        pytest.skip(f"the case is not at {CASES}")
    shutil.copytree(CASES / CASE, tmp_path / CASE, copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / CASE)
    for name, code in {"reasoning": 0, "weight": 0, "tools": 2, "system": 0}.items():
        assert main(["run", "sft.yaml", f"name={name}", f"stages.0.data.file={name}.jsonl"]) == code, name
