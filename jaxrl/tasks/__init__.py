"""The tasks, by the name that a config's `task.name` gives them."""

from typing import Any

from jaxrl.errors import InputError
from jaxrl.tasks.base import Task
from jaxrl.tasks.knowledge_graph import KnowledgeGraph
from jaxrl.tasks.tiny import Tiny

TASKS = {
    "knowledge_graph": KnowledgeGraph,
    "tiny": Tiny,
}


def make_task(section: Any) -> Task:
    """The task that a config section describes.

    Args:
      section: a `task` section; its `name` chooses the task.
    Raises:
      InputError: unknown name, or what the task's own constructor finds wrong (missing files, too few walks).
    """
    if section.name not in TASKS:
        raise InputError(f"unknown task {section.name!r}; the tasks are: {', '.join(sorted(TASKS))}")
    return TASKS[section.name](section)
