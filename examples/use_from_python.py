"""Load a model directory, sample, score, one update; docs/python.md tells of the names. For example:
`python examples/use_from_python.py runs/quickstart/model`. A whole loop is in `grpo_by_hand.py`.
"""

import sys

import jax
import numpy as np

import jaxrl

folder = sys.argv[1]
mesh = jaxrl.make_mesh(jaxrl.MeshSection())
tokenizer = jaxrl.load_tokenizer(folder)
base = jaxrl.load_policy(folder, None, "float32", mesh, jaxrl.num_tokens(tokenizer))
weights = jaxrl.enter_stage(base, jaxrl.LoraSection(rank=8), "float32", mesh, jax.random.key(0))

sample = jaxrl.SampleSection(max_new_tokens=16)
ends = jaxrl.eos_ids(tokenizer, folder)
engine = jaxrl.Engine(weights.policy, sample, ends, tokenizer.decode, mesh, records=True)
prompt = jaxrl.render_for_sampling(tokenizer, [{"role": "user", "content": "Where do you arrive?"}])
drawn = engine.run(weights.trainable, weights.frozen, [jaxrl.Request(prompt, 0, 8)], jax.random.key(1))
completions = [sampled.completion for sampled in drawn]
engine.release()  # of the weights as decoding reads them

logprobs = jaxrl.score_tokens(weights, [c.prompt_ids + c.completion_ids for c in completions], mesh)
for completion, row in zip(completions, logprobs):
    print(f"{sum(row[len(prompt) :]):8.2f}  {completion.text!r}")

algo = jaxrl.GRPOSection(problems_per_batch=1, group_size=8)
rewards = np.array([[len(set(c.completion_ids)) for c in completions]], np.float32)  # [P, G]
samples = [jaxrl.make_sample(c) for c in completions]
samples, _ = jaxrl.group_credit(samples, rewards, np.isfinite(rewards), algo)
batch = jaxrl.collate(samples, num_rows=8, seq_len=len(prompt) + 16, microbatch=8)
tx = jaxrl.make_optimizer(jaxrl.OptimSection(), total_steps=1)
state = jaxrl.place_state(weights.trainable, tx, jax.random.key(2), mesh)
update = jaxrl.make_grpo_step(weights.policy, tx, algo, sample, state, mesh)
state, metrics = update(state, weights.frozen, jaxrl.shard_batch(batch, mesh))
print({name: round(float(x), 4) for name, x in metrics.items()})
