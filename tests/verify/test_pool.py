"""The pool's promises: order, one sample lost per misdeed, deadlines, no process left behind, clear errors at
the start.
"""

import math
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from jaxrl.errors import InputError
from jaxrl.types import Problem, Verdict
from jaxrl.verify import workers as workers_module
from jaxrl.verify.pool import MAX_WAITING_BYTES, VerifierPool
from tests.sandbox import hostile

PROBLEM = Problem(uid="p", messages=({"role": "user", "content": "?"},), data={})
EXPECTED = {
    "loop": r"timeout",
    "loop in c": r"timeout",
    "stop": r"timeout",
    "exit": r"crash: exit code 3",
    "exit well": r"crash: exit code 0",
    "segv": r"crash: killed by SIG(SEGV|BUS)",
    "abort": r"crash: killed by SIGABRT",
    "raise": r"exception: RuntimeError: broken",
    "unprintable": r"exception: Unprintable: \(its text raises ValueError\)",
    "system exit": r"exception: SystemExit: bye",
    "interrupt": r"exception: KeyboardInterrupt: ",
    "recursion": r"exception: RecursionError.*",
    "memory": r"exception: MemoryError.*",
    "infinite part": r"exception: ValueError: x is inf, not a finite number",
    "object": r"exception: TypeError.*",
    "not a verdict": r"exception: TypeError: verify returned dict, not Verdict",
    "none": r"exception: TypeError: verify returned NoneType, not Verdict",
    "many parts": r"exception: ValueError: the verdict has 10000 parts; at most 100 are carried",
    "socket": r"crash: .*",
    "close": r"crash: .*",
}


def make_pool(verify=hostile.verify, workers=2, timeout_s=2.0, **limits):
    """With a time that honest work keeps even where other processes take most of the machine."""
    return VerifierPool(verify, workers=workers, timeout_s=timeout_s, failure_reward=-2.0, **limits)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_what_a_verifier_says_of_its_place_of_work_is_said_unchanged():
    with (
        pytest.raises(InputError, match="^set min_level to KERNEL$"),
        VerifierPool(hostile.Refuses("set min_level to KERNEL"), 1, 5.0, 0.0) as pool,
    ):
        pool.gather([pool.submit(PROBLEM, "")])


def test_verdicts_come_back_whole_and_in_order():
    with make_pool() as pool:
        tickets = [pool.submit(PROBLEM, "x" * (n % 7)) for n in range(200)]
        verdicts = pool.gather(reversed(tickets))
    assert [verdict.reward for verdict in verdicts] == [float(n % 7) for n in reversed(range(200))]
    assert verdicts[0] == Verdict(reward=3.0, correct=True, format_ok=True, parts={"length": 3.0}, detail="p")


def test_a_reward_that_is_no_number_arrives_as_what_it_is():
    """It is no judgement, good or bad: the sample is to be left out, not to be given the failure reward."""
    with make_pool() as pool:
        (verdict,) = pool.gather([pool.submit(PROBLEM, "nan")])
    assert (
        math.isnan(verdict.reward)
        and not verdict.correct
        and verdict.error == "reward: nan is not a finite number"
    )


def test_every_misdeed_costs_one_sample_and_the_order_holds():
    names = list(EXPECTED)
    texts = [text for name in names for text in ("good", name, "fine!")]
    with make_pool() as pool:
        verdicts = pool.gather([pool.submit(PROBLEM, text) for text in texts])
        again = pool.gather([pool.submit(PROBLEM, "good") for _ in range(10)])
    assert [verdict.reward for verdict in verdicts[0::3]] == [4.0] * len(names)
    assert [verdict.reward for verdict in verdicts[2::3]] == [5.0] * len(names)
    assert all(verdict.reward == 4.0 for verdict in again)
    for name, verdict in zip(names, verdicts[1::3]):
        assert verdict.error is not None and re.fullmatch(EXPECTED[name], verdict.error, re.DOTALL), (
            name,
            verdict,
        )
        assert (verdict.reward, verdict.correct, verdict.format_ok) == (-2.0, False, False), name
    kinds = [pattern.split(":")[0] for pattern in EXPECTED.values()]
    assert pool.counts == {
        "timeouts": kinds.count("timeout"),
        "crashes": kinds.count("crash"),
        "exceptions": kinds.count("exception"),
    }


