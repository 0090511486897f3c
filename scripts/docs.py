"""Writes what the pages of docs/ take from the code, so that it cannot grow old: all config keys (config.md),
the tree of rooms (architecture.md), the picture of the quickstart (quickstart.svg, from the table in
performance.md).

    python scripts/docs.py            # write them
    python scripts/docs.py --check    # say which are stale, and end with 1 if one is
"""

import argparse
import ast
import re
import sys
import textwrap
import types
import typing
from pathlib import Path

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jaxrl.config import algo, envs, experiment, shared, tasks  # noqa: E402
from jaxrl.config.section import Section  # noqa: E402

SHORT = 90  # letters of a meaning that several keys share and each repeats
DOCS, LIBRARY = ROOT / "docs", ROOT / "jaxrl"
FLOORS_FILE = ROOT / "tests" / "test_floors.py"

# ------------------------------------------------------------------------------------------- every config key

PARTS = [  # heading, what is said under it, and the sections in it by their place in a config file
    (
        "The experiment",
        "One file is one experiment. `lora`, `task`, `sample` and `optim` are shared: every stage inherits"
        " them and changes the keys that it names.",
        {"(top level)": experiment.Config},
    ),
    (
        "What stages share",
        "",
        {
            "model": shared.ModelSection,
            "model.architecture": shared.ArchitectureSection,
            "lora": shared.LoraSection,
            "mesh": shared.MeshSection,
            "sample": shared.SampleSection,
            "optim": shared.OptimSection,
            "verify": shared.VerifySection,
            "checkpoint": shared.CheckpointSection,
            "track": shared.TrackSection,
            "track.wandb": shared.WandbSection,
            "expect": shared.ExpectSection,
        },
    ),
    (
        "Stages",
        "`stages` is a list; `kind` says which of these an item is.",
        {
            "kind: sft": experiment.SFTStage,
            "data (of an sft stage)": experiment.DataSection,
            "kind: rsft": experiment.RSFTStage,
            "kind: grpo": experiment.GRPOStage,
            "kind: ppo": experiment.PPOStage,
            "kind: eval": experiment.EvalStage,
        },
    ),
    (
        "Objectives",
        "What `algo` of a `grpo` or `ppo` stage may say. The formulas are in [algorithms](algorithms.md).",
        {
            "algo (of grpo)": algo.GRPOSection,
            "algo (of ppo)": algo.PPOSection,
            "algo.sampler_correction": algo.CorrectionSection,
            "algo.replay": algo.ReplaySection,
        },
    ),
    (
        "Tasks",
        "`name` says which of these a `task` section is. How each is judged is in [verifiers](verifiers.md).",
        {
            f"task: {{name: {name}}}": section
            for name, section in sorted(
                (typing.get_args(section.model_fields["name"].annotation)[0], section)
                for section in typing.get_args(typing.get_args(tasks.TaskSection)[0])
            )
        },
    ),
    (
        "Worlds",
        "`name` says which of these an `env` section is; on the command line they are the `key=value` of"
        " `jaxrl generate` and `jaxrl verify`. What each world does is in [worlds](worlds.md).",
        {"(jaxrl generate of a world)": envs.EpisodesSection}
        | {f"env: {{name: {name}}}": section for name, section in sorted(envs.env_sections().items())},
    ),
]


def config_page() -> str:
    """docs/config.md: key, type, default and meaning, from the fields and docstrings of `jaxrl/config/`."""
    lines = [
        "# Every config key",
        "",
        "<!-- Written by scripts/docs.py from jaxrl/config/; change the docstrings there. -->",
        "",
        "An unknown key is an error that names the nearest one. A value on the command line wins over the",
        "file: `jaxrl run FILE.yaml optim.learning_rate=1e-4 stages.1.steps=10` (items of a list by their",
        "index). A file may begin with `base: OTHER.yaml` and say only what it changes.",
        "",
    ]
    for heading, text, sections in PARTS:
        lines += [f"## {heading}", ""] + ([text, ""] if text else [])
        for place, section in sections.items():
            lines += section_lines(place, section)
    return "\n".join(lines).rstrip() + "\n"


