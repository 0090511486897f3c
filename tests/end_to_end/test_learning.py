"""Every algorithm's config learns: on the game `letter`, from the level of chance to near the optimum, which
is 1.

What is short of a run cannot show it: a sign that is wrong in one place of many, or credit given to the wrong
tokens, leaves every shape and every finite number as it was. `scripts/learning.py` asks the same of all games
and of more seeds.
"""

import io
import json
import statistics
from pathlib import Path

import pytest

from jaxrl.commands.run import run
from jaxrl.config.file import load_config
from jaxrl.tasks.tiny import CHANCE

CONFIGS = Path(__file__).parents[2] / "configs" / "algorithms"
STEPS, LAST, GOAL = 16, 5, 0.9  # a mean of 0.9 over five steps is reached at step 10 to 12
SETTINGS = ["task.game=letter", "sample.max_new_tokens=10", f"stages.2.steps={STEPS}", "seed=0"]


@pytest.mark.parametrize("name", ["grpo", "rloo", "gspo", "dapo", "ppo"])
def test_the_reward_rises_from_chance_to_near_the_optimum(name, tmp_path):
    folder = run(load_config(CONFIGS / f"{name}.yaml", [*SETTINGS, f"runs_dir={tmp_path}"]), io.StringIO())
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    rewards = [row["reward/mean"] for row in rows if row["stage"] == "rl"]
    assert len(rewards) == STEPS
    assert rewards[0] == pytest.approx(CHANCE["letter"], abs=0.05), (
        "SFT on random answers has taught the format alone"
    )
    assert statistics.fmean(rewards[-LAST:]) >= GOAL, rewards
