"""GRPO by hand: one file to read from top to bottom, and to fork. It runs in under a minute on a CPU:

    python examples/grpo_by_hand.py

A fresh transformer learns the game `letter` (six words, as many of them `a` as possible) from rewards alone:

    P problems -> G samples of each -> rewards -> advantages -> packed minibatches -> clipped updates

The arithmetic and the sampler are the library's; the story is written out here, and `jaxrl.train` has no part
in it. That the two are the same, token by token and update by update, is a test:
`tests/end_to_end/test_by_hand.py`, which also has the config that says the same to `jaxrl run`.

What `jaxrl run` does and this file does not:
- adapters, and a model that is there: all of a fresh model is trained (`use_from_python.py` loads one);
- checkpoints, going on after a stop, metrics, samples, a report, evaluation on held-out problems;
- several devices, pieces of a minibatch that fit their memory, rematerialisation, bfloat16, arrays given away
  to the update;
- a verifier in processes of its own, with time limits and a sandbox: here the reward is a function call;
- updates that are skipped for not being finite, completions that do not count, filters of the sampler;
- a schedule, a KL term, an entropy bonus, a critic, replay, a curriculum, groups without spread left out.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl.config.shared import MeshSection, SampleSection
from jaxrl.config.tasks import TinySection
from jaxrl.data.chat import render_for_sampling
from jaxrl.data.packing import assign_rows, lay_out, segments, stream_at
from jaxrl.data.tokenizer import num_tokens, train_tokenizer
from jaxrl.device.mesh import make_mesh
from jaxrl.model.config import ModelConfig
from jaxrl.model.policy import Policy
from jaxrl.ops.advantages import group_normalize
from jaxrl.ops.logprobs import token_logprobs
from jaxrl.ops.policy_loss import clipped_surrogate, importance_ratio, loss_weights
from jaxrl.sample.engine import Engine
from jaxrl.sample.rows import Request
from jaxrl.tasks.tiny import Tiny
from jaxrl.types import Completion

SEED = 0
STEPS, P, G = 20, 16, 16  # batches of experience, problems of each, samples of each problem
UPDATES = 2  # minibatches that a batch is cut into, one update each
PROMPT_TOKENS, NEW_TOKENS, ROW_TOKENS = 16, 8, 64
CLIP, LEARNING_RATE = 0.2, 3e-3
# A row holds at least so many samples, which gives the rows of the worst packing: one compiled shape.
ROWS = -(-P * G // UPDATES // (ROW_TOKENS // (PROMPT_TOKENS + NEW_TOKENS)))
SAMPLING, ORDER = 2, 3  # purposes of random numbers, as `jaxrl run` counts them


class Batch(NamedTuple):
    """A minibatch, packed: [ROWS, ROW_TOKENS] each."""

    tokens: np.ndarray  # int32
    positions: np.ndarray  # int32, from 0 in each sample
    segment_ids: np.ndarray  # int32, from 1 in each row; 0 = padding
    mask: np.ndarray  # bool, what was sampled
    advantages: np.ndarray  # float32


def main() -> None:
    for update, (_, completions, rewards) in enumerate(train(), start=1):
        if update % (5 * UPDATES) == 0:
            said = completions[0].text
            print(f"batch {update // UPDATES:2}  reward {rewards.mean():.2f} of 1  for example: {said!r}")


def train(steps: int = STEPS) -> Iterator[tuple[dict, list[Completion], np.ndarray]]:
    """After each update the model's parameters, and what it learns from: completions and their rewards."""
    # ---------------------------------------------------------------------- task, tokenizer, model, optimiser
    task = Tiny(TinySection(name="tiny", game="letter"))
    problems = task.problems("train")
    tokenizer = train_tokenizer(task.texts(), whole=task.phrases())
    mesh = make_mesh(MeshSection())  # of one device
    policy = make_policy(num_tokens(tokenizer), mesh)
    model = jax.jit(policy.init_model)(jax.random.key(SEED))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))
    opt_state = tx.init(model)
    sample = SampleSection(max_prompt_tokens=PROMPT_TOKENS, max_new_tokens=NEW_TOKENS, window=NEW_TOKENS)
    engine = Engine(policy, sample, (tokenizer.eos_token_id,), tokenizer.decode, mesh, P, G, records=True)
    score, update = make_update(policy, tx)

    for step in range(steps):
        # ----------------------------------------------------------------------------------------- experience
        chosen = [problems[i] for i in stream_at(len(problems), step * P, P, SEED)]  # each once an epoch
        requests = [
            Request(render_for_sampling(tokenizer, problem.messages), zlib.crc32(problem.uid.encode()), G)
            for problem in chosen
        ]
        found = {
            (sampled.request, sampled.index): sampled.completion
            for sampled in engine.run({"model": model}, {}, requests, make_key(SAMPLING, step))
        }
        engine.release()  # what it makes of the weights; the updates bring others
        places = [(p, g) for p in range(P) for g in range(G)]
        completions = [found[place] for place in places]
        rewards = np.array([task.verify(chosen[p], found[p, g].text).reward for p, g in places])

        # --------------------------------------------------------------------------------------------- credit
        advantages = np.asarray(group_normalize(jnp.float32(rewards.reshape(P, G)))).reshape(-1)
        order = np.random.default_rng([ORDER, SEED, 0, step, 1]).permutation(P * G)
        batches = [
            pack([completions[i] for i in part], advantages[part]) for part in np.split(order, UPDATES)
        ]

        # -------------------------------------------------------------------------------------------- updates
        old_logprobs = [score(model, batch) for batch in batches]  # of the policy that has sampled
        for batch, old in zip(batches, old_logprobs):
            model, opt_state = update(model, opt_state, batch, old)
            yield model, completions, rewards