def section_lines(place: str, section: type[Section]) -> list[str]:
    """The heading, the description and the table of one section."""
    lines = [
        f"### `{place}`",
        "",
        description(section),
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for key, field in section.model_fields.items():
        if key in ("kind", "name") and len(typing.get_args(field.annotation)) == 1:
            continue  # it stands in the heading
        cells = (f"`{key}`", type_words(field), default_words(field), meaning(section, key))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def description(section: type[Section]) -> str:
    """A section's docstring up to its first key."""
    return _join(_key_spans(section, section)[0])


def meaning(section: type[Section], key: str) -> str:
    """What a key means: from the docstring of the class that names it, the section's own first.

    Raises:
      LookupError: no docstring has it.
    """
    for owner in section.__mro__:
        if issubclass(owner, Section) and owner is not Section:
            for keys, text in _key_spans(section, owner)[1]:
                if key in keys:
                    again = key != keys[0] and len(text) > SHORT
                    return f"see `{keys[0]}`." if again else _join(text)
    raise LookupError(f"{section.__name__}.{key} has no meaning: say `{key}: ...` in the class's docstring")


def _key_spans(section: type[Section], owner: type[Section]) -> tuple[str, list[tuple[list[str], str]]]:
    """A docstring cut at its keys: what comes before, and (keys, text) of each.

    Keys begin a line: `key: ...`, `key, other: ...`.
    """
    text = owner.__dict__.get("__doc__") or ""
    name = "|".join(sorted(section.model_fields, key=len, reverse=True))
    found = list(re.finditer(rf"^ *((?:{name})(?:, (?:{name}))*): ", text, re.MULTILINE))
    if not found:
        return text, []
    ends = [match.start(1) for match in found[1:]] + [len(text)]
    spans = [(match[1].split(", "), text[match.end() : end]) for match, end in zip(found, ends, strict=True)]
    return text[: found[0].start(1)], spans


def _join(text: str) -> str:
    return " ".join(text.split()).rstrip(";")


def type_words(field: FieldInfo) -> str:
    """The type of a field in words."""
    return _words(field.annotation, field.metadata)


def _words(kind: typing.Any, metadata: typing.Sequence = ()) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(args[0], [*args[1:], *metadata])
    if origin in (typing.Union, types.UnionType):
        if tagged := [x for x in args if isinstance(x, type) and issubclass(x, Section)]:
            many = "stage" if "kind" in tagged[0].model_fields else "task"
            some = many if len(tagged) > 1 else _words(tagged[0])
            return some + (" or null" if types.NoneType in args else "")
        return " or ".join(_words(x, metadata) for x in args)
    if kind is types.NoneType:
        return "null"
    if origin is typing.Literal:
        return ", ".join(f"`{x}`" for x in args)
    if origin is tuple:
        inner = [_words(x) for x in args if x is not Ellipsis]
        return f"list: {inner[0]}" if Ellipsis in args else f"[{', '.join(inner)}]"
    if origin is dict:
        return f"mapping of names to {_words(args[1])}"
    if isinstance(kind, type) and issubclass(kind, Section):
        return "section"
    name = {int: "whole number", float: "number", str: "text", bool: "true, false"}.get(kind, "mapping")
    return " ".join([name, *_bounds(metadata)])


def _bounds(metadata: typing.Sequence) -> list[str]:
    bounds = []
    for item in metadata:
        for one in item.metadata if isinstance(item, FieldInfo) else [item]:
            for sign, at in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt")):
                if isinstance(one, getattr(annotated_types, at.capitalize())):
                    bounds.append(f"{sign} {getattr(one, at):,}".replace(",", " "))
    return [" and ".join(bounds)] if bounds else []


def default_words(field: FieldInfo) -> str:
    """The default of a field as YAML would have it."""
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Section):
        return "its defaults"
    if not isinstance(value, (bool, int, float, str, tuple, types.NoneType)):
        return "`{}`"
    return f"`{_yaml(value)}`"


