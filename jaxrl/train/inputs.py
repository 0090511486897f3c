"""What a run depends on beside its config: the files that it reads, by their digests, and the moment at which
it began.

Kept in the run's folder as `inputs.json`. A run that goes on with another base, tokenizer, record or reward
than it began with is another run; so the digests are compared at every start, before a weight is read. A file
whose stamp is the one kept (see `digests.py`) is not read for it: the check of 100 GB takes no time. Any
other is read whole: moved, copied or touched, a file with the same bytes is the same file.

Not kept: datasets of the hub (by name, not in a folder), installed packages (`task.packages`, and what the
user's Python files import from elsewhere than their own folder), and files that they open themselves, unless
`task.options` names them.
"""

import ast
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.config.experiment import Config
from jaxrl.device.processes import agree
from jaxrl.errors import InputError
from jaxrl.files.digests import Stamp, sha256_of_all, stamp
from jaxrl.files.disk import write_whole
from jaxrl.files.place import COPY, refuse_url
from jaxrl.policy.folder import model_folder

log = logging.getLogger("jaxrl")

INPUTS = "inputs.json"
STAMP = ("bytes", "modified_ns", "changed_ns", "inode")
# and the configs of a model or an adapter
TOKENIZER = ("*.json", "*.jinja", "*/*.jinja", "*.model", "*.txt", "*.tiktoken")
WEIGHTS = ("*.safetensors", *TOKENIZER)
# where they are texts
TASK_FILES = ("graph", "eval_file", "examples_file", "train_file", "test_file", "train", "val", "test", "hub")
TASK_PROGRAMS = ("file", "reward")  # `FILE.py` or `FILE.py:NAME`

Place = tuple[str | int, ...]  # of a value in the config's tree: ("stages", 0, "data", "file")


class File(NamedTuple):
    """path: as the config leads to it, for errors alone."""

    path: str
    digest: str
    stamp: Stamp


@dataclass(frozen=True)
class Inputs:
    """began: the moment that templates get. files: by the place in the config that names them."""

    began: datetime
    files: dict[str, File]


def check_inputs(config: Config, folder: Path) -> Inputs:
    """The inputs of a run that has begun, if they are still the ones that it began with; of a new one all but
    the base's weights, which are read when all else has been looked at (`read_inputs`).

    Raises:
      InputError: files that have changed, are gone or are new since the run began (all are named); a broken
        `inputs.json`.
    """
    for place, text, _ in _places(config):
        if "options" not in place:  # of which a task of the user's own may make what it likes
            refuse_url(text, f"{COPY}, as {'.'.join(map(str, place))}")
    # what a folder without it holds is not believed
    has_begun = agree("whether the run has begun", (folder / "config.yaml").is_file())
    kept = _load(folder / INPUTS) if has_begun else None
    if kept is None:
        began = datetime.fromisoformat(agree("the beginning", _beginning(folder).isoformat()))
        return Inputs(began, _digests(_input_files(config, with_weights=False), {}))
    files = _digests(_input_files(config) | _tokenizer_made(config, folder), kept.files)
    changes = [_change(kept.files.get(name), files.get(name)) for name in sorted(kept.files | files)]
    if any(changes):
        listed = "\n  ".join(dict.fromkeys(filter(None, changes)))
        raise InputError(
            f"{folder} holds a run that was begun with other files than there are now:\n  {listed}\nput back"
            " what was there, and it goes on; for a run with the files of now, set another `name`; to go on"
            f" all the same, with what has changed in the middle of the run, delete {folder / INPUTS}"
        )
    return Inputs(kept.began, files)


def read_inputs(inputs: Inputs, config: Config, folder: Path) -> Inputs:
    """The inputs with the digests of the base's weights, too; a run that has begun has them already."""
    paths = _input_files(config) | _tokenizer_made(config, folder)
    unread = {name: path for name, path in paths.items() if name not in inputs.files}
    return Inputs(inputs.began, inputs.files | _digests(unread, {}))


def keep_inputs(inputs: Inputs, config: Config, folder: Path) -> None:
    """Write `inputs.json`, with the tokenizer that was made in the folder since; nothing where it says the
    same already.
    """
    inputs = Inputs(inputs.began, inputs.files | _digests(_tokenizer_made(config, folder), inputs.files))
    if inputs != _load(folder / INPUTS):
        write_whole(folder / INPUTS, json.dumps(_values(inputs), indent=1, ensure_ascii=False) + "\n")


def compared_by_content(config: Config, folder: Path) -> list[Place]:
    """The values of the config that name files whose digests are kept: the files may lie elsewhere now."""
    return (
        [place for place, text, find in _places(config) if find(text)] if (folder / INPUTS).is_file() else []
    )


# ------------------------------------------------------------------------------------------------ which files


def _input_files(config: Config, with_weights: bool = True) -> dict[str, Path]:
    """Every file that a run of this config reads, by the place that names it. What is not there is left to
    its reader.
    """
    found = {}
    for place, text, find in _places(config, with_weights):
        name = ".".join(map(str, place))
        found |= {f"{name}/{inner}" if inner else name: path for inner, path in find(text).items()}
    return found