def test_much_output_costs_nothing_and_long_details_are_cut():
    with make_pool(timeout_s=10) as pool:
        printed, detailed = pool.gather([pool.submit(PROBLEM, "print"), pool.submit(PROBLEM, "long detail")])
    assert printed == hostile.GOOD
    assert detailed.reward == 1.0 and len(detailed.detail) == 2000 and detailed.detail.startswith("\udcffx")


def test_large_texts_in_both_directions_do_not_lock_up():
    text = "y" * 5_000_000
    with make_pool(timeout_s=30) as pool:
        verdicts = pool.gather([pool.submit(PROBLEM, text + "z" * n) for n in range(6)])
    assert [verdict.reward for verdict in verdicts] == [5e6 + n for n in range(6)]


def test_any_text_can_be_sent():
    with make_pool() as pool:
        verdicts = pool.gather([pool.submit(PROBLEM, text) for text in ("", "\ud800", "\x00", "日本")])
    assert [verdict.reward for verdict in verdicts] == [0.0, 1.0, 1.0, 2.0]


def test_poll_advances_without_waiting():
    with make_pool(hostile.slow, workers=2, timeout_s=1000) as pool:
        tickets = [pool.submit(PROBLEM, "0.05") for _ in range(6)]
        assert wait_until(lambda: pool.poll() == 0)
        assert pool.gather(tickets) == [hostile.GOOD] * 6
        for _ in range(4):
            pool.submit(PROBLEM, "600")
        assert pool.poll() == 4, "none of them can have finished, unless it waited"


def test_results_come_as_they_are_ready():
    with make_pool(hostile.slow, workers=2, timeout_s=1000) as pool:
        assert (
            list(pool.results([pool.submit(PROBLEM, seconds) for seconds in ("0.1", "0")]))
            == [hostile.GOOD] * 2
        )
        results = pool.results([pool.submit(PROBLEM, "0"), pool.submit(PROBLEM, "600")])
        assert next(results) == hostile.GOOD
        assert pool.poll() == 1, "the second goes on"


def test_an_answer_that_is_there_counts_as_in_time_however_late_it_is_read():
    with make_pool(hostile.slow, workers=1) as pool:
        ticket = pool.submit(PROBLEM, "0.05")
        time.sleep(2.5)
        assert pool.gather([ticket]) == [hostile.GOOD]


def test_a_text_that_is_half_sent_waits_for_the_pool_not_the_other_way_round():
    with make_pool(workers=1) as pool:
        ticket = pool.submit(PROBLEM, "y" * 5_000_000)
        time.sleep(2.5)
        assert pool.gather([ticket])[0].reward == 5e6


def test_killing_one_worker_takes_no_time_from_the_others():
    with make_pool(workers=3) as pool:
        texts = ["loop", "close", "y" * 1_000_000] * 3
        verdicts = pool.gather([pool.submit(PROBLEM, text) for text in texts])
    assert [verdict.reward for verdict in verdicts] == [-2.0, -2.0, 1e6] * 3


def test_what_never_ends_has_its_time_and_no_more():
    with make_pool(timeout_s=0.3, workers=1) as pool:
        begun = time.monotonic()
        (verdict,) = pool.gather([pool.submit(PROBLEM, "loop in c")])
        assert verdict.error == "timeout" and time.monotonic() - begun > 0.25


def test_a_batch_has_a_deadline_and_what_was_done_by_then_counts():
    with make_pool(hostile.slow, workers=1, timeout_s=1000, batch_timeout_s=4) as pool:
        later = []
        batch = [pool.submit(PROBLEM, text) for text in ("0", "600", "0", "0")]
        later.append(pool.submit(PROBLEM, "0"))  # of no batch yet
        begun = time.monotonic()
        verdicts = pool.gather(batch)
        assert time.monotonic() - begun > 3.5
        assert [verdict.error for verdict in verdicts] == [
            None,
            "timeout",
            "timeout: the batch's",
            "timeout: the batch's",
        ]
        assert [verdict.reward for verdict in verdicts[1:]] == [-2.0] * 3 and pool.counts["timeouts"] == 3
        assert pool.gather(later) == [hostile.GOOD] and pool.poll() == 0


def test_workers_are_recycled_without_losing_a_sample():
    with make_pool(hostile.pid_of_worker, workers=1, recycle_after=3) as pool:
        pids = [verdict.reward for verdict in pool.gather([pool.submit(PROBLEM, "") for _ in range(10)])]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3, 1] and pids == sorted(
        pids, key=pids.index
    )
    assert pool.counts == {"timeouts": 0, "crashes": 0, "exceptions": 0}


