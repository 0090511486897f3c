"""Steps per second of the worlds, and what their scripted policies reach.

    python scripts/bench_envs.py [WORLD ...] [--steps N] [--episodes N]

Steps are those of the random policy's kind, episodes made anew included, in seconds of this process's own CPU
time, so that other load does not count.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxrl.config.envs import env_sections
from jaxrl.config.file import make_env_section, read_overrides
from jaxrl.envs import make_world
from jaxrl.envs.world import TextWorld, play
from jaxrl.stats import bootstrap_mean_interval, jeffreys_interval


def steps_per_second(world: TextWorld, steps: int) -> float:
    """Turns are written beforehand: what is measured is the world."""
    rng = random.Random(0)
    episodes = []
    for problem in world.problems("val"):
        episodes.append((problem, play(world, problem, "random", rng).turns))
    done, began = 0, time.process_time()
    while done < steps:
        for problem, texts in episodes:
            environment = world.environment(problem)
            environment.start()
            for text in texts:
                environment.step(text)
            done += len(texts)
    return done / (time.process_time() - began)


def row(world: TextWorld, policy: str, episodes: int) -> str:
    played = [
        play(world, problem, policy, random.Random(f"{policy}/{index}"))
        for index, problem in enumerate(world.problems("test")[:episodes])
    ]
    successes, rewards = sum(t.success for t in played), [t.reward for t in played]
    low, high = jeffreys_interval(successes, len(played))
    least, most = bootstrap_mean_interval(rewards)
    turns = sum(len(t.turns) for t in played) / len(played)
    success = f"{successes / len(played):.3f} [{low:.3f}, {high:.3f}]"
    reward = f"{sum(rewards) / len(played):.3f} [{least:.3f}, {most:.3f}]"
    return f"| {world.name} | {policy} | {len(played)} | {success} | {reward} | {turns:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("worlds", nargs="*", default=[], help="names, and key=value for all of them")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--episodes", type=int, default=1000)
    arguments = parser.parse_intermixed_args()
    overrides = read_overrides([word for word in arguments.worlds if "=" in word])
    names = [word for word in arguments.worlds if "=" not in word] or sorted(env_sections())
    print("| world | policy | episodes | success, 95 % | reward, 95 % | turns |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        section = make_env_section(name, {"test": arguments.episodes, **overrides})
        world = make_world(section)
        if not world.policies():  # a server's
            continue
        for policy in world.policies():
            print(row(world, policy, arguments.episodes))
        print(f"| {name} | {steps_per_second(world, arguments.steps):,.0f} steps per CPU second | | | | |")


if __name__ == "__main__":
    main()