def _tokenizer_made(config: Config, folder: Path) -> dict[str, Path]:
    """The files of the tokenizer that a run without another makes when it begins, and goes on with."""
    is_own = config.model.path is None and config.model.tokenizer is None
    return (
        {f"tokenizer/{name}": path for name, path in _in_folder(folder / "tokenizer", TOKENIZER).items()}
        if is_own
        else {}
    )


def _places(
    config: Config, with_weights: bool = True
) -> Iterator[tuple[Place, str, Callable[[str], dict[str, Path]]]]:
    """Every text in the config that may name files, and how these are found: by their names inside what the
    text names.
    """
    values = config.model_dump(mode="json")
    finders = {
        "path": _model_files if with_weights else _tokenizer_files,
        "tokenizer": _tokenizer_files,
        "adapter": _adapter_files,
        "chat_template": _file,
    }
    found = [(("model", key), values["model"][key], find) for key, find in finders.items()]
    tasks = [(("task",), values["task"])]
    for i, stage in enumerate(values["stages"]):
        data = stage.get("data") or {}
        found += [
            (("stages", i, "data", key), data.get(key), find)
            for key, find in (("file", _file), ("hub", _dataset_files))
        ]
        tasks.append((("stages", i, "task"), stage.get("task")))
    for place, task in tasks:
        task = task or {}
        found += [
            ((*place, key), task.get(key), _dataset_files if key == "hub" else _file) for key in TASK_FILES
        ]
        found += [((*place, key), task.get(key), _program_files) for key in TASK_PROGRAMS]
        found += [(option, text, _file) for option, text in _texts((*place, "options"), task.get("options"))]
    yield from ((place, text, find) for place, text, find in found if isinstance(text, str))


def _texts(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts((*place, key), item)


def _model_files(name: str) -> dict[str, Path]:
    return _in_folder(model_folder(name), WEIGHTS)


def _tokenizer_files(name: str) -> dict[str, Path]:
    return _in_folder(model_folder(name, with_weights=False), TOKENIZER)


def _adapter_files(name: str) -> dict[str, Path]:
    return _in_folder(Path(name), WEIGHTS)


def _file(name: str) -> dict[str, Path]:
    return {"": Path(name)} if os.path.isfile(name) else {}  # which takes any text for a name


def _dataset_files(name: str) -> dict[str, Path]:
    """Of a dataset that was saved to a folder; of one on the hub, none."""
    return _in_folder(Path(name), ("**/*",))


def _program_files(place: str) -> dict[str, Path]:
    file = Path(place.partition(":")[0])
    return {"" if path == file else str(path.relative_to(file.parent)): path for path in _with_imports(file)}


def _in_folder(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    return {
        str(path.relative_to(folder)): path
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file()
    }


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


# -------------------------------------------------------------------------------------------------- comparing


def _digests(paths: dict[str, Path], kept: dict[str, File]) -> dict[str, File]:
    """The files as they are; a digest that was kept is taken where the stamp is the same."""
    stamps = {name: stamp(path) for name, path in paths.items()}
    unread = [name for name in paths if name not in kept or kept[name].stamp != stamps[name]]
    read = dict(zip(unread, sha256_of_all(paths[name] for name in unread), strict=True))
    return {
        name: File(str(path), read[name] if name in read else kept[name].digest, stamps[name])
        for name, path in paths.items()
    }


def _change(before: File | None, now: File | None) -> str | None:
    if before is None:
        return f"{now.path} is new"
    if now is None:
        return f"{before.path} is gone"
    contents = [f"{file.stamp[0]} bytes, sha256 {file.digest[:12]}" for file in (before, now)]
    return (
        f"{now.path} has changed ({contents[0]}; now {contents[1]})" if before.digest != now.digest else None
    )


# ------------------------------------------------------------------------------------------------------- file


def _beginning(folder: Path) -> datetime:
    """Now; or, for a run of a version that kept no inputs, when its config was written."""
    config = folder / "config.yaml"
    if not config.is_file():
        return datetime.now().replace(microsecond=0)
    log.warning(
        "%s was begun by a version that kept no digests of its inputs: whether they have changed since cannot"
        " be told; from now on, those of now are its inputs",
        folder,
    )
    return datetime.fromtimestamp(int(config.stat().st_mtime))


def _values(inputs: Inputs) -> dict[str, Any]:
    files = {
        name: {"path": f.path, "sha256": f.digest, **dict(zip(STAMP, f.stamp))}
        for name, f in sorted(inputs.files.items())
    }
    values = {"began": inputs.began.isoformat(), "files": files}
    return values | {"sha256": hashlib.sha256(json.dumps(values).encode()).hexdigest()}


def _load(path: Path) -> Inputs | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        stored = values["files"].items()
        files = {
            name: File(file["path"], file["sha256"], tuple(file[key] for key in STAMP))
            for name, file in stored
        }
        inputs = Inputs(datetime.fromisoformat(values["began"]), files)
        if _values(inputs) != values:
            raise ValueError("it is not as it was written")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used: {error}; restore it, or delete it to go on with the files as they"
            " are now"
        ) from None
    return inputs
