"""An experiment: its stages in order, in one folder, taken up again where it stopped.

What is in the folder, and who writes it: `files/run_folder.py`.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import jax
from jax.sharding import Mesh

from jaxrl.cluster import find_place
from jaxrl.commands.together import check_processes
from jaxrl.config.experiment import Config, EvalStage, RLStage, Stage
from jaxrl.config.file import difference, dump_config
from jaxrl.config.tasks import CustomSection
from jaxrl.data.dates import asks_for_date
from jaxrl.data.tokenizer import num_tokens
from jaxrl.device.arrays import fetch
from jaxrl.device.compilations import Compilations, set_up_jax
from jaxrl.device.gpu import set_up_gpus
from jaxrl.device.memory import explain_out_of_memory
from jaxrl.device.mesh import make_mesh, num_row_shards
from jaxrl.device.processes import (
    agree,
    check_same,
    gather,
    is_first,
    joined,
    num_processes,
    on_first,
    process_id,
)
from jaxrl.envs.asked import make_asked
from jaxrl.errors import InputError
from jaxrl.files.disk import write_whole
from jaxrl.files.follower import Follower
from jaxrl.files.lock import locked
from jaxrl.files.mirror import Mirror, mirrored
from jaxrl.files.run_folder import RunFolder
from jaxrl.interrupt import Interrupt, Interrupted
from jaxrl.policy.describe import describe
from jaxrl.policy.hand_over import PolicyWeights
from jaxrl.policy.load import load
from jaxrl.policy.tokenizer import load_run_tokenizer
from jaxrl.tasks.base import Task
from jaxrl.track.console import Console
from jaxrl.track.evaluations import EVAL, load_rows, render_table
from jaxrl.track.expected import compare
from jaxrl.track.logger import FILES, RunLogger, read_run_file
from jaxrl.track.report import CONFIG, REPORT, write_report
from jaxrl.train.inputs import INPUTS, Inputs, check_inputs, compared_by_content, keep_inputs, read_inputs
from jaxrl.train.layout import choose_mesh
from jaxrl.train.preflight import preflight
from jaxrl.train.stage import Run
from jaxrl.train.stages import STAGE_KINDS
from jaxrl.update.microbatch import stage_microbatch
from jaxrl.update.state import all_finite
from jaxrl.weights.peft import save_adapter
from jaxrl.weights.safetensors import help_save, save_model


def run(config: Config, stream: TextIO | None = sys.stdout) -> Path:
    """Run an experiment to its end, or on from where it stopped.

    Returns:
      The run's folder.
    Raises:
      InputError: anything the user can put right; another config or another process in the same folder among
        it, and a disk that takes no more. Nothing is written before all stages have been looked at.
      ProcessLost: another process of the run ended, or fell silent.
      Interrupted: on Ctrl-C, SIGTERM or SIGHUP, after the state was saved.
    """
    set_up_gpus(config.gpu)  # before a device is used
    with (
        joined(find_place(config.distributed), config.distributed.timeout_s),
        locked(config.folder) if is_first() else nullcontext(lambda: None) as check_lock,
        mirrored(config.folder, config.url, process_id(), num_processes()) as mirror,
    ):
        return run_locked(config, check_lock, mirror, stream)


def run_locked(
    config: Config,
    check_lock: Callable[[], None],
    mirror: Mirror | Follower | None,
    stream: TextIO | None = sys.stdout,
) -> Path:
    """`run`, where the caller keeps other processes out of the run's folder; `check_lock` is what `locked`
    gave, and `mirror` what `mirrored` did.
    """
    set_up_jax(config.compilation_cache)
    gpu_notes = set_up_gpus(config.gpu)
    run_folder = enter_folder(config, mirror)
    folder = run_folder.path
    inputs = check_inputs(config, folder)
    tasks = task_maker()
    tokenizer, eos_ids = load_run_tokenizer(config, folder, inputs.began, tasks)
    section, why_mesh = choose_mesh(config.mesh, config.model, config.stages, num_tokens(tokenizer))
    mesh = make_mesh(section)
    description = describe(config.model, num_tokens(tokenizer), mesh)
    ahead = preflight(config, tokenizer, description, tasks)
    inputs = read_inputs(inputs, config, folder)
    check_same_inputs(inputs, tokenizer)
    weights = load(description, config.seed)
    check_lock()  # the model may have taken minutes
    make_run_folder(run_folder, config, tokenizer, inputs)
    with (
        Interrupt(gather) as interrupt,
        Compilations() as compilations,
        Console(stream, enabled=is_first(), log_every=config.track.log_every) as console,
        RunLogger(run_folder, config.track, config.name, config.model_dump(mode="json"), console) as logger,
    ):
        this = Run(
            config,
            folder,
            mesh,
            tokenizer,
            eos_ids,
            tasks,
            ahead.sft_rows,
            ahead.plans,
            logger,
            console,
            interrupt,
            compilations,
        )
        for note in filter(None, (*gpu_notes, why_mesh, date_told(tokenizer, inputs.began))):
            console.note(note)
        try:
            for index, stage in enumerate(config.stages):
                if interrupt.stops(f"the start of {stage.name}"):
                    raise Interrupted
                logger.check()
                logger.events.move_to(stage.name, 0)
                with explain_out_of_memory(f"stage {stage.name}", functools.partial(smaller, stage, mesh)):
                    weights = STAGE_KINDS[stage.kind].run(this, stage, index, weights)
        finally:
            console.note(compilations.line())
        export(this, weights)
        finish(this)
    return folder


def enter_folder(config: Config, mirror: Mirror | Follower | None) -> RunFolder:
    """The run's folder, when all processes have come, and if it holds nothing or this run."""
    run_folder = RunFolder(config.folder if mirror is None else mirror.folder, is_first(), agree, mirror)
    check_processes(config)
    run_folder.bring()
    on_first("what the folder holds", lambda: refuse_other_run(run_folder.path, config))
    return run_folder


