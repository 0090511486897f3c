"""Where a run is kept: a path on this machine, or the URL of a place elsewhere (`gs://bucket/runs`)."""

import hashlib
import os
import re
from pathlib import Path

from jaxrl.errors import InputError

COPY = "copy it to a disk here, and give the path of the copy"  # of what is to be read
CACHE = "JAXRL_RUNS_CACHE"  # the environment variable that says where local copies are kept
# of the two slashes, `Path` has left one by the time that a flag of a command is looked at
URL = re.compile(r"([a-z][a-z0-9+.-]+(?:::[a-z0-9+.-]+)*):/+")
ON_DISK = ("file", "local")  # protocols that name a path of this machine


def is_url(place: str | Path) -> bool:
    """Whether a text names a place elsewhere; `file://` is here."""
    found = URL.match(str(place))
    return found is not None and found[1] not in ON_DISK


def local_path(place: str) -> Path:
    """The path of a place on this machine, with or without `file://` before it."""
    found = URL.match(place)
    return Path(place[len(found[1]) + 3 :] if found is not None and found[1] in ON_DISK else place)


def join(url: str, name: str) -> str:
    """The URL of what is called `name` in the folder at `url`."""
    return f"{url}{name}" if url.endswith("/") else f"{url}/{name}"


def local_copy(url: str) -> Path:
    """Where the local copies of what is kept in the folder at `url` are: in `$JAXRL_RUNS_CACHE`, or else in
    the user's cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    runs = os.environ.get(CACHE) or Path(cache) / "jaxrl" / "runs"
    return Path(runs) / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def refuse_url(place: str | Path, remedy: str) -> None:
    """InputError where a file or folder here is asked for and a URL is given; `remedy` closes the text."""
    if is_url(place) and not os.path.exists(place):
        url = URL.sub(r"\1://", str(place), count=1)
        raise InputError(f"{url} is a URL, and only runs_dir may be one; {remedy}")
