"""Where a model's files are: a directory, or a name on the hub."""

from pathlib import Path

from jaxrl.errors import InputError
from jaxrl.files.place import COPY, refuse_url


def model_folder(path: str, with_weights: bool = True) -> Path:
    """A directory as it is; a hub name as the folder it was downloaded to, weights only if asked for.

    Raises:
      InputError: if there is no such directory and the hub does not answer.
    """
    refuse_url(path, COPY)
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        patterns = ["*.json", "*.model", "*.jinja", "*.txt"] + (["*.safetensors"] if with_weights else [])
        return Path(snapshot_download(path, allow_patterns=patterns))
    except HFValidationError:
        raise InputError(
            f"model {path!r} is not a directory here, nor a hub name, which is NAME or OWNER/NAME; "
            f"check the path, which is taken from {Path.cwd()}"
        ) from None
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model {path!r} is not a directory here, and the hub did not give it ({reason}); check the path"
            " or the network"
        ) from None
