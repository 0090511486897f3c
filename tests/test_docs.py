"""The pages are those of the code: generated ones are current, what is shown works, what is named exists."""

import importlib.util
import json
import re
import sys

import pytest
import yaml

from jaxrl.config.file import parse_yaml, validate_config
from tests.docs_pages import OTHERS, PAGES, ROOT, blocks, documented_metrics, undocumented

ALL = PAGES | OTHERS


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_generated_is_current(docs):
    assert docs.stale() == [], "run python scripts/docs.py"


def test_the_sketch_of_the_floors_is_theirs(docs):
    page = PAGES["architecture.md"]
    for floor, rooms in enumerate(docs.floors()):
        folders = {room for room in rooms if (docs.LIBRARY / room).is_dir()}
        (line,) = re.findall(rf"^\({floor}\) (.*)$", page, re.MULTILINE)
        assert set(re.findall(r"(\w+)/", line)) == folders


def test_a_stale_page_is_noticed(docs, tmp_path, monkeypatch):
    for name in (*docs.PAGES, "performance.md"):
        text = (docs.DOCS / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("`seed`", "`sead`"), encoding="utf-8")
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    assert docs.stale() == ["config.md"]


def test_every_section_and_key_is_in_the_page(docs):
    """Counted apart from the generator: a section that nobody has put into its list would be missing."""
    page = PAGES["config.md"]
    shown = [section for _, _, sections in docs.PARTS for section in sections.values()]
    rooms = [vars(module) for name, module in sys.modules.items() if name.startswith("jaxrl.config.")]
    kinds = [cls for cls in _leaves(docs.Section) if any(room.get(cls.__name__) is cls for room in rooms)]
    assert len(kinds) > 20
    assert {cls.__name__ for cls in kinds} - {cls.__name__ for cls in shown} == set()
    assert {key for cls in kinds for key in cls.model_fields if f"| `{key}` |" not in page} <= {"kind"}


def _leaves(section) -> list:
    children = section.__subclasses__()
    return [leaf for child in children for leaf in _leaves(child)] if children else [section]


def test_a_key_without_a_meaning_is_an_error(docs):
    class Mute(docs.Section):
        """Says nothing of its keys. In passing, deaf: is no key, for it does not begin a line."""

        deaf: int = 0

    with pytest.raises(LookupError, match="Mute.deaf has no meaning"):
        docs.meaning(Mute, "deaf")


def test_the_readme_is_one_screen_and_has_the_two_commands():
    readme = OTHERS["README.md"]
    assert len(readme.encode()) <= 9_000
    lines = readme.splitlines()
    for command in ("bash scripts/quickstart.sh", "bash scripts/test.sh"):
        assert any(line.startswith(command) for line in lines)


@pytest.mark.parametrize("name", ALL)
def test_links_lead_somewhere(name):
    folder = ROOT if name in OTHERS else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", ALL[name]):
        assert (folder / target).exists(), target


@pytest.mark.parametrize("name", ALL)
def test_files_that_are_named_exist(name):
    """Modules are named from the root of the project or of the library."""
    for path in re.findall(r"`((?:\.ci|[a-z_]+)/[\w/.-]*)`", ALL[name]):
        is_ours = path.endswith(".py") or path.split("/")[0] in (
            "jaxrl",
            "tests",
            "scripts",
            "configs",
            "docs",
        )
        assert not is_ours or (ROOT / path).exists() or (ROOT / "jaxrl" / path).exists(), path


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(page for entry in nav for page in entry.values()) == sorted(PAGES)


BASE = {"name": "shown", "model": {"path": "DIR"}, "lora": {}, "task": {"name": "tiny"}}
SHOWN = [(name, block) for name, text in ALL.items() for block in blocks(text, "yaml")]


@pytest.mark.parametrize("name, block", SHOWN, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SHOWN)])
def test_configs_that_are_shown_are_valid(name, block):
    values = parse_yaml(block)
    if isinstance(values, list):
        values = {"stages": values}
    if "algo" in values:
        values = {"stages": [{"kind": "grpo", **values}]}
    validate_config({"stages": [{"kind": "eval"}], **BASE, **values}, name)


def test_python_and_json_that_are_shown_can_be_read():
    for name, text in ALL.items():
        for block in blocks(text, "python"):
            compile(block, name, "exec")
        for block in blocks(text, "json"):
            assert all(json.loads(line) for line in block.splitlines())


def test_metrics_are_explained_once_and_are_written_somewhere():
    names = documented_metrics()
    assert len(names) == len(set(names))
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "jaxrl").rglob("*.py"))
    gone = [name for name in names if not re.search(rf"\b{re.escape(name.split('/')[-1])}\b", _plain(source))]
    assert [name for name in gone if "<" not in name] == []
    assert undocumented(["loss", "reward/in_place", "reward/in_place_std", "time"]) == set()
    assert undocumented(["reward/a/b", "lost"]) == {"reward/a/b", "lost"}


def _plain(source: str) -> str:
    return source.replace("/", " ")
