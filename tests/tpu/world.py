"""A cloud that is not there: the programs of `fakes/` on the PATH, and a small tree to launch from."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
FAKES = Path(__file__).parent / "fakes"
SETTINGS = "project = p\nzone = z\nname = box\npoll = 0\n"


def make_tree(folder: Path) -> Path:
    """A git repository with this project's tpu/ and one config."""
    shutil.copytree(
        ROOT / "tpu", folder / "tpu", ignore=shutil.ignore_patterns("__pycache__", "settings.txt")
    )
    (folder / "tpu" / "settings.txt").write_text(SETTINGS)
    (folder / "configs").mkdir()
    (folder / "configs" / "tiny.yaml").write_text("name: tiny\nruns_dir: gs://b/runs  # far away\n")
    (folder / "configs" / "local.yaml").write_text("name: tiny\n")
    (folder / ".gitignore").write_text("ignored/\n")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    return folder


def load_launch(tree: Path) -> ModuleType:
    """`tpu/launch.py` of a tree, as a module."""
    spec = importlib.util.spec_from_file_location("tpu_launch", tree / "tpu" / "launch.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for what an annotation names
    spec.loader.exec_module(module)
    return module


class World:
    """What the fakes play, and what they saw.

    Args:
      folder: a fresh one.
      tree: what is launched from.
      monkeypatch: pytest's; the environment is changed by it.
    """

    def __init__(self, folder: Path, tree: Path, monkeypatch):
        self.folder, self.tree, self.launch = folder, tree, load_launch(tree)
        for name, value in {
            "FAKE_WORLD": folder,
            "HOME": folder / "home",
            "PATH": f"{FAKES}:{os.environ['PATH']}",
            "JAXRL_POLL_S": "0.01",
        }.items():
            monkeypatch.setenv(name, str(value))
        (folder / "home").mkdir()
        self.play(states=["ACTIVE"], plays=["3 0"], hosts=["w-0"])

    def play(self, **files: list[str]) -> None:
        """Write what comes; see the heads of the fakes."""
        for name, lines in files.items():
            (self.folder / name).write_text("".join(line + "\n" for line in lines))

    def fail(self, verb: str, text: str) -> None:
        """gcloud's next VERB fails with this text."""
        (self.folder / "errors").mkdir(exist_ok=True)
        (self.folder / "errors" / verb).write_text(text)

    def make_workers(self, *hosts: str, is_set_up: bool = False) -> None:
        """Have workers that are there, and set up where that is wanted."""
        self.play(hosts=list(hosts))
        for host in hosts:
            (self.folder / f"worker-{host}").mkdir()
        if is_set_up:
            assert self("setup") == 0
            (self.folder / "calls").unlink()

    def __call__(self, *argv: str) -> int:
        """The exit code of `launch.py ARGV`."""
        return self.launch.main(list(argv))

    @property
    def calls(self) -> list[list[str]]:
        """What gcloud was called with."""
        file = self.folder / "calls"
        calls = file.read_text().split("\x1e")[:-1] if file.exists() else []
        return [call.split("\x1f")[:-1] for call in calls]

    @property
    def verbs(self) -> list[str]:
        """The verb of each call, ssh with that of worker.sh."""
        return [
            " ".join([call[4], *(["setup"] if "tar -xzf" in str(call) else []), *self._worker_verb(call)])
            for call in self.calls
        ]

    def _worker_verb(self, call: list[str]) -> list[str]:
        words = next((w.split() for w in call if w.startswith("--command=bash")), [])
        return words[2:3]

    def ran(self, host: str, attempt: int = 1) -> list[str]:
        """Directory, secret, place among the processes, and arguments of `jaxrl` there."""
        return (self.folder / f"ran-{host}-{attempt}").read_text().split("\n")[:-1]

    def end(self) -> None:
        """End the jobs that still play, those among them whose machine was taken away."""
        (self.folder / "plays").unlink()
        for file in self.folder.glob("worker-*/jaxrl/job/pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
