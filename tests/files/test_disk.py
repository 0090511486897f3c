"""A disk that refuses: `/dev/full` takes nothing, a limit on the size of files takes some of it, and what was
there stays.
"""

import errno
import json
import os
import resource
import shutil

import pytest
from safetensors import SafetensorError

from jaxrl.errors import InputError
from jaxrl.files.disk import check_space, read_text, silence, write_whole, writing


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_whole(file, "old")
    for name in ("fsync", "replace"):
        refused = pytest.raises(
            InputError, match="a.json cannot be written: No space left on device; make room"
        )
        with monkeypatch.context() as patch, refused:
            patch.setattr(os, name, full)
            write_whole(file, "new")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    (tmp_path / "a.json.tmp").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    write_whole(file, "new")
    assert file.read_text() == "new"


def test_links_stay_and_half_surrogates_are_their_escapes(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", json.dumps("a\ud800\u2028é", ensure_ascii=False))
    assert (tmp_path / "link").is_symlink() and json.loads(
        (tmp_path / "file").read_text()
    ) == "a\ud800\u2028é"


@pytest.mark.parametrize(
    "place, reason",
    [
        ("absent/a", "No such file or directory; its folder is not there"),
        ("folder", "something else stands in its place"),
        ("file/a", "Not a directory"),
    ],
)
def test_what_stands_in_the_way_is_named(place, reason, tmp_path):
    (tmp_path / "folder" / "full").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=reason):
        write_whole(tmp_path / place, "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        Exception("Disk quota exceeded (os error 122)"),
        SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
        ValueError(
            'RESOURCE_EXHAUSTED: Failed writing: "a/d": Failed to write 9 bytes: Disk quota exceeded'
            " [os_error_code='122']"
        ),
    ],
)
def test_libraries_tell_it_in_ways_of_their_own(error):
    told = "^runs/x cannot be written: Disk quota exceeded; make room, and start the same command again$"
    with pytest.raises(InputError, match=told), writing("runs/x"):
        raise error


def test_other_exceptions_are_left_alone():
    for error in (ValueError("os error"), InputError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, writing("x"):
            raise error
        assert raised.value is error


def test_room_is_looked_at_before(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path, 1, "a checkpoint")
    with pytest.raises(
        InputError,
        match=(
            r"^a checkpoint needs up to \d+\.\d MiB, and the disk of .* has \d+\.\d MiB left; nothing of it"
        ),
    ):
        check_space(tmp_path, 2 * free + (1 << 30), "a checkpoint")
    with pytest.raises(InputError, match="its folder is not there"):
        check_space(tmp_path / "gone", 1, "a checkpoint")


@pytest.mark.parametrize(
    "content, reason", [(None, "Is a directory"), (b"a\xff", "not UTF-8 .invalid start byte at byte 1")]
)
def test_a_text_that_cannot_be_read(content, reason, tmp_path):
    path = tmp_path / "x"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=f"x cannot be read: (it is )?{reason}.*; mend it"):
        read_text(path, "mend it")


def test_what_a_silent_stream_still_holds_goes_nowhere():
    with open("/dev/full", "w") as full:
        full.write("x")
        silence(full)
    # closed without an error: the file is /dev/null now


def test_the_limit_that_other_tests_make_a_full_disk_of(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(InputError, match="File too large; make room"):
            write_whole(tmp_path / "a", "x" * 11)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []
