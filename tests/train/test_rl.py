"""The parts of a policy-gradient stage that can be told apart from a run: its reference, its problems, its
memory, its metrics.
"""

import json
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.config.algo import GRPOSection, PPOSection, ReplaySection
from jaxrl.model.policy import Policy
from jaxrl.rollout.curriculum import SuccessRates
from jaxrl.rollout.replay import Entry
from jaxrl.train.rl import (
    group_has_spread,
    make_progress,
    make_reference,
    next_problems,
    over_updates,
    renew_reference,
)
from jaxrl.types import Problem
from jaxrl.update.state import TrainState, place_state, policy_part
from tests.rollout.episodes import group, group_of, trajectory
from tests.tiny import CONFIG, fresh_value_head, max_difference, noisy, one_device, policy_and_trees

# -------------------------------------------------------------------------------------------------- reference


def logits(policy: Policy, trainable, frozen):
    tokens = jax.random.randint(jax.random.key(9), (2, 12), 0, CONFIG.vocab_size)
    positions, segment_ids = jnp.broadcast_to(jnp.arange(12), tokens.shape), jnp.ones(tokens.shape, jnp.int32)
    return policy.logits(trainable, frozen, policy.apply(trainable, frozen, tokens, positions, segment_ids))


@pytest.mark.parametrize("reference", ["start", "base"])
def test_without_a_kl_term_there_is_no_reference(reference):
    _, trainable, _ = policy_and_trees()
    assert make_reference(GRPOSection(kl_coef=0.0, reference=reference), trainable) == {}


def test_the_reference_is_the_policy_at_the_start_or_the_base_without_adapters():
    policy, trainable, frozen = policy_and_trees()
    base = logits(Policy(CONFIG, None), {"model": frozen["model"]}, {})
    start = make_reference(GRPOSection(kl_coef=0.1, reference="start"), trainable)
    assert max_difference(start, trainable) == 0
    from_base = make_reference(GRPOSection(kl_coef=0.1, reference="base"), trainable)
    assert jax.tree.structure(from_base) == jax.tree.structure(trainable)
    assert max_difference(logits(policy, from_base, frozen), base) < 1e-5
    assert max_difference(logits(policy, start, frozen), base) > 1e-2, (
        "the adapters of this test do something"
    )


def moved_state() -> TrainState:
    """A state with a critic, whose policy has left the reference."""
    _, trainable, _ = policy_and_trees()
    parts = trainable | {"value_head": fresh_value_head(CONFIG.d_model)}
    state = place_state(parts, optax.adam(1e-3), jax.random.key(0), one_device(), trainable)
    return TrainState(**{**vars(state), "trainable": noisy(state.trainable, 5)})


def test_a_renewed_reference_is_the_policy_of_that_moment_and_outlives_its_state():
    """A shared array would be given away twice when an update takes the state over, or change along with the
    policy.
    """
    state = moved_state()
    # arrays that NumPy has seen are not given away
    before = jax.tree.map(jnp.copy, policy_part(state.trainable))
    assert max_difference(state.reference, before) > 1e-3
    renewed = renew_reference(state)
    assert set(renewed.reference) == {"lora"}, "without the critic"
    assert max_difference(renewed.reference, before) == 0
    assert (
        renewed.opt_state is state.opt_state
        and renewed.trainable is state.trainable
        and renewed.step is state.step
    )

    def one_up(state: TrainState) -> TrainState:
        return TrainState(**{**vars(state), "trainable": jax.tree.map(lambda x: x + 1, state.trainable)})

    update = jax.jit(one_up, donate_argnums=0)
    after = update(renewed)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(renewed.trainable)), (
        "the update took the arrays over"
    )
    assert max_difference(after.reference, before) == 0
    assert max_difference(policy_part(after.trainable), before) > 0.9
    again = renew_reference(after)
    assert max_difference(again.reference, policy_part(after.trainable)) == 0


# --------------------------------------------------------------------------------------------------- problems

PROBLEMS = [Problem(f"p{i}", (), {}) for i in range(12)]