def test_a_problem_that_cannot_be_sent_costs_its_own_sample():
    unpicklable = Problem(uid="p", messages=(), data={"f": lambda: 0})
    with make_pool() as pool:
        good, bad, after = pool.gather(
            [pool.submit(problem, "good") for problem in (PROBLEM, unpicklable, PROBLEM)]
        )
    assert good.reward == after.reward == 4.0
    assert (
        bad.reward == -2.0
        and bad.error.startswith("exception: cannot be sent to a worker: ")
        and pool.counts["exceptions"] == 1
    )


def test_a_process_that_cannot_be_started_is_one_clear_error(monkeypatch):
    def refuse(*arguments):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers_module, "WorkerProcess", refuse)
    with pytest.raises(
        InputError, match="cannot be started: .*Resource temporarily unavailable; lower verify.workers"
    ):
        make_pool()


def test_a_stream_keeps_its_order_and_takes_no_more_than_it_may():
    taken, returned, most = 0, 0, 0

    def samples():
        nonlocal taken, most
        for n in range(3000):
            taken += 1
            most = max(most, taken - returned)
            yield PROBLEM, "raise" if n % 100 == 50 else "x" * (n % 7)

    with make_pool() as pool:
        for n, verdict in enumerate(pool.stream(samples(), ahead=64)):
            returned += 1
            assert verdict.reward == (-2.0 if n % 100 == 50 else n % 7)
        assert list(pool.stream([])) == []
    assert taken == returned == 3000 and most <= 64


def test_times_are_those_of_the_samples_and_of_waiting():
    with make_pool(hostile.slow) as pool:
        pool.take_times()
        begun = time.monotonic()
        pool.gather([pool.submit(PROBLEM, text) for text in ("0.1", "0.3", "600")])
        wall, times = time.monotonic() - begun, pool.take_times()
        assert times["time/verify_max_s"] == 2 and 2.4 / 3 <= times["time/verify_mean_s"] <= 2
        assert 2 <= times["time/verify_wait_s"] <= wall
        assert set(pool.take_times().values()) == {0.0}


def test_a_verifier_that_fails_too_often_ends_the_run():
    with make_pool(max_error_share=0.5) as pool:
        assert len(pool.gather([pool.submit(PROBLEM, text) for text in ("good", "none") * 32])) == 64
        with pytest.raises(
            InputError,
            match=(
                r"66% of the last 128 samples have no verdict, .* is 0.5; 53 of 85 say 'exception: RuntimeE"
            ),
        ):
            pool.gather([pool.submit(PROBLEM, "raise" if n < 53 else "good") for n in range(64)])


def memory_in_use():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_any_number_can_be_submitted_in_bounded_memory():
    before, text = memory_in_use(), "y" * 100_000
    with make_pool(timeout_s=30) as pool:
        tickets = [pool.submit(PROBLEM, text) for _ in range(10_000)]  # a gigabyte
        assert memory_in_use() - before < MAX_WAITING_BYTES + (200 << 20)
        assert all(verdict.reward == 100_000 for verdict in pool.results(tickets))


def test_two_thousand_mixed_samples_of_which_a_twentieth_is_hostile():
    rng = random.Random(0)
    texts = [
        rng.choice(list(EXPECTED)) if rng.random() < 0.05 else "x" * rng.randint(0, 50) for _ in range(2_000)
    ]
    with make_pool(recycle_after=200) as pool:
        verdicts = pool.gather([pool.submit(PROBLEM, text) for text in texts])
        workers = [worker._process.pid for worker in pool._workers.processes]
    assert len(verdicts) == 2_000
    for text, verdict in zip(texts, verdicts):
        if text in EXPECTED:
            assert verdict.reward == -2.0 and re.fullmatch(EXPECTED[text], verdict.error, re.DOTALL), (
                text,
                verdict,
            )
        else:
            assert verdict.reward == len(text) and verdict.error is None, (text, verdict)
    assert sum(pool.counts.values()) == sum(text in EXPECTED for text in texts) > 80
    assert wait_until(lambda: not any(map(is_alive, workers)))


def test_a_ticket_is_redeemed_once_and_must_exist():
    with make_pool() as pool:
        ticket = pool.submit(PROBLEM, "a")
        pool.gather([ticket])
        for wrong in (ticket, 99):
            with pytest.raises(KeyError, match="never given out"):
                pool.gather([wrong])


def test_closed_pools_say_so():
    with make_pool(workers=1) as pool:
        ticket = pool.submit(PROBLEM, "loop")
    with pytest.raises(RuntimeError, match="closed"):
        pool.gather([ticket])
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(PROBLEM, "a")
    pool.close()


