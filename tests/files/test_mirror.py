"""The law of a run that is kept elsewhere: what stands there is, after any one operation, a state from which
the run comes out the same, on this machine or on another.

The run is a toy with the files of a real one: journals, checkpoints of two files, winners, an evaluation, an
export. Real ones are in `end_to_end/test_elsewhere.py`.
"""

import hashlib
import itertools
import json
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFile

from jaxrl.errors import InputError
from jaxrl.files import mirror as mirror_module
from jaxrl.files import remote, remote_lock
from jaxrl.files.disk import write_whole
from jaxrl.files.follower import Follower
from jaxrl.files.lock import locked
from jaxrl.files.mirror import mirrored
from jaxrl.files.run_folder import RunFolder
from jaxrl.track.logger import RunLogger
from tests.files.buckets import Bucket, Dead, content, dies_at

URL = "bucket://runs/toy"
STAGES, STEPS, EVERY = ("a", "b"), 5, 2
NAMES = ("one", "two/state", "commit_success.txt")  # of a checkpoint's files, the last written last


@pytest.fixture(autouse=True)
def bucket(monkeypatch):
    Bucket.clear()
    monkeypatch.setattr(remote_lock, "PATIENCE", 0.0)  # who left a lock here is dead
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(mirror_module, "JOINT", "bucket://")
    yield
    Bucket.clear()


@pytest.fixture
def machines():
    """A folder for local copies, in memory where there is such a place: hundreds of runs are made."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


def toy_run(folder, url=URL, num_processes=1):
    """A run, or what is left to do of it; of several processes, the first one's part and the checkpoints."""
    with locked(folder), mirrored(folder, url, 0, num_processes) as mirror:
        run = RunFolder(folder, mirror=mirror)
        if not run.exists("config.yaml"):
            run.write("tokenizer", lambda path: path.mkdir(exist_ok=True))
            run.write("tokenizer/words.json", lambda path: write_whole(path, "[]"))
            run.write("config.yaml", lambda path: write_whole(path, "name: toy"))
        with RunLogger(run) as logger:
            state = "start"
            for index, stage in enumerate(STAGES):
                state = toy_stage(run, logger, f"{index}_{stage}", stage, state)
            if not run.exists("eval.json"):
                logger.begin((*STAGES, "eval"), "eval", -1)
                logger.log_samples("eval", 0, [{"completion": state}])
                run.write("eval.json", lambda path: write_whole(path, json.dumps(state)))
            run.write("model", lambda path: path.mkdir(exist_ok=True))
            run.write("model/config.json", lambda path: write_whole(path, state))


def toy_stage(run, logger, folder_name, stage, state):
    files, folder = url_to_fs(run.checkpoints(f"checkpoints/{folder_name}"))
    winners = f"checkpoints/{folder_name}_winners/1.jsonl"
    step = max(whole_steps(files, folder), default=0)
    if step:
        one, two = (json.loads(files.cat_file(f"{folder}/{step}/{name}")) for name in NAMES[:2])
        assert one["state"] == two["state"], "a torn checkpoint"
        assert run.exists(winners), "what the checkpoint was made of is missing"
        state = one["state"]
    elif not run.exists(winners):
        (run.path / winners).parent.mkdir(parents=True, exist_ok=True)
        run.write(winners, lambda path: write_whole(path, state))
    if step < STEPS:
        logger.begin((*STAGES, "eval"), stage, step)
    while step < STEPS:
        step += 1
        state = hashlib.sha256(f"{state}{step}".encode()).hexdigest()
        logger.log(stage, step, {"state": state})
        if step % EVERY == 0 or step == STEPS:
            with run.saving():
                (save_there if isinstance(files, Bucket) else save)(folder, step, state)
    return state


def whole_steps(files, folder):
    """The steps that have a checkpoint, as Orbax sees them: by their names on a disk; in a bucket by their
    last files, and others are taken away there.
    """
    names = [name.removeprefix(f"{folder}/") for name in files.find(folder)]
    steps = {name.split("/")[0] for name in names}
    if not isinstance(files, Bucket):
        return {int(step) for step in steps if step.isdigit()}
    for name in names:
        if f"{name.split('/')[0]}/{NAMES[-1]}" not in names:
            files.rm_file(f"{folder}/{name}")
    return {int(step) for step in steps if f"{step}/{NAMES[-1]}" in names}


