"""What a run depends on beside its config: the files that it reads, by their digests, and the moment at which it began.

Kept in the run's folder as `inputs.json`. A run that goes on with another base, tokenizer, record or reward than it began with is
another run; so the digests are compared at every start, before a weight is read. A file whose stamp is the one kept (see
`digests.py`) is not read for it: the check of 100 GB takes no time. Any other is read whole: moved, copied or touched, a file with
the same bytes is the same file.

Not kept: datasets of the hub (by name, not in a folder), what the user's Python files import from elsewhere than their own
folder, and files that they open themselves, unless `task.options` names them.
"""

import ast
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxrl.config import Config, SFTStage
from jaxrl.config_tasks import AnyTaskSection, CustomSection
from jaxrl.digests import Stamp, sha256_of_all, stamp
from jaxrl.errors import InputError
from jaxrl.train.setup import model_folder

log = logging.getLogger("jaxrl")

INPUTS = "inputs.json"
STAMP = ("bytes", "modified_ns", "changed_ns", "inode")
TOKENIZER = ("*.json", "*.jinja", "*/*.jinja", "*.model", "*.txt", "*.tiktoken")  # and the configs of a model or an adapter
WEIGHTS = ("*.safetensors", *TOKENIZER)
TASK_FILES = ("graph", "eval_file", "examples_file", "train_file", "test_file", "train", "val", "test", "hub")  # where they are texts
TASK_PROGRAMS = ("file", "reward")  # `FILE.py` or `FILE.py:NAME`


@dataclass(frozen=True)
class Inputs:
    """began: the moment that the run's templates are told. files: by the name that the config gives them, digest and stamp."""

    began: datetime
    files: dict[str, tuple[str, Stamp]]


def check_inputs(config: Config, folder: Path) -> Inputs:
    """The inputs of a run as they are now; those of a run that has begun are the ones that it began with.

    Raises:
      InputError: files that have changed, are gone or are new since the run began (all are named); a broken `inputs.json`.
    """
    has_begun = (folder / "config.yaml").is_file()  # what a folder without it holds is not believed
    kept = _load(folder / INPUTS) if has_begun else None
    files = _digests(_input_files(config) | _tokenizer_made(config, folder), kept.files if kept else {})
    if kept is None:
        return Inputs(_beginning(folder), files)
    names = sorted(kept.files | files)
    if changes := [f"{name} {change}" for name in names if (change := _change(kept.files.get(name), files.get(name)))]:
        listed = "\n  ".join(changes)
        raise InputError(
            f"{folder} holds a run that was begun with other files than there are now:\n  {listed}\n"
            "put back what was there, and it goes on; for a run with the files of now, set another `name`"
        )
    return Inputs(kept.began, files)


