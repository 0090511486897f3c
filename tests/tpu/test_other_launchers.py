"""Slurm, Kubernetes and GPU hosts: what their files start, and what they do with the job's exit code."""

import os
import shlex
import signal
import subprocess
import time

import pytest
import yaml

from tests.tpu.world import FAKES, ROOT

SBATCH, GPU_HOST, JOBSET = (ROOT / "tpu" / name for name in ("slurm.sbatch", "gpu_host.sh", "jobset.yaml"))
AWKWARD = ["configs/a b.yaml", "name=it's", "x=$HOME"]


@pytest.fixture
def play(tmp_path, monkeypatch):
    """bash with the fakes on the PATH: exit code, stdout, stderr."""
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_WORLD", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "JAX_LOCAL"))]:
        monkeypatch.delenv(name)

    def run(*argv, **environment):
        ended = subprocess.run(
            ["bash", *map(str, argv)],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.mark.parametrize("script", [*sorted(ROOT.glob("tpu/*.sh")), SBATCH], ids=lambda path: path.name)
def test_bash_can_read_it(script):
    subprocess.run(["bash", "-n", script], check=True)


# --------------------------------------------------------------------------------------------------- slurm


def test_srun_gets_the_arguments_as_they_are(play, tmp_path):
    (tmp_path / "srun-code").write_text("0")
    code, *_ = play(SBATCH, *AWKWARD, JAXRL="/venv/bin/jaxrl")
    assert code == 0
    assert (tmp_path / "srun").read_text().splitlines()[-5:] == ["/venv/bin/jaxrl", "run", *AWKWARD]


@pytest.mark.parametrize(
    "code, restarts, requeued",
    [
        (0, 0, False),
        (2, 0, False),
        (130, 0, False),
        (143, 0, True),
        (143, 99, True),  # a long job comes back as often as its time is over
        (75, 0, True),
        (1, 9, True),
        (75, 10, False),
    ],
)
def test_what_goes_back_into_the_queue(play, tmp_path, code, restarts, requeued):
    (tmp_path / "srun-code").write_text(str(code))
    ended, *_ = play(SBATCH, "c.yaml", SLURM_JOB_ID="17", SLURM_RESTART_COUNT=str(restarts))
    assert (tmp_path / "scontrol").exists() == requeued
    assert ended == (0 if requeued else code)
    if requeued:
        assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_slurm_is_asked_for_a_signal_before_the_end_and_for_a_requeue():
    asked = [line.split()[1] for line in SBATCH.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(asked)
    # slurm stops reading at the first command
    text = SBATCH.read_text()
    assert text.rindex("#SBATCH ") < text.index("set -euo")


@pytest.mark.parametrize("tasks", ["8", "1"])
def test_a_dry_run_prints_what_slurm_would_run(play, tmp_path, tasks):
    (tmp_path / "srun-code").write_text("0")
    _, script, _ = play(SBATCH, "--dry-run", *AWKWARD, SLURM_NTASKS_PER_NODE=tasks)
    assert not (tmp_path / "srun").exists()
    subprocess.run(["bash", "-c", script], check=True)
    pasted = (tmp_path / "srun").read_text()
    play(SBATCH, *AWKWARD, SLURM_NTASKS_PER_NODE=tasks)
    assert (tmp_path / "srun").read_text() == pasted


# ---------------------------------------------------------------------------------------------- kubernetes


def test_the_jobset_restarts_all_but_bad_input():
    jobset = yaml.safe_load(JOBSET.read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    exits = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": exits}
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    assert job["backoffLimit"] == 0 and job["completionMode"] == "Indexed"


def test_the_pods_meet_at_the_first():
    jobset = yaml.safe_load(JOBSET.read_text())
    name, (replicated,) = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    address = next(e["value"] for e in container["env"] if e["name"] == "JAX_COORDINATOR_ADDRESS")
    assert address.rpartition(":")[0] == f"{name}-{replicated['name']}-0-0.{name}"


def test_the_jobset_fills_its_slice():
    """4x4 chips are 4 machines of 4, and the mesh has as many devices."""
    job = yaml.safe_load(JOBSET.read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    per_machine = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == rows * columns // per_machine
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    assert environment["JAX_NUM_PROCESSES"] == str(job["parallelism"])
    assert f"mesh.data={rows * columns}" in pod["containers"][0]["command"]


# ---------------------------------------------------------------------------------------------- gpu hosts


def printed(play, *argv, **environment):
    code, out, err = play(GPU_HOST, "--dry-run", *argv, **environment)
    assert (code, err) == (0, "")
    return [shlex.split(line) for line in out.splitlines()]


def test_one_process_with_all_gpus_is_the_plain_command(play):
    assert printed(play, *AWKWARD) == [[".venv/bin/jaxrl", "run", *AWKWARD]]


def test_one_process_per_gpu(play):
    commands = printed(play, "--per-gpu", *AWKWARD)
    for i, command in enumerate(commands):
        assert command == [
            *("env", f"CUDA_VISIBLE_DEVICES={i}", ".venv/bin/jaxrl", "run", *AWKWARD),
            *("distributed.coordinator=127.0.0.1:8476", "distributed.num_processes=3"),
            f"distributed.process_id={i}",
        ]
    assert len(commands) == 3  # as nvidia-smi says
    assert len(printed(play, "--per-gpu", "--gpus", "2", "c")) == 2
    visible = printed(play, "--per-gpu", "c", CUDA_VISIBLE_DEVICES="5,7")
    assert [command[1] for command in visible] == ["CUDA_VISIBLE_DEVICES=5", "CUDA_VISIBLE_DEVICES=7"]


def test_several_hosts_number_their_processes_through(play):
    flags = ["--coordinator", "h:1", "--gpus", "2"]
    ids = [
        command[-1]
        for host in range(3)
        for command in printed(play, "--per-gpu", "--host", f"{host}/3", *flags, "c.yaml")
    ]
    assert ids == [f"distributed.process_id={i}" for i in range(6)]
    (one,) = printed(play, "--host", "1/3", *flags, "c.yaml")
    assert one[-3:] == [
        "distributed.coordinator=h:1",
        "distributed.num_processes=3",
        "distributed.process_id=1",
    ]


@pytest.fixture
def jaxrl(tmp_path):
    """A program in the place of jaxrl: it ends with the code in codes/ID, or by a signal, and notes all."""
    (tmp_path / "codes").mkdir()
    program = tmp_path / "jaxrl"
    program.write_text(
        "#!/bin/bash\n"
        f"cd {tmp_path}\n"
        'id=${!#}; id=${id##*=}; printf "%s\\n" "$CUDA_VISIBLE_DEVICES" "$@" > "ran-$id"; echo "I am $id"\n'
        'if [ -f "codes/$id" ]; then exit "$(cat "codes/$id")"; fi\n'
        "trap 'echo TERM >> signals-$id; code=143' TERM; trap 'echo INT >> signals-$id; code=130' INT\n"
        'touch "ready-$id"; until [ -n "$code" ]; do sleep 0.02; done; sleep 0.1; exit $code\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("codes, result", [("000", 0), ("070", 7), ("012", 2), ("310", 3)])
def test_the_exit_code_of_several_processes(play, tmp_path, jaxrl, codes, result):
    for i, code in enumerate(codes):
        (tmp_path / "codes" / str(i)).write_text(code)
    ended, out, _ = play(GPU_HOST, "--per-gpu", *AWKWARD, JAXRL=str(jaxrl))
    assert ended == result
    assert out == "I am 0\n" and (tmp_path / "gpu_host-2.log").read_text() == "I am 2\n"
    assert (tmp_path / "ran-1").read_text().splitlines()[:5] == ["1", "run", *AWKWARD]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_every_process_once_and_their_saves_are_waited_for(tmp_path, jaxrl, number, code):
    process = subprocess.Popen(
        ["bash", GPU_HOST, "--per-gpu", "--gpus", "2", "c.yaml"],
        cwd=tmp_path,
        env=os.environ | {"JAXRL": str(jaxrl)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not all((tmp_path / f"ready-{i}").exists() for i in (0, 1)):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)  # as a terminal does with Ctrl-C
    assert process.wait() == code
    for i in (0, 1):
        assert (tmp_path / f"signals-{i}").read_text() == number.name.removeprefix("SIG") + "\n"


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "no CONFIG was named"),
        (["--pergpu", "c"], "--pergpu is no flag"),
        (["--host", "2/2", "c"], "the last is 1/2"),
        (["--host", "two", "c"], "--host two is not I/N"),
        (["--host", "0/2", "c"], "several hosts need --coordinator HOST:PORT"),
    ],
)
def test_bad_flags_of_gpu_host(play, argv, message):
    code, out, err = play(GPU_HOST, "--dry-run", *argv)
    assert (code, out) == (2, "") and err.startswith("error: ") and message in err
