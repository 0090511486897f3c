#!/usr/bin/env bash
# What one GPU does, beside what others publish: makes an environment with CUDA (.venv-cuda), then measures.
#   scripts/bench_gpu.sh [--no-install] [flags of bench_gpu.py]      e.g. --minutes 12 --out h200.json, --toy
# --no-install: the python on the path, or PYTHON, has jaxrl with its extra `cuda` already.
# EXTRA: cuda (CUDA 12, the default) or cuda13, for a driver of release 580 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
EXTRA=${EXTRA:-cuda}
if [ "${1:-}" = --no-install ]; then
  shift
else
  [ -x .venv-cuda/bin/python ] || "$PYTHON" -m venv .venv-cuda
  if [ "$(cat .venv-cuda/installed 2>/dev/null)" != "$EXTRA" ] || [ pyproject.toml -nt .venv-cuda/installed ]; then
    .venv-cuda/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$EXTRA]"
    echo "$EXTRA" > .venv-cuda/installed
  fi
  PYTHON=$PWD/.venv-cuda/bin/python
fi
if command -v nvidia-smi > /dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv
else
  echo "no nvidia-smi here: no GPU, or no driver"
fi
"$PYTHON" -m pip list --disable-pip-version-check 2>/dev/null | grep -iE '^(jax|flax|nvidia)' || true
exec "$PYTHON" scripts/bench_gpu.py "$@"
