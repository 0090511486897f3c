"""The floors: who may import whom. Read from the source with `ast`, imports inside functions included."""

import ast
import graphlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "jaxrl"

FLOORS = [  # a folder is on one floor; files at the top stand on the one that names them
    ["__init__", "checks", "cluster", "errors", "interrupt", "stats", "types", "config", "files"],
    ["ops", "track"],
    ["device", "model"],
    ["weights", "update"],
    ["data", "verify", "sandbox", "tasks", "envs"],
    ["sample", "policy"],
    ["rollout", "eval"],
    ["train", "compiled"],
    ["commands"],
    ["cli"],
]
WORLDS = [
    "config",
    "files",
    "track",
    "data",
    "verify",
    "sandbox",
    "tasks",
    "envs",
    "stats",
]  # run without an accelerator, start fast
FLAX_NAMES = {"Module", "Param", "LoRAParam", "Rngs", "split", "merge", "eval_shape", "to_pure_dict"}

FILES = {str(path.relative_to(LIBRARY).with_suffix("")): path for path in sorted(LIBRARY.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def room(name: str) -> str:
    """The folder at the top of the library that a file is in, or the file itself if it is at the top."""
    return name.split("/")[0]


def floor_of(name: str) -> int:
    (floor,) = [floor for floor, rooms in enumerate(FLOORS) if room(name) in rooms]
    return floor


def walk(node: ast.AST):
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            continue
        yield child
        yield from walk(child)


def imports_of(tree: ast.AST) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a and as a.b."""
    found = set()
    for node in walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(tree: ast.AST) -> set[str]:
    """The files of the library that a file imports."""
    found = set()
    for name in imports_of(tree):
        place = "/".join(name.split(".")[1:])
        if name.split(".")[0] == "jaxrl":
            found |= {file for file in (place or "__init__", f"{place}/__init__") if file in FILES}
    return found


def packages(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imports_of(tree)}


def test_every_room_is_on_exactly_one_floor():
    assert sorted(itertools.chain(*FLOORS)) == sorted({room(name) for name in FILES})


def test_a_room_uses_its_own_floor_and_those_below():
    upwards = [
        (name, other) for name in FILES for other in ours(TREES[name]) if floor_of(other) > floor_of(name)
    ]
    assert upwards == []


def test_no_rooms_and_no_files_use_each_other_in_a_circle():
    graphlib.TopologicalSorter({name: ours(tree) - {name} for name, tree in TREES.items()}).prepare()
    rooms = {room(name): set() for name in FILES}
    for name, tree in TREES.items():
        rooms[room(name)] |= {room(other) for other in ours(tree)} - {room(name)}
    graphlib.TopologicalSorter(rooms).prepare()


def test_worlds_and_arithmetic_do_not_know_each_other():
    worlds, arithmetic = FLOORS[4], ["ops", *FLOORS[2], *FLOORS[3]]
    seen = {
        (name, other)
        for name in FILES
        for other in ours(TREES[name])
        if room(name) in worlds and room(other) in arithmetic
    }
    unknown = ["weights", "update", *worlds]  # the sampler takes ids and arrays
    seen |= {
        (name, other)
        for name in FILES
        for other in ours(TREES[name])
        if room(name) == "sample" and room(other) in unknown
    }
    assert seen == set()


@pytest.mark.parametrize(
    "package, allowed",
    [
        ("flax", ["model"]),
        ("optax", ["update", "train"]),
        ("orbax", ["update"]),
        ("jax", ["ops", *itertools.chain(FLOORS[2], FLOORS[3], *FLOORS[5:9])]),
        ("transformers", ["data"]),
        ("pydantic", ["config"]),
        ("fsspec", ["files"]),
    ],
)
def test_a_package_is_imported_only_where_it_belongs(package, allowed):
    assert [
        name for name, tree in TREES.items() if package in packages(tree) and room(name) not in allowed
    ] == []


def test_worlds_import_no_accelerator():
    heavy = {"jax", "jaxlib", "flax", "optax", "orbax"}
    names = [name for name in FILES if room(name) in WORLDS and not name.startswith("sandbox/inside/")]
    assert {name: packages(TREES[name]) & heavy for name in names if packages(TREES[name]) & heavy} == {}
    modules = ["jaxrl." + name.removesuffix("/__init__").replace("/", ".") for name in names]
    loaded = modules_after(f"import importlib\nfor name in {modules}: importlib.import_module(name)")
    assert not loaded & heavy


def test_a_run_that_is_kept_here_loads_nothing_for_those_that_are_not():
    program = """
from pathlib import Path
from jaxrl.files.mirror import mirrored
from jaxrl.files.run_folder import RunFolder
with mirrored(Path("."), None) as mirror:
    RunFolder(".", mirror=mirror)
"""
    assert not modules_after(program) & {"fsspec", "gcsfs", "aiohttp"}


def test_flax_is_a_notation_for_layers_and_nothing_more():
    for name, tree in TREES.items():
        assert {n for n in imports_of(tree) if n.split(".")[0] == "flax"} <= {"flax", "flax.nnx"}, name
        used = {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "nnx"
        }
        assert used <= FLAX_NAMES, name


def test_the_library_itself_does_not_use_the_public_names_at_its_top():
    """`jaxrl/__init__.py` names rooms of all floors, as strings that nothing here follows: they are imported
    when somebody outside asks for one. A room that asked there would climb unseen.
    """
    uses = {(name, used) for name, tree in TREES.items() for used in imports_of(tree) if is_of_the_top(used)}
    assert {used for _, used in uses} <= {"jaxrl", "jaxrl.__version__"}
    assert ours(TREES["__init__"]) == set()


def is_of_the_top(dotted: str) -> bool:
    return dotted == "jaxrl" or (
        dotted.startswith("jaxrl.") and dotted.count(".") == 1 and dotted[6:] not in {room(n) for n in FILES}
    )


@pytest.mark.parametrize(
    "program",
    [
        "import jaxrl\ndir(jaxrl), jaxrl.__version__, jaxrl.InputError, jaxrl.Problem",
        "import jaxrl.cli",
        "from jaxrl.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_what_must_answer_at_once_loads_nothing_heavy(program):
    assert not modules_after(program) & {"jax", "flax", "optax", "orbax", "transformers", "numpy", "pydantic"}


def test_files_are_plain():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), (
                f"{name}, line {node.lineno}: a bare except"
            )
            is_print = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            )
            assert not is_print or name == "cli", f"{name}, line {node.lineno}: print"


def modules_after(program: str) -> set[str]:
    """The packages that a fresh interpreter has loaded when a program is done."""
    tail = "\nimport sys\nprint('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program + tail], capture_output=True, text=True, cwd=LIBRARY.parent, check=True
    )
    return set(done.stdout.splitlines()[-1].split())
