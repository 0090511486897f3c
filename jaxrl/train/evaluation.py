"""An evaluation as a stage: rows of the run's table."""

from dataclasses import replace

from jaxrl.config.experiment import EvalStage
from jaxrl.device.processes import agree
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import baseline_rows, choose_problems, evaluate
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.rollout.collect import open_pool, verifiers_of
from jaxrl.sample.engine import Engine
from jaxrl.track.alarms import in_answers, in_evaluation
from jaxrl.track.evaluations import EVAL, load_rows, render_table, save_rows
from jaxrl.track.logger import sample_row
from jaxrl.train.ahead import Ahead, Found
from jaxrl.train.stage import SAMPLING, Run, check_same_data


def evaluation(run: Run, stage: EvalStage, index: int, weights: PolicyWeights) -> PolicyWeights:
    """Add a row to eval.json, after the baselines' where the problems are new; nothing if an earlier start
    did it.
    """
    rows = load_rows(run.folder / EVAL)
    if agree(f"whether {stage.name} is done", any(row.name == stage.name for row in rows)):
        return weights
    task = run.make_task(stage.task)
    problems = choose_problems(task, stage)
    check_same_data(stage.name, problems)
    detail = f"{stage.split} split, temperature {stage.sample.temperature}"
    run.console.stage(stage.name, len(problems), detail=detail, unit="problem")
    policy = replace(weights.policy, remat="none")
    engine = Engine(policy, stage.sample, run.eos_ids, run.tokenizer.decode, run.mesh)
    key = run.key(index, SAMPLING)
    with open_pool(task, run.config.verify) as pool:
        # the baselines of these problems stand before the first policy that was asked them
        earlier = [asked(s) for s in run.config.stages[:index] if isinstance(s, EvalStage)]
        if asked(stage) not in earlier:
            suffix = f" ({stage.name})" if earlier else ""
            with verifiers_of(task, pool, run.config.verify) as verifiers:
                baselines = baseline_rows(task, verifiers, problems, run.config.seed)
            rows = rows + [replace(row, name=row.name + suffix) for row in baselines]
        row, trajectories = evaluate(
            engine, pool, run.tokenizer, problems, weights.trainable, weights.frozen, key, stage.name
        )
    names, samples = [s.name for s in run.config.stages], [sample_row(t) for t in trajectories]
    run.logger.begin(names, stage.name, -1)
    run.logger.log_samples(stage.name, 0, samples)
    first = next(r for r in [*rows, row] if r.name in names)  # of the policies; the others are baselines
    run.logger.events.record_alarms([*in_answers(samples), *in_evaluation(row, first)])
    run.logger.folder.write(EVAL, lambda path: save_rows(path, [*rows, row]))
    run.console.note(render_table([row]))
    return weights


def asked(stage: EvalStage) -> tuple:
    """What tells the problems of an evaluation from those of another."""
    return stage.task, stage.split, stage.limit


def check_evaluation(ahead: Ahead, stage: EvalStage) -> Found:
    """The problems that the stage asks; none where it names the train split, which measures training problems
    openly.

    Raises:
      InputError: a name that a baseline's row has, no problems, or prompts that do not fit.
    """
    task = ahead.make_task(stage.task)
    if stage.name in task.baselines():
        raise InputError(
            f"an eval stage cannot be named {stage.name!r}: a baseline's row has that name; choose another"
            " `name`"
        )
    problems = choose_problems(task, stage)
    if not problems:
        raise InputError(
            f"stage {stage.name}: the task's {stage.split} split is empty; set task.{stage.split}"
        )
    ahead.longest_prompt(stage, problems)
    return Found(asks=problems if stage.split != "train" else ())
