"""What the tasks that run programs share: a verify function with a sandbox behind it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxrl.sandbox.sandbox import Level, Limits, Sandbox, SandboxError, shared_sandbox
from jaxrl.types import Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import ProgramSection


@dataclass(frozen=True)
class SandboxVerify:
    """A verify function that runs programs; `judge` is what a task adds.

    Where the sandbox itself fails there is no verdict: the reward is NaN, `error` begins with "sandbox:", and
    whoever trains leaves the sample out. A program that breaks a limit is wrong, reward 0, and `detail` names
    the limit.

    Unpickled in a worker it makes the worker's sandbox at once, so that attacking it to measure its level
    counts as start-up, and a level that is too low is said before the first sample.
    """

    limits: Limits
    min_level: Level
    packages: tuple[str, ...]

    @property
    def sandbox(self) -> Sandbox:
        return shared_sandbox(self.limits, self.min_level, self.packages)

    def __call__(self, problem: Problem, text: str) -> Verdict:
        try:
            return self.judge(problem.data, text)
        except SandboxError as error:
            return no_verdict(f"sandbox: {error}")

    def judge(self, data: dict[str, Any], text: str) -> Verdict:
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _ = self.sandbox


def limits_of(section: "ProgramSection") -> tuple[Limits, Level, tuple[str, ...]]:
    limits = Limits(section.wall_s, section.cpu_s, section.memory_mb, section.output_kb << 10)
    return limits, Level[section.min_level.upper()], section.packages


def no_verdict(error: str) -> Verdict:
    return Verdict(math.nan, correct=False, format_ok=False, error=error)
