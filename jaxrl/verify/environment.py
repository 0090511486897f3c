"""What a verifier process sees of our environment: all but secrets, and of these what the config names.

A verdict's text, an exception's among it, is written to `samples.jsonl` and shown to people; a token in it
would go where the file goes. Which variable is a secret is told by its name, or by a value that can be
nothing else. This is against accidents, not against code that looks for secrets: a verifier reads the user's
files, and the parent's environment in /proc, as the user does.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence

from jaxrl.errors import InputError

SECRET_NAMES = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW|PASSPHRASE|PASSFILE|CREDENTIAL|AUTH(?!OR)|KEY|WEBHOOK|COOKIE|PRIVATE|NETRC"
    r"|(?:^|_)(?:CREDS?|PASS|PAT|DSN|JWT|SAS)(?:_|$)|_PWD$|^MYSQL_PWD"
    r"|^(?:AWS|AZURE|GOOGLE|GCP|VAULT|KUBE|SSH|GPG)",
    re.IGNORECASE,
)
SECRET_VALUES = re.compile(
    r"://[^/\s@]+@"  # a user, or a user and a password, in a URL: of a proxy, a database, a package index
    r"|-----BEGIN [A-Z ]*PRIVATE"
    r"|\b(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-|xox[abprs]-|AKIA|eyJ)[A-Za-z0-9_-]{16,}"
)
SHORTEST = 6  # characters of a value that is looked for in texts; a shorter one would be found in words


def is_secret(name: str, value: str) -> bool:
    """Whether a variable is withheld: `HF_TOKEN`, `WANDB_API_KEY`, `AWS_...`, a proxy with its password."""
    return bool(SECRET_NAMES.search(name) or SECRET_VALUES.search(value))


def withheld(environment: Mapping[str, str], passed: Sequence[str]) -> set[str]:
    """The names of the variables that workers do not see.

    Raises:
      InputError: a name in `passed` that is not set.
    """
    if missing := [name for name in passed if name not in environment]:
        raise InputError(
            f"verify.pass_env names {', '.join(missing)}, not set in the environment; set it, or take the "
            "name out"
        )
    return {name for name, value in environment.items() if is_secret(name, value)} - set(passed)


def of_worker(passed: Sequence[str]) -> dict[str, str]:
    """The environment of a worker: what is not withheld, the import path, no accelerator, one thread."""
    hidden = withheld(os.environ, passed)
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    own = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {name: value for name, value in os.environ.items() if name not in hidden} | own


def secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Value -> name of the secrets of an environment."""
    return {
        value: name
        for name, value in environment.items()
        if len(value) >= SHORTEST and is_secret(name, value)
    }


def hint(text: str, hidden: set[str]) -> str:
    """What to add to a verifier's error that names a variable which it was not given."""
    named = [name for name in sorted(hidden) if re.search(rf"\b{re.escape(name)}\b", text)]
    return f" (verifier processes do not see {', '.join(named)}; name it in verify.pass_env)" if named else ""
