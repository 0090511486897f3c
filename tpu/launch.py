#!/usr/bin/env python3
"""From nothing to a running job on a Cloud TPU: `python3 tpu/launch.py create`, `setup`, `run`, `logs`,
`status`, `stop`, `delete`, and `babysit`, which does all of it, and again after each preemption.

tpu/README.md shows how. Runs on a laptop with git, gcloud and Python 3.9, without jax or jaxrl. Everything
outside happens through `Shell`: `--dry-run` prints its commands, ready to be pasted, instead of running them.
What is done on the workers is in tpu/worker.sh.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = Path(__file__).resolve().parent / "settings.txt"
WORKER = "jaxrl/tree/tpu/worker.sh"  # on a worker, from the home directory, where ssh begins

# The runtime that Google names for JAX, by what an accelerator type begins with; read on 2026-11-30 at
# https://docs.cloud.google.com/tpu/docs/runtimes
RUNTIMES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
ABSENT, ACTIVE = (
    "ABSENT",
    "ACTIVE",
)  # states of the queued resource; the first is ours, for one that is not there
DEAD = ("SUSPENDING", "SUSPENDED", "FAILED")  # its machines are gone, and it will not get others
DONE, BAD_INPUT, SIGNALS = 0, 2, (129, 130, 143)  # exit codes of `jaxrl run`: see jaxrl/cli.py

# What gcloud says where something can be done about it.
REMEDIES = (
    ("gcloud auth login", "log in with: gcloud auth login"),
    ("quota", "choose another --zone or --type, or ask for more (console: IAM, Quotas); --spot has its own"),
    ("RESOURCE_EXHAUSTED", "nothing is free there now: ask again later, or choose another --zone or --type"),
    (
        "SERVICE_DISABLED",
        "switch the TPU API on: gcloud services enable tpu.googleapis.com --project=PROJECT",
    ),
    ("PERMISSION_DENIED", "ask for the role roles/tpu.admin in this project, or name another --project"),
    ("ALREADY_EXISTS", "go on with `setup`, or `delete` it first, or choose another --name"),
    ("NOT_FOUND", "check --name, --zone and --project; `create` makes one"),
    ("worker.sh: No such file", "run `setup` first"),
    ("a job is at work", "`stop` it first, or follow it with `logs --follow`"),
    ("ssh-add", "give the key to your agent: ssh-add ~/.ssh/google_compute_engine"),
    (
        "unrecognized arguments",
        "your gcloud is older than what this was written for: gcloud components update",
    ),
)


class LaunchError(Exception):
    """What is wrong, why, and what to do about it."""


class Gone(LaunchError):
    """The resource was not granted, or was taken away before it was there."""


# --------------------------------------------------------------------------------------------- running things


@dataclass
class Answer:
    """What a command left: its exit code, and what it wrote (stdout only where it was captured)."""

    code: int
    out: str
    err: str


class Shell:
    """The one way in which anything is run, waited for or told."""

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def call(self, argv: list[str], assume: str | None = None) -> Answer:
        """Run a command; in a dry run print it.

        Args:
          argv: the command.
          assume: None lets its output through; a text captures it, and stands for it in a dry run.

        Raises:
          LaunchError: there is no such program.
        """
        if self.dry_run:
            print(shlex.join(argv), flush=True)
            return Answer(0, assume or "", "")
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,  # nobody is there to answer a prompt
                stdout=None if assume is None else subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except FileNotFoundError:
            raise LaunchError(
                f"there is no program {argv[0]!r} on the PATH; install it"
                + (" from https://cloud.google.com/sdk/docs/install" if argv[0] == "gcloud" else "")
            ) from None
        if assume is not None:
            out, err = process.communicate()
            return Answer(process.returncode, out, err)
        err = ""
        for line in process.stderr or ():
            sys.stderr.write(line)
            err += line
        return Answer(process.wait(), "", err)

    def must(self, argv: list[str], assume: str | None = None) -> str:
        """`call`, whose output is given back.

        Raises:
          LaunchError: it failed; the message has what it said, and the remedy if one is known.
        """
        answer = self.call(argv, assume)
        if answer.code:
            raise LaunchError(complaint(argv, answer))
        return answer.out

    def tell(self, text: str) -> None:
        """One line for the reader; a comment in a dry run, whose output is a script."""
        text = " ".join(text.split())
        print(f"# {text}" if self.dry_run else f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def sleep(self, seconds: float) -> None:
        """Wait, but for a dry run."""
        if not self.dry_run:
            time.sleep(seconds)


def complaint(argv: list[str], answer: Answer) -> str:
    """The sentence about a command that failed."""
    said = (answer.err.strip() or answer.out.strip() or "nothing was said").splitlines()
    remedy = next((r for sign, r in REMEDIES if sign.lower() in answer.err.lower()), "see what it said")
    what = " ".join(argv[:5]) if argv[0] == "gcloud" else argv[0]
    return f"`{what}` ended with exit code {answer.code}: " + "\n".join(said[-20:]) + f"\n{remedy}"


# ------------------------------------------------------------------------------------------ gcloud's commands


def gcloud(args: argparse.Namespace, verb: str, *words: str) -> list[str]:
    """A command about the queued resource."""
    place = [f"--project={args.project}", f"--zone={args.zone}", "--quiet"]
    return ["gcloud", "compute", "tpus", "queued-resources", verb, *words, *place]


def on_workers(args: argparse.Namespace, command: str, worker: str = "all") -> list[str]:
    """A command line for bash, on all workers of all slices, or on one of the first slice."""
    node = "all" if worker == "all" else "0"
    where = [f"--node={node}", f"--worker={worker}", f"--command={command}"]
    return gcloud(args, "ssh", args.name, *where, *shlex.split(args.ssh_flags))


def worker_sh(args: argparse.Namespace, *words: str, worker: str = "all") -> list[str]:
    """A command of tpu/worker.sh there."""
    return on_workers(args, shlex.join(["bash", WORKER, *words]), worker)


def copy_to_workers(args: argparse.Namespace, file: str, target: str) -> list[str]:
    """A file into the home directory of every worker."""
    where = ["--node=all", "--worker=all", *shlex.split(args.ssh_flags)]
    return gcloud(args, "scp", file, f"{args.name}:{target}", *where)


def creation(args: argparse.Namespace) -> list[str]:
    """The request for the resource, by the settings."""
    generation, _, cores = args.type.rpartition("-")
    if args.runtime is None and generation not in RUNTIMES:
        advice = f"name its runtime with --runtime, or choose one of {', '.join(f'{g}-N' for g in RUNTIMES)}"
        if generation.startswith("v5e"):
            advice = f"v5e slices are called v5litepod-{cores or 'N'}"
        if generation.startswith("tpu7"):
            advice = "Google serves it through GKE and Compute Engine only; see tpu/jobset.yaml"
        raise LaunchError(f"--type {args.type} is no accelerator type that has a known runtime; {advice}")
    if args.slices < 1:
        raise LaunchError(f"--slices {args.slices} is less than one; 1 is a single slice")
    options = {
        "--accelerator-type": args.type,
        "--runtime-version": args.runtime or RUNTIMES[generation],
        "--node-id": args.name if args.slices == 1 else None,
        "--node-count": str(args.slices) if args.slices > 1 else None,
        "--node-prefix": args.name if args.slices > 1 else None,
        "--service-account": args.service_account,
        "--network": args.network,
        "--subnetwork": args.subnetwork,
        "--valid-until-duration": args.give_up_after,
    }
    switches = {"--spot": args.spot, "--reserved": args.reserved, "--internal-ips": args.internal_ips}
    return gcloud(
        args,
        "create",
        args.name,
        *(f"{flag}={value}" for flag, value in options.items() if value is not None),
        *(flag for flag, is_on in switches.items() if is_on),
        *shlex.split(args.create_flags),
    )


def resource_state(shell: Shell, args: argparse.Namespace, assume: str = ACTIVE) -> str:
    """The state of the queued resource.

    Raises:
      LaunchError: gcloud does not say.
    """
    argv = gcloud(args, "describe", args.name, "--format=value(state.state)")
    answer = shell.call(argv, assume)
    if answer.code and "NOT_FOUND" in answer.err:
        return ABSENT
    if answer.code:
        raise LaunchError(complaint(argv, answer))
    return answer.out.strip() or "UNKNOWN"


@dataclass
class Workers:
    """What the workers say.

    Args:
      states: per host `running`, `idle`, `lost`, `exited N` or `set up`.
      steps: per stage the last one.
      shown: the same to read, "grpo 37/100".
      expected: how many workers there are, as far as one of them knows.
    """

    states: dict[str, str]
    steps: dict[str, int]
    shown: str = ""
    expected: int = 1

    @property
    def codes(self) -> list[int]:
        """Exit codes of those that have ended."""
        return [int(state.split()[1]) for state in self.states.values() if state.startswith("exited ")]

    @property
    def running(self) -> int:
        """How many are at work."""
        return sum(state == "running" for state in self.states.values())


def read_workers(text: str) -> Workers:
    """From the lines of `worker.sh status`, in any order and among others."""
    states: dict[str, str] = {}
    steps: dict[str, int] = {}
    shown: list[str] = []
    expected = 1
    for line in text.splitlines():
        if found := re.fullmatch(r"jaxrl: (\S+): at (.+) (\d+)/(\d+)", line):
            stage, step = found[2], int(found[3])
            if step >= steps.get(stage, -1):
                steps[stage] = step
                shown = [s for s in shown if not s.startswith(stage + " ")] + [f"{stage} {step}/{found[4]}"]
        elif found := re.fullmatch(r"jaxrl: (\S+): (running|idle|lost|exited \d+|set up)", line):
            states[found[1]] = found[2]
        elif found := re.fullmatch(r"jaxrl: \S+: process \d+ of (\d+)", line):
            expected = int(found[1])
    return Workers(states, steps, ", ".join(shown), expected)


def reach(shell: Shell, argv: list[str], assume: str) -> Workers:
    """Run something on all workers, and tell the state of each.

    Raises:
      LaunchError: it failed somewhere, or workers were left out, which gcloud does with exit code 0.
    """
    answer = shell.call(argv, assume)
    if answer.code:
        raise LaunchError(complaint(argv, answer))
    workers = read_workers(answer.out)
    for host, state in sorted(workers.states.items()):
        shell.tell(f"{host}: {state}")
    if len(workers.states) < workers.expected:
        raise LaunchError(
            f"{len(workers.states)} of {workers.expected} workers or more were reached; where there are"
            " several, gcloud needs your key in an ssh agent: ssh-add ~/.ssh/google_compute_engine\n"
            + "\n".join(answer.err.strip().splitlines()[-10:])
        )
    return workers


# ----------------------------------------------------------------------------------------------- the commands


def create(shell: Shell, args: argparse.Namespace) -> int:
    """Ask for the TPU, and wait until it is there."""
    shell.must(creation(args))
    wait_until_active(shell, args)
    return 0


def wait_until_active(shell: Shell, args: argparse.Namespace) -> None:
    """Ask for the state until it is ACTIVE, and tell each new one.

    Raises:
      LaunchError: it will not become so.
    """
    before = None
    try:
        while (state := resource_state(shell, args)) != ACTIVE:
            if state != before:
                shell.tell(f"{args.name}: {state}")
            if state in (*DEAD, ABSENT):
                why = (
                    shell.must(gcloud(args, "describe", args.name), "")
                    if state != ABSENT
                    else "someone deleted it"
                )
                raise Gone(f"{args.name} is {state}; `delete` it and ask again. {why.strip()}")
            before = state
            shell.sleep(args.poll)
    except KeyboardInterrupt:
        shell.tell(
            f"the request for {args.name} stays in the queue, and costs once granted; `delete` ends it"
        )
        raise
    shell.tell(f"{args.name}: {ACTIVE}")


def setup(shell: Shell, args: argparse.Namespace) -> int:
    """Send the working tree, uncommitted files included, and install it on every worker."""
    pack(shell, args)
    install(shell, args)
    return 0


def archive_of(args: argparse.Namespace) -> str:
    """Where the packed tree lies on this machine."""
    return str(Path.home() / ".cache" / "jaxrl" / f"tpu-{args.name}.tgz")


def pack(shell: Shell, args: argparse.Namespace) -> None:
    """Pack the working tree as it is now."""
    if args.secrets is not None and not Path(args.secrets).is_file():
        raise LaunchError(f"--secrets {args.secrets} is no file; write one with lines like HF_TOKEN=...")
    shell.must(["bash", str(ROOT / "tpu" / "pack.sh"), archive_of(args)])


def install(shell: Shell, args: argparse.Namespace) -> None:
    """Send what was packed to every worker, and make the environment there."""
    shell.must(copy_to_workers(args, archive_of(args), "jaxrl.tgz"))
    if args.secrets is not None:
        shell.must(copy_to_workers(args, args.secrets, "jaxrl-secrets"))
        shell.must(
            on_workers(args, "mkdir -p jaxrl && mv jaxrl-secrets jaxrl/secrets && chmod 600 jaxrl/secrets")
        )
    check = "! tmux has-session -t =jaxrl 2> /dev/null || { echo 'error: a job is at work' >&2; exit 2; }"
    unpack = "mkdir -p jaxrl/tree && tar -xzf jaxrl.tgz -C jaxrl/tree"
    install_it = on_workers(args, f"{check}; {unpack} && bash {WORKER} setup jaxrl.tgz")
    shell.tell("installing on every worker, which takes minutes the first time")
    reach(shell, install_it, assume="jaxrl: worker: set up")


def run(shell: Shell, args: argparse.Namespace) -> int:
    """Start `jaxrl run` on all workers, each in its tmux."""
    config = check_run(args)
    busy = read_workers(shell.must(worker_sh(args, "status"), ""))
    if busy.running:
        raise LaunchError(
            f"a job is at work on {busy.running} of {len(busy.states)} workers; `stop` it first, or follow it"
            " with `logs --follow`"
        )
    start(shell, args, config)
    return 0


def start(shell: Shell, args: argparse.Namespace, config: str) -> None:
    """Start the job on every worker."""
    reach(shell, worker_sh(args, "run", config, *args.overrides), assume="jaxrl: worker: running")


def check_run(args: argparse.Namespace) -> str:
    """The path of the config on the workers, for a job whose files will outlive them.

    Raises:
      LaunchError: there is no such config in the tree, or its run would be lost with a worker.
    """
    config = Path(args.config).resolve()
    if not config.is_file() or ROOT not in config.parents:
        raise LaunchError(
            f"{args.config} is no file under {ROOT}, which is what the workers have; put it there"
        )
    for word in args.overrides:
        if "=" not in word:
            raise LaunchError(f"{word!r} is neither a flag nor key=value; write KEY={word}")
    runs_dir = "runs"  # the config's default
    for line in config.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"runs_dir:\s*(.+?)\s*(?:#.*)?$", line):
            runs_dir = found[1].strip("'\"")
    for word in args.overrides:
        if word.startswith("runs_dir="):
            runs_dir = word.partition("=")[2]
    if "://" not in runs_dir and not args.local_runs_dir:
        raise LaunchError(
            f"runs_dir {runs_dir!r} is on each worker's own disk, and is lost with it; give"
            " runs_dir=gs://..., or --local-runs-dir for a disk that all workers share, or that of a single"
            " worker that may be lost"
        )
    return config.relative_to(ROOT).as_posix()


def logs(shell: Shell, args: argparse.Namespace) -> int:
    """Show the last lines of the job's log, or follow it."""
    follow, named = "follow" if args.follow else "once", "named" if args.worker == "all" else "bare"
    shell.must(worker_sh(args, "logs", str(args.lines), follow, named, worker=args.worker))
    return 0


