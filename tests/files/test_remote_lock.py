"""The lock of a folder elsewhere: two do not have it, and the dead do not keep it."""

import json

import pytest

from jaxrl.errors import InputError
from jaxrl.files import remote_lock
from jaxrl.files.remote import Remote
from jaxrl.files.remote_lock import LOCK, locked_remotely
from tests.files.buckets import Bucket, content


@pytest.fixture
def remote():
    Bucket.clear()
    yield Remote("bucket://runs/toy")
    Bucket.clear()


class Clock:
    """Time that passes where somebody sleeps; `meanwhile` is what others do then."""

    def __init__(self, meanwhile=lambda: None):
        self.now, self.meanwhile = 0.0, meanwhile

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.meanwhile()

    @staticmethod
    def strftime(form):
        return "2026-01-01"


def test_it_is_there_while_it_is_held_and_gone_after(remote):
    with locked_remotely(remote, "copy") as lock:
        lock.check()
        assert set(content("runs/toy")) == {LOCK}
    assert content("runs/toy") == {}


def test_a_holder_that_shows_life_keeps_a_second_process_out(remote, monkeypatch):
    with locked_remotely(remote, "one") as held:
        monkeypatch.setattr(remote_lock, "time", Clock(lambda: remote.write(LOCK, held._content())))
        message = r"another process is at work in bucket://runs/toy: pid \d+ .*wait for its end, or set"
        with pytest.raises(InputError, match=message), locked_remotely(remote, "two"):
            pass
        held.check()


def test_a_dead_one_is_waited_for_and_then_taken_over(remote, monkeypatch, caplog):
    with locked_remotely(remote, "one") as dead:
        clock = Clock()
        monkeypatch.setattr(remote_lock, "time", clock)
        with locked_remotely(remote, "two") as lock:
            assert clock.now >= remote_lock.PATIENCE and "waiting 90 s for a sign" in caplog.text
            lock.check()
            with pytest.raises(InputError, match="taken over by another process .*pid .*Stop one of the two"):
                dead.check()
        assert content("runs/toy") == {}
    assert content("runs/toy") == {}


def test_who_has_the_same_local_copy_need_not_wait(remote, monkeypatch):
    """The kernel's lock on the copy says that the other one is dead."""
    clock = Clock()
    with locked_remotely(remote, "one"):
        monkeypatch.setattr(remote_lock, "time", clock)
        with locked_remotely(remote, "one") as lock:
            lock.check()
    assert clock.now == 0


def test_it_beats_and_stops_when_it_is_lost(remote, monkeypatch):
    monkeypatch.setattr(remote_lock, "BEAT", 0.01)
    with locked_remotely(remote, "copy") as lock:
        seen = {content("runs/toy")[LOCK]}
        while len(seen) < 4:
            seen.add(content("runs/toy")[LOCK])
        assert len({json.loads(text)["beat"] for text in seen}) == 4
        remote.write(LOCK, json.dumps({"token": "another's", "holder": "me"}).encode())
        # a beat that was under way may come after; then the next one is another's again
        while lock._thread.is_alive():
            remote.write(LOCK, json.dumps({"token": "another's", "holder": "me"}).encode())
        with pytest.raises(InputError, match=r"taken over .*\(me\)"):
            lock.check()
    assert json.loads(content("runs/toy")[LOCK])["holder"] == "me", "another's lock is not given back"


@pytest.mark.parametrize("text", [b"", b"[]"])
def test_what_is_no_lock_is_one_error(remote, text):
    remote.write(LOCK, text)
    with pytest.raises(InputError, match="toy/lock is no lock of a run; delete it if nobody is at work"):
        locked_remotely(remote, "copy").__enter__()
