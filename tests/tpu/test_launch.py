"""The commands of tpu/launch.py but `babysit`: what they run, what reaches a worker, and what they refuse."""

import re
import shlex
import shutil
import subprocess

import pytest

CONFIG = "configs/tiny.yaml"
AWKWARD = [
    "name=two words",
    "a=it's",
    'b="quoted"',
    "c=$HOME `id` $(id)",
    "d=x;y;",
    "e=[1, 2]",
    "f=*",
    "g=back\\slash",
    "h=#no",
    "i=two  spaces",
    "j=a\nb",
]


def commands(tree):
    config = str(tree / CONFIG)
    return {
        "create": ["create", "--spot"],
        "setup": ["setup"],
        "run": ["run", config, *AWKWARD],
        "logs": ["logs", "--worker", "all"],
        "status": ["status"],
        "stop": ["stop"],
        "delete": ["delete", "--yes"],
        "babysit": ["babysit", config, "--type", "v5litepod-16", *AWKWARD[:4]],
    }


@pytest.fixture
def spied(world, monkeypatch):
    """The commands that are really run, in order."""
    ran, real = [], world.launch.subprocess.Popen

    def popen(argv, **more):
        ran.append(argv)
        return real(argv, **more)

    monkeypatch.setattr(world.launch.subprocess, "Popen", popen)
    return ran


@pytest.mark.parametrize("name", ["create", "setup", "run", "logs", "status", "stop", "delete", "babysit"])
def test_what_a_dry_run_prints_is_what_is_run(world, spied, capfd, name):
    argv = commands(world.tree)[name]
    if name not in ("create", "babysit"):
        world.make_workers("w-0", "w-1", is_set_up=name != "setup")
    if name in ("logs", "status"):
        assert world("run", str(world.tree / CONFIG)) == 0
    if name == "babysit":
        world.play(states=["NOT_FOUND", "ACTIVE"], plays=["9 0"])
    capfd.readouterr()
    spied.clear()

    assert world(*argv, "--dry-run") == 0
    script = capfd.readouterr().out
    assert spied == []  # nothing is run by a dry run
    assert world(*argv) == 0
    assert "".join(shlex.join(command) + "\n" for command in spied) == re.sub(
        r"^# .*\n", "", script, flags=re.M
    )

    ours = [command for command in spied if command[0] == "gcloud"]
    (world.folder / "calls").write_text("")
    subprocess.run(["bash"], input=script, text=True, capture_output=True)  # pasted
    assert world.calls == ours


@pytest.mark.parametrize("use_tmux", ["fake", "real"])
def test_awkward_arguments_reach_the_job_as_they_were_given(world, use_tmux, tmp_path, monkeypatch):
    if use_tmux == "real":
        real = next(
            (
                f"{d}/tmux"
                for d in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")
                if shutil.which("tmux", path=d)
            ),
            None,
        )
        if real is None:
            pytest.skip("there is no tmux")
        (tmp_path / "bin").mkdir()
        # the session is over when the job is: what comes back earlier is waited for
        wait = "until [ -f jaxrl/job/exit ]; do sleep 0.02; done"
        script = f'#!/bin/sh\nexport TMUX_TMPDIR={tmp_path}\n{real} -f /dev/null "$@" || exit\n'
        script += f'case "$1" in new-session) {wait} ;; esac\n'
        (tmp_path / "bin" / "tmux").write_text(script)
        (tmp_path / "bin" / "tmux").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
        monkeypatch.delenv("TMUX", raising=False)
    world.make_workers("w-0", is_set_up=True)
    assert world("run", str(world.tree / CONFIG), *AWKWARD) == 0
    file = world.folder / "ran-w-0-1"
    tree = world.folder / "worker-w-0" / "jaxrl" / "tree"
    assert file.read_text() == "\n".join([str(tree), "", "  ", "run", CONFIG, *AWKWARD]) + "\n"
    assert (world.folder / "worker-w-0" / "jaxrl" / "job" / "exit").read_text() == "0\n"


