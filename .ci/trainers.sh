#!/usr/bin/env bash
# Two real trainers, LLaMA-Factory and ms-swift, train four steps with the files and commands of docs/guides/trainers.md.
#   .ci/trainers.sh install FOLDER    a venv for each, of what the guide installs; one that can't be made is left out by name
#   .ci/trainers.sh test FOLDER       trains in each venv that is there; fails where a run or a comparison does
set -euo pipefail
cd "$(dirname "$0")/.."
export FOLDER=$2
trainers=("llamafactory==0.9.5" "ms-swift==4.6.0")

venv() { # a trainer's, with the versions that it pins
  .ci/venv.sh "$FOLDER/$1" "$1" &&
    .ci/venv.sh "$FOLDER/$1" --no-deps "peft==0.21.2" -e . &&
    .ci/venv.sh "$FOLDER/$1" tensorly opt_einsum cyclopts "matplotlib>=3.10" &&
    "$FOLDER/$1/bin/python" - <<'END'
import sysconfig
from pathlib import Path

import torch

if torch.version.cuda is None:  # LLaMA-Factory's torchaudio then does not load
    for file in Path(sysconfig.get_path("purelib")).glob("torchaudio/lib/_torchaudio.*"):
        file.unlink()
END
}

install() {
  local log="$FOLDER/$1.log" begun=$SECONDS
  if venv "$1" > "$log" 2>&1; then
    echo "$1 was installed in $((SECONDS - begun)) s"
  else
    rm -rf "${FOLDER:?}/$1"
    echo "LEFT OUT: $1 can't be installed here: $(tail -n 1 "$log")"
  fi
}

run() {
  local log="$FOLDER/$1.log" begun=$SECONDS
  "$FOLDER/$1/bin/python" tests/support/real_trainers.py "${1%%==*}" "$FOLDER/run-$1" > "$log" 2>&1 ||
    { cat "$log"; exit 1; }
  cat "$log"
  echo "$1 took $((SECONDS - begun)) s"
}
export -f venv install run

case $1 in
install)
  mkdir -p "$FOLDER"
  printf '%s\n' "${trainers[@]}" | xargs --max-procs 2 -I TRAINER bash -c 'install TRAINER'
  ;;
test)
  for trainer in "${trainers[@]}"; do
    if [ -d "$FOLDER/$trainer" ]; then echo "$trainer"; fi
  done | xargs --no-run-if-empty --max-procs 2 -I TRAINER bash -c 'run TRAINER'
  ;;
*) echo "give install or test, and a folder" >&2; exit 2 ;;
esac
