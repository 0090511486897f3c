#!/usr/bin/env bash
# The half of tpu/launch.py that runs on each worker: makes the environment, keeps one job in tmux, tells of it.
#
# Everything is in ~/jaxrl: tree/ (the code that was sent), venv/, secrets (sourced before a job, if sent), and
#   job/  command (what runs, as bash reads it)  log (stdout and stderr)  pid  exit (its code, once it has ended)
# Lines for launch.py begin with "jaxrl:" and name the host, since the output of all workers is mixed.
set -euo pipefail

home=$HOME/jaxrl
job=$home/job
session=jaxrl

say() { echo "jaxrl: $(hostname): $*"; }

fail() {
  echo "jaxrl: $(hostname): error: $*" >&2
  exit 2
}

metadata() { # ATTRIBUTE of this machine
  curl --silent --fail --max-time 10 --retry 3 --header 'Metadata-Flavor: Google' \
    "http://${GCE_METADATA_IP:-metadata.google.internal}/computeMetadata/v1/instance/attributes/$1"
}

place() { # variables that tell jaxrl which process of the run this is; none where there is one worker
  local endpoints number tpu_env hosts slices first
  if ! { endpoints=$(metadata worker-network-endpoints) && number=$(metadata agent-worker-number) &&
    tpu_env=$(metadata tpu-env); }; then
    fail "the metadata server does not name the workers; is this a Cloud TPU VM?"
  fi
  of_slices() { sed -n "s/^MEGASCALE_$1: *'\(.*\)'.*/\1/p" <<< "$tpu_env"; }
  IFS=, read -ra hosts <<< "$endpoints" # each HOST, or NAME:NUMBER:ADDRESS
  slices=$(of_slices NUM_SLICES)
  if [ $((${#hosts[@]} * ${slices:-1})) -eq 1 ]; then return; fi
  first=$(of_slices COORDINATOR_ADDRESS) # where there are several slices: a worker of the first
  if [ -n "$first" ]; then first=${first%%:*}; else first=${hosts[0]##*:}; fi
  number=$((number + ${#hosts[@]} * $(of_slices SLICE_ID | grep . || echo 0)))
  # 8482 as jax has it there: libtpu listens at 8476 itself
  echo "export JAX_COORDINATOR_ADDRESS=$first:8482"
  echo "export JAX_NUM_PROCESSES=$((${#hosts[@]} * ${slices:-1})) JAX_PROCESS_ID=$number"
}

is_running() { tmux has-session -t "=$session" 2> /dev/null; } # the session lives exactly as long as the job

setup() { # ARCHIVE: of the tree that has just been unpacked
  local archive=$1
  # files that an earlier archive brought and this one does not would be imported still; runs/ and the like stay
  tar -tzf "$archive" | sort > "$home/files.new"
  if [ -f "$home/files" ]; then
    comm -23 "$home/files" "$home/files.new" | while IFS= read -r file; do rm -f -- "$home/tree/$file"; done
  fi
  mv "$home/files.new" "$home/files"
  command -v tmux > /dev/null || sudo apt-get install -y -q tmux
  # the images' own Python is older than jaxrl needs; uv brings one
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv > /dev/null || python3 -m pip install --quiet --user uv
  [ -x "$home/venv/bin/python" ] || uv venv --quiet --python 3.12 "$home/venv"
  uv pip install --quiet --python "$home/venv/bin/python" --editable "$home/tree[tpu]"
  "$home/venv/bin/jaxrl" --version > /dev/null
  say set up
}

run() { # CONFIG key=value...
  is_running && fail "a job is at work (in tmux session $session); stop it first"
  [ -x "$home/venv/bin/jaxrl" ] || fail "$home/venv has no jaxrl; run setup first"
  local variables
  variables=$(place)
  if [ -d "$job" ]; then mv "$job" "$job.$(date -u +%Y%m%dT%H%M%S).$$"; fi
  mkdir -p "$job"
  # a file, and not an argument of tmux, which takes a word that ends in ; for the end of its own command
  {
    if [ -n "$variables" ]; then echo "$variables"; fi
    printf 'cd %q\nexec' "$home/tree"
    printf ' %q' "$home/venv/bin/jaxrl" run "$@"
    echo
  } > "$job/command"
  tmux new-session -d -s "$session" "bash $(printf %q "$home/tree/tpu/worker.sh") in_tmux"
  say running
  if [ -n "$variables" ]; then
    say "$(sed -n 's/.*NUM_PROCESSES=\(.*\) JAX_PROCESS_ID=\(.*\)/process \2 of \1/p' <<< "$variables")"
  fi
}

in_tmux() {
  # shellcheck disable=SC1091  # a file of the user's
  if [ -f "$home/secrets" ]; then set -a && . "$home/secrets" && set +a; fi
  bash "$job/command" > "$job/log" 2>&1 < /dev/null &
  echo $! > "$job/pid" # of jaxrl itself: the command ends in exec
  local code=0
  wait $! || code=$?
  echo "$code" > "$job/exit.new"
  mv "$job/exit.new" "$job/exit" # whole, or not there
}

status() {
  if is_running; then
    say running
  elif [ -f "$job/exit" ]; then
    say "exited $(cat "$job/exit")"
  elif [ -d "$job" ]; then
    say lost # neither at work nor ended: the machine was started again under it
  else
    say idle
  fi
  if [ -f "$job/log" ]; then
    # the console's "STAGE  STEP/TOTAL  ...": the last one of each stage
    awk 'match($0, /^[A-Za-z0-9_][A-Za-z0-9 ._-]*  +[0-9]+\/[0-9]+(  |$)/) {
           place = substr($0, 1, RLENGTH); sub(/ +$/, "", place)
           step = place; sub(/^.* /, "", step); sub(/ +[^ ]*$/, "", place); last[place] = step }
         END { for (stage in last) print stage " " last[stage] }' "$job/log" |
      sort | while IFS= read -r place; do say "at $place"; done
  fi
}

stop() { # SECONDS [kill]: ask it to save and stop, wait so long, and then make an end of it if so told
  local deadline=$((SECONDS + $1)) pid
  is_running || { status && return; }
  until [ -s "$job/pid" ]; do sleep "${JAXRL_POLL_S:-1}"; done
  pid=$(cat "$job/pid")
  kill -TERM "$pid" || true # it may have ended in between
  while is_running && [ "$SECONDS" -lt "$deadline" ]; do sleep "${JAXRL_POLL_S:-1}"; done
  if is_running && [ "${2:-}" = kill ]; then
    kill -KILL "$pid" || true
    while is_running; do sleep "${JAXRL_POLL_S:-1}"; done
  fi
  status
}

logs() { # LINES follow|once named|bare
  [ -f "$job/log" ] || fail "no job has been started here; run one first"
  local name=
  [ "$3" = bare ] || name="$(hostname): "
  local tail=(tail -n "$1")
  [ "$2" = once ] || tail+=(-F)
  "${tail[@]}" "$job/log" | while IFS= read -r line || [ -n "$line" ]; do printf '%s%s\n' "$name" "$line"; done
}

case ${1:-} in
  setup | run | in_tmux | status | stop | logs) "$@" ;;
  *) fail "no such command: ${1:-}; there are setup, run, status, stop, logs" ;;
esac