def make_update(policy: Policy, tx: optax.GradientTransformation) -> tuple[Callable, Callable]:
    """What is computed of a minibatch: score, the logprobs of its tokens, and update, one optimiser step."""

    @jax.jit
    def score(model: dict, batch: Batch) -> jax.Array:
        """The logprob of every sampled token, [ROWS, ROW_TOKENS]; 0 elsewhere."""
        hidden = policy.apply({"model": model}, {}, batch.tokens, batch.positions, batch.segment_ids)
        head = policy.head({"model": model}, {})
        return token_logprobs(
            hidden, head, batch.tokens, batch.segment_ids, mask=batch.mask, num_tokens=policy.num_tokens
        )[0]

    def loss(model: dict, batch: Batch, old_logprobs: jax.Array) -> jax.Array:
        ratio = importance_ratio(score(model, batch), old_logprobs, batch.mask, batch.segment_ids)
        weights = loss_weights(batch.mask[None], batch.segment_ids[None], "token_mean")[0]
        return jnp.sum(weights * clipped_surrogate(ratio, batch.advantages, CLIP, CLIP))

    @jax.jit
    def update(model: dict, opt_state, batch: Batch, old_logprobs: jax.Array) -> tuple[dict, optax.OptState]:
        change, opt_state = tx.update(jax.grad(loss)(model, batch, old_logprobs), opt_state, model)
        return optax.apply_updates(model, change), opt_state

    return score, update


def make_policy(vocab_size: int, mesh: jax.sharding.Mesh) -> Policy:
    """A Qwen3 of 100,000 numbers. Ids from `vocab_size` on, which no token has, are never drawn."""
    sizes = {"d_model": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "d_ff": 128}
    padded = -(-vocab_size // 8) * 8
    config = ModelConfig(family="qwen3", vocab_size=padded, **sizes, qk_norm=True, tie_embeddings=True)
    return Policy(config, mesh=mesh, num_tokens=vocab_size)


def make_key(purpose: int, step: int) -> jax.Array:
    """The key that `jaxrl run` makes for a purpose at a step of its stage 0."""
    key = jax.random.key(SEED)
    for number in (0, purpose, step):
        key = jax.random.fold_in(key, number)
    return key


def pack(completions: Sequence[Completion], advantages: np.ndarray) -> Batch:
    """Several samples to a row, each a segment of its own that attention does not leave."""
    prompts = [len(completion.prompt_ids) for completion in completions]
    tokens = [completion.prompt_ids + completion.completion_ids for completion in completions]
    lengths = [len(ids) for ids in tokens]
    rows = assign_rows(lengths, ROW_TOKENS)
    rows += [[]] * (ROWS - len(rows))
    mask = [np.arange(length) >= prompt for length, prompt in zip(lengths, prompts)]
    return Batch(
        lay_out(rows, tokens, ROW_TOKENS, np.int32),
        *segments(rows, lengths, ROW_TOKENS),
        lay_out(rows, mask, ROW_TOKENS, bool),
        lay_out(rows, [m * advantage for m, advantage in zip(mask, advantages)], ROW_TOKENS, np.float32),
    )


if __name__ == "__main__":
    main()
