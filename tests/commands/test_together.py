"""What processes compare before they begin, one process standing for several."""

from types import SimpleNamespace

import jax
import pytest

from jaxrl.commands import together
from jaxrl.errors import InputError


def test_hosts_that_were_not_started_as_one_run_are_told_how(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 8)
    with pytest.raises(
        InputError, match=r"one of 8 hosts.*the run knows of 1; set distributed.num_processes=8"
    ):
        together.check_processes(None)


def test_the_numbers_of_processes_are_those_of_the_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(together, "num_processes", lambda: 2)
    monkeypatch.setattr(together, "process_id", lambda: 1)
    with pytest.raises(InputError, match="process_id=1 is process 0 of the devices' own count; give it that"):
        together.check_processes(None)


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_folder_that_another_host_does_not_see_is_an_error_on_all(is_shared, tmp_path, monkeypatch):
    """The other process looks between the first one's writing and its taking away."""
    seen, other = [], SimpleNamespace(folder=tmp_path if is_shared else tmp_path / "elsewhere")

    def gather(what, value, extra_s=0.0):
        if "reading" not in what:
            return [value, None]
        (mark,) = tmp_path.iterdir()
        seen.append(mark)
        return [value, together._appears(other.folder / mark.name)]

    monkeypatch.setattr(together, "gather", gather)
    monkeypatch.setattr(together, "LOOKS", 1)
    if is_shared:
        together.check_shared(tmp_path)
    else:
        with pytest.raises(
            InputError, match="process 1 does not see the folder .* of process 0; set runs_dir"
        ):
            together.check_shared(tmp_path)
    assert len(seen) == 1 and list(tmp_path.iterdir()) == []