def draws(algo, progress, counts, seed=0, index=1) -> list[list[str]]:
    """The uids of one call after another, with the book-keeping of `rl`."""
    found = []
    for count in counts:
        found.append([problem.uid for problem in next_problems(algo, PROBLEMS, progress, count, seed, index)])
        progress.rounds, progress.drawn = progress.rounds + 1, progress.drawn + count
    return found


def test_without_a_curriculum_each_problem_comes_once_an_epoch_in_whatever_portions():
    algo = GRPOSection()
    portions = draws(algo, make_progress(algo, {}), [5, 5, 5, 1, 8])
    assert [len(portion) for portion in portions] == [5, 5, 5, 1, 8]
    stream = sum(portions, [])
    uids = sorted(problem.uid for problem in PROBLEMS)
    assert sorted(stream[:12]) == sorted(stream[12:]) == uids
    assert stream[:12] != stream[12:], "an epoch has an order of its own"
    assert sum(draws(algo, make_progress(algo, {}), [12, 12]), []) == stream, (
        "the stream does not see how it is cut up"
    )
    assert sum(draws(algo, make_progress(algo, {"rounds": 2, "drawn": 10}), [5, 9]), []) == stream[10:], (
        "it can be taken up anywhere"
    )
    assert sum(draws(algo, make_progress(algo, {}), [12, 12], seed=1), []) != stream


def test_by_success_rates_problems_solved_half_the_time_come_oftenest():
    algo = GRPOSection(curriculum="success_rate")
    rates = {f"p{i}": (0.0, 0.5, 1.0)[i % 3] for i in range(12)}
    calls = draws(algo, make_progress(algo, {"rates": rates}), [3] * 200)
    assert all(len(set(call)) == 3 for call in calls), "none twice in a call while there are enough"
    count = Counter(rates[uid] for call in calls for uid in call)
    assert count[0.5] > 5 * max(count[0.0], count[1.0]) and min(count[0.0], count[1.0]) > 0
    assert draws(algo, make_progress(algo, {"rates": rates}), [3] * 200) == calls, "the same every time"
    assert draws(algo, make_progress(algo, {"rates": rates, "rounds": 7}), [3] * 5) == calls[7:12]
    for other in ({"seed": 1}, {"index": 2}):
        assert draws(algo, make_progress(algo, {"rates": rates}), [3] * 20, **other) != calls[:20]


# ----------------------------------------------------------------------------------------------------- memory


def test_a_stage_starts_with_nothing_done_and_the_coefficient_of_its_config():
    progress = make_progress(PPOSection(kl_coef=0.3), {})
    assert (progress.kl_coef, progress.batches, progress.rounds, progress.drawn, progress.replay) == (
        0.3,
        0,
        0,
        0,
        None,
    )
    assert progress.rates.state() == {}
    assert len(make_progress(GRPOSection(replay=ReplaySection()), {}).replay) == 0


def test_what_is_saved_is_json_from_which_an_equal_progress_is_made():
    algo = PPOSection(kl_coef=0.3, replay=ReplaySection(per_problem=1, use="off_policy"))
    entries = [vars(Entry(uid, [9, 8], [7, 6], [-0.25, -0.1], 1.0, True, 1.5, 3)) for uid in ("easy", "hard")]
    progress = make_progress(
        algo, {"kl_coef": 0.1 + 0.2, "batches": 3, "rounds": 5, "drawn": 70, "replay": entries}
    )
    progress.rates.update([group_of(1.0, 0.0, 0.0, uid="easy"), group_of(0.0, 0.0, uid="hard")])
    meta = progress.meta()
    again = make_progress(algo, json.loads(json.dumps(meta)))
    assert again.meta() == meta
    assert (again.kl_coef, again.batches, again.rounds, again.drawn) == (0.1 + 0.2, 3, 5, 70), (
        "not the config's coefficient"
    )
    assert again.rates.rate("easy") == progress.rates.rate("easy") != progress.rates.rate("hard")
    assert len(again.replay) == 2 and again.replay.draw(2, again.rates, (0,)) == progress.replay.draw(
        2, progress.rates, (0,)
    )


