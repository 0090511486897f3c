#!/usr/bin/env bash
# The main job on the embedded default: makes the environment, then runs configs/quickstart.yaml. Arguments are key=value.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
exec jaxrl run configs/quickstart.yaml "$@"
