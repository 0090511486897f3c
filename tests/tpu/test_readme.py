"""tpu/README.md: each of its commands is one that works, and what it says of the files is so."""

import os
import re
import shlex
import subprocess

import pytest
import yaml

from jaxrl.config.file import load_config
from tests.docs_pages import blocks
from tests.tpu.world import ROOT, load_launch

README = (ROOT / "tpu" / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.splitlines() for block in blocks(README, "bash")]
COMMANDS = [line for block in BLOCKS for line in block]
OF_LAUNCH = [shlex.split(line)[2:] for line in COMMANDS if line.startswith("python3 tpu/launch.py ")]


def test_it_begins_with_five_commands():
    assert [argv[0] for argv in OF_LAUNCH[:5]] == ["create", "setup", "run", "logs", "delete"]
    assert len(BLOCKS[0]) == 5


@pytest.mark.parametrize("argv", OF_LAUNCH, ids=[argv[0] for argv in OF_LAUNCH])
def test_the_commands_of_launch_can_be_run(argv, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert load_launch(ROOT).main([*argv, "--settings", "tpu/settings.example.txt", "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "gcloud compute tpus queued-resources" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_commands_of_the_others_can_be_run():
    others = [line for line in COMMANDS if not line.startswith("python3")]
    for line in others:
        (script,) = re.findall(r"tpu/\w+\.(?:sbatch|sh|yaml)", line)
        assert (ROOT / script).exists()
        if line.startswith(("sbatch", "bash tpu/gpu_host.sh")):
            flags, _, argv = line.partition(script)
            tasks = re.findall(r"--ntasks-per-node=(\d+)", flags) or ["8"]
            ended = subprocess.run(
                [
                    "bash",
                    script,
                    "--dry-run",
                    *([] if "sbatch" in script else ["--gpus", "2"]),
                    *shlex.split(argv),
                ],
                cwd=ROOT,
                env=os.environ | {"SLURM_NTASKS_PER_NODE": tasks[0]},
                capture_output=True,
                text=True,
            )
            assert (ended.returncode, ended.stderr) == (0, "") and "jaxrl run" in ended.stdout
    assert {line.split()[0] for line in others} == {"sbatch", "bash", "kubectl"}


def test_its_configs_are_valid_as_they_are_run():
    for line in [*COMMANDS, *re.findall(r"^    jaxrl run .*", README, re.M)]:
        words = shlex.split(line)
        for i, word in enumerate(words):
            if word.startswith("configs/"):
                load_config(ROOT / word, [w for w in words[i:] if "=" in w and not w.startswith("-")])


def test_the_jobset_runs_what_it_says():
    jobset = yaml.safe_load((ROOT / "tpu" / "jobset.yaml").read_text())
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (said,) = re.findall(r"^    (jaxrl run .*)", README, re.M)
    assert pod["containers"][0]["command"] == shlex.split(said)


def test_every_command_is_in_its_table():
    launch = load_launch(ROOT)
    parser = launch.build_parser({})
    (commands,) = (action.choices for action in parser._actions if action.choices)
    told = set(re.findall(r"^\| `(\w+)` \|", README, re.M)) | {"babysit"}
    assert told == set(commands)
    for name, command in commands.items():
        assert "--dry-run" in command.format_help(), name


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https)([^)#\s]+)", README):
        assert (ROOT / "tpu" / target).exists()
    for name in re.findall(r"`(tpu/[\w./]+)`", README):
        assert (ROOT / name).exists() or name == "tpu/settings.txt"