def test_create_waits_until_it_is_there_and_tells_each_state_once(world, capfd):
    world.play(
        states=["CREATING", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    )
    assert world("create") == 0
    told = re.findall(r"box: (\w+)", capfd.readouterr().out)
    assert told == ["CREATING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    assert world.verbs == ["create"] + ["describe"] * 5


def test_a_request_that_fails_is_an_error(world, capfd):
    world.play(states=["CREATING", "FAILED", "the reason, as gcloud has it"])
    assert world("create") == 2
    assert "box is FAILED" in (err := capfd.readouterr().err) and "the reason, as gcloud has it" in err


@pytest.mark.parametrize(
    "kind, runtime",
    [
        ("v2-8", "tpu-ubuntu2204-base"),
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_each_generation_has_its_runtime(world, kind, runtime):
    assert world("create", "--type", kind) == 0
    assert {f"--accelerator-type={kind}", f"--runtime-version={runtime}"} <= set(world.calls[0])


def test_the_request_has_what_was_asked_for(world):
    options = ["--spot", "--internal-ips", "--service-account", "a@b", "--network", "n", "--subnetwork", "s"]
    more = ["--give-up-after", "6h", "--create-flags", "--tags=a,b --labels='k=v w'", "--runtime", "mine"]
    assert world("create", "--slices", "3", "--type", "odd-1", *options, *more) == 0
    assert world.calls[0] == [
        *("gcloud", "compute", "tpus", "queued-resources", "create", "box"),
        *("--accelerator-type=odd-1", "--runtime-version=mine", "--node-count=3", "--node-prefix=box"),
        *("--service-account=a@b", "--network=n", "--subnetwork=s", "--valid-until-duration=6h"),
        *("--spot", "--internal-ips", "--tags=a,b", "--labels=k=v w", "--project=p", "--zone=z", "--quiet"),
    ]


def test_the_tree_is_sent_as_it_is(own_tree, tmp_path, monkeypatch):
    """Changed, new and deleted files, none that git ignores; what an earlier tree had goes, runs/ stays."""
    from tests.tpu.world import World

    world = World(tmp_path, own_tree, monkeypatch)
    (own_tree / "goes.py").write_text("")
    (own_tree / "stays deleted").write_text("")
    subprocess.run(["git", "-C", own_tree, "add", "."], check=True)
    (own_tree / "stays deleted").unlink()
    world.make_workers("w-0")
    assert world("setup") == 0
    there = world.folder / "worker-w-0" / "jaxrl" / "tree"
    (there / "runs").mkdir()
    assert (there / "goes.py").exists()

    (own_tree / "goes.py").unlink()
    (own_tree / CONFIG).write_text("changed: 1\n")
    (own_tree / "new file's.py").write_text("")
    (own_tree / "ignored").mkdir()
    (own_tree / "ignored" / "secret").write_text("")
    assert world("setup") == 0
    assert (there / CONFIG).read_text() == "changed: 1\n"
    assert (there / "new file's.py").exists() and (there / "runs").is_dir()
    for gone in ("goes.py", "stays deleted", "ignored", "tpu/settings.txt.bak"):
        assert not (there / gone).exists()


def test_each_worker_knows_its_place(world):
    world.make_workers("w-0", "w-1", "w-2", is_set_up=True)
    assert world("run", str(world.tree / CONFIG)) == 0
    assert [world.ran(f"w-{n}")[2] for n in range(3)] == [f"w-0:8482 3 {n}" for n in range(3)]


def test_processes_are_numbered_through_the_slices(world):
    """Two slices of two workers."""
    world.make_workers("a-0", "a-1", "b-0", "b-1", is_set_up=True)
    for n, host in enumerate(("a-0", "a-1", "b-0", "b-1")):
        folder = world.folder / "metadata" / host
        folder.mkdir(parents=True)
        (folder / "worker-network-endpoints").write_text(f"{host[0]}-0,{host[0]}-1\n")
        (folder / "agent-worker-number").write_text(f"{n % 2}\n")
        (folder / "tpu-env").write_text(
            f"X: 'y'\nMEGASCALE_COORDINATOR_ADDRESS: 'a-0:8080'\nMEGASCALE_NUM_SLICES: '2'\n"
            f"MEGASCALE_SLICE_ID: '{n // 2}'\n"
        )
    assert world("run", str(world.tree / CONFIG)) == 0
    places = [world.ran(host)[2] for host in ("a-0", "a-1", "b-0", "b-1")]
    assert places == [f"a-0:8482 4 {n}" for n in range(4)]


def test_a_worker_that_cannot_know_its_place_starts_nothing(world, capfd):
    world.make_workers("w-0", is_set_up=True)
    folder = world.folder / "metadata" / "w-0"
    folder.mkdir(parents=True)
    (folder / "tpu-env").mkdir()  # which cannot be read
    assert world("run", str(world.tree / CONFIG)) == 2
    assert "the metadata server does not name the workers" in capfd.readouterr().err
    assert not (world.folder / "worker-w-0" / "jaxrl" / "job").exists()


def test_workers_that_gcloud_leaves_out_are_missed(world, capfd):
    world.make_workers("w-0", "w-1", is_set_up=True)
    (world.folder / "worker-w-1").rename(world.folder / "off")
    assert world("run", str(world.tree / CONFIG)) == 2
    assert "1 of 2 workers or more were reached" in capfd.readouterr().err
    world.play(hosts=["off"])
    assert world("setup") == 2
    assert "ssh-add ~/.ssh/google_compute_engine" in capfd.readouterr().err


def test_secrets_are_in_the_jobs_environment_and_in_no_command(world, tmp_path):
    (tmp_path / "mine").write_text("SECRET='hush $now'\n")
    world.make_workers("w-0")
    assert world("setup", "--secrets", str(tmp_path / "mine")) == 0
    assert world("run", str(world.tree / CONFIG)) == 0
    assert world.ran("w-0")[1] == "hush $now"
    assert "hush" not in str(world.calls)
    kept = world.folder / "worker-w-0" / "jaxrl" / "secrets"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_second_job_is_refused_everywhere(world, capfd):
    world.make_workers("w-0", "w-1", is_set_up=True)
    world.play(plays=["5 hang"])
    assert world("run", str(world.tree / CONFIG)) == 0
    assert world("run", str(world.tree / CONFIG)) == 2
    assert "at work on 2 of 2 workers; `stop` it first" in capfd.readouterr().err
    assert world("setup") == 2  # would take the code away from under it
    assert "a job is at work" in capfd.readouterr().err
    # a worker refuses by itself, too
    answer = world.launch.Shell(False).call(
        world.launch.worker_sh(world.launch.parse(["status"]), "run", "x")
    )
    assert answer.code == 2 and "a job is at work" in answer.err


def test_stop_waits_for_the_save(world, capfd):
    world.make_workers("w-0", "w-1", is_set_up=True)
    world.play(plays=["5 hang"])
    assert world("run", str(world.tree / CONFIG)) == 0
    capfd.readouterr()
    assert world("status") == 0
    out = capfd.readouterr().out
    assert "jaxrl: w-1: running" in out and "jaxrl: w-0: at grpo 5/100" in out
    assert world("stop") == 0
    assert re.findall(r"w-\d: exited 143", capfd.readouterr().out) == ["w-0: exited 143", "w-1: exited 143"]
    assert world("stop") == 0  # nothing is at work: nothing to do


def test_stop_kills_only_when_told_to(world, capfd):
    world.make_workers("w-0", is_set_up=True)
    world.play(plays=["5 deaf"])
    assert world("run", str(world.tree / CONFIG)) == 0
    assert world("stop", "--wait", "0") == 2
    assert "1 workers are still at work after 0 s" in capfd.readouterr().err
    assert world("stop", "--wait", "0", "--kill") == 0
    assert "exited 137" in capfd.readouterr().out


def test_logs_of_one_and_of_all(world, capfd):
    world.make_workers("w-0", "w-1", is_set_up=True)
    assert world("run", str(world.tree / CONFIG)) == 0
    capfd.readouterr()
    assert world("logs", "--worker", "1", "--lines", "2") == 0
    assert capfd.readouterr().out.splitlines() == [f"grpo  {n:3}/100  eta     12s" for n in (2, 3)]
    assert world("logs", "--worker", "all", "--lines", "1") == 0
    assert capfd.readouterr().out.splitlines() == [f"w-{n}: grpo    3/100  eta     12s" for n in (0, 1)]


def test_a_machine_that_was_started_again_has_lost_its_job(world, capfd):
    world.make_workers("w-0", is_set_up=True)
    assert world("run", str(world.tree / CONFIG)) == 0
    (world.folder / "worker-w-0" / "jaxrl" / "job" / "exit").unlink()
    capfd.readouterr()
    assert world("status") == 0
    assert "jaxrl: w-0: lost" in capfd.readouterr().out


@pytest.mark.parametrize("answer, deleted", [("y\n", True), ("n\n", False), ("", False)])
def test_delete_asks(world, monkeypatch, answer, deleted):
    def read(question):
        assert "box" in question
        if not answer:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", read)
    assert world("delete") == (0 if deleted else 2)
    assert ("delete" in world.verbs) == deleted


REFUSED = [
    (["create", "--type", "v5e-8"], "v5e slices are called v5litepod-8"),
    (["create", "--type", "tpu7x-8"], "see tpu/jobset.yaml"),
    (["create", "--type", "h100"], "name its runtime with --runtime"),
    (["create", "--slices", "0"], "--slices 0 is less than one"),
    (["create", "--name", "My_TPU"], "--name 'My_TPU' is no name"),
    (["run", "configs/none.yaml"], "configs/none.yaml is no file under"),
    (["run", "/etc/hostname"], "/etc/hostname is no file under"),
    (["run", "LOCAL"], "runs_dir 'runs' is on each worker's own disk"),
    (["run", "CONFIG", "runs_dir=/mnt/disk"], "--local-runs-dir"),
    (["run", "CONFIG", "steps"], "write KEY=steps"),
    (["setup", "--secrets", "none"], "--secrets none is no file"),
    (["status", "--settings", "none"], "--settings none is no file"),
]


@pytest.mark.parametrize("argv, message", REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_bad_input_is_one_message_and_nothing_is_run(world, capfd, argv, message):
    names = {"CONFIG": CONFIG, "LOCAL": "configs/local.yaml"}
    argv = [str(world.tree / names[word]) if word in names else word for word in argv]
    assert world(*argv) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and message in err
    assert world.calls == []


@pytest.mark.parametrize("more", [["--local-runs-dir"], ["runs_dir=gs://b/r"], ["runs_dir=memory://r"]])
def test_a_runs_dir_that_outlives_a_worker_is_taken(world, more):
    world.make_workers("w-0", is_set_up=True)
    assert world("run", str(world.tree / "configs/local.yaml"), *more) == 0


SAID = [
    (
        "You do not currently have an active account selected.\n\n  $ gcloud auth login",
        "log in with: gcloud auth",
    ),
    ("RESOURCE_EXHAUSTED: Quota exceeded for TPUS", "--spot has its own"),
    ("RESOURCE_EXHAUSTED: There is no more capacity in the zone", "ask again later"),
    ("ALREADY_EXISTS: Resource", "or choose another --name"),
    ("PERMISSION_DENIED: nope", "roles/tpu.admin"),
    ("something new", "see what it said"),
]


@pytest.mark.parametrize("said, remedy", SAID, ids=[said[:20] for said, _ in SAID])
def test_what_gcloud_says_is_passed_on_with_what_to_do(world, capfd, said, remedy):
    world.fail("create", said)
    assert world("create") == 2
    error = capfd.readouterr().err.rpartition("error: ")[2]
    assert said in error and remedy in error


def test_without_gcloud(world, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(world.folder))
    assert world("status") == 2
    assert "no program 'gcloud' on the PATH; install it from https" in capfd.readouterr().err


def test_run_before_setup_names_setup(world, capfd):
    world.make_workers("w-0")
    assert world("run", str(world.tree / CONFIG)) == 2
    assert "run `setup` first" in capfd.readouterr().err


def test_settings_are_defaults_and_flags_win(world, tmp_path, capfd):
    file = tmp_path / "mine.txt"
    file.write_text("project = q # mine\nzone=y\n\n# no\ntype = v5p-8\nspot = yes\nslices = 2\npoll = 0\n")
    assert world("create", "--settings", str(file), "--zone", "x") == 0
    call = world.calls[0]
    assert {"--project=q", "--zone=x", "--accelerator-type=v5p-8", "--spot", "--node-count=2"} <= set(call)
    assert call[5] == "jaxrl"


@pytest.mark.parametrize(
    "line, message",
    [
        ("porject = p", "did you mean project?"),
        ("spot = maybe", "write yes or no"),
        ("project", "'project' is not FLAG = VALUE"),
    ],
)
def test_settings_that_say_nothing(world, tmp_path, capfd, line, message):
    (tmp_path / "mine.txt").write_text(f"zone = z\n{line}\n")
    assert world("status", "--settings", str(tmp_path / "mine.txt")) == 2
    err = capfd.readouterr().err
    assert "mine.txt, line 2" in err and message in err


def test_project_and_zone_have_to_be_named(world, tmp_path, capfd):
    (tmp_path / "mine.txt").write_text("project = p\n")
    assert world("status", "--settings", str(tmp_path / "mine.txt")) == 2
    assert "no zone was named; give --zone" in capfd.readouterr().err


def test_ssh_flags_go_to_every_connection(world):
    world.make_workers("w-0")
    assert world("setup", "--ssh-flags", "--tunnel-through-iap --ssh-key-file='a b'") == 0
    for call in world.calls:
        assert {"--tunnel-through-iap", "--ssh-key-file=a b", "--node=all", "--worker=all"} <= set(call)