def _yaml(value: typing.Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        return re.sub(r"e-0?", "e-", f"{value:g}") if value < 1e-3 and value else f"{value}"
    return f"{value}"


# ------------------------------------------------------------------------------------------ the tree of rooms


def tree() -> str:
    """The rooms of jaxrl/ by their floors and the scripts, each with the first sentence of its docstring."""
    lines = ["```text", "jaxrl/"]
    for floor, rooms in enumerate(floors()):
        for room in rooms:
            if room == "__init__":
                continue
            path = LIBRARY / room
            if path.is_dir():
                lines.append(_line(1, f"{room}/", f"({floor}) {first_sentence(path / '__init__.py')}"))
                lines += _inside(path, 2)
            else:
                lines.append(_line(1, f"{room}.py", f"({floor}) {first_sentence(path.with_suffix('.py'))}"))
    for folder in ("scripts", "examples"):
        lines += [f"{folder}/", *_inside(ROOT / folder, 1)]
    return "\n".join([*lines, "```"])


def _inside(folder: Path, depth: int) -> list[str]:
    lines = []
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            lines.append(_line(depth, path.name, first_sentence(path)))
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            lines.append(_line(depth, f"{path.name}/", first_sentence(path / "__init__.py")))
            lines += _inside(path, depth + 1)
    return lines


def _line(depth: int, name: str, text: str) -> str:
    return textwrap.fill(text, 106, initial_indent=f"{'  ' * depth + name:<28}", subsequent_indent=" " * 28)


def floors() -> list[list[str]]:
    """FLOORS of tests/test_floors.py, which holds the imports to them."""
    for node in ast.parse(FLOORS_FILE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "FLOORS":
            return ast.literal_eval(node.value)
    raise LookupError(f"{FLOORS_FILE} has no list FLOORS")


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring.

    Raises:
      LookupError: it has none.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise LookupError(f"{path} has no docstring; its first line says what it is")
    return re.match(r".+?(?=(?<!\.)[.;]\s|[.:;]?$)", " ".join(text.split("\n\n")[0].split()))[0]


def architecture_page() -> str:
    """docs/architecture.md with the tree of today between its two marks."""
    return _between(DOCS / "architecture.md", "tree", tree())


def _between(path: Path, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: written by scripts/docs.py -->", f"<!-- end of {name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise LookupError(f"{path} has lost its marks {begin} and {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


# ------------------------------------------------------------------------------ the picture of the quickstart

ROW = re.compile(
    r"\| (seed\S*) \| ([\d.]+)% \| ([\d.]+)% – ([\d.]+)% \| ([\d.]+)% \| ([\d.]+)% – ([\d.]+)% \|"
)


def picture() -> str:
    """An SVG of the table of runs in performance.md: accuracy after SFT and after GRPO, 80 % intervals."""
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    runs = [(match[1], [float(x) for x in match.groups()[1:]]) for match in ROW.finditer(page)]
    if not runs:
        raise LookupError("docs/performance.md has no table of the quickstart's runs")
    left, top, wide, step = 132, 46, 560, 20
    bottom = top + step * len(runs)
    x = lambda percent: round(left + wide * percent / 100, 1)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{bottom + 30}"'
        f' viewBox="0 0 720 {bottom + 30}" font-family="sans-serif" font-size="12">',
        f'<rect width="720" height="{bottom + 30}" fill="#ffffff"/>',
        '<circle cx="140" cy="20" r="5" fill="#c2662d"/><text x="150" y="24">after SFT</text>',
        '<circle cx="230" cy="20" r="5" fill="#2b6ca3"/><text x="240" y="24">after GRPO</text>',
        '<text x="330" y="24" fill="#666666">accuracy on 300 held-out questions, 80 % intervals</text>',
    ]
    for percent in range(0, 101, 25):
        stroke = 'stroke="#999999" stroke-dasharray="4 3"' if percent == 25 else 'stroke="#e4e4e4"'
        out.append(f'<line x1="{x(percent)}" y1="{top - 8}" x2="{x(percent)}" y2="{bottom}" {stroke}/>')
        label = f"{percent} %" + (" (chance)" if percent == 25 else "")
        out.append(
            f'<text x="{x(percent)}" y="{bottom + 18}" text-anchor="middle" fill="#666666">{label}</text>'
        )
    for i, (name, numbers) in enumerate(runs):
        y = top + step * i + 6
        out.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{name}</text>')
        for (at, low, high), color in zip((numbers[:3], numbers[3:]), ("#c2662d", "#2b6ca3"), strict=True):
            out.append(
                f'<line x1="{x(low)}" y1="{y}" x2="{x(high)}" y2="{y}" stroke="{color}" stroke-width="3"/>'
            )
            out.append(f'<circle cx="{x(at)}" cy="{y}" r="5" fill="{color}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


# ------------------------------------------------------------------------------------------------ the command

PAGES = {"config.md": config_page, "architecture.md": architecture_page, "quickstart.svg": picture}


def stale() -> list[str]:
    """The pages that are not as the code of today makes them."""
    return [name for name, make in PAGES.items() if not _is_current(DOCS / name, make())]


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    if parser.parse_args(arguments).check:
        for name in (pages := stale()):
            print(f"docs/{name} is not as the code has it; run python scripts/docs.py")
        return 1 if pages else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
