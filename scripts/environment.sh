# Sourced by the other scripts: makes (once) and enters .venv with jaxrl and what its tests need.
# PYTHON chooses the interpreter (3.11 or newer); the default is python3.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "jaxrl needs Python 3.11 or newer, and $PYTHON is $("$PYTHON" --version 2>&1); set PYTHON=/path/to/python3.11" >&2
  exit 2
fi
if [ ! -x .venv/bin/python ]; then
  "$PYTHON" -m venv .venv
fi
# The stamp is newer than pyproject.toml when everything in it has been installed.
if [ ! .venv/installed -nt pyproject.toml ]; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
  touch .venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"
