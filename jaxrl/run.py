"""An experiment: its stages in order, in one folder, taken up again where it stopped.

    runs/<name>/  config.yaml  metrics.jsonl  samples.jsonl  eval.json  report.md
                  checkpoints/<stage>/  tokenizer/  model/ (a base made here)  adapter/ (PEFT)
"""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxrl.compilations import Compilations
from jaxrl.config import Config, EvalStage, RLStage, Stage
from jaxrl.config_file import difference, dump_config
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import baseline_rows, choose_problems, evaluate
from jaxrl.eval.table import load_rows, render_table, save_rows
from jaxrl.interrupt import Interrupt, Interrupted
from jaxrl.memory import explain_out_of_memory
from jaxrl.rollout.collect import open_pool
from jaxrl.sample.engine import Engine
from jaxrl.sharding import make_mesh, num_row_shards
from jaxrl.tasks import make_task
from jaxrl.track.console import Console
from jaxrl.track.logger import RunLogger, sample_row
from jaxrl.track.report import write_report
from jaxrl.train.microbatch import stage_microbatch
from jaxrl.train.preflight import preflight
from jaxrl.train.rl import rl
from jaxrl.train.rsft import rsft
from jaxrl.train.setup import SAMPLING, Run, Weights, load_base, load_run_tokenizer, set_up_jax
from jaxrl.train.sft import sft
from jaxrl.train.state import all_finite
from jaxrl.weights.peft import save_adapter
from jaxrl.weights.safetensors import save_model


def run(config: Config, stream=sys.stdout) -> Path:
    """Run an experiment to its end, or on from where it stopped.

    Returns:
      The run's folder.
    Raises:
      InputError: anything the user can put right; another config in the same folder among it. Nothing is written before
        all stages have been looked at.
      Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
    """
    set_up_jax(config.compilation_cache)
    mesh = make_mesh(config.mesh)
    folder = Path(config.runs_dir) / config.name
    refuse_other_config(folder, config)
    tokenizer, eos_ids = load_run_tokenizer(config, folder)
    weights = load_base(config.model, len(tokenizer), mesh, config.seed)
    sft_rows = preflight(config, tokenizer, weights.policy.config, mesh)
    is_first = jax.process_index() == 0
    make_run_folder(folder, config, tokenizer)
    with (
        Interrupt() as interrupt,
        Compilations() as compilations,
        Console(stream, enabled=is_first, log_every=config.track.log_every) as console,
        RunLogger(folder, config.track, config.name, config.model_dump(mode="json"), enabled=is_first) as logger,
    ):
        this = Run(config, folder, mesh, tokenizer, eos_ids, sft_rows, logger, console, interrupt, compilations)
        try:
            for index, stage in enumerate(config.stages):
                if interrupt.requested:
                    raise Interrupted
                with explain_out_of_memory(f"stage {stage.name}", partial(smaller, stage, mesh)):
                    weights = STAGE_FUNCTIONS[stage.kind](this, stage, index, weights)
        finally:
            console.note(compilations.line())
        export(this, weights)
        finish(this)
    return folder


def smaller(stage: Stage, mesh: Mesh) -> str:
    """What to set where a stage's memory runs out; the sampler says for itself what it needs less of."""
    shards = num_row_shards(mesh)
    rows = 0 if isinstance(stage, EvalStage) else stage_microbatch(stage, mesh) // 2 // shards * shards
    setting = "algo.microbatch" if isinstance(stage, RLStage) else "microbatch"
    return (f"set {setting} to {rows}, or " if rows else "") + "hold the weights in bfloat16, or cut them over mesh.fsdp"


def finish(run: Run) -> None:
    """The report, and the table of evaluations on the console."""
    rows = load_rows(run.folder / "eval.json")
    report = write_report(run.folder)
    run.console.close()
    if rows:
        run.console.note(render_table(rows))
    run.console.note(f"report: {report}")


