"""What the other processes of a run read of its folder, where the first one keeps that at a URL: the small
files that it has sent, in a folder of each one's own.
"""

import re
import shutil
from pathlib import Path

from jaxrl.files.digests import side_by_side
from jaxrl.files.disk import writing
from jaxrl.files.remote import Remote

# the first process's alone; what all write together; what nobody reads again
OTHER = re.compile(r"lock$|sent\.json$|[^/]+\.jsonl$|checkpoints/[^/]+/\d+/|(model|adapter)/|report\.md$")


class Follower:
    """The files of a run's folder that another process than the first reads. What it fetches is there, since
    the first one has said so before.

    Args:
      remote: where the first process sends them.
      folder: of this process alone; what an earlier start has left in it is taken away.
    """

    is_joint = True  # all processes write checkpoints to the URL themselves; see `Mirror`

    def __init__(self, remote: Remote, folder: Path):
        self.remote, self.folder = remote, folder

    def pull(self) -> None:
        """Fetch all that is there.

        Raises:
          InputError: as `Remote`; a disk that does not take it.
        """
        with writing(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        self.fetch("")

    def fetch(self, name: str) -> None:
        """Fetch a file, or all in a folder; "": in the run's."""
        under = name and f"{name}/"
        names = [
            each
            for each in self.remote.list()
            if not OTHER.match(each) and (each == name or each.startswith(under))
        ]
        with writing(self.folder):
            side_by_side(lambda each: self.remote.fetch(each, self.folder / each), names)