@pytest.mark.parametrize(
    "section, use, kept",
    [(GRPOSection, "off_policy", 1), (GRPOSection, "sft", 2), (PPOSection, "off_policy", 2)],
)
def test_only_where_the_saved_advantage_is_learnt_from_is_one_of_zero_not_kept(section, use, kept):
    replay = make_progress(section(replay=ReplaySection(use=use)), {}).replay
    groups = [group_of(1.0, uid="flat"), group_of(1.0, uid="telling")]
    assert replay.add(groups, [[0.0], [0.5]], SuccessRates()) == kept


def test_what_was_saved_is_not_touched_by_what_comes_later():
    algo = GRPOSection()
    progress = make_progress(algo, {})
    meta = progress.meta()
    progress.rates.update([group_of(1.0, 0.0)])
    progress.batches += 1
    assert meta == make_progress(algo, {}).meta()


# ---------------------------------------------------------------------------------------------------- metrics


def update(tokens, skipped=0, **metrics):
    """Metrics of one update, as they come from the device; `_` stands for `/`."""
    named = {name.replace("_", "/"): np.float32(x) for name, x in metrics.items()}
    return {"tokens": np.float32(tokens), "skipped": np.int32(skipped), **named}


def test_a_batchs_metrics_are_means_over_tokens_the_largest_maxima_and_sums_of_counts():
    updates = [
        update(30, entropy=1.0, ratio_max=1.5),
        update(10, 1, entropy=2.0, ratio_max=1.25),
        update(10, 1, entropy=2.0, ratio_max=1.75),
    ]
    found = over_updates(updates)
    assert found == {"tokens": 50, "skipped": 2, "entropy": pytest.approx(1.4), "ratio/max": 1.75}
    assert all(type(x) is float for x in found.values()), "numbers that json can write"


def test_an_update_that_saw_no_tokens_has_no_say_in_a_batchs_metrics():
    """With everything replayed, or left out, its means are of nothing: NaN or 0, and its maxima -inf."""
    seen, empty = update(20, entropy=1.0, ratio_max=1.5), update(0, 1, entropy=math.nan, ratio_max=-math.inf)
    expected = {"tokens": 20, "skipped": 1, "entropy": 1.0, "ratio/max": 1.5}
    assert over_updates([seen, empty]) == over_updates([empty, seen]) == expected
    assert over_updates([update(20, entropy=1.0), update(0, entropy=0.0)])["entropy"] == 1.0
    assert over_updates([empty, empty]) == {"tokens": 0, "skipped": 2}, (
        "and where there is no other, nothing is told"
    )


def test_the_samplers_gap_is_the_first_updates_where_its_logprobs_are_the_old_ones():
    """Later updates would compare the sampler with itself."""

    def mismatch(tokens, size):
        return {
            **update(tokens, entropy=1.0),
            "sampler_mismatch/mean": np.float32(size),
            "sampler_mismatch/max": np.float32(2 * size),
        }

    updates = [mismatch(10, 0.5), mismatch(30, 0.0)]
    assert over_updates(updates)["sampler_mismatch/mean"] == 0.125
    found = over_updates(updates, "sampler")
    assert (
        found["sampler_mismatch/mean"] == 0.5
        and found["sampler_mismatch/max"] == 1.0
        and found["entropy"] == 1.0
    )
    assert "sampler_mismatch/mean" not in over_updates([mismatch(0, math.nan), mismatch(30, 0.0)], "sampler")


def test_without_updates_there_are_no_metrics():
    assert over_updates([]) == {}


def test_a_group_has_spread_where_what_is_learnt_from_differs():
    """Equal rewards of different parts teach something by parts alone; parts without a weight never do."""
    tables = [
        [{"luck": 1, "path": 0}, {"luck": 0, "path": 1}],
        [{"luck": 1, "path": 1}, {"luck": 0, "path": 1}],
    ]
    groups = [group(*(trajectory(1.0, parts=parts) for parts in table)) for table in tables]
    by_parts = GRPOSection(advantage="gdpo", part_weights={"path": 1.0})
    assert [group_has_spread(by_parts, g) for g in groups] == [True, False]
    assert [group_has_spread(GRPOSection(), g) for g in groups] == [False, False]
