"""A task of the user's own: one Python file with a class `Task`, named in the config.

    task: {name: custom, file: my_task.py, options: {words: 3}}

The class has the methods of the protocol in `base.py`, of which only `verify` is required; `Task(**options)`
makes it. What it leaves out:

    problems          the records of the section's `train`, `val` and `test` files
    problem           a record's `prompt` as one user message, the other fields as `data`, its `uid` or `id`,
                      or a digest, as uid
    demonstration     None: there is nothing to imitate
    texts             the prompts and demonstrations of the train split
    phrases           none
    baselines         none
    failure_reward    0
    generate          an error: the task has no generator

`verify` is pickled once into each verifier process, with the object that it belongs to.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxrl.data.tables import read_file
from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS, Baseline, Record
from jaxrl.tasks.fields import field, is_text
from jaxrl.tasks.user_file import FromFile, errors_named, load, with_errors_named
from jaxrl.types import Message, Problem

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import CustomSection

OWN = ("problems", "problem", "demonstration", "texts", "phrases", "baselines", "generate", "failure_reward")


class Custom:
    """The task; `section` is documented in `config/tasks.py`.

    What the user's object has stands in place of what is here.

    Raises:
      InputError: a file that does not run, has no such class, or whose class has no `verify`, does not take
        the options or raises; whatever a method raises, with its line. `verify` alone passes it on: the pool
        makes a verdict of it.
    """

    failure_reward = 0.0

    def __init__(self, section: "CustomSection"):
        self.section = section
        file = section.file.partition(":")[0]
        make, options = load(section.file, "Task"), section.options.model_dump()
        try:
            inspect.signature(make).bind(**options)
        except TypeError as error:
            raise InputError(
                f"task.options {options} do not fit {section.file}: {error}; give what its Task takes"
            ) from None
        with errors_named(file):
            own = make(**options)
        if not callable(getattr(own, "verify", None)):
            raise InputError(
                f"the Task of {section.file} has no `verify`; define verify(self, problem, text), which "
                "returns a Verdict"
            )
        self.verify = FromFile(file, own.verify)
        for name in OWN:
            if hasattr(own, name):
                value = getattr(own, name)
                setattr(self, name, with_errors_named(value, file) if callable(value) else value)

    def problems(self, split: str) -> list[Problem]:
        """The records of the split's file, in its order; none where the section names no file.

        Raises:
          InputError: no file at all, or one that is broken (file, line and field are named); a split that
            does not exist.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        files = {name: getattr(self.section, name) for name in SPLITS}
        if not any(files.values()):
            raise InputError(
                f"the Task of {self.section.file} has no `problems`, and no file of records is named; set "
                "task.train"
            )
        problems = []
        for place, record in read_file(files[split]) if files[split] else ():
            try:
                problems.append(self.problem(record))
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
        return problems

    def problem(self, record: Record) -> Problem:
        prompt = field(
            record,
            "prompt",
            f"a text, where the Task of {self.section.file} defines no problem(self, record)",
            is_text,
        )
        uid = record.get("uid", record.get("id"))
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        return Problem(
            digest[:16] if uid is None else str(uid), (Message(role="user", content=prompt),), record
        )

    def demonstration(self, problem: Problem) -> str | None:
        return None

    def texts(self) -> list[str]:
        problems = self.problems("train")
        contents = [message["content"] for problem in problems for message in problem.messages]
        return contents + [text for problem in problems if (text := self.demonstration(problem)) is not None]

    def phrases(self) -> list[str]:
        return []

    def baselines(self) -> dict[str, Baseline]:
        return {}

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        raise InputError(
            f"the Task of {self.section.file} has no generator; define generate(self, count, seed), which "
            "yields records"
        )