def test_an_idle_worker_that_is_killed_is_replaced(caplog):
    with make_pool(hostile.pid_of_worker, workers=1) as pool:
        (first,) = pool.gather([pool.submit(PROBLEM, "")])
        os.kill(int(first.reward), signal.SIGKILL)
        assert wait_until(lambda: not is_alive(int(first.reward)))
        pool.poll()
        (second,) = pool.gather([pool.submit(PROBLEM, "")])
    assert second.error is None and second.reward != first.reward
    assert pool.counts == {"timeouts": 0, "crashes": 0, "exceptions": 0}
    assert [record.kind for record in caplog.records] == ["worker restart"], "no verdict tells of it"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_no_process_is_left_behind():
    with make_pool(hostile.start_grandchild, workers=2) as pool:
        grandchildren = [
            int(verdict.reward) for verdict in pool.gather([pool.submit(PROBLEM, "") for _ in range(4)])
        ]
        workers = [worker._process.pid for worker in pool._workers.processes]
        assert all(map(is_alive, grandchildren + workers))
    assert wait_until(lambda: not any(map(is_alive, grandchildren + workers)))


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_workers_die_with_a_parent_that_is_killed():
    program = """
        import time
        from tests.verify import test_pool
        pool = test_pool.make_pool(workers=2, timeout_s=100)
        # one busy worker, which hears no end of file, and one idle
        pool.submit(test_pool.PROBLEM, "loop in c")
        time.sleep(0.2)
        print(*[worker._process.pid for worker in pool._workers.processes], flush=True)
        time.sleep(600)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(is_alive, workers))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not any(map(is_alive, workers)))


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's subreaper")
class TestDescendants:
    """Grandchildren in a session and a group of their own end with their worker, whatever ends it."""

    def start(self, pool):
        (verdict,) = pool.gather([pool.submit(PROBLEM, "start")])
        pids = [int(pid) for pid in verdict.detail.split()]
        assert len(pids) == 2 and all(map(is_alive, pids))
        return pids

    @pytest.mark.parametrize(
        "misdeed, error",
        [("loop", "timeout"), ("exit", "crash: exit code 3"), ("segv", "crash: killed by SIG(SEGV|BUS)")],
    )
    def test_at_a_timeout_and_a_crash(self, misdeed, error):
        with make_pool(hostile.escaping, workers=1, timeout_s=60) as pool:
            pids = self.start(pool)
            pool._workers.timeout_s = 2.0
            (verdict,) = pool.gather([pool.submit(PROBLEM, misdeed)])
            # a crash, though the children hold the worker's socket open
            assert re.fullmatch(error, verdict.error)
            assert wait_until(lambda: not any(map(is_alive, pids)))

    def test_when_a_worker_is_recycled(self):
        with make_pool(hostile.escaping, workers=1, timeout_s=60, recycle_after=2) as pool:
            pids = self.start(pool)
            assert all(map(is_alive, pids))
            pool.gather([pool.submit(PROBLEM, "")])
            assert wait_until(lambda: not any(map(is_alive, pids)))

    def test_when_the_pool_is_closed(self):
        with make_pool(hostile.escaping, workers=1, timeout_s=60) as pool:
            pids = self.start(pool)
        assert not any(map(is_alive, pids))

    def test_when_the_pools_process_is_killed(self):
        program = """
            from tests.verify import test_pool
            pool = test_pool.make_pool(test_pool.hostile.escaping, workers=1, timeout_s=60)
            print(*test_pool.TestDescendants().start(pool), flush=True)
            import time; time.sleep(600)
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_alive, pids))
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert wait_until(lambda: not any(map(is_alive, pids)))


def test_a_reward_that_float32_cannot_reckon_with_is_no_reward():
    """1e300 is finite in Python and infinite in float32, 1e30 when it is squared; both count as rewards that
    are not finite.
    """
    with make_pool(hostile.given_reward, workers=1, timeout_s=60) as pool:
        texts = ["1e300", "-1e300", "1e30", "1e16", "-1e16", "inf"]
        verdicts = pool.gather([pool.submit(PROBLEM, text) for text in texts])
        parted = pool.gather([pool.submit(PROBLEM, "part 1e300")])[0]
    assert [v.reward for v in verdicts] == [math.inf, -math.inf, math.inf, 1e16, -1e16, math.inf]
    assert (
        [v.error is None for v in verdicts]
        == [v.correct for v in verdicts]
        == [False, False, False, True, True, False]
    )
    assert verdicts[0].error == "reward: 1e+300 is beyond the 1e+16 that can be reckoned with"
    assert parted.error == "exception: ValueError: part is 1e+300, beyond the 1e+16 that can be reckoned with"
    for failure_reward in (1e300, "0"):
        with pytest.raises(
            InputError, match=f"failure reward {re.escape(repr(failure_reward))} is no number between"
        ):
            VerifierPool(hostile.fast, 1, 1.0, failure_reward=failure_reward)


