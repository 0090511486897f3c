"""Rejection-sampling fine-tuning, from problems to a policy trained on its own best answers: read it from top
to bottom.

    problems -> k completions each -> verdicts -> winners -> packed rows -> fine-tuning; again from the result

Every iteration starts the optimiser and its schedule anew: how many rows it trains on is known only once they
are sampled, so no schedule could be laid over all iterations.
"""

import functools
import time
from collections.abc import Sequence

from jaxrl.config.experiment import RSFTStage
from jaxrl.data.packing import batch_at, indices_at, num_steps, pack
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupted
from jaxrl.policy.hand_over import PolicyWeights, enter_stage
from jaxrl.rollout.collect import collect, open_pool
from jaxrl.rollout.winners import WinnerStatistics, choose_winners, load_winners, save_winners
from jaxrl.sample.engine import Engine
from jaxrl.tasks import make_task
from jaxrl.track.console import Console
from jaxrl.track.format import compact
from jaxrl.train.loop import FinitenessGuard, begin_stage, report_step
from jaxrl.train.memory_plan import fit_to_memory
from jaxrl.train.sft import update
from jaxrl.train.stage import ADAPTERS, DROPOUT, SAMPLING, Run
from jaxrl.types import Problem
from jaxrl.update.checkpoint import Checkpoints
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import abstract_state, make_optimizer, make_schedule, place_state
from jaxrl.update.step import make_sft_step

MIN_WINNERS = 10  # fewer are learnt by heart


