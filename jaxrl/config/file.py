"""Config files: reading them, laying overrides on, naming what is wrong in them, writing them resolved.

What `load_config` returns is resolved: each stage carries its own complete sections, and the YAML that
`dump_config` writes loads back to the same object.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from jaxrl.config.envs import AnyEnvSection, EnvSection, env_sections
from jaxrl.config.experiment import INHERITED, STAGES, TASKS, Config
from jaxrl.config.section import Section, merge
from jaxrl.config.tasks import TaskSection
from jaxrl.errors import InputError
from jaxrl.files.disk import read_text

AnySection = TypeVar("AnySection", bound=Section)

# Which run it is, where it is kept and what it runs on: what is learnt is the same, but for rounding and
# chance.
OF_THE_MACHINE = ("mesh", "gpu")  # results do not depend on them beyond rounding
INCIDENTAL = (
    "name",
    "seed",
    "runs_dir",
    "compilation_cache",
    *OF_THE_MACHINE,
    "distributed",
    "verify",
    "checkpoint",
    "track",
)


class _Loader(yaml.SafeLoader):
    """Reads `1e-4` as the float that its writer meant (YAML 1.1: a string), and refuses a key that stands
    twice.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice in one mapping", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$|^[-+]?\.\d[\d_]*[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, lay it over its `base:` file if it names one, apply `key=value` overrides,
    validate.

    What a file says to `expect` holds of its own settings: overrides of what is learnt are noted there
    (`changed`), and a file that is laid over another does not take over the other's.

    Args:
      path: YAML file.
      overrides: `dotted.key=value`, the value read as YAML; list items by index (`stages.1.steps=10`).
    Raises:
      InputError: missing file, broken YAML, unknown key (nearest name suggested), wrong type.
    """
    values = read_yaml(Path(path))
    base = values.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise InputError(f"{path}: base must be the path of a config file, and is {base!r}")
        base_values = read_yaml(Path(path).parent / base)
        if "base" in base_values:
            raise InputError(f"{path}: its base {base!r} has a base of its own; only one level is allowed")
        base_values.pop("expect", None)  # measured with settings that this file changes
        values = merge(base_values, values)
    for override in overrides:
        _override(values, override)
    changed = [
        key
        for key in (override.partition("=")[0] for override in overrides)
        if key.split(".")[0] not in (*INCIDENTAL, "expect")
    ]
    if changed and isinstance(values.get("expect"), dict):
        values["expect"] = {**values["expect"], "changed": changed}
    return validate_config(values, str(path))


def validate_config(values: dict[str, Any], source: str) -> Config:
    """Config from plain values; every problem found is named with its place in the tree."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = _without_echoes(
            [(_place(p["loc"]), _reason(p)) for p in error.errors() if not _counts_valid_ones(p)]
        )
        lines = [f"{source}: {len(problems)} things to put right"] if len(problems) > 1 else []
        raise InputError(
            "\n".join(lines + [f"{source}: {place}: {reason}" for place, reason in problems])
        ) from None


def make_section(section: type[AnySection], source: str, **values: Any) -> AnySection:
    """A section from plain values that did not come from a file (flags); problems are named like those of a
    config.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise InputError(
            "\n".join(f"{source}: {_place(p['loc'])}: {_reason(p)}" for p in error.errors())
        ) from None


def make_task_section(name: str, overrides: Sequence[str]) -> TaskSection:
    """The section of a task from `key=value` alone, without a config around it.

    Raises:
      InputError: unknown task or key, wrong type.
    """
    if name not in TASKS:
        worlds = ", ".join(sorted(env_sections()))
        raise InputError(
            f"unknown task {name!r}; the tasks are: {', '.join(TASKS)}; the worlds, whose episodes are "
            f"generated and verified too: {worlds}"
        )
    values = {"name": name} | read_overrides(overrides)

    class Command(Section):
        task: TaskSection

    return make_section(Command, name, task=values).task


def make_env_section(name: str, values: Mapping[str, Any]) -> AnyEnvSection:
    """The section of a world from plain values.

    Raises:
      InputError: unknown world or key, wrong type.
    """
    if name not in env_sections():
        raise InputError(f"unknown world {name!r}; the worlds are: {', '.join(sorted(env_sections()))}")
    return make_section(_env_command(), name, env={**values, "name": name}).env


@functools.cache  # classes take milliseconds to make, and files of records have many
def _env_command() -> type[Any]:
    class Command(Section):
        env: EnvSection

    return Command


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`dotted.key=value` as plain nested values."""
    values: dict[str, Any] = {}
    for override in overrides:
        _override(values, override)
    return values