def keep_inputs(inputs: Inputs, config: Config, folder: Path) -> None:
    """Write `inputs.json`, with the tokenizer that was made in the folder since; nothing where it says the same already."""
    inputs = Inputs(inputs.began, inputs.files | _digests(_tokenizer_made(config, folder), inputs.files))
    if inputs != _load(folder / INPUTS):
        unfinished = folder / f"{INPUTS}.tmp"
        unfinished.write_text(json.dumps(_values(inputs), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / INPUTS)


# ------------------------------------------------------------------------------------------------------- which files


def _input_files(config: Config) -> dict[str, Path]:
    """Every file that a run of this config reads, by the name that the config gives it. What is not there is left to its reader."""
    model = config.model
    found: dict[str, Path] = {}
    if model.path is not None:
        found |= _files_of(model.path, model_folder(model.path), WEIGHTS)
    if model.tokenizer is not None:
        found |= _files_of(model.tokenizer, model_folder(model.tokenizer), TOKENIZER)
    if model.adapter is not None:
        found |= _files_of(model.adapter, Path(model.adapter), WEIGHTS)
    names = [model.chat_template] if model.chat_template is not None else []
    names += [s.data.file or s.data.hub for s in config.stages if isinstance(s, SFTStage) and s.data is not None]
    for section in (config.task, *(stage.task for stage in config.stages)):
        names += _task_files(section) if section is not None else ()
    for name in dict.fromkeys(names):
        if Path(name).is_dir():  # a dataset that was saved to a folder
            found |= _files_of(name, Path(name), ("**/*",))
        elif Path(name).is_file():
            found[name] = Path(name)
    return found


def _tokenizer_made(config: Config, folder: Path) -> dict[str, Path]:
    """The files of the tokenizer that a run without another makes when it begins, and goes on with."""
    is_own = config.model.path is None and config.model.tokenizer is None
    return _files_of(str(folder / "tokenizer"), folder / "tokenizer", TOKENIZER) if is_own else {}


def _files_of(name: str, folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    paths = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {f"{name}/{path.relative_to(folder)}": path for path in paths}


def _task_files(section: AnyTaskSection) -> Iterator[str]:
    values = {key: value for key, value in section if isinstance(value, str)}
    yield from (values[key] for key in TASK_FILES if key in values)
    for key in TASK_PROGRAMS:
        if key in values:
            yield from map(str, _with_imports(Path(values[key].partition(":")[0])))
    if isinstance(section, CustomSection):
        yield from (text for text in _texts(section.options.model_dump()) if Path(text).is_file())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _with_imports(file: Path) -> list[Path]:
    """A Python file, and the files of its own folder that it or they import, wherever the import stands."""
    found, new = [], [file]
    while new:
        path = new.pop()
        if path.is_file() and path not in found:
            found.append(path)
            for name in _imported_names(path, file.parent):
                parts = name.split(".")
                for depth in range(1, len(parts) + 1):  # `a.b` runs a/__init__.py too
                    place = file.parent.joinpath(*parts[:depth])
                    new += [place.with_name(f"{place.name}.py"), place / "__init__.py"]
    return found


def _imported_names(path: Path, top: Path) -> set[str]:
    """Dotted names, from the folder `top` on, that may be modules: `from a import b` is a and a.b."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # running it will say so
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parents[node.level - 1] if node.level else top
            above = package.relative_to(top).parts if package.is_relative_to(top) else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base} | {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    return names - {""}


# --------------------------------------------------------------------------------------------------------- comparing


def _digests(paths: dict[str, Path], kept: dict[str, tuple[str, Stamp]]) -> dict[str, tuple[str, Stamp]]:
    """Digest and stamp of each file; a digest that was kept is taken where the stamp is the same."""
    stamps = {name: stamp(path) for name, path in paths.items()}
    unread = [name for name in paths if name not in kept or kept[name][1] != stamps[name]]
    read = dict(zip(unread, sha256_of_all(paths[name] for name in unread), strict=True))
    return {name: (read.get(name) or kept[name][0], stamps[name]) for name in paths}


def _change(before: tuple[str, Stamp] | None, now: tuple[str, Stamp] | None) -> str | None:
    if before is None:
        return "is new"
    if now is None:
        return "is gone"
    told = [f"{size} bytes, sha256 {digest[:12]}" for digest, (size, *_) in (before, now)]
    return f"has changed ({told[0]}; now {told[1]})" if before[0] != now[0] else None


# ------------------------------------------------------------------------------------------------------------- file


def _beginning(folder: Path) -> datetime:
    """Now; or, for a run of a version that kept no inputs, when its config was written."""
    config = folder / "config.yaml"
    if not config.is_file():
        return datetime.now().replace(microsecond=0)
    log.warning(
        "%s was begun by a version that kept no digests of its inputs: whether they have changed since cannot be told; "
        "from now on, those of now are its inputs", folder,
    )  # fmt: skip
    return datetime.fromtimestamp(int(config.stat().st_mtime))


def _values(inputs: Inputs) -> dict[str, Any]:
    files = {name: {"sha256": digest, **dict(zip(STAMP, found))} for name, (digest, found) in sorted(inputs.files.items())}
    values = {"began": inputs.began.isoformat(), "files": files}
    return values | {"sha256": hashlib.sha256(json.dumps(values).encode()).hexdigest()}


def _load(path: Path) -> Inputs | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (file["sha256"], tuple(file[key] for key in STAMP)) for name, file in values["files"].items()}
        inputs = Inputs(datetime.fromisoformat(values["began"]), files)
        if _values(inputs) != values:
            raise ValueError("it is not as it was written")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be used: {error}; restore it, or delete it to go on with the files as they are now") from None
    return inputs