def rsft(run: Run, stage: RSFTStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """Run (or take up again) an RSFT stage.

    Args:
      index: the stage's place in the config; its checkpoints are in `checkpoints/<index>_<name>`, and the
        winners of each iteration, written before they are trained on, in
        `checkpoints/<index>_<name>_winners`.
      weights: what the stage before left.
    Returns:
      The weights after the last update.
    Raises:
      InputError: no iteration had a winner.
    """
    # --------------------------------------------------------------------------------------------------- task
    task = make_task(stage.task)
    problems = task.problems("train")
    folder = run.folder / "checkpoints" / f"{index}_{stage.name}"
    microbatch = stage_microbatch(stage, run.mesh)

    # ------------------------------------------------------------------------------------ model and optimiser
    weights = enter_stage(weights, stage.lora, run.config.model.dtype, run.mesh, run.key(index, ADAPTERS))
    weights = fit_to_memory(run.config.model.remat, stage, weights, run.mesh)
    policy, frozen = weights.policy, weights.frozen
    engine = Engine(policy, stage.sample, run.eos_ids, run.tokenizer.decode, run.mesh)
    # for fresh states, which do not depend on the schedule's length
    tx = make_optimizer(stage.optim, total_steps=1)
    made_of = (weights.trainable, tx, run.key(index, DROPOUT), run.mesh)
    abstract = abstract_state(*made_of)

    @functools.cache  # iterations of one length share a compiled step
    def step_and_schedule(steps: int):
        tx, schedule = make_optimizer(stage.optim, steps), make_schedule(stage.optim, steps)
        return make_sft_step(policy, tx, abstract, run.mesh), schedule

    with (
        Checkpoints(folder, run.config.checkpoint.keep) as checkpoints,
        open_pool(task, run.config.verify) as pool,
    ):
        # --------------------------------------------------------------------------------------------- resume
        start = {"iteration": 0, "first_step": 0, "skipped": 0}
        state, meta = checkpoints.restore_latest(abstract) or (place_state(*made_of), start)
        guard = FinitenessGuard(stage.name, meta["skipped"])

        for iteration in range(meta["iteration"], stage.iterations):
            if run.interrupt.requested:
                raise Interrupted
            if iteration > meta["iteration"]:
                meta = {**meta, "iteration": iteration, "first_step": meta["first_step"] + int(state.step)}
                state = place_state(state.trainable, tx, run.key(index, DROPOUT, iteration), run.mesh)
            # optimiser steps before this iteration, and in it
            first, done = meta["first_step"], int(state.step)
            place = f"{stage.name}, iteration {iteration + 1} of {stage.iterations}"

            # ---------------------------------------------------------------------------------------- winners
            started = time.perf_counter()
            file = folder.with_name(f"{folder.name}_winners") / f"{iteration + 1}.jsonl"
            if not file.exists():
                if done:
                    raise InputError(
                        f"{file}, which checkpoint {first + done} was trained on, is missing; delete {folder}"
                        " to start again"
                    )
                chosen = choose_problems(problems, stage, run.config.seed, iteration)
                run.console.close()  # the bar of the steps before
                run.console.note(
                    f"{place}: sampling {stage.samples_per_problem} completions of each of {len(chosen)}"
                    " problems"
                )
                groups = collect(
                    engine,
                    pool,
                    run.tokenizer,
                    chosen,
                    stage.samples_per_problem,
                    state.trainable,
                    frozen,
                    run.key(index, SAMPLING, iteration),
                    policy_version=first,
                )
                engine.release()  # updates need the memory
                kept, statistics = choose_winners(groups, stage.keep_top, stage.min_reward)
                save_winners(file, kept, statistics)
                tell(run.console, place, statistics)
            winners, statistics = load_winners(file)  # in a run that is taken up again and in one that is not
            collect_s = time.perf_counter() - started
            if not winners:
                continue

            # ------------------------------------------------------------------------------------ fine-tuning
            rows = pack([winner.example for winner in winners], stage.seq_len, stage.packing)
            steps = stage.steps or num_steps(len(rows), stage.rows, stage.epochs)
            if done < steps:
                begin_stage(run, stage, first + done, first + steps, weights)
            # A constant rate has no end to know of: one compiled step serves iterations of any length.
            sft_step, schedule = step_and_schedule(1 if stage.optim.schedule == "constant" else steps)
            while done < steps:
                batch = batch_at(rows, stage.rows, run.config.seed, done)
                state, metrics = update(sft_step, state, frozen, batch, microbatch, run.mesh)
                guard.check(metrics)
                metrics["learning_rate"] = float(schedule(done))
                done += 1
                step = first + done
                if done == 1:
                    metrics |= winner_metrics(iteration, statistics) | {"time/collect_s": collect_s}
                    metrics["time/step_s"] += collect_s
                    run.logger.log_samples(
                        stage.name, step, [w.sample for w in winners[: run.config.track.samples_per_step]]
                    )
                report_step(run, stage, step, metrics)
                stops = run.interrupt.requested
                if stops or done == steps or step % run.config.checkpoint.every == 0:
                    checkpoints.save(step, state, {**meta, "skipped": guard.skipped})
                if stops:
                    raise Interrupted
    guard.check_end()
    if meta["first_step"] + int(state.step) == 0:
        raise InputError(
            f"stage {stage.name}: no completion won in {stage.iterations} iteration(s), so nothing was"
            " trained; put a stage before it that teaches the policy to solve some problems, raise"
            " samples_per_problem, or set min_reward"
        )
    return PolicyWeights(policy, state.trainable, frozen, weights.is_new_base)


def choose_problems(
    problems: Sequence[Problem], stage: RSFTStage, seed: int, iteration: int
) -> list[Problem]:
    """The problems of an iteration; one that the end of a permutation brings twice is asked once."""
    if stage.problems is None:
        return list(problems)
    return [
        problems[i]
        for i in dict.fromkeys(indices_at(len(problems), stage.problems, seed, iteration).tolist())
    ]


def tell(console: Console, place: str, statistics: WinnerStatistics) -> None:
    """What was kept of an iteration and what was not, in words."""
    s = statistics
    dropped = {
        "cut off": s.truncated,
        "without a verdict": s.errors,
        "with a reward that is not finite": s.non_finite,
        "not good enough": s.rejected,
        "repeated": s.duplicates,
        "beyond keep_top": s.surplus,
    }
    console.note(
        f"{place}: {s.winners} winners for {s.solved} of {s.asked} problems; {s.correct} of {s.sampled}"
        " completions were correct; dropped:"
        f" {', '.join(f'{count} {why}' for why, count in dropped.items() if count) or 'none'}; mean reward"
        f" {compact(s.reward_sampled)} of all, {compact(s.reward_kept)} of the winners"
    )
    if s.winners == 0:
        console.warn(f"{place}: no winner, so this iteration trains nothing")
    elif s.winners < MIN_WINNERS:
        remedy = "raise samples_per_problem or problems, or set min_reward"
        console.warn(f"{place}: only {s.winners} winner(s), which will be learnt by heart; {remedy}")


def winner_metrics(iteration: int, statistics: WinnerStatistics) -> dict[str, float]:
    """What metrics.jsonl says of an iteration's winners, in the row of its first step."""
    s = statistics
    return {
        "reward/mean": s.reward_sampled,
        "reward/not_finite": s.non_finite,
        "sample/accuracy": s.correct / s.sampled,
        "sample/truncated": s.truncated / s.sampled,
        "rsft/iteration": iteration + 1,
        "rsft/problems_asked": s.asked,
        "rsft/problems_solved": s.solved,
        "rsft/winners": s.winners,
        "rsft/duplicates": s.duplicates,
        "rsft/errors": s.errors,
        "rsft/reward_kept": s.reward_kept,
        "rsft/length_kept": s.length_kept,
    }
