"""A folder elsewhere: what is asked again, what is an answer, and one sentence for the rest."""

import sys

import pytest
from fsspec.registry import _registry

from jaxrl.errors import InputError
from jaxrl.files import remote as remote_module
from jaxrl.files.remote import Remote
from tests.files.buckets import Bucket, content


@pytest.fixture(autouse=True)
def bucket(monkeypatch):
    Bucket.clear()
    monkeypatch.setattr(remote_module, "WAITS", (0.0, 0.0))
    yield
    Bucket.clear()


def test_what_is_written_is_read_listed_and_gone(tmp_path):
    remote = Remote("bucket://runs/toy")
    assert remote.list() == {} and remote.read("a") is None
    remote.write("a", b"one")
    (tmp_path / "b").write_bytes(b"three")
    remote.send("deep/er/b", tmp_path / "b")
    assert remote.list() == {"a": 3, "deep/er/b": 5} and remote.read("deep/er/b") == b"three"
    remote.fetch("a", tmp_path / "new" / "folder" / "a")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == b"one"
    remote.delete("a")
    remote.delete("a")
    assert content("runs/toy") == {"deep/er/b": b"three"}


def test_of_two_who_create_a_file_one_has_it_even_where_the_answer_was_lost():
    remote = Remote("bucket://runs/toy")
    assert remote.create("lock", b"mine") and not remote.create("lock", b"theirs")
    assert remote.read("lock") == b"mine"

    def lost(number, operation, file):
        Bucket.after = staticmethod(lambda *_: None)
        raise TimeoutError

    Bucket.after = staticmethod(lost)
    assert remote.create("other", b"mine")


@pytest.mark.parametrize(
    "error, tries",
    [(ConnectionError("no line"), 3), (PermissionError("not yours"), 1), (NotImplementedError(), 1)],
)
def test_what_waiting_may_mend_is_tried_again(error, tries):
    def fail(*_):
        raise error

    remote = Remote("bucket://runs/toy")
    Bucket.before = staticmethod(fail)
    with pytest.raises(InputError, match=rf"^bucket://.*/a cannot be written: {type(error).__name__}: "):
        remote.write("a", b"")
    assert len(Bucket.asked) == tries
    with pytest.raises(InputError):
        remote.read("a")
    assert len(Bucket.asked) == tries + 1, "what does not answer is not waited for again"
    Bucket.before = staticmethod(lambda *_: None)
    assert remote.read("a") is None
    Bucket.before = staticmethod(fail)
    with pytest.raises(InputError):
        remote.write("a", b"")
    assert len(Bucket.asked) == tries + 2 + tries


@pytest.mark.parametrize("url, package", [("gs://bucket/runs", "gcsfs"), ("s3://bucket/runs", "s3fs")])
def test_a_package_that_is_missing_is_named(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("gs", "s3"):
        monkeypatch.delitem(_registry, protocol, raising=False)
    with pytest.raises(InputError, match=f"^{url} is not reached without {package}.*pip install {package}"):
        Remote(url)


def test_a_protocol_that_nobody_knows_is_one_error():
    with pytest.raises(InputError, match="^nowhere://a cannot be opened: .*nowhere.*; check runs_dir"):
        Remote("nowhere://a")
