"""A task is named in three places, which must agree: what makes it, its section, and the names that errors
leave out.
"""

from typing import get_args

import pytest

from jaxrl.config import experiment as config
from jaxrl.config.tasks import AnyTaskSection, TaskSection
from jaxrl.tasks import TASKS
from jaxrl.tasks.base import Task

SECTIONS = {
    get_args(section.model_fields["name"].annotation)[0]: section
    for section in get_args(get_args(TaskSection)[0])
}


def test_the_names_agree():
    assert sorted(TASKS) == sorted(config.TASKS) == sorted(SECTIONS)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_the_whole_protocol_and_takes_a_users_reward(name):
    assert issubclass(SECTIONS[name], AnyTaskSection)
    methods = {method for method in vars(Task) if not method.startswith("_")}
    assert {"problems", "generate", "problem", "baselines"} <= methods
    missing = {method for method in methods - {"verify"} if not callable(getattr(TASKS[name], method, None))}
    assert missing == set(), "and `verify`, which its constructor may set"