def date_told(tokenizer: Any, began: datetime) -> str | None:
    """What the chat template is told of the date, where it asks for it."""
    if not asks_for_date(tokenizer):
        return None
    return f"the chat template asks for the date: it is told {began:%Y-%m-%d}, when the run began, throughout"


def task_maker() -> Callable[[Any], Task]:
    """`make_asked`, which makes one task for equal sections, and that its problems once. A user's own task
    may change as it is asked, so whoever asks for one gets a new one.
    """
    once = functools.cache(make_asked)
    return lambda section: (make_asked if isinstance(section, CustomSection) else once)(section)


def smaller(stage: Stage, mesh: Mesh) -> str:
    """What to set where a stage's memory runs out; the sampler says for itself what it needs less of."""
    shards = num_row_shards(mesh)
    rows = 0 if isinstance(stage, EvalStage) else stage_microbatch(stage, mesh) // 2 // shards * shards
    setting = "algo.microbatch" if isinstance(stage, RLStage) else "microbatch"
    return (
        f"set {setting} to {rows}, or " if rows else ""
    ) + "hold the weights in bfloat16, or cut them over mesh.fsdp"


def finish(run: Run) -> None:
    """The report, and the table of evaluations on the console."""
    run.logger.check()
    rows = load_rows(run.folder / EVAL)
    run.logger.folder.write(REPORT, lambda _: write_report(run.folder))
    run.console.close()
    if rows:
        run.console.note(render_table(rows))
    if run.config.expect is not None:
        for sentence in compare(run.config.expect, {row.name: row.accuracy for row in rows}):
            run.console.note(sentence)
    run.console.note(f"report: {run.logger.folder.place(REPORT)}")


