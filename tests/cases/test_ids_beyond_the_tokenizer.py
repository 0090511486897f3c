"""Case 17, a model whose vocabulary is larger than its tokenizer's: what lies beyond is padding, and is never
drawn.
"""

import json

import pytest

from jaxrl.cli import main
from tests.cases.run_case import CASES

CASE = CASES / "17-ids-beyond-the-tokenizer"


def test_padding_of_the_vocabulary_is_never_drawn(tmp_path):
    if not CASE.is_dir():
        pytest.skip(f"the case is not at {CASE}")
    out = tmp_path / "out.jsonl"
    command = [
        "sample",
        "--model",
        str(CASE / "model"),
        "--prompts",
        str(CASE / "in.jsonl"),
        "--out",
        str(out),
    ]
    assert main([*command, "--temperature", "1", "--max-new-tokens", "20"]) == 0
    drawn = [i for line in out.read_text().splitlines() for i in json.loads(line)["completion_ids"]]
    assert len(drawn) > 100 and max(drawn) < 265  # the tokenizer's ids; the model has 329