SECRETS = {
    "HF_TOKEN": "t",
    "WANDB_API_KEY": "k",
    "AWS_REGION": "eu",
    "AWS_SECRET_ACCESS_KEY": "s",
    "GITHUB_PAT": "p",
    "MYSQL_PWD": "w",
    "DB_PASSWORD": "w",
    "https_proxy": "http://me:secret@proxy:80",
    "INDEX": "https://abc@host/simple",
    "MY_HUB": "hf_" + "a" * 30,
    "SSH_AUTH_SOCK": "/tmp/s",
    "GOOGLE_APPLICATION_CREDENTIALS": "/c.json",
    "SLACK_WEBHOOK": "https://hooks/x",
    "API_AUTH": "a",
}
PLAIN = {
    "http_proxy": "http://proxy:80",
    "REWARD_SCALE": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "GIT_AUTHOR_NAME": "me",
    "HF_HOME": "/h",
    "XDG_SESSION_ID": "1",
    "MAIL": "me@host",
    "COMPASS": "n",
    "PWD_X": "y",
}


def test_workers_see_no_secrets_but_those_that_are_named(monkeypatch):
    for name, value in (SECRETS | PLAIN).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JUDGE_KEY", "a-long-secret")
    with make_pool(hostile.environment_names, workers=1, timeout_s=60, pass_env=["JUDGE_KEY"]) as pool:
        names, needed, told = pool.gather(
            [pool.submit(PROBLEM, text) for text in ("", "HF_TOKEN", "tell JUDGE_KEY")]
        )
    seen = set(names.detail.split())
    assert seen & SECRETS.keys() == set() and seen >= {*PLAIN, "JUDGE_KEY", "PATH"}
    assert (
        needed.error == "exception: KeyError: 'HF_TOKEN' (verifier processes do not see HF_TOKEN; name it in"
        " verify.pass_env)"
    )
    # its value would go to samples.jsonl
    assert told.error == "exception: RuntimeError: refused: [JUDGE_KEY]"
    with pytest.raises(InputError, match="pass_env names NOT_THERE, not set in the environment"):
        make_pool(pass_env=["NOT_THERE"])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
def test_programs_that_a_verifier_runs_inherit_nothing():
    with make_pool(hostile.descriptors_of_a_program, workers=1, timeout_s=60) as pool:
        (verdict,) = pool.gather([pool.submit(PROBLEM, "")])
    assert verdict.detail.split() == ["0", "1", "2"]


def test_workers_see_no_accelerator_and_do_not_import_jax():
    with make_pool(hostile.environment, workers=1) as pool:
        (verdict,) = pool.gather([pool.submit(PROBLEM, "JAX_PLATFORMS")])
    assert verdict.detail == "cpu" and not verdict.correct


@pytest.mark.parametrize(
    "verify, reason",
    [
        (lambda problem, text: hostile.GOOD, "cannot be pickled"),
        (hostile.DiesAtStart(), "3 workers in a row did not start; the last: exit code 7"),
        (hostile.DiesLater(), "No module named 'module_that_does_not_exist'"),
    ],
)
def test_a_verify_function_that_cannot_start_is_one_clear_error(verify, reason):
    with pytest.raises(InputError, match="importable|can be imported") as raised:
        make_pool(verify)
    assert reason in str(raised.value)


def test_a_verify_function_of_the_main_script_is_one_clear_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from jaxrl.verify.pool import VerifierPool\ndef judge(problem, text): pass\nVerifierPool(judge, 1,"
        " 1.0, 0.0)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=30
    )
    assert (
        "verify function 'judge' cannot be used in worker processes" in ended.stderr
        and "main script" in ended.stderr
    )


def test_impossible_pools_are_refused():
    with pytest.raises(InputError, match="0 workers"):
        make_pool(workers=0)
    for timeout_s in (-1, 0.0, float("nan"), float("inf"), 1e300):
        with pytest.raises(InputError, match=f"verify.timeout_s={re.escape(str(timeout_s))} cannot"):
            make_pool(timeout_s=timeout_s)