def check_same_inputs(inputs: Inputs, tokenizer: Any) -> None:
    """InputError where other processes of the run read other files, or made another tokenizer of them."""
    digests = {name: file.digest for name, file in inputs.files.items()}
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())) + str(tokenizer.chat_template)
    digests["the tokenizer"] = hashlib.sha256(vocabulary.encode()).hexdigest()
    check_same("what the run reads", digests, "put the same files on every host")


def refuse_other_run(folder: Path, config: Config) -> None:
    """InputError where the folder does not hold this run, or holds what cannot be read of it."""
    refuse_other_config(folder, config)
    refuse_broken_records(folder)


def refuse_other_config(folder: Path, config: Config) -> None:
    """InputError, with the differences, if the folder holds a run of another config.

    Its files may lie elsewhere now (see `inputs.py`), and so may the folder itself, or be called by another
    path.
    """
    file = folder / "config.yaml"
    if not file.exists():
        if left := [name for name in ("checkpoints", *FILES, EVAL) if (folder / name).exists()]:
            raise InputError(
                f"{folder} holds {' and '.join(left)} and no config.yaml, so that nothing says which run they"
                " belong to; restore config.yaml, set another `name`, or delete the folder"
            )
        return
    elsewhere = [("runs_dir",), ("name",), *compared_by_content(config, folder)]
    if diff := difference(file, config, elsewhere):
        raise InputError(
            f"{folder} holds a run of another config; set another `name`, or delete the folder. The"
            f" difference:\n{diff}"
        )


def refuse_broken_records(folder: Path) -> None:
    """InputError if what an earlier start has told of the run cannot be read: found before the hours that
    come before its use.
    """
    for name in FILES:
        read_run_file(folder / name)
    load_rows(folder / EVAL)


def make_run_folder(folder: RunFolder, config: Config, tokenizer, inputs: Inputs) -> None:
    """The run's folder with the resolved config and the inputs in it, and the tokenizer if it was made
    here.
    """
    is_new = not folder.exists(CONFIG)
    if is_new:
        folder.write("", lambda path: path.mkdir(parents=True, exist_ok=True))
        if config.model.path is None and config.model.tokenizer is None:
            folder.write("tokenizer", lambda path: path.mkdir(exist_ok=True))
            folder.write("tokenizer", tokenizer.save_pretrained)
    folder.write(INPUTS, lambda _: keep_inputs(inputs, config, folder.path))
    if is_new:  # the config comes last: what a folder without it holds is not believed
        folder.write(CONFIG, lambda path: write_whole(path, dump_config(config)))


def export(run: Run, weights: PolicyWeights) -> None:
    """What the run has made, for others to load: the base if it is a new one, the adapter if there is one.

    Raises:
      InputError: weights that are not finite; nothing is written. A disk that does not take them.
    """
    run.logger.check()
    if not jax.jit(all_finite)((weights.trainable, weights.frozen if weights.is_new_base else {})):
        raise InputError(
            "the weights hold numbers that are not finite and are not exported; lower optim.learning_rate, or"
            " check model.path"
        )
    lora = weights.policy.lora
    model = {**weights.frozen, **weights.trainable}["model"]
    base = run.config.model.path
    if weights.is_new_base:
        base = run.logger.folder.place("model")
        made_here = run.folder / "tokenizer"

        def write_model(folder: Path) -> None:
            if not made_here.is_dir():
                run.tokenizer.save_pretrained(folder)  # before the config.json that says the folder is whole
            save_model(
                model,
                weights.policy.config,
                folder,
                run.config.model.dtype,
                tokenizer_from=made_here if made_here.is_dir() else None,
                eos_ids=run.eos_ids,
            )

        if not is_first():
            help_save(model, weights.policy.config, run.config.model.dtype)
        run.logger.folder.write("model", write_model)
    if lora is not None:
        adapter = fetch(weights.trainable["lora"])
        run.logger.folder.write(
            "adapter", lambda folder: save_adapter(adapter, lora, weights.policy.config, folder, base)
        )