def status(shell: Shell, args: argparse.Namespace) -> int:
    """Tell the state of the resource, of the job on each worker, and the last step."""
    state = resource_state(shell, args)
    shell.tell(f"{args.name}: {state}")
    if state == ACTIVE:
        shell.must(worker_sh(args, "status"))
        shell.call(worker_sh(args, "logs", "3", "once", "bare", worker="0"))
    return 0


def stop(shell: Shell, args: argparse.Namespace) -> int:
    """Ask the job to save and stop, on all workers, and wait until it has."""
    words = ["stop", str(args.wait), *(["kill"] if args.kill else [])]
    workers = reach(shell, worker_sh(args, *words), assume="jaxrl: worker: exited 143")
    if workers.running:
        raise LaunchError(
            f"{workers.running} workers are still at work after {args.wait} s; see `status` later, or ask"
            " again: a second signal stops them at once, without a save; --kill ends those that do not hear"
        )
    return 0


def delete(shell: Shell, args: argparse.Namespace) -> int:
    """Delete the TPU and the request for it."""
    if not (args.yes or args.dry_run):
        try:
            answer = input(f"delete {args.name} in {args.zone}, and all that is on its disks? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise LaunchError(f"{args.name} was not deleted; answer y, or give --yes")
    shell.must(gcloud(args, "delete", args.name, "--force"))  # force: its machines, too
    return 0


# ------------------------------------------------------------------------------------------------ babysitting


@dataclass
class Ending:
    """How an attempt ended. `code` is babysit's own exit code, or None where another attempt is due."""

    code: int | None
    why: str


@dataclass
class Care:
    """What babysit knows of the job it looks after.

    Args:
      reached: per stage the highest step that any attempt has come to.
      is_set_up: whether the workers that are there have the code.
      was_active: whether there have been any.
    """

    reached: dict[str, int]
    is_set_up: bool = False
    was_active: bool = False

    def __str__(self) -> str:
        return ", ".join(f"{stage} {step}" for stage, step in self.reached.items()) or "no step"


def babysit(shell: Shell, args: argparse.Namespace) -> int:
    """Create, set up, run, and again after each preemption or crash, until the job has ended for good.

    It ends with the job's exit code where that is 0 (done), 2 (bad input: the same again) or a signal's
    (stopped on purpose), and with 1 after `--restarts` restarts in a row in which no stage came further than
    ever before.
    """
    check_run(args)
    pack(shell, args)  # once: a job is taken up again by the code that began it
    care, attempt, barren = Care({}), 0, 0
    while True:
        before = dict(care.reached)
        try:
            bring_up(shell, args, care)
            ending = watch(shell, args, care)
        except LaunchError as error:
            if not care.was_active and not isinstance(error, Gone):
                raise  # somebody is sitting there still, and can do something about it
            ending = Ending(None, str(error))
        if ending.code is not None:
            return finish(shell, args, ending)
        barren = 0 if care.reached != before or attempt == 0 else barren + 1
        if barren >= args.restarts:
            why = f"gave up: {barren} restarts came no further than {care}; {ending.why}"
            return finish(shell, args, Ending(1, why))
        attempt, wait = attempt + 1, args.poll * 2**barren
        shell.tell(f"restart {attempt} in {wait:g} s, from {care}: {ending.why}")
        shell.sleep(wait)


def bring_up(shell: Shell, args: argparse.Namespace, care: Care) -> None:
    """Have a job at work on workers that are there. One that is at work already goes on.

    Raises:
      Gone: they were taken away meanwhile.
      LaunchError: something else failed.
    """
    state = resource_state(shell, args, assume=ABSENT)
    if state in DEAD:
        shell.must(gcloud(args, "delete", args.name, "--force"))
    while state == "DELETING":
        shell.sleep(args.poll)
        state = resource_state(shell, args)
    if state in (*DEAD, ABSENT):
        care.is_set_up = False
        shell.must(creation(args))
    if state != ACTIVE:
        wait_until_active(shell, args)
    care.was_active = True
    workers = ask_workers(shell, args) if state == ACTIVE else Workers({}, {})
    if workers.running and workers.running == len(workers.states):
        shell.tell("a job is at work already; it is watched")
        return
    if workers.running:  # without the others: they would wait for those
        shell.must(worker_sh(args, "stop", "60", "kill"), "")
    if not care.is_set_up:
        install(shell, args)
        care.is_set_up = True
    start(shell, args, check_run(args))


def ask_workers(shell: Shell, args: argparse.Namespace) -> Workers:
    """What the workers say; nothing where they cannot be reached."""
    return read_workers(shell.call(worker_sh(args, "status"), "jaxrl: worker: exited 0").out)


def watch(shell: Shell, args: argparse.Namespace, care: Care) -> Ending:
    """Look at the job until it has ended, or its machines have; `care.reached` grows with its steps."""
    told, silent, torn, was_signalled = "", 0, 0, False
    while True:
        shell.sleep(args.poll)
        try:
            state = resource_state(shell, args)
        except LaunchError as error:  # this machine is offline, say: that tells nothing of the job
            shell.tell(f"not known how it is: {error}")
            continue
        if state != ACTIVE:
            return Ending(None, f"preempted: {args.name} is {state}")
        workers = ask_workers(shell, args)
        for stage, step in workers.steps.items():
            care.reached[stage] = max(step, care.reached.get(stage, 0))
        if workers.shown != told:
            shell.tell(f"at {workers.shown}")
            told = workers.shown
        silent = 0 if workers.states else silent + 1
        if silent == 1:
            shell.tell(f"the workers do not answer, and are made again after {args.patience} times")
        torn = torn + 1 if 0 < workers.running < len(workers.states) else 0
        if BAD_INPUT in workers.codes:
            return Ending(BAD_INPUT, "bad input: the same again would fail the same way")
        if silent >= args.patience:  # ACTIVE, and nobody there: it hangs, or is being taken away
            shell.call(gcloud(args, "delete", args.name, "--force"))
            return Ending(None, f"the workers did not answer {silent} times; {args.name} is made again")
        if torn >= args.patience:  # until then the others have time to notice, and to save
            return judge(workers)
        if workers.states and not workers.running:
            ending = judge(workers)
            if ending.code not in SIGNALS or was_signalled:
                return ending
            was_signalled = True  # a preemption begins with a signal, too: is it ACTIVE the next time?


def judge(workers: Workers) -> Ending:
    """How a job has ended of which not all workers are at work; see jaxrl/cli.py for the codes."""
    codes, states = workers.codes, sorted(set(workers.states.values()))
    if len(codes) == len(workers.states):
        if all(code == DONE for code in codes):
            return Ending(DONE, "done")
        if all(code in SIGNALS for code in codes):
            return Ending(codes[0], "stopped by a signal, on purpose")
    return Ending(None, f"the job's workers: {', '.join(states)}")


def finish(shell: Shell, args: argparse.Namespace, ending: Ending) -> int:
    """Say how it ended, with the log's last lines where it is no success."""
    if ending.code:
        shell.call(worker_sh(args, "logs", "20", "once", "named"))
    shell.tell(ending.why)
    shell.tell(f"{args.name} is still there, and costs; `delete` ends that")
    return ending.code or 0


# ------------------------------------------------------------------------------------------------------ flags


def resource_flags() -> argparse.ArgumentParser:
    """What every command takes."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    flags.add_argument("--settings", metavar="FILE", help="lines of flag = value (default tpu/settings.txt)")
    flags.add_argument("--project", help="of Google Cloud")
    flags.add_argument("--zone", help="for example us-east5-b")
    flags.add_argument("--name", default="jaxrl", help="of the TPU and of the request for it (default jaxrl)")
    flags.add_argument(
        "--ssh-flags",
        default="",
        metavar="'...'",
        help="more flags for gcloud's ssh and scp (--tunnel-through-iap)",
    )
    flags.add_argument("--poll", type=float, default=30.0, metavar="S", help="seconds between two looks (30)")
    return flags


def creation_flags() -> argparse.ArgumentParser:
    """What is asked for."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument(
        "--type", default="v6e-8", help="accelerator type, as v6e-8, v5litepod-16, v5p-32 (v6e-8)"
    )
    flags.add_argument("--slices", type=int, default=1, metavar="N", help="so many of them, as one job (1)")
    flags.add_argument("--runtime", metavar="VERSION", help="image (default: the one for the type)")
    flags.add_argument("--spot", action="store_true", help="cheaper, and may be taken away at any time")
    flags.add_argument("--reserved", action="store_true", help="out of a reservation")
    flags.add_argument("--service-account", metavar="EMAIL", help="as whom the workers open gs:// paths")
    flags.add_argument("--network")
    flags.add_argument("--subnetwork")
    flags.add_argument("--internal-ips", action="store_true", help="no external address (needs a NAT)")
    flags.add_argument(
        "--give-up-after", metavar="6h", help="leave the queue when nothing was granted so long"
    )
    flags.add_argument("--create-flags", default="", metavar="'...'", help="more flags for gcloud's create")
    return flags