def refuse_other_config(folder: Path, config: Config) -> None:
    """InputError, with the differences, if the folder holds a run of another config."""
    file = folder / "config.yaml"
    if not file.exists():
        if left := [name for name in ("checkpoints", "metrics.jsonl", "samples.jsonl", "eval.json") if (folder / name).exists()]:
            raise InputError(
                f"{folder} holds {' and '.join(left)} and no config.yaml, so that nothing says which run they belong to; restore "
                "config.yaml, set another `name`, or delete the folder"
            )
        return
    if diff := difference(file, config):
        raise InputError(f"{folder} holds a run of another config; set another `name`, or delete the folder. The difference:\n{diff}")


def make_run_folder(folder: Path, config: Config, tokenizer) -> None:
    """The run's folder with the resolved config in it, and the tokenizer if it was made here."""
    if (folder / "config.yaml").exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if config.model.path is None and config.model.tokenizer is None:
            tokenizer.save_pretrained(folder / "tokenizer")
        unfinished = folder / "config.tmp"  # the config comes last: what a folder without it holds is not believed
        unfinished.write_text(dump_config(config), encoding="utf-8")
        os.replace(unfinished, folder / "config.yaml")
    except OSError as error:
        raise InputError(f"the run's folder {folder} cannot be written: {error.strerror}; set runs_dir or name") from None


def evaluation(run: Run, stage: EvalStage, index: int, weights: Weights) -> Weights:
    """Add a row to eval.json, after the baselines' where the problems are new; nothing if an earlier start did it."""
    file = run.folder / "eval.json"
    rows = load_rows(file)
    if any(row.name == stage.name for row in rows):
        return weights
    task = make_task(stage.task)
    problems = choose_problems(task, stage)
    run.console.stage(stage.name, len(problems), detail=f"{stage.split} split, temperature {stage.sample.temperature}")
    asked = (stage.task, stage.split, stage.limit)
    earlier = [(s.task, s.split, s.limit) for s in run.config.stages[:index] if isinstance(s, EvalStage)]
    policy = replace(weights.policy, remat="none")
    engine = Engine(policy, stage.sample, run.eos_ids, run.tokenizer.decode, run.mesh)
    with open_pool(task, run.config.verify) as pool:
        if asked not in earlier:  # the baselines of these problems stand before the first policy that was asked them
            suffix = f" ({stage.name})" if earlier else ""
            rows = rows + [replace(row, name=row.name + suffix) for row in baseline_rows(task, pool, problems, run.config.seed)]
        row, trajectories = evaluate(
            engine, pool, run.tokenizer, problems, weights.trainable, weights.frozen, run.key(index, SAMPLING), stage.name
        )
    run.logger.truncate_after([s.name for s in run.config.stages], stage.name, -1)
    run.logger.log_samples(stage.name, 0, [sample_row(t) for t in trajectories])
    save_rows(file, [*rows, row])
    run.console.note(render_table([row]))
    return weights


def export(run: Run, weights: Weights) -> None:
    """What the run has made, for others to load: the base if it is a new one, the adapter if there is one.

    Raises:
      InputError: weights that are not finite; nothing is written.
    """
    if not jax.jit(all_finite)((weights.trainable, weights.frozen if weights.is_new_base else {})):
        raise InputError("the weights hold numbers that are not finite and are not exported; lower optim.learning_rate, or check model.path")
    lora = weights.policy.lora
    model = {**weights.frozen, **weights.trainable}["model"]
    base = run.config.model.path
    if weights.is_new_base:
        base = str(run.folder / "model")
        made_here = run.folder / "tokenizer"
        if not made_here.is_dir():
            run.tokenizer.save_pretrained(base)  # before the config.json that says the folder is whole
        save_model(
            model, weights.policy.config, base, run.config.model.dtype,
            tokenizer_from=made_here if made_here.is_dir() else None, eos_ids=run.eos_ids,
        )  # fmt: skip
    if lora is not None:
        save_adapter(weights.trainable["lora"], lora, weights.policy.config, run.folder / "adapter", base)


STAGE_FUNCTIONS = {"sft": sft, "rsft": rsft, "grpo": rl, "ppo": rl, "eval": evaluation}
