"""The tokenizer of a run: taken from a directory, or trained on the words of its task."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxrl.config.experiment import Config
from jaxrl.data.chat import end_of_turn_id
from jaxrl.data.dates import fix_moment
from jaxrl.data.tokenizer import eos_ids, load_tokenizer, train_tokenizer
from jaxrl.device.processes import agree
from jaxrl.envs.asked import make_asked
from jaxrl.errors import InputError
from jaxrl.policy.folder import model_folder
from jaxrl.tasks.base import Task


def load_run_tokenizer(
    config: Config, run_folder: Path, began: datetime, make_task: Callable[[Any], Task] = make_asked
):
    """The run's tokenizer, which tells its templates the moment at which the run began, and the ids that end
    a completion.

    Without a directory to take it from, one is trained on the task's texts; `commands/run.py` keeps it in
    the run folder.

    Raises:
      InputError: no tokenizer to be had, or one whose turns end in a token that sampling would not stop at.
    """
    source = config.model.tokenizer or config.model.path
    folder = model_folder(source, with_weights=False) if source is not None else run_folder / "tokenizer"
    if source is not None or agree("whether there is a tokenizer", (run_folder / "config.yaml").exists()):
        tokenizer = load_tokenizer(folder, config.model.chat_template)
    elif config.task is not None:
        task = make_task(config.task)
        tokenizer = train_tokenizer(task.texts(), whole=task.phrases())
    else:
        raise InputError(
            "a fresh model needs words for its tokenizer; set `task`, or give model.tokenizer a tokenizer"
            " directory"
        )
    fix_moment(tokenizer, began)
    ends = eos_ids(tokenizer, folder)
    end_of_turn = end_of_turn_id(tokenizer)
    if end_of_turn not in ends:
        raise InputError(
            f"the chat template of {folder} closes a turn with {tokenizer.decode([end_of_turn])!r} (id"
            f" {end_of_turn}), which is not among the ids that end a completion"
            f" ({', '.join(map(str, ends))}); name it in eos_token_id of generation_config.json"
        )
    return tokenizer, ends
