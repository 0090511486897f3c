"""Environments of gymnasium: numbers and texts as actions, what cannot be said is refused."""

import random

import pytest

from jaxrl.envs.world import play
from jaxrl.errors import InputError
from tests.envs import episode_laws as laws


def make(**section):
    pytest.importorskip("gymnasium", reason="the extra `envs` is not installed")
    return laws.make(**{"name": "gymnasium", "train": 8, "val": 3, "test": 3} | section)


def lake(**section):
    return make(id="FrozenLake-v1", options={"is_slippery": False}, **section)


def test_the_laws():
    world = lake()
    laws.check_replay_is_play(world, world.problems("train"), "random")
    laws.check_problems_are_json(world, world.problems("train"))
    laws.check_splits_are_disjoint(world)
    laws.check_hostile_turns_are_answered(world, world.problems("train")[0])
    laws.check_an_episode_is_used_once(world, world.problems("train")[0])


def test_the_way_over_the_ice_pays_1():
    environment = lake().environment(lake().problems("train")[0])
    environment.start()
    results = [environment.step(f"Action: {step}") for step in (1, 1, 2, 2, 1, 2)]
    assert [result.reward for result in results] == [0, 0, 0, 0, 0, 1]
    assert results[-1].done and results[-1].metrics["success"] == 1


def test_numbers_that_are_no_action_change_nothing():
    environment = lake().environment(lake().problems("train")[0])
    environment.start()
    for said in ("4", "-1", "1.5", "left", "१", "9" * 30):
        result = environment.step(f"Action: {said}")
        assert result.observation == "That is no action here." and result.metrics["wrong_actions"] == 1


def test_an_environment_of_texts(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium", reason="the extra `envs` is not installed")
    (tmp_path / "jaxrl_echo_env.py").write_text(
        "import gymnasium\n"
        "class Echo(gymnasium.Env):\n"
        "    'Say the word.'\n"
        "    observation_space = action_space = gymnasium.spaces.Text(9)\n"
        "    def reset(self, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        self.word = str(self.np_random.integers(1000))\n"
        "        return self.word, {}\n"
        "    def step(self, action):\n"
        "        return 'no', float(action == self.word), action == self.word, False, {}\n"
        "gymnasium.register('Echo-v0', Echo)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    world = make(id="jaxrl_echo_env:Echo-v0")
    problem = world.problems("train")[0]
    assert problem.messages[0]["content"].startswith("Say the word.")
    word = problem.messages[-1]["content"]
    environment = world.environment(problem)
    environment.start()
    assert not environment.step("Action: x y").done  # a sign that the space does not have
    assert environment.step(f"Action: {word}").reward == 1
    assert not play(world, problem, "random", random.Random(0)).success


@pytest.mark.parametrize(
    "section, word",
    [
        ({"id": "Nothing-v7"}, "makes no 'Nothing-v7'"),
        ({"id": "no_such_module:X-v0"}, "no_such_module"),
        ({"id": "CartPole-v1"}, "only Text and Discrete"),
        ({"id": "FrozenLake-v1", "options": {"lake": 1}}, "check env.id and env.options"),
    ],
)
def test_what_cannot_be_played_is_refused(section, word):
    with pytest.raises(InputError, match=word):
        make(**section)
