"""For tests of tasks that run programs: tasks that take whatever level this machine offers, records, and a
sandbox that fails.
"""

import gzip
import json
import sys
from pathlib import Path

import pytest

from jaxrl.config.tasks import AbductionSection, CodeSection, DeductionSection
from jaxrl.sandbox.sandbox import Sandbox, SandboxError
from jaxrl.tasks import make_task

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")
HUMAN_EVAL = Path(__file__).parents[2].parent / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"
needs_human_eval = pytest.mark.skipif(
    not HUMAN_EVAL.exists(), reason="the HumanEval file is not at ../shared/data/humaneval"
)
SECTIONS = {"abduction": AbductionSection, "code": CodeSection, "deduction": DeductionSection}


def make(name, **values):
    return make_task(SECTIONS[name](name=name, **{"min_level": "process", **values}))


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def human_eval():
    with gzip.open(HUMAN_EVAL, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def break_sandbox(task, monkeypatch):
    """From now on the task's sandbox, which has come up well, can start no program."""
    assert task.verify.sandbox.run("print(1)").ok

    def fork(*_, **__):
        raise SandboxError("no processes left")

    monkeypatch.setattr(Sandbox, "_fork", fork)


def fenced(program):
    return f"```python\n{program}\n```"
