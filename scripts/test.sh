#!/usr/bin/env bash
# All tests: makes the environment, then runs pytest. Arguments are pytest's (-m "not slow" leaves out the long ones).
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec python -m pytest "$@"