def setup_flags() -> argparse.ArgumentParser:
    """What is sent."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--secrets", metavar="FILE", help="lines like HF_TOKEN=..., for the job's environment")
    return flags


def run_flags() -> argparse.ArgumentParser:
    """What is run."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("config", metavar="CONFIG", help="a YAML file of this tree")
    flags.add_argument("overrides", nargs="*", metavar="key=value", help="as of `jaxrl run`")
    flags.add_argument("--local-runs-dir", action="store_true", help="runs_dir need not be gs://")
    return flags


def build_parser(defaults: dict[str, object]) -> argparse.ArgumentParser:
    """The commands, with the settings' values as defaults."""
    common, made, sent, ran = resource_flags(), creation_flags(), setup_flags(), run_flags()
    parser = argparse.ArgumentParser(
        prog="launch.py", allow_abbrev=False, description=__doc__.split("\n\n")[0]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parents = {
        create: [common, made],
        setup: [common, sent],
        run: [common, ran],
        logs: [common],
        status: [common],
        stop: [common],
        delete: [common],
        babysit: [common, made, sent, ran],
    }
    parsers = {}
    for function, flags in parents.items():
        text = (function.__doc__ or "").split("\n")[0]
        parsers[function] = commands.add_parser(
            function.__name__, parents=flags, help=text, description=text, allow_abbrev=False
        )
        parsers[function].set_defaults(function=function, **defaults)
    parsers[logs].add_argument("--worker", default="0", metavar="N", help="a number, or all (0)")
    parsers[logs].add_argument("--lines", type=int, default=50, metavar="N", help="so many of the last (50)")
    parsers[logs].add_argument("--follow", action="store_true", help="until Ctrl-C")
    parsers[stop].add_argument(
        "--wait", type=int, default=600, metavar="S", help="seconds for the save (600)"
    )
    parsers[stop].add_argument("--kill", action="store_true", help="then end what is still at work")
    parsers[delete].add_argument("--yes", action="store_true", help="do not ask")
    parsers[babysit].add_argument(
        "--restarts", type=int, default=2, metavar="N", help="give up after so many without progress (2)"
    )
    parsers[babysit].add_argument(
        "--patience",
        type=int,
        default=15,
        metavar="N",
        help="looks at which workers may be silent or apart (15)",
    )
    return parser


def read_settings(file: Path) -> dict[str, object]:
    """Defaults from lines of `flag = value`; `#` begins a comment.

    Raises:
      LaunchError: a line that is no such thing, or a flag that is not known.
    """
    groups = (resource_flags(), creation_flags(), setup_flags())
    known = {action.dest: action for group in groups for action in group._actions}
    values: dict[str, object] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        key, sign, text = (part.strip() for part in line.partition("="))
        place, name = f"{file}, line {number}", key.lstrip("-").replace("-", "_")
        if not sign or name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = (
                f"did you mean {near[0].replace('_', '-')}?"
                if near
                else f"known are {', '.join(sorted(known))}"
            )
            raise LaunchError(
                f"{place}: {line!r} is not FLAG = VALUE with a flag of `create` or `setup`; {hint}"
            )
        if isinstance(known[name].default, bool):
            if text not in ("yes", "no"):
                raise LaunchError(f"{place}: {key} is {text!r}; write yes or no")
            values[name] = text == "yes"
        else:
            values[name] = text
    return values


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments, over the settings file, over the defaults.

    Raises:
      LaunchError: the file is not there or not readable, or what every command needs was not said.
    """
    first, _ = resource_flags().parse_known_args([word for word in argv if word not in ("-h", "--help")])
    file = SETTINGS if first.settings is None else Path(first.settings)
    if first.settings is not None and not file.is_file():
        raise LaunchError(f"--settings {file} is no file; tpu/settings.example.txt shows one")
    parser = build_parser(read_settings(file) if file.is_file() else {})
    args, late = parser.parse_known_args(argv)
    if any(word.startswith("-") or "overrides" not in args for word in late):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:  # key=value after a flag, which argparse leaves over
        args.overrides = [*args.overrides, *late]
    for key in ("project", "zone"):
        if getattr(args, key) is None:
            raise LaunchError(f"no {key} was named; give --{key}, or a line `{key} = ...` in {SETTINGS}")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", args.name):
        raise LaunchError(
            f"--name {args.name!r} is no name for a TPU; use a-z, 0-9 and -, beginning with a letter"
        )
    return args


def main(argv: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done; 2 an error, told in one message; 130 Ctrl-C; those of `babysit`."""
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        return args.function(Shell(args.dry_run), args)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
