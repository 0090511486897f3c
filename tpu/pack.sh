#!/usr/bin/env bash
# Pack the working tree as it is, uncommitted and untracked files included and ignored ones not: pack.sh ARCHIVE.tgz
# `-` writes it to stdout: `bash tpu/pack.sh - | docker build -f tpu/Dockerfile -t IMAGE -`
set -euo pipefail
archive=${1:?"say where to: pack.sh ARCHIVE.tgz"}
case $archive in /* | -) ;; *) archive=$PWD/$archive ;; esac
if [ "$archive" != - ]; then mkdir -p "$(dirname "$archive")"; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! git rev-parse --git-dir > /dev/null 2>&1; then
  echo "error: $PWD is no git repository, which says what belongs to the code; run git init there" >&2
  exit 2
fi
# deleted files are still in the index, and tar would stumble over them; macOS would add its own ._ files
git ls-files -z --cached --others --exclude-standard |
  while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
  COPYFILE_DISABLE=1 tar --null -czf "$archive" -T -
