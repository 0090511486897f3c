"""Worlds where a config names a task: they travel to the processes that play, and have baselines."""

import pickle
import random
from pathlib import Path

import pytest

from jaxrl.config.file import make_env_section, validate_config
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.envs.asked import WorldTask, make_asked
from jaxrl.envs.world import play
from jaxrl.errors import InputError

GUESS = str(Path(__file__).parents[2] / "examples" / "guess.py")
SMALL = {
    "textcraft": {"depth": [1, 1]},
    "webshop": {"products": 40},
    "alfworld": {},
    "custom_env": {"file": GUESS},
}


def small(name):
    return make_asked(make_env_section(name, SMALL[name] | {"train": 4, "val": 2, "test": 2}))


@pytest.mark.parametrize("name", SMALL)
def test_a_world_is_the_same_in_another_process(name):
    task = small(name)
    again = pickle.loads(pickle.dumps(task.world))
    for problem in task.problems("train"):
        for policy in task.world.policies():
            one, other = (play(world, problem, policy, random.Random(1)) for world in (task.world, again))
            assert one == other and one.turns


def test_scripted_policies_are_its_baselines():
    task = small("textcraft")
    assert isinstance(task, WorldTask) and set(task.baselines()) == {"expert", "heuristic", "random"}
    for problem in task.problems("train"):
        verdict = task.verify(problem, task.baselines()["expert"](problem, random.Random(0)))
        assert (verdict.reward, verdict.correct, verdict.format_ok) == (1.0, True, True)


def test_a_fresh_tokenizer_knows_what_is_said_in_a_world():
    task = small("textcraft")
    tokenizer = train_tokenizer(task.texts(), whole=task.phrases())
    said = play(task.world, task.problems("test")[0], "expert", random.Random(0)).turns[0]
    assert tokenizer.decode(tokenizer(said)["input_ids"]) == said


def test_a_world_has_no_demonstrations_of_one_turn():
    task = small("textcraft")
    with pytest.raises(InputError, match="`jaxrl generate`, and name the file in the sft stage's data.file"):
        task.demonstration(task.problems("train")[0])


@pytest.mark.parametrize(
    "task, algo, reason",
    [
        ("textcraft", {"overlong": "penalty", "overlong_buffer": 8}, "measures one completion"),
        (
            "tiny",
            {"rows_per_episode": 2},
            "rows_per_episode=2 is for episodes of a world, and tiny is a task",
        ),
    ],
)
def test_what_cannot_work_in_a_world_is_refused(task, algo, reason):
    config = {
        "name": "a",
        "model": {
            "architecture": {"d_model": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "d_ff": 8}
        },
        "task": {"name": task} | ({"game": "letter"} if task == "tiny" else {}),
        "stages": [{"kind": "grpo", "lora": None, "algo": algo}],
    }
    with pytest.raises(InputError, match=reason):
        validate_config(config, "config")
    config["stages"][0]["algo"] = {}
    assert validate_config(config, "config").stages[0].task.name == task
