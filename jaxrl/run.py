"""An experiment: its stages in order, in one folder, taken up again where it stopped.

    runs/<name>/  config.yaml  metrics.jsonl  samples.jsonl  eval.json  report.md
                  checkpoints/<stage>/  tokenizer/  model/ (a base made here)  adapter/ (PEFT)
"""

import difflib
import os
import sys
from dataclasses import replace
from pathlib import Path

import jax

from jaxrl.config import Config, EvalStage
from jaxrl.config_file import dump_config
from jaxrl.errors import InputError
from jaxrl.eval.evaluate import baseline_rows, choose_problems, evaluate
from jaxrl.eval.table import load_rows, render_table, save_rows
from jaxrl.interrupt import Interrupt
from jaxrl.sample.engine import Engine
from jaxrl.sharding import make_mesh
from jaxrl.tasks import make_task
from jaxrl.track.console import Console
from jaxrl.track.logger import RunLogger, sample_row
from jaxrl.track.report import write_report
from jaxrl.train.grpo import grpo
from jaxrl.train.setup import Run, Weights, load_base, load_run_tokenizer, set_up_jax
from jaxrl.train.sft import sft
from jaxrl.verify.pool import VerifierPool
from jaxrl.weights.peft import save_adapter
from jaxrl.weights.safetensors import save_model


def run(config: Config, stream=sys.stdout) -> Path:
    """Run an experiment to its end, or on from where it stopped.

    Returns:
      The run's folder.
    Raises:
      InputError: anything the user can put right; another config in the same folder among it.
      Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
    """
    set_up_jax(config.compilation_cache)
    mesh = make_mesh(config.mesh)
    check_tasks(config)
    folder = open_run_folder(config)
    tokenizer, eos_ids = load_run_tokenizer(config, folder)
    weights = load_base(config.model, len(tokenizer), mesh, config.seed)
    is_first = jax.process_index() == 0
    with (
        Interrupt() as interrupt,
        Console(stream, enabled=is_first, log_every=config.track.log_every) as console,
        RunLogger(folder, config.track, config.name, config.model_dump(mode="json"), enabled=is_first) as logger,
    ):
        this = Run(config, folder, mesh, tokenizer, eos_ids, logger, console, interrupt)
        for index, stage in enumerate(config.stages):
            weights = STAGE_FUNCTIONS[stage.kind](this, stage, index, weights)
        export(this, weights)
        rows = load_rows(folder / "eval.json")
        if rows:
            console.close()
            console.note(render_table(rows))
        write_report(folder)
        console.note(f"report: {folder / 'report.md'}")
    return folder


def check_tasks(config: Config) -> None:
    """Make every stage's problems once: missing files and impossible numbers show before anything is written."""
    for stage in config.stages:
        if stage.task is not None:
            task = make_task(stage.task)
            for split in {"sft": ("train", "val"), "grpo": ("train",)}.get(stage.kind) or (stage.split,):
                task.problems(split)


def open_run_folder(config: Config) -> Path:
    """The run's folder, made with the resolved config in it, or found with the same one.

    Raises:
      InputError: if the folder holds another config; the text shows the differences.
    """
    folder = Path(config.runs_dir) / config.name
    file = folder / "config.yaml"
    text = dump_config(config)
    if file.exists():
        before = file.read_text(encoding="utf-8")
        if before != text:
            diff = "\n".join(difflib.unified_diff(before.splitlines(), text.splitlines(), str(file), "this command", lineterm="", n=1))
            raise InputError(f"{folder} holds a run of another config; set another `name`, or delete the folder. The difference:\n{diff}")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, file)
    return folder


def evaluation(run: Run, stage: EvalStage, index: int, weights: Weights) -> Weights:
    """Add a row to eval.json (with the baselines of the task before the first), unless a run before this one did."""
    file = run.folder / "eval.json"
    rows = load_rows(file)
    if any(row.name == stage.name for row in rows):
        return weights
    task = make_task(stage.task)
    problems = choose_problems(task, stage)
    run.console.stage(stage.name, len(problems), detail=f"{stage.split} split, temperature {stage.sample.temperature}")
    if not rows:
        rows = baseline_rows(task, problems, run.config.seed)
    policy = replace(weights.policy, remat="none")
    engine = Engine(policy, stage.sample, run.eos_ids, run.tokenizer.decode, run.mesh)
    verify = run.config.verify
    with VerifierPool(task.verify, verify.workers, verify.timeout_s, task.failure_reward) as pool:
        row, trajectories = evaluate(
            engine, pool, run.tokenizer, problems, weights.trainable, weights.frozen, run.key(index), stage.name
        )
    run.logger.truncate_after([s.name for s in run.config.stages], stage.name, -1)
    run.logger.log_samples(stage.name, 0, [sample_row(t) for t in trajectories])
    save_rows(file, [*rows, row])
    run.console.note(render_table([row]))
    return weights


def export(run: Run, weights: Weights) -> None:
    """What the run has made, for others to load: the base if it is a new one, the adapter if there is one."""
    lora = weights.policy.lora
    model = {**weights.frozen, **weights.trainable}["model"]
    base = run.config.model.path
    if weights.is_new_base:
        base = str(run.folder / "model")
        save_model(model, weights.policy.config, base, run.config.model.dtype, eos_ids=run.eos_ids)
        run.tokenizer.save_pretrained(base)
    if lora is not None:
        save_adapter(weights.trainable["lora"], lora, weights.policy.config, run.folder / "adapter", base)


STAGE_FUNCTIONS = {"sft": sft, "grpo": grpo, "eval": evaluation}
