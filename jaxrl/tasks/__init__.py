"""The tasks, by the name that a config's `task.name` gives them."""

from typing import Any

from jaxrl.errors import InputError
from jaxrl.tasks.base import Task
from jaxrl.tasks.code.task import Code
from jaxrl.tasks.custom import Custom
from jaxrl.tasks.graph.task import KnowledgeGraph
from jaxrl.tasks.math.task import Math
from jaxrl.tasks.numbers.arithmetic import Arithmetic
from jaxrl.tasks.numbers.countdown import Countdown
from jaxrl.tasks.programs.abduction import Abduction
from jaxrl.tasks.programs.deduction import Deduction
from jaxrl.tasks.reasoning_gym import ReasoningGym
from jaxrl.tasks.rewards import Shaped
from jaxrl.tasks.sat.task import Sat
from jaxrl.tasks.tiny import Tiny

TASKS = {
    "abduction": Abduction,
    "arithmetic": Arithmetic,
    "code": Code,
    "countdown": Countdown,
    "custom": Custom,
    "deduction": Deduction,
    "knowledge_graph": KnowledgeGraph,
    "math": Math,
    "reasoning_gym": ReasoningGym,
    "sat": Sat,
    "tiny": Tiny,
}


def make_task(section: Any) -> Task:
    """The task that a config section describes, with the user's reward where the section names one.

    Args:
      section: a `task` section; its `name` chooses the task.
    Raises:
      InputError: unknown name, or what the task's own constructor finds wrong (missing files, too few walks).
    """
    if section.name not in TASKS:
        raise InputError(f"unknown task {section.name!r}; the tasks are: {', '.join(sorted(TASKS))}")
    task = TASKS[section.name](section)
    if section.reward is not None:
        task.verify = Shaped(task.verify, section.reward)
    if section.failure_reward is not None:
        task.failure_reward = section.failure_reward
    return task
