#!/usr/bin/env bash
# The tests: makes the environment, then runs them lane by lane, or one lane.
#   scripts/test.sh [LANE] [pytest's arguments]     LANE: fast, mesh, sandbox, end_to_end, hosts, aot
# With arguments and no lane it is pytest itself, in one process. What is in which lane: tests/conftest.py.
set -uo pipefail
source "$(dirname "$0")/environment.sh" || exit
LANES=(fast mesh sandbox end_to_end hosts aot)

run_lane() {
  local lane=$1 devices=1 processes=2
  shift
  # One process alone may load the TPU's compiler.
  case $lane in
    mesh) devices=8 ;;
    hosts) devices=4 processes=0 ;; # its tests start processes of their own
    aot) processes=0 ;;
  esac
  # Programs over eight devices run for a moment, and most of the time is the compiler's: it need not make them fast.
  [[ $lane != mesh && $lane != hosts ]] || export JAX_DISABLE_MOST_OPTIMIZATIONS=1
  JAX_NUM_CPU_DEVICES=$devices python -m pytest -m "$lane" -n "$processes" --dist loadfile "$@"
}

if [[ " ${LANES[*]} " == *" ${1:-none} "* ]]; then
  run_lane "$@"
elif [ $# -gt 0 ]; then
  exec python -m pytest "$@"
else
  failed=()
  for lane in "${LANES[@]}"; do
    SECONDS=0
    (run_lane "$lane") || failed+=("$lane")
    echo "lane $lane: $SECONDS s"
  done
  [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
fi
