"""Problems about programs from files or the hub, in splits that content alone decides."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from jaxrl.errors import InputError
from jaxrl.sandbox.sandbox import SandboxBusy
from jaxrl.tasks.base import SPLITS, Record
from jaxrl.tasks.drawing import digest
from jaxrl.types import Problem

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import ProgramSection

log = logging.getLogger("jaxrl")

# one in so many problems of the train source belongs to val, and one to test where there is no other source
SHARE = 20
ATTEMPTS = 10  # at checking a problem, each of which ends with its wall limit at the latest

PlacedRecords = Iterator[tuple[str, Record]]


class Unfit(InputError):
    """A well-formed record that cannot be asked: a file is read without it."""


class FileProblems:
    """The problems of a section's files, each once, in the order of their file.

    None of the test split is in another.

    problem: from a record to a problem. check: what is costly, done for the problems of the split alone; it
      may change them.
    Where either raises `Unfit` the record is left out, and the log says how many and why.
    """

    def __init__(
        self,
        section: "ProgramSection",
        problem: Callable[[Record], Problem],
        check: Callable[[Problem], Problem] = lambda p: p,
    ):
        self._section, self._problem, self._check = section, problem, check
        self._splits: dict[str, list[Problem]] = {}

    def problems(self, split: str) -> list[Problem]:
        """At most as many as the section says.

        Raises:
          InputError: a source that is not named or cannot be read, a record that is not as it should be (its
            place is named), or a split that does not exist.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        most = getattr(self._section, split)
        if split not in self._splits:
            self._splits[split] = self._read_split(split, most) if most != 0 else []
        return list(self._splits[split][:most])

    def _read_split(self, split: str, most: int | None) -> list[Problem]:
        if split == "test" and (rows := self._test_rows()) is not None:
            return self._read(rows, most, lambda uid: True)
        tested = self._tested()
        has_test = self._has_test_source()
        return self._read(
            self._train_rows(split), most, lambda uid: uid not in tested and _share(uid, has_test) == split
        )

    def _tested(self) -> set[str]:
        """Uids of a test source, all of it."""
        found = set()
        for place, record in self._test_rows() or ():
            try:
                found.add(self._problem(record).uid)
            except Unfit:
                continue
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
        return found

    def _read(self, rows: PlacedRecords, most: int | None, belongs: Callable[[str], bool]) -> list[Problem]:
        problems: dict[str, Problem] = {}
        unfit: list[str] = []
        elsewhere = 0
        for place, record in rows:
            if most is not None and len(problems) >= most:
                break
            try:
                problem = self._problem(record)
                if not belongs(problem.uid):
                    elsewhere += 1
                elif problem.uid not in problems:
                    problems[problem.uid] = self._checked(problem)
            except Unfit as reason:
                unfit.append(f"{place}: {reason}")
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
        if unfit and not problems and not elsewhere:
            raise InputError(f"none of the {len(unfit)} records can be asked; the first: {unfit[0]}")
        if unfit:
            log.warning("%d records cannot be asked and are left out; the first: %s", len(unfit), unfit[0])
        return list(problems.values())

    def _checked(self, problem: Problem) -> Problem:
        """Checked, however busy the machine is: which records are asked must not hang on it."""
        for _ in range(ATTEMPTS):
            with suppress(SandboxBusy):
                return self._check(problem)
        raise InputError(
            "its program cannot be checked, since the machine is too busy; try again, or set "
            "task.check_programs=false"
        )

    def _has_test_source(self) -> bool:
        section = self._section
        return section.test_file is not None or (
            section.hub is not None and section.hub_test_split is not None
        )

    def _test_rows(self) -> PlacedRecords | None:
        from jaxrl.data.tables import read_file, read_hub

        section = self._section
        if section.test_file is not None:
            return read_file(section.test_file)
        return (
            read_hub(section.hub, section.hub_config, section.hub_test_split)
            if self._has_test_source()
            else None
        )

    def _train_rows(self, split: str) -> PlacedRecords:
        from jaxrl.data.tables import read_file, read_hub

        section = self._section
        if section.train_file is not None:
            return read_file(section.train_file)
        if section.hub is None:
            remedy = f"set task.train_file or task.hub, or task.{split} to 0"
            raise InputError(f"task {section.name} has no source for the split {split}; {remedy}")
        return read_hub(section.hub, section.hub_config, section.hub_split)


def _share(uid: str, has_test: bool) -> str:
    """The split that a problem of the train source belongs to."""
    part = int(digest(uid), 16) % SHARE
    return "val" if part == 0 else "test" if part == 1 and not has_test else "train"
