#!/usr/bin/env bash
# The tests of the core on the lowest versions that pyproject.toml allows, with the coverage of its lines.
#   .ci/lowest.sh install FOLDER    a venv with them
#   .ci/lowest.sh test FOLDER       fails below 95 % of the lines
# Without the extra "quantised": its torchao needs a newer torch than the core does.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$2
core=(adapter compression layers lora networks parameterizations planning published sites storage surgery training)
rooms=(alignment.py data_starts.py factor_map.py orthonormal.py peft_starts.py)   # extras of the core: factors and steps
all=(devices test_records.py)   # what reaches all folders

case $1 in
install)
  .ci/venv.sh "$folder"
  printf '%s\n' "hypothesis>=6.130" "pytest>=8.3" "pytest-xdist>=3.6" "timm>=1.0.22" "torchvision>=0.23" > "$folder/tools.txt"
  extras=(demo peft data vision)
  "${UV:-uv}" pip compile pyproject.toml "$folder/tools.txt" "${extras[@]/#/--extra=}" --resolution lowest-direct \
    --python "$folder/bin/python" --quiet --output-file "$folder/lowest.txt"
  .ci/venv.sh "$folder" -r "$folder/lowest.txt" "slipcover>=1.1" tabulate
  .ci/venv.sh "$folder" --no-deps -e .
  ;;
test)
  "$folder/bin/pip" list --format freeze | grep -iE '^(torch|numpy|scipy|matplotlib|pandas|tensorly|opt_einsum|safetensors|tqdm|cyclopts|rich|transformers|peft)=='
  # Slipcover counts a line once, so the tests take 6 % longer by it, where a tracer of each line takes 68 %. It compares
  # and prints what it has written, as with several processes of pytest it can do one of these only.
  "$folder/bin/python" -m slipcover --source "$(IFS=,; echo "${core[*]/#/tensoradapt/}")" --json --out "$folder/lines.json" \
    -m pytest -n 2 -W "ignore::pytest.PytestAssertRewriteWarning" "${core[@]/#/tests/}" "${rooms[@]/#/tests/extras/test_}" "${all[@]/#/tests/}" --ignore tests/layers/test_quantised.py
  "$folder/bin/python" -m slipcover --skip-covered --fail-under 95 --merge "$folder/lines.json" --out "$folder/merged.json"
  ;;
*) echo "give install or test, and a folder" >&2; exit 2 ;;
esac
