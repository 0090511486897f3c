"""Rejection-sampling fine-tuning, from problems to a policy trained on its own best answers: read it from top
to bottom.

    problems -> k completions each -> verdicts -> winners -> packed rows -> fine-tuning; again from the result

Every iteration starts the optimiser and its schedule anew: how many rows it trains on is known only once they
are sampled, so no schedule could be laid over all iterations.
"""

import functools
import time
from collections.abc import Callable, Sequence

from jaxrl.config.experiment import RSFTStage
from jaxrl.data.packing import batch_at, indices_at, num_steps, pack
from jaxrl.errors import InputError
from jaxrl.interrupt import Interrupted
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.rollout.collect import collect, open_pool
from jaxrl.rollout.winners import Winner, WinnerStatistics, choose_winners, load_winners, save_winners
from jaxrl.sample.engine import Engine
from jaxrl.track.events import WARNING
from jaxrl.track.format import compact
from jaxrl.train.ahead import Ahead, Found
from jaxrl.train.finetune import fine_tune
from jaxrl.train.stage import DROPOUT, SAMPLING, Run, StageRun, check_same_data, enter
from jaxrl.types import Group, Problem
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import make_optimizer, make_schedule, place_state
from jaxrl.update.step import make_sft_step

MIN_WINNERS = 10  # fewer are learnt by heart


