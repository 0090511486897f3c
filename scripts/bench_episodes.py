"""How much slow worlds slow a batch of episodes: the same episodes in worlds of several speeds, side by side.

    python scripts/bench_episodes.py [--episodes 64] [--turns 4] [--slots N] [--seconds 0.001 0.1]

A fresh model speaks; the tokens are the same whatever the world's speed, so that times can be compared. Of
each speed the fastest of the rounds counts, taken in turns, since other work on the machine only ever adds.
"""

import argparse
import time

import jax

from jaxrl.config.shared import MeshSection, SampleSection
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.device.mesh import make_mesh
from jaxrl.envs.base import StepResult
from jaxrl.envs.pool import EnvironmentPool
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.rollout.episodes import Limits, play
from jaxrl.sample.engine import Engine
from jaxrl.types import Message, Problem


class Paced:
    """Answers after so many seconds; an episode has `turns` turns."""

    failure_reward = 0.0

    def __init__(self, seconds: float, turns: int):
        self.seconds, self.turns = seconds, turns

    def environment(self, problem: Problem) -> "PacedEpisode":
        return PacedEpisode(self, problem)


class PacedEpisode:
    def __init__(self, world: Paced, problem: Problem):
        self.world, self.problem, self.turn = world, problem, 0

    def start(self) -> list[Message]:
        return list(self.problem.messages)

    def step(self, text: str) -> StepResult:
        time.sleep(self.world.seconds)
        self.turn += 1
        return StepResult("You look around and see green. What now?", 0.0, self.turn == self.world.turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of a turn")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.001, 0.1])
    args = parser.parse_args()

    tokenizer, mesh = train_tokenizer(["red green blue look around"]), make_mesh(MeshSection())
    sizes = {
        "d_model": args.d_model,
        "num_layers": 4,
        "num_heads": 4,
        "num_kv_heads": 2,
        "d_ff": 4 * args.d_model,
    }
    config = ModelConfig(
        family="qwen3",
        vocab_size=len(tokenizer),
        head_dim=args.d_model // 4,
        qk_norm=True,
        tie_embeddings=True,
        **sizes,
    )
    policy = Policy(config, mesh=mesh)
    model = jax.jit(policy.init_model)(jax.random.key(0))
    # one token in thirty ends a turn: their lengths differ as those of a policy do
    stop_ids = tuple(range(100, len(tokenizer), 30))
    sample = SampleSection(
        max_prompt_tokens=1024, max_new_tokens=args.tokens, window=8, stop_ids=stop_ids, slots=args.slots
    )
    engine = Engine(policy, sample, (tokenizer.eos_token_id,), tokenizer.decode, mesh)
    problems = [
        Problem(f"p{n}", (Message(role="user", content="red" * (n % 5 + 1)),), {})
        for n in range(args.episodes)
    ]
    pools = [EnvironmentPool(Paced(seconds, args.turns), 2, 60.0) for seconds in args.seconds]
    best = dict.fromkeys(args.seconds, float("inf"))
    for _ in range(args.rounds + 1):  # the first compiles
        for seconds, pool in zip(args.seconds, pools):
            began = time.perf_counter()
            groups = play(
                engine, pool, tokenizer, problems, 1, {"model": model}, {}, jax.random.key(1), 0, Limits(1024)
            )
            wall, times = time.perf_counter() - began, pool.take_times()
            best[seconds] = min(best[seconds], wall)
            episodes = [t for group in groups for t in group.trajectories]
            turns, tokens = sum(len(t.turns) for t in episodes), sum(t.num_tokens for t in episodes)
            waited = times["time/verify_wait_s"]
            print(
                f"{1000 * seconds:g} ms a turn: {wall:.2f} s for {turns} turns and {tokens} tokens; waited "
                f"{waited:.2f} s for worlds alone; {engine.counts}"
            )
    first = best[args.seconds[0]]
    for seconds in args.seconds:
        print(
            f"{1000 * seconds:g} ms a turn: {best[seconds]:.2f} s, {best[seconds] / first:.3f} of the first"
        )
    for pool in pools:
        pool.close()


if __name__ == "__main__":
    import bench_episodes  # under this name the worlds' workers find its classes

    bench_episodes.main()
