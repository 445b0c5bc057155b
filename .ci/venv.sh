#!/usr/bin/env bash
# Installs into a venv by uv, which unpacks each wheel once for all venvs: seconds, where pip takes a minute for torch.
#   .ci/venv.sh FOLDER ARGUMENTS...    makes the venv where there is none; arguments, if any, as of pip install
# $UV is uv where it is not on the path.
# What pip is told of this machine, a folder of wheels and a file of constraints, holds for uv too.
set -euo pipefail
told() { python3 -m pip config list | sed -nE "s#^(global|:env:)\.$1='(.*)'\$#\2#p" | tail -n 1; }
UV_FIND_LINKS=${UV_FIND_LINKS:-$(told find-links)}
UV_CONSTRAINT=${UV_CONSTRAINT:-$(told constraint)}
export UV_FIND_LINKS UV_CONSTRAINT VIRTUAL_ENV=$1
[ -d "$1" ] || ${UV:-uv} venv --quiet --seed --python "$(command -v python3)" "$1"
(( $# == 1 )) || ${UV:-uv} pip install --quiet "${@:2}"
