"""ScienceWorld: rewards from scores, with a simulator of our own in Java's place; the true one where it is
installed; what becomes of games whose Java machine dies.
"""

import random
import shutil
import subprocess

import pytest

from jaxrl.envs.base import WorldError
from jaxrl.envs.scienceworld import machine as machine_module
from jaxrl.envs.scienceworld.machine import Machine
from jaxrl.envs.scienceworld.rules import Experiment
from jaxrl.envs.world import play, replay
from jaxrl.errors import InputError
from tests.envs import episode_laws as laws

TASKS = ["find-plant", "find-living-thing", "identify-life-stages-1"]


class Simulator:
    """An interface whose score goes as it is told; that of the true one is between 0 and 1, or -1."""

    def __init__(self, scores):
        self.scores, self.score = list(scores), 0.0

    def load(self, task, variation, simplifications, makes_gold_path):
        self.loaded = (task, variation, simplifications, makes_gold_path)

    def reset(self):
        pass

    def getTaskDescription(self):
        return "Your task is to wait."

    def step(self, action):
        if action != "look around":
            self.score = self.scores.pop(0)
        return f"you {action}"

    def getScore(self):
        return self.score

    def getCompleted(self):
        return self.score in (1.0, -1.0)


class Here:
    """A machine without Java."""

    def __init__(self, interface):
        self.given, self.back = interface, []

    def interface(self):
        return self.given

    def release(self, interface):
        self.back.append(interface)

    def call(self, method, *arguments):
        return method(*arguments)


@pytest.mark.parametrize(
    "scores, rewards",
    [([0.08, 0.08, 0.5, 1.0], [0.08, 0, 0.42, 0.5]), ([0.2, -1.0], [0.2, -1.2]), ([0.333], [0.33])],
)
def test_rewards_add_up_to_the_last_score(scores, rewards):
    here = Here(Simulator(scores))
    game = Experiment(here, "boil", 3, "easy")
    assert game.opening == "Your task is to wait.\nyou look around"
    assert here.given.loaded == ("boil", 3, "easy", False)
    answers = [game.act("wait") for _ in rewards]
    assert [answer.reward for answer in answers] == pytest.approx(rewards)
    assert [answer.done for answer in answers[:-1]] == [False] * (len(rewards) - 1)
    assert answers[-1].done is (scores[-1] in (1.0, -1.0))
    if answers[-1].done:
        assert answers[-1].metrics == {"success": float(scores[-1] == 1)}
    game.close()
    game.close()
    assert here.back == [here.given]


def test_a_call_that_fails_ends_the_machine():
    pytest.importorskip("py4j", reason="the extra `envs` is not installed")
    dead = Machine.__new__(Machine)
    dead.process, dead._free, dead.is_alive = subprocess.Popen(["sleep", "600"]), [object()], True

    def hangs():
        raise TimeoutError("timed out")

    with pytest.raises(WorldError, match="does not answer: timed out"):
        dead.call(hangs)
    assert dead.process.poll() is not None and not dead.is_alive and not dead._free


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(machine_module, "_machines", {})
    monkeypatch.setitem(__import__("sys").modules, "scienceworld", None)
    with pytest.raises(InputError, match=r"needs the package scienceworld.*jaxrl\[envs\]"):
        laws.make(name="scienceworld")


def test_without_java_it_is_told_how_to_install_it(monkeypatch):
    pytest.importorskip("scienceworld", reason="the extra `envs` is not installed")
    monkeypatch.setattr(machine_module, "_machines", {})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="no program `java` is on the PATH; install a Java runtime"):
        laws.make(name="scienceworld")


# ----------------------------------------------------------------------------------------------- the true one


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("scienceworld", reason="the extra `envs` is not installed")
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    section = {"tasks": TASKS, "simplifications": "easy", "train": 3, "val": 2, "test": 2, "max_turns": 60}
    yield laws.make(name="scienceworld", **section)
    for machine in machine_module._machines.values():
        machine.end()


def test_the_true_simulator_keeps_the_laws(world):
    problems = world.problems("train")
    for problem in problems:
        played = play(world, problem, "expert", random.Random(0))
        assert played.success and played.reward == pytest.approx(1) and played.stop_reason == "env_done"
        assert replay(world, problem, played.turns).results == played.results
    laws.check_problems_are_json(world, problems)
    laws.check_splits_are_disjoint(world)
    laws.check_an_episode_is_used_once(world, problems[0])
    environment = world.environment(problems[0])
    environment.start()
    paid = [environment.step(text).reward for text in laws.HOSTILE]
    assert sum(map(bool, paid)) <= 1 and max(paid) < 0.1  # the simulator's points for where one begins


def test_two_games_of_one_machine_do_not_touch_each_other(world):
    one, other = (world.environment(problem) for problem in world.problems("val"))
    first, second = one.start()[-1]["content"], other.start()[-1]["content"]
    one.step("Action: teleport to outside")
    assert second.endswith(other.step("Action: look around").observation)
    assert not first.endswith(one.step("Action: look around").observation)


def test_a_machine_that_dies_costs_its_games_and_no_more(world):
    problem = world.problems("val")[0]
    environment = world.environment(problem)
    environment.start()
    environment.game._machine.process.kill()
    with pytest.raises(WorldError):
        environment.step("Action: look around")
    assert world.environment(problem).start() == list(problem.messages)


@pytest.mark.parametrize(
    "data, word",
    [({"task": "dance", "variation": 0}, "task"), ({"task": "boil", "variation": 30}, "from 0 to 29")],
)
def test_data_of_no_problem_are_refused(world, data, word):
    with pytest.raises(InputError, match=word):
        world.problem(data)


def test_an_unknown_task_is_named(world):
    with pytest.raises(InputError, match="'dance'; the tasks are: boil"):
        laws.make(name="scienceworld", tasks=["dance"])


def test_tasks_with_few_variations_give_way_to_others(world):
    rare = laws.make(name="scienceworld", tasks=["boil", "melt"], train=0, val=0, test=2)
    assert len({str(problem.data) for problem in rare.problems("test")}) == 2
    with pytest.raises(InputError, match="no more than .* ask for fewer problems"):
        rare.rules.draw(random.Random(0), 7, lambda content: False)
