#!/usr/bin/env bash
# Every call of benchmarks/gpu.sh in small on the CPU, in a venv that has what a bare machine with a GPU has: torch and
# transformers, and the wheels that the script takes along.
#   .ci/bare.sh install FOLDER    the venv and the wheels
#   .ci/bare.sh test FOLDER       two calls at a time, with the seconds of each; fails where one does
set -euo pipefail
cd "$(dirname "$0")/.."
export WHEELS=$2/wheels TMPDIR=$2/scratch OUT=$2/out DEVICE=cpu QUICK=--quick

case $1 in
install)
  .ci/venv.sh "$2" torch transformers
  PATH="$2/bin:$PATH" PYTHON=$("$2/bin/python" -c 'import platform; print(platform.python_version())') \
    benchmarks/gpu.sh wheels > "$2/wheels.log"
  ;;
test)
  mkdir -p "$TMPDIR"
  env --unset=CI PATH="$2/bin:$PATH" OMP_NUM_THREADS=1 xargs --max-procs 2 -I CALL bash -c '
    TIMEFORMAT="gpu.sh CALL took %0R s, of the processor %0U s"
    time benchmarks/gpu.sh CALL > "$TMPDIR/CALL.log" 2>&1 || { tail -n 30 "$TMPDIR/CALL.log"; exit 1; }
    ' < <(benchmarks/gpu.sh list)
  ls "$OUT"
  ;;
*) echo "give install or test, and a folder" >&2; exit 2 ;;
esac
