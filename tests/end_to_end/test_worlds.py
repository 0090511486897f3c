"""GRPO learns in a world of two turns, from what each turn earns: the whole way from text to update."""

import dataclasses

import jax
import numpy as np
import optax

from jaxrl.config.algo import GRPOSection
from jaxrl.config.shared import SampleSection
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.device.mesh import shard_batch
from jaxrl.envs.pool import EnvironmentPool
from jaxrl.rollout.collate import collate
from jaxrl.rollout.episodes import Limits, play
from jaxrl.sample.engine import Engine
from jaxrl.train.experience import Scorers, fields_of, give_credit, minibatches
from jaxrl.types import StopReason
from jaxrl.update.state import place_state
from jaxrl.update.step import make_grpo_step, make_score_fn
from tests.rollout.worlds import Letters, problem
from tests.tiny import CONFIG, one_device, policy_and_trees

STEPS, SEQ_LEN = 12, 64


def test_grpo_learns_what_a_world_of_two_turns_pays_for():
    tokenizer, mesh = train_tokenizer(["red green blue"]), one_device()
    config = dataclasses.replace(CONFIG, vocab_size=len(tokenizer), num_layers=1)
    policy, trainable, frozen = policy_and_trees(None, config)
    sample = SampleSection(max_new_tokens=3, window=4)
    algo = GRPOSection(problems_per_batch=2, group_size=16, advantage="center", microbatch=8)
    engine = Engine(policy, sample, (tokenizer.eos_token_id,), tokenizer.decode, mesh, 2, 16, records=True)
    tx = optax.adam(0.03)
    state = place_state(trainable, tx, jax.random.key(0), mesh)
    step = make_grpo_step(policy, tx, algo, sample, state, mesh)
    score = make_score_fn(policy, mesh)
    scorers = Scorers(mesh, SEQ_LEN, algo, frozen, score, score)
    rewards = []
    with EnvironmentPool(Letters(), workers=1, timeout_s=60.0) as pool:
        for n in range(STEPS):
            key, problems = jax.random.key(n), [problem(0), problem(1)]
            groups = play(
                engine, pool, tokenizer, problems, 16, state.trainable, frozen, key, n, Limits(SEQ_LEN)
            )
            rewards.append(np.mean([t.verdict.reward for group in groups for t in group.trajectories]))
            experience = give_credit(groups, [], scorers, state, 0.0, 3)
            (samples,) = minibatches(experience, algo, (0, n))
            batch = collate(samples, algo.rows_per_update, SEQ_LEN, algo.microbatch, fields_of(algo))
            state, metrics = step(state, frozen, shard_batch(batch, mesh))
            assert np.isfinite(float(metrics["loss"]))
    turns = [len(t.turns) for group in groups for t in group.trajectories]
    assert max(turns) == 2 and {t.stop_reason for g in groups for t in g.trajectories} <= {
        StopReason.ENV_DONE,
        StopReason.MAX_TOKENS,
    }
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.4, rewards