def rsft(run: Run, stage: RSFTStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """Run (or take up again) an RSFT stage.

    Args:
      index: the stage's place in the config. The winners of each iteration, written before they are trained
        on, are in `checkpoints/<index>_<name>_winners`.
      weights: what the stage before left.
    Returns:
      The weights after the last update.
    Raises:
      InputError: no iteration had a winner.
    """
    # --------------------------------------------------------------------------------------- task and policy
    task = run.make_task(stage.task)
    problems = task.problems("train")
    check_same_data(stage.name, problems)
    microbatch = stage_microbatch(stage, run.mesh)
    weights = enter(run, stage, index, weights)
    policy, frozen = weights.policy, weights.frozen
    engine = Engine(policy, stage.sample, run.eos_ids, run.tokenizer.decode, run.mesh)
    tx = make_optimizer(stage.optim, total_steps=1)  # a fresh state does not depend on the schedule's length

    with StageRun(run, stage, index, weights, tx) as work, open_pool(task, run.config.verify) as pool:

        @functools.cache  # iterations of one length share a compiled step
        def step_and_schedule(steps: int):
            tx, schedule = make_optimizer(stage.optim, steps), make_schedule(stage.optim, steps)
            return make_sft_step(policy, tx, work.abstract, run.mesh), schedule

        def sample_groups(chosen: Sequence[Problem], iteration: int) -> list[Group]:
            key, k = run.key(index, SAMPLING, iteration), stage.samples_per_problem
            version = meta["first_step"]
            arguments = engine, pool, run.tokenizer, chosen, k, state.trainable, frozen, key, version
            return collect(*arguments, context=stage.seq_len)

        # --------------------------------------------------------------------------------------------- resume
        state, meta = work.restore({"iteration": 0, "first_step": 0})
        for iteration in range(meta["iteration"], stage.iterations):
            if run.interrupt.stops(f"{stage.name}, iteration {iteration + 1}"):
                raise Interrupted
            if iteration > meta["iteration"]:
                meta = {**meta, "iteration": iteration, "first_step": meta["first_step"] + int(state.step)}
                state = place_state(state.trainable, tx, run.key(index, DROPOUT, iteration), run.mesh)
            first, done = meta["first_step"], int(state.step)  # updates before this iteration, and in it

            # ---------------------------------------------------------------------------------------- winners
            started = time.perf_counter()
            checkpoint = first + done if done else None
            winners, statistics = find_winners(work, iteration, checkpoint, problems, sample_groups)
            engine.release()  # updates need the memory
            collect_s = time.perf_counter() - started
            if not winners:
                continue

            # ------------------------------------------------------------------------------------ fine-tuning
            rows = pack([winner.example for winner in winners], stage.seq_len, stage.packing)
            steps = stage.steps or num_steps(len(rows), stage.rows, stage.epochs)
            if done < steps:
                work.begin(first + done, first + steps)
            # A constant rate has no end to know of: one compiled step serves iterations of any length.
            sft_step, schedule = step_and_schedule(1 if stage.optim.schedule == "constant" else steps)
            while done < steps:
                batch = batch_at(rows, stage.rows, run.config.seed, done)
                state, metrics = fine_tune(sft_step, state, frozen, batch, microbatch, run.mesh)
                work.guard.check(metrics)
                metrics["learning_rate"] = float(schedule(done))
                done += 1
                if done == 1:
                    metrics |= winner_metrics(iteration, statistics) | {"time/collect_s": collect_s}
                    metrics["time/step_s"] += collect_s
                    kept = [winner.sample for winner in winners if winner.sample is not None]
                    limit = run.config.track.samples_per_step
                    run.logger.log_samples(stage.name, first + done, kept[:limit])
                work.report(first + done, metrics)
                work.keep(first + done, state, meta, is_last=False, due=done == steps)
    work.guard.check_end()
    check_trained(stage, meta["first_step"] + int(state.step))
    return work.leave(state.trainable)


def find_winners(
    work: StageRun,
    iteration: int,
    checkpoint: int | None,
    problems: Sequence[Problem],
    sample_groups: Callable[[Sequence[Problem], int], list[Group]],
) -> tuple[list[Winner], WinnerStatistics]:
    """The winners of an iteration, from their file; sampled and written there first if it is not there.

    Args:
      checkpoint: the newest that was trained on them, None where there is none.
    Raises:
      InputError: there is one, and no file.
    """
    stage, console, run_folder = work.stage, work.run.console, work.run.logger.folder
    place = f"{stage.name}, iteration {iteration + 1} of {stage.iterations}"
    name = f"checkpoints/{work.folder.name}_winners/{iteration + 1}.jsonl"
    file = run_folder.path / name
    if not run_folder.exists(name):
        if checkpoint is not None:
            raise InputError(
                f"{file}, which checkpoint {checkpoint} was trained on, is missing; delete {work.folder} to"
                " start again"
            )
        chosen = problems_asked(problems, stage, work.run.config.seed, iteration)
        console.close()  # the bar of the steps before
        console.note(
            f"{place}: sampling {stage.samples_per_problem} completions of each of {len(chosen)} problems"
        )
        groups = sample_groups(chosen, iteration)
        kept, statistics = choose_winners(groups, stage.keep_top, stage.min_reward)
        run_folder.write(name, lambda path: save_winners(path, kept, statistics))
        show_winners(work.run, place, statistics)
    return load_winners(file)  # in a run that is taken up again and in one that is not


def problems_asked(problems: Sequence[Problem], stage: RSFTStage, seed: int, iteration: int) -> list[Problem]:
    """The problems of an iteration; one that the end of a permutation brings twice is asked once."""
    if stage.problems is None:
        return list(problems)
    return [
        problems[i]
        for i in dict.fromkeys(indices_at(len(problems), stage.problems, seed, iteration).tolist())
    ]


def check_trained(stage: RSFTStage, num_updates: int) -> None:
    """InputError for a stage in which nothing was trained."""
    if num_updates == 0:
        raise InputError(
            f"stage {stage.name}: no completion won in {stage.iterations} iteration(s), so nothing was"
            " trained; put a stage before it that teaches the policy to solve some problems, raise"
            " samples_per_problem, or set min_reward"
        )


def show_winners(run: Run, place: str, statistics: WinnerStatistics) -> None:
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
    run.console.note(
        f"{place}: {s.winners} winners for {s.solved} of {s.asked} problems; {s.correct} of {s.sampled}"
        " completions were correct; dropped:"
        f" {', '.join(f'{count} {why}' for why, count in dropped.items() if count) or 'none'}; mean reward"
        f" {compact(s.reward_sampled)} of all, {compact(s.reward_kept)} of the winners"
    )
    if s.winners == 0:
        warning = "no winner, so this iteration trains nothing"
    elif s.winners < MIN_WINNERS:
        remedy = "raise samples_per_problem or problems, or set min_reward"
        warning = f"only {s.winners} winner(s), which will be learnt by heart; {remedy}"
    else:
        return
    run.logger.events.record("few winners", WARNING, f"{place}: {warning}")


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


def check_rsft(ahead: Ahead, stage: RSFTStage) -> Found:
    """The problems that the stage learns.

    Raises:
      InputError: problems, lengths or a microbatch that do not fit.
    """
    ahead.check_microbatch(stage)
    learns = ahead.check_problems(stage, ahead.make_task(stage.task))
    if stage.problems is not None and stage.problems > len(learns):
        raise InputError(
            f"stage {stage.name}: problems={stage.problems} are more than the {len(learns)} of the task's"
            " train split; lower it (null: all)"
        )
    return Found(learns=learns)
