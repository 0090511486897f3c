"""A run that is kept in a Google bucket, with the real gcsfs against a service on this machine."""

import pytest

pytest.importorskip("gcsfs", reason="pip install 'jaxrl[gcs]'")

from jaxrl.files import remote, remote_lock
from jaxrl.files.remote import Remote
from tests.files.gcs import serving_here
from tests.files.test_mirror import told, toy_run


@pytest.fixture
def objects(monkeypatch):
    """What is in the bucket."""
    monkeypatch.setattr(remote_lock, "PATIENCE", 0.0)
    monkeypatch.setattr(remote, "WAITS", ())
    with serving_here(monkeypatch) as objects:
        yield objects


def test_files_come_back_as_they_were_and_one_of_two_creates_the_lock(objects, tmp_path):
    folder, large = Remote("gs://bucket/runs/toy"), bytes(range(256)) * 50_000  # sent in several pieces
    assert folder.list() == {} and folder.read("a") is None
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "empty").write_bytes(b"")
    for name in ("large", "empty"):
        folder.send(f"deep/{name}", tmp_path / name)
        folder.fetch(f"deep/{name}", tmp_path / "back" / name)
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert folder.create("lock", b"mine") and not folder.create("lock", b"theirs")
    folder.write("a", b"first")
    folder.write("a", b"second")
    assert folder.read("a") == b"second" and folder.read("lock") == b"mine"
    assert folder.list() == {"a": 6, "lock": 4, "deep/large": len(large), "deep/empty": 0}
    folder.delete("a")
    folder.delete("a")
    assert "runs/toy/a" not in objects


def test_a_run_goes_on_from_the_bucket_alone(objects, tmp_path):
    url = "gs://bucket/runs/toy"
    toy_run(tmp_path / "one" / "toy", url)
    whole = in_folder(objects)
    toy_run(tmp_path / "two" / "toy", url)
    assert told(in_folder(objects)) == told(whole) and "lock" not in whole
    assert (tmp_path / "two" / "toy" / "checkpoints" / "1_b" / "5" / "one").exists()


def in_folder(objects):
    return {name.removeprefix("runs/toy/"): text for name, text in objects.items()}