def dump_config(config: Config) -> str:
    """The resolved config as YAML text; `validate_config(yaml.safe_load(text))` gives the same object, but
    for `distributed`, which says where this process is and not what is run.
    """
    values = config.model_dump(mode="json", exclude={"distributed"})
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def difference(file: Path, config: Config, elsewhere: Iterable[Sequence[str | int]] = ()) -> str:
    """How a resolved config on disk differs from this one, as a diff; empty if it does not.

    Compared are the values: in which order a version writes its keys does not matter, nor that it did not
    know one yet which is at its default now, nor what the values at `elsewhere` (keys and indices from the
    root) call a file or folder, nor the sections that are the machine's.

    Raises:
      InputError: the file on disk cannot be read, or is not a config.
    """
    before, now = (
        read_yaml(file, "restore it from a copy, or delete the run's folder"),
        parse_yaml(dump_config(config)),
    )
    before = _completed(before, str(file))
    for place in elsewhere:
        _take_over(before, now, place)
    for key in OF_THE_MACHINE:
        before[key] = now[key]
    if before == now:
        return ""
    old, new = (yaml.safe_dump(values, allow_unicode=True).splitlines() for values in (before, now))
    return "\n".join(difflib.unified_diff(old, new, str(file), "this command", lineterm="", n=1))


def _completed(values: Any, source: str) -> Any:
    """The values of a config with every key there is; as they are where no config of this version comes of
    them.
    """
    try:
        return parse_yaml(dump_config(validate_config(values, source)))
    except InputError:
        return values


def _take_over(values: Any, others: Any, place: Sequence[str | int]) -> None:
    """Put the text at a place of `others` into `values`, if there is one in both, and both mean the same
    `:NAME` in a file.
    """
    *parents, last = place
    try:
        for key in parents:
            values, others = values[key], others[key]
        before, now = values[last], others[last]
    except (KeyError, IndexError, TypeError):
        return
    if isinstance(before, str) and before.partition(":")[2] == now.partition(":")[2]:
        values[last] = now


def parse_yaml(text: str) -> Any:
    """YAML text to plain values, with `1e-4` a float.

    Raises:
      ValueError: it is not YAML, or holds a value that Python cannot: a date of month 13, brackets in
        thousands.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _without_echoes(problems: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop what a stage only inherited: a fault of a shared section shows again in every stage that takes it
    over.
    """
    shared = {problem for problem in problems if problem[0].split(".")[0] in INHERITED}
    return [
        p for p in problems if not (p[0].startswith("stages.") and (p[0].split(".", 2)[-1], p[1]) in shared)
    ]


def _counts_valid_ones(problem: Mapping[str, Any]) -> bool:
    """Whether a list is called too short only because what is wrong in it, and has a problem of its own, was
    not counted.
    """
    return problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]


def _place(loc: tuple) -> str:
    return ".".join(str(part) for part in loc if part not in STAGES and part not in TASKS) or "config"


def _reason(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return "is required and not set"
    if problem["type"] == "union_tag_not_found":
        return f"{problem['ctx']['discriminator']} is required and not set"
    if problem["type"] == "union_tag_invalid":
        ctx = problem["ctx"]
        key, known = ctx["discriminator"].strip("'"), ctx["expected_tags"].replace("'", "").split(", ")
        near = difflib.get_close_matches(ctx["tag"], known, n=1, cutoff=0.5)
        return (
            f"unknown {key} {ctx['tag']!r}; {f'did you mean {near[0]!r}? ' if near else ''}there are: "
            f"{', '.join(known)}"
        )
    if problem["type"] == "tuple_type" and isinstance(problem["input"], (bool, int, float, str)):
        value = problem["input"]
        return f"must be a list; give [{value}], or [{value}, {value}] where it is a range (it is {value!r})"
    return f"{problem['msg']} (it is {problem['input']!r})"


def read_yaml(path: Path, remedy: str | None = None) -> dict[str, Any]:
    """The mapping that a YAML file holds, not validated.

    Raises:
      InputError: there is none; `remedy` closes the text.
    """
    text = read_text(path, remedy or "check the path, and that it is a text in UTF-8")
    end = f"; {remedy}" if remedy else ""
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"config file {path} is not valid YAML: {error}{end}") from None
    if not isinstance(values, dict):
        raise InputError(
            f"config file {path} must hold a mapping of sections, not {type(values).__name__}{end}"
        )
    return values


def _override(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise InputError(
            f"override {override!r} is not of the form key=value, for example optim.learning_rate=1e-4"
        )
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"override {override!r}: the value is not valid YAML: {error}") from None
    *parents, last = dotted.split(".")
    node: Any = values
    for depth, part in enumerate(parents):
        if isinstance(node, list):
            node = node[_index(node, part, override)]
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, (dict, list)):
            raise InputError(
                f"override {override!r}: {'.'.join(parents[: depth + 1])} holds no keys (it is {node!r})"
            )
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _index(items: list, part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise InputError(
            f"override {override!r}: {part!r} is not an index into a list of {len(items)} items (0 to "
            f"{len(items) - 1})"
        )
    return int(part)
