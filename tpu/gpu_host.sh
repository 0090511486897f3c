#!/usr/bin/env bash
# One jaxrl job on GPU hosts without a scheduler, from the root of the tree:
#   bash tpu/gpu_host.sh CONFIG key=value...                  one process with all GPUs of this host: begin with this
#   bash tpu/gpu_host.sh --per-gpu CONFIG key=value...        one process per GPU
#   bash tpu/gpu_host.sh --host I/N --coordinator HOST:PORT CONFIG key=value...
#                                            the same command on each of N hosts, I from 0; HOST is that of I = 0
# --dry-run prints what would be run; --gpus N instead of asking nvidia-smi; --port P of the coordinator with --per-gpu.
# Process 0 writes to this terminal, the others to gpu_host-I.log. Exit code: 2 if any process has it, else the first that
# is not 0, in the order of the processes. Ctrl-C and SIGTERM are passed on, so that the run saves; a second one stops it.
set -euo pipefail

fail() { echo "error: $*" >&2 && exit 2; }

per_gpu='' dry_run='' gpus='' host=0 hosts=1 coordinator='' port=8476
while [ $# -gt 0 ]; do
  case $1 in
    --per-gpu) per_gpu=yes ;;
    --dry-run) dry_run=yes ;;
    --gpus) gpus=${2:?"--gpus needs a number"} && shift ;;
    --port) port=${2:?"--port needs a number"} && shift ;;
    --coordinator) coordinator=${2:?"--coordinator needs HOST:PORT"} && shift ;;
    --host)
      [[ ${2:-} =~ ^([0-9]+)/([0-9]+)$ ]] || fail "--host ${2:-} is not I/N, the number of this host and how many; --host 0/2"
      host=${BASH_REMATCH[1]} hosts=${BASH_REMATCH[2]} && shift
      [ "$host" -lt "$hosts" ] || fail "--host $host/$hosts: hosts are numbered from 0; the last is $((hosts - 1))/$hosts"
      ;;
    --*) fail "$1 is no flag; there are --per-gpu, --host, --coordinator, --gpus, --port, --dry-run" ;;
    *) break ;;
  esac
  shift
done
[ $# -gt 0 ] || fail "no CONFIG was named; bash tpu/gpu_host.sh CONFIG key=value..."
if [ "$hosts" -gt 1 ]; then
  [[ $coordinator == *:* ]] || fail "several hosts need --coordinator HOST:PORT, a free port of host 0 that all can reach"
else
  coordinator=${coordinator:-127.0.0.1:$port}
fi

# the GPUs: those that CUDA_VISIBLE_DEVICES leaves, if it is set
IFS=, read -ra visible <<< "${CUDA_VISIBLE_DEVICES:-}"
if [ ${#visible[@]} -eq 0 ] && [ -n "$per_gpu" ]; then
  if [ -z "$gpus" ]; then
    command -v nvidia-smi > /dev/null || fail "there is no nvidia-smi to ask for the number of GPUs; give --gpus N"
    gpus=$(nvidia-smi -L | wc -l)
  fi
  mapfile -t visible < <(seq 0 $((gpus - 1)))
fi
if [ -n "$per_gpu" ]; then local_processes=${#visible[@]}; else local_processes=1; fi

start() { # PROCESS-ON-THIS-HOST CONFIG key=value...: run it, or print it
  local i=$1 command=()
  shift
  if [ -n "$per_gpu" ]; then command+=(env "CUDA_VISIBLE_DEVICES=${visible[$i]}"); fi
  command+=("${JAXRL:-.venv/bin/jaxrl}" run "$@")
  if [ $((hosts * local_processes)) -gt 1 ]; then
    command+=("distributed.coordinator=$coordinator" "distributed.num_processes=$((hosts * local_processes))"
      "distributed.process_id=$((host * local_processes + i))")
  fi
  if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}" && echo
  elif [ "$i" -eq 0 ]; then
    exec "${command[@]}"
  else
    exec "${command[@]}" > "gpu_host-$i.log" 2>&1
  fi
}

if [ -n "$dry_run" ] || [ "$local_processes" -eq 1 ]; then
  for ((i = 0; i < local_processes; i++)); do start "$i" "$@"; done
  exit
fi

pids=()
set -m # a process group each: a terminal's Ctrl-C would reach them beside ours, and a second one is no wish to save
# shellcheck disable=SC2329  # the traps call it
pass_on() { kill -s "$1" "${pids[@]}" 2> /dev/null || true; } # those that have ended already are no matter
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
for ((i = 0; i < local_processes; i++)); do
  start "$i" "$@" < /dev/null &
  pids+=($!)
done
result=0
for i in "${!pids[@]}"; do
  code=0
  wait "${pids[$i]}" || code=$?
  # a signal of ours ends `wait`, and not the process
  while kill -0 "${pids[$i]}" 2> /dev/null; do
    code=0
    wait "${pids[$i]}" || code=$?
  done
  if [ "$code" -ne 0 ]; then echo "process $i ended with exit code $code" >&2; fi
  if [ "$code" -eq 2 ] || [ "$result" -eq 0 ]; then result=$code; fi
done
exit "$result"
