"""`launch.py babysit`: which endings are followed by another attempt, and when it gives up."""

import pytest

CONFIG = "configs/tiny.yaml"


def babysit(world, *more):
    return world("babysit", str(world.tree / CONFIG), *more)


def starts(world):
    return world.verbs.count("ssh run")


def test_from_nothing_to_done(world):
    states = ["NOT_FOUND", "WAITING_FOR_RESOURCES", "ACTIVE"]
    world.play(hosts=["w-0", "w-1"], states=states, plays=["100 0"])
    assert babysit(world) == 0
    assert world.verbs == [
        *("describe", "create", "describe", "describe"),
        *("scp", "ssh setup", "ssh run", "describe", "ssh status"),
    ]


def test_after_a_preemption_everything_is_made_again_and_the_same_command_runs(world, capfd):
    world.play(
        # at first, until it is there, two looks at the job; at first, until it is there, a look
        states=["NOT_FOUND", "ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "CREATING", "ACTIVE"],
        plays=["30 hang", "100 0"],
    )
    assert babysit(world, "name=a b") == 0
    start = world.verbs.index("delete")
    again = ["create", "describe", "describe", "scp", "ssh setup", "ssh run", "describe", "ssh status"]
    assert world.verbs[start + 1 :] == again
    assert world.ran("w-0", 1) == world.ran("w-0", 2)
    assert "restart 1 in 0 s, from grpo 30: preempted: box is SUSPENDED" in capfd.readouterr().out


def test_bad_input_is_never_run_again_and_its_message_is_shown(world, capfd):
    world.make_workers("w-0")
    world.play(plays=["0 2"])
    assert babysit(world) == 2
    assert starts(world) == 1
    assert "w-0: error: stages.0.steps is -1" in capfd.readouterr().out


@pytest.mark.parametrize("code", [130, 143])
def test_who_stops_the_job_has_stopped_it(world, code):
    world.make_workers("w-0")
    world.play(plays=[f"5 {code}"])
    assert babysit(world) == code
    assert starts(world) == 1


def test_the_signal_of_a_preemption_is_no_wish(world):
    """The machines get SIGTERM before the resource is told to be gone."""
    world.make_workers("w-0")
    world.play(plays=["5 143", "100 0"], states=["ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "ACTIVE"])
    assert babysit(world) == 0
    assert starts(world) == 2


@pytest.mark.parametrize("code", [75, 1, 134, 137])
def test_a_crash_is_run_again_on_the_same_machines(world, code):
    world.make_workers("w-0")
    world.play(plays=[f"5 {code}", "100 0"])
    assert babysit(world) == 0
    assert starts(world) == 2 and world.verbs.count("ssh setup") == 1 and "create" not in world.verbs


def test_two_restarts_without_progress_are_the_end(world, capfd):
    world.make_workers("w-0")
    world.play(plays=["5 75"])
    assert babysit(world) == 1
    assert starts(world) == 3
    out = capfd.readouterr().out
    assert "gave up: 2 restarts came no further than grpo 5; the job's workers: exited 75" in out


def test_progress_pays_for_further_restarts(world):
    """Barren restarts count in a row: 5, 5 (1), 6 (0), 6 (1), 4 (2)."""
    world.make_workers("w-0")
    world.play(plays=["5 75", "5 75", "6 75", "6 75", "4 75", "100 0"])
    assert babysit(world) == 1
    assert starts(world) == 5


def test_a_job_that_never_came_to_a_step_is_tried_three_times(world):
    world.make_workers("w-0")
    world.play(plays=["0 1"])
    assert babysit(world) == 1
    assert starts(world) == 3


def test_the_wait_doubles_while_nothing_is_gained(world, monkeypatch):
    world.make_workers("w-0")
    world.play(plays=["5 75"])
    waits = []
    monkeypatch.setattr(world.launch.time, "sleep", waits.append)
    assert babysit(world, "--poll", "7", "--restarts", "4") == 1
    # a look before each ending, and between them the waits of restarts 1 to 4
    assert waits == [7, 7, 7, 14, 7, 28, 7, 56, 7]


def test_a_job_that_is_at_work_is_watched_and_not_started_again(world, capfd):
    world.make_workers("w-0", is_set_up=True)
    world.play(plays=["7 hang", "100 0"])
    assert world("run", str(world.tree / CONFIG)) == 0
    world.play(states=["ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "ACTIVE"])
    assert babysit(world) == 0
    assert starts(world) == 2  # ours, and that after the preemption
    assert "at grpo 7/100" in capfd.readouterr().out


def test_workers_that_lost_a_peer_are_ended_before_the_next_attempt(world):
    """One has crashed, and the other waits for it longer than anyone has patience."""
    world.make_workers("w-0", "w-1", is_set_up=True)
    world.play(plays=["3 hang", "100 0"])
    assert world("run", str(world.tree / CONFIG)) == 0
    worker = world.folder / "worker-w-1"
    (worker / "jaxrl" / "job" / "exit").write_text("75\n")
    (worker / "tmux-session").rename(worker / "left")
    pid = (world.folder / "worker-w-0" / "jaxrl" / "job" / "pid").read_text()
    assert babysit(world, "--patience", "2") == 0
    assert "ssh stop" in world.verbs and world.ran("w-0", 2)
    assert pid != (world.folder / "worker-w-0" / "jaxrl" / "job" / "pid").read_text()


def test_workers_that_do_not_answer_are_made_again(world):
    world.make_workers("w-0")
    world.play(plays=["3 hang", "100 0"], states=["ACTIVE"] * 6 + ["NOT_FOUND", "ACTIVE"])
    real, broken = world.launch.ask_workers, []

    def ask(shell, args):
        broken.append(1)
        return world.launch.Workers({}, {}) if 1 < len(broken) < 7 else real(shell, args)

    world.launch.ask_workers = ask
    assert babysit(world, "--patience", "5") == 0
    assert world.verbs.count("delete") == 1 and world.verbs.count("create") == 1


def test_being_offline_says_nothing_of_the_job(world, capfd):
    world.make_workers("w-0")
    world.play(plays=["9 0"])
    real, asked = world.launch.resource_state, []

    def state(shell, args, **more):
        asked.append(1)
        if 2 <= len(asked) <= 20:
            raise world.launch.LaunchError("no network")
        return real(shell, args, **more)

    world.launch.resource_state = state
    assert babysit(world) == 0
    assert starts(world) == 1
    assert "not known how it is: no network" in capfd.readouterr().out


def test_what_fails_before_there_is_a_machine_is_told_at_once(world, capfd):
    world.play(states=["NOT_FOUND"])
    world.fail("create", "ERROR: Quota limit 'TPUV6EPreemptiblePerProject' has been exceeded.")
    assert babysit(world) == 2
    assert world.verbs == ["describe", "create"]
    assert "choose another --zone or --type" in capfd.readouterr().err


def test_what_fails_once_there_are_machines_is_tried_again(world):
    world.make_workers("w-0")
    world.fail("scp", "connection reset")
    world.play(plays=["100 0"])
    assert babysit(world) == 0
    assert world.verbs.count("scp") == 2 and starts(world) == 1


@pytest.mark.parametrize(
    "states, code",
    [
        (["exited 0", "exited 0"], 0),
        (["exited 0", "exited 75"], None),
        (["exited 0", "lost"], None),
        (["exited 143", "exited 143"], 143),
        (["exited 143", "exited 75"], None),
        (["exited 137", "idle"], None),
    ],
)
def test_all_workers_have_a_say_in_how_it_ended(world, states, code):
    workers = world.launch.Workers(dict(enumerate(states)), {})
    assert world.launch.judge(workers).code == code


def test_a_request_that_failed_is_made_anew(world):
    world.play(states=["NOT_FOUND", "PROVISIONING", "FAILED", "FAILED", "FAILED", "ACTIVE"], plays=["100 0"])
    assert babysit(world) == 0
    assert world.verbs.count("create") == 2 and world.verbs.count("delete") == 1


def test_the_code_of_the_beginning_is_sent_after_a_preemption(world):
    world.make_workers("w-0")
    world.play(plays=["3 hang", "100 0"], states=["ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "ACTIVE"])
    real = world.launch.watch

    def watch(*args):
        (world.tree / "edited-meanwhile").write_text("")
        return real(*args)

    world.launch.watch = watch
    try:
        assert babysit(world) == 0
    finally:
        (world.tree / "edited-meanwhile").unlink()
    tree = world.folder / "worker-w-0" / "jaxrl" / "tree"
    assert (tree / "tpu" / "worker.sh").exists() and not (tree / "edited-meanwhile").exists()