def save_there(folder, step, state):
    """As Orbax does it in a bucket: what is finished bears a file that says so."""
    files = Bucket()
    for old in files.find(f"{folder}/{step}"):
        files.rm_file(old)
    for name in NAMES:
        files.pipe_file(f"{folder}/{step}/{name}", json.dumps({"state": state}).encode())
    for old in files.find(folder):
        if not old.startswith(f"{folder}/{step}/"):
            files.rm_file(old)


def save(folder, step, state):
    """As Orbax does it on a disk: what is unfinished has another name, and the old goes after the new has
    come.
    """
    folder = Path(folder)
    unfinished = folder / f"{step}.orbax-checkpoint-tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "two").mkdir(parents=True)
    for name in NAMES:
        # of one size at every step: nothing may be known by its size alone
        (unfinished / name).write_text(json.dumps({"state": state}))
    shutil.rmtree(folder / str(step), ignore_errors=True)
    unfinished.rename(folder / str(step))
    for old in folder.glob("*"):
        if old.name != str(step):
            shutil.rmtree(old)


def told(files):
    """What is to be the same: without the clock, without what befell the process, without names of states."""
    rows = {
        name: [
            {key: value for key, value in json.loads(line).items() if key != "time"}
            for line in files[name].splitlines()
        ]
        for name in ("metrics.jsonl", "samples.jsonl")
    }
    rest = {name: text for name, text in files.items() if name not in (*rows, "events.jsonl", "sent.json")}
    return rows, rest


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(what a run that nothing befalls leaves there, the number of its operations)."""
    Bucket.clear()
    toy_run(tmp_path_factory.mktemp("whole") / "toy")
    return told(content("runs/toy")), len(Bucket.asked)


def test_what_stands_elsewhere_is_what_stands_here_and_nothing_of_the_process(whole, tmp_path):
    toy_run(tmp_path / "toy")
    there = content("runs/toy")
    here = {
        str(p.relative_to(tmp_path / "toy")): p.read_bytes()
        for p in (tmp_path / "toy").rglob("*")
        if p.is_file()
    }
    assert {**there, "sent.json": b""} == {**here, "sent.json": b""}
    assert "lock" not in there and {name for name in there if "/1/" in name or "/2/" in name} == set()
    assert told(there) == whole[0]


def test_whatever_operation_is_the_last_that_is_answered_the_run_comes_out_the_same(whole, machines):
    expected, operations = whole
    assert operations > 50
    for number in range(operations):
        for machine in ("the same", "another"):
            Bucket.clear()
            first = machines / f"{number} {machine}" / "toy"
            with pytest.raises(Dead), dies_at(number):
                toy_run(first)
            toy_run(first if machine == "the same" else first.with_name("another"))
            assert told(content("runs/toy")) == expected, (number, machine, Bucket.asked)
            shutil.rmtree(first.parent)


@pytest.mark.parametrize(
    "before, after, machine", [(2, 2, "another"), (2, 1, "another"), (2, 1, "the same"), (1, 2, "another")]
)
def test_so_it_does_where_several_processes_write_checkpoints_there(before, after, machine, whole, machines):
    """Before the machines were lost, after, or both."""
    Bucket.asked = []
    toy_run(machines / "toy", num_processes=before)
    assert told(content("runs/toy")) == whole[0]
    for number in range(len(Bucket.asked)):
        Bucket.clear()
        with pytest.raises(Dead), dies_at(number):
            toy_run(machines / f"{number} the same" / "toy", num_processes=before)
        toy_run(machines / f"{number} {machine}" / "toy", num_processes=after)
        left = {
            name: text
            for name, text in content("runs/toy").items()
            # Orbax takes the old away after the new has come, and again after the next
            if not re.match(rf"checkpoints/\d_./[^{STEPS}]/", name)
        }
        assert told(left) == whole[0], (number, Bucket.asked)
    assert number > 50


def test_every_operation_may_fail_once_before_it_is_done_or_after(whole, tmp_path):
    """An answer that is lost on its way is asked for again: nothing may be done twice that counts once."""
    for when in ("before", "after"):
        Bucket.clear()
        failed = set()

        def fail_once(number, operation, file, failed=failed):
            if (operation, file) not in failed:
                failed.add((operation, file))
                raise ConnectionError("the line is dead")

        setattr(Bucket, when, staticmethod(fail_once))
        toy_run(tmp_path / when / "toy")
        assert told(content("runs/toy")) == whole[0] and len(failed) > 30


def test_a_network_that_is_gone_is_one_error_and_the_run_goes_on_from_the_local_copy(whole, tmp_path):
    failed = []

    def gone(number, operation, file):
        """From the moment on when the journal is sent that has more than the first checkpoint's rows."""
        before = content("runs/toy").get("metrics.jsonl")
        if failed or (operation == "put_file" and file.endswith("metrics.jsonl") and before):
            failed.append(operation)
            raise ConnectionError("the line is dead")

    Bucket.before = staticmethod(gone)
    with pytest.raises(
        InputError, match=r"^bucket://runs/toy/.* cannot be .*the line is dead.* is whole in .*toy"
    ):
        toy_run(tmp_path / "toy")
    assert failed == ["put_file"] * 3 + ["cat_file"] * 2, "what comes at the end is tried once each"
    there = content("runs/toy")
    assert len((tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()) == 2 * EVERY
    assert len(there["metrics.jsonl"].splitlines()) == EVERY
    Bucket.clear()
    Bucket.store.update(
        {f"/runs/toy/{name}": MemoryFile(Bucket(), name, text) for name, text in there.items()}
    )
    toy_run(tmp_path / "toy")
    assert told(content("runs/toy")) == whole[0]


def test_a_local_copy_that_another_machine_has_left_behind_is_made_anew(whole, tmp_path, caplog):
    with pytest.raises(Dead), dies_at(30):
        toy_run(tmp_path / "one" / "toy")
    with pytest.raises(Dead), dies_at(25):
        toy_run(tmp_path / "two" / "toy")
    (tmp_path / "one" / "toy" / "metrics.jsonl").write_text("what is not known there")
    (tmp_path / "one" / "toy" / "left").write_text("over")
    toy_run(tmp_path / "one" / "toy")
    assert told(content("runs/toy")) == whole[0] and not (tmp_path / "one" / "toy" / "left").exists()
    assert "was gone on with elsewhere" in caplog.text


def test_a_checkpoint_is_not_believed_while_it_is_written_over(whole, tmp_path):
    """As where the newest was found damaged, and its steps are done again."""
    folder = tmp_path / "one" / "toy"
    toy_run(folder)
    for number in itertools.count():
        with suppress(Dead), dies_at(number):
            with locked(folder), mirrored(folder, URL) as mirror:
                run = RunFolder(folder, mirror=mirror)
                run.write("report.md", lambda path, number=number: write_whole(path, str(number)))
                with run.saving():
                    save(folder / "checkpoints" / "1_b", STEPS, f"{number:064}")
            break
        other = tmp_path / str(number) / "toy"
        with locked(other), mirrored(other, URL):
            saved = other / "checkpoints" / "1_b" / str(STEPS)
            if saved.exists():
                texts = {(saved / name).read_text() for name in ("one", "two/state")}
                assert len(texts) == 1, f"half of it is of another save: {number}"
    assert number > 5


def test_what_somebody_takes_away_there_is_sent_again(whole, tmp_path):
    toy_run(tmp_path / "toy")
    Bucket().rm_file(f"/runs/toy/checkpoints/1_b/{STEPS}/one")
    toy_run(tmp_path / "toy")
    assert told(content("runs/toy")) == whole[0]


def test_what_somebody_puts_there_stays_there(tmp_path):
    Bucket.clear()
    toy_run(tmp_path / "toy")
    Bucket().pipe_file("/runs/toy/notes.txt", b"mine")
    Bucket().pipe_file("/runs/toy/checkpoints/0_a/99/one", b"half a checkpoint, of a machine that is gone")
    toy_run(tmp_path / "toy")
    assert content("runs/toy")["notes.txt"] == b"mine"
    toy_run(tmp_path / "other" / "toy")
    assert (tmp_path / "other" / "toy" / "notes.txt").read_bytes() == b"mine"
    assert "checkpoints/0_a/99/one" not in content("runs/toy")


@pytest.mark.parametrize("copy_first", [False, True])
def test_a_folder_that_says_nothing_of_what_is_whole_is_refused(tmp_path, copy_first):
    folder = tmp_path / "toy"
    if copy_first:
        toy_run(folder)
        for name in content("runs/toy"):
            Bucket().rm_file(f"/runs/toy/{name}")
        message = (
            f"holds nothing any more of the run that {folder} is a copy of; restore it, or delete {folder}"
        )
    else:
        Bucket().pipe_file("/runs/toy/config.yaml", b"name: toy")
        message = "holds config.yaml and no sent.json.*set another `name`, or delete what is there"
    before = content("runs/toy")
    with pytest.raises(InputError, match=message):
        toy_run(folder)
    assert content("runs/toy") == before


def test_a_run_that_is_refused_before_it_begins_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no"), locked(tmp_path / "toy"), mirrored(tmp_path / "toy", URL):
        raise InputError("no")
    assert content("runs/toy") == {} and not (tmp_path / "toy").exists()


@pytest.mark.parametrize("text", [b"no JSON", b"[]", b'{"state": "a"}'])
def test_a_broken_commit_is_one_error(tmp_path, text):
    Bucket().pipe_file("/runs/toy/sent.json", text)
    with pytest.raises(InputError, match="sent.json cannot be used .*restore it, or set another `name`"):
        toy_run(tmp_path / "toy")


def test_several_processes_write_no_checkpoint_where_orbax_cannot(tmp_path):
    with (
        pytest.raises(InputError, match=r"^s3://b/runs/toy .* alone; set runs_dir to gs://BUCKET"),
        mirrored(tmp_path, "s3://b/runs/toy", 1, 2),
    ):
        raise AssertionError("it began")


def test_from_several_processes_on_it_is_orbax_that_says_what_is_whole(whole, tmp_path):
    toy_run(tmp_path / "one" / "toy")
    before = json.loads(content("runs/toy")["sent.json"])
    with locked(tmp_path / "two"), mirrored(tmp_path / "two", URL, 0, 2):
        pass
    now = json.loads(content("runs/toy")["sent.json"])
    assert before["checkpoints"] and now == {"state": before["state"], "checkpoints": None}


def test_the_other_processes_have_what_they_read_of_it_and_nothing_of_an_earlier_start(whole, tmp_path):
    toy_run(tmp_path / "toy", num_processes=2)
    here = {path: path.read_bytes() for path in (tmp_path / "toy").rglob("*") if path.is_file()}
    with mirrored(tmp_path / "toy", URL, 1, 2) as follower:
        assert isinstance(follower, Follower) and follower.folder != tmp_path / "toy"
        follower.folder.mkdir()
        (follower.folder / "eval.json").write_text("of an earlier start")
        run = RunFolder(follower.folder, False, lambda what, value, extra_s: None, follower)
        run.bring()
        winners = {f"checkpoints/{n}_{stage}_winners/1.jsonl" for n, stage in enumerate(STAGES)}
        small = {"config.yaml", "tokenizer/words.json", "eval.json"} | winners
        assert files_in(follower.folder) == {name: content("runs/toy")[name] for name in small}
        Bucket().pipe_file("/runs/toy/tokenizer/more.json", b"new")
        Bucket().pipe_file("/runs/toy/eval.json", b"new, and not what was asked for")
        assert run.write("tokenizer", no_writer) == follower.folder / "tokenizer"
        assert files_in(follower.folder)["tokenizer/more.json"] == b"new"
        assert files_in(follower.folder)["eval.json"] == whole[0][1]["eval.json"]
    assert {path: path.read_bytes() for path in here} == here


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def no_writer(path):
    raise AssertionError("the first process writes, and no other")
