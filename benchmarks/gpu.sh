#!/usr/bin/env bash
# What a GPU can judge, in calls of at most ten minutes on a bare machine that has torch and transformers and no network.
#
#   PYTHON=3.12 benchmarks/gpu.sh wheels # first, where there is a network: what such a machine lacks, into wheels/
#   benchmarks/gpu.sh tests              # the tests that need CUDA, then distances, pairs, layers and devices
#   benchmarks/gpu.sh speed minilm       # fp32; so roberta-base and vit-s: speed-SHAPE-cuda-1.json
#   benchmarks/gpu.sh large llama-2-7b   # bf16, without rows that decompose or copy every matrix; so llama-3.2-1b, -3b
#   benchmarks/gpu.sh ways               # the exact ways through a layer against the cost model: speed-ways-cuda-1.json
#   benchmarks/gpu.sh launches           # the counts of docs/results/performance.md, which need no GPU: launches.csv
#   benchmarks/gpu.sh equal-steps minilm # a step against AdamW's, and Llama-2-7B's shapes: equal_steps_cost-SHAPE-cuda.json
#   benchmarks/gpu.sh fit minilm         # steps of fit, fp32 and bf16, both optimizers, eight adapters: fit-SHAPE-cuda.csv
#   benchmarks/gpu.sh many-adapters      # 1 to 1,000 adapters in one model: many_adapters-cuda.json
#   benchmarks/gpu.sh sweep              # a short sweep of a tiny model, end to end: frontier.csv, .txt, .png
#   benchmarks/gpu.sh list               # the names of these calls
#
# DEVICE=cpu QUICK=--quick runs the same on a small shape without a GPU, as a check of this file (.ci/bare.sh). Records go
# to $OUT where that is set, all into the one folder, else to benchmarks/records (a quick call's nowhere), row by row: a
# call that is cut keeps what it measured. NEEDS="tensorly ..." names the wheels, for a machine that has more packages.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${WHEELS:-wheels} device=${DEVICE:-cuda} rounds=${ROUNDS:-20} quick=${QUICK:-} limit=${LIMIT:-570}
needs=${NEEDS:-tensorly opt_einsum scipy matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing pandas
    python-dateutil six cyclopts attrs docstring_parser rich rich_rst markdown_it_py mdurl pygments scikit-learn joblib
    cloudpickle narwhals threadpoolctl pytest hypothesis sortedcontainers iniconfig pluggy peft accelerate
    psutil lycoris_lora einops toml}

calls() { sed -nE 's|^#   benchmarks/gpu.sh ([a-z-]+) .*|\1|p' benchmarks/gpu.sh | grep -v '^list$'; }

case "${1:-}" in
    list) calls && exit ;;
    wheels)
        # shellcheck disable=SC2086
        exec python3 -m pip download --only-binary=:all: --no-deps --dest "$wheels" --python-version "${PYTHON:-3.12}" \
            --platform manylinux2014_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 $needs
        ;;
    *) calls | grep -qx -e "${1:-}" || { sed -n '2,/^set/{/^#/p}' benchmarks/gpu.sh && exit 2; } ;;
esac

if [ -d "$wheels" ]; then # once for these wheels on a machine
    site=${TMPDIR:-/tmp}/tensoradapt-$UID-$(find "$wheels" -name '*.whl' | sort | cksum | tr -d ' ')
    (
        flock 9 # of two calls at once one installs
        [ -e "$site/complete" ] || { python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$site" \
            "$wheels"/*.whl && touch "$site/complete"; }
    ) 9> "$site.lock"
    export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
out=${OUT:-} && [ -n "$out" ] || { [ -n "$quick" ] && out=$scratch || out=benchmarks/records; }

within() { timeout $((limit - SECONDS)) python3 "$@"; } # what is left of the call
measure() { within "benchmarks/$1.py" --device "$device" --out "$out" ${quick:+"$quick"} "${@:2}"; }

case "$1" in
    tests)
        # by name: other files import what a bare machine lacks
        on_card=(tests/devices tests/layers/test_fused_linear.py)
        [ "$device" = cpu ] || within -m pytest -m gpu "${on_card[@]}"
        within -m pytest tests/devices tests/training/test_distance.py tests/adapter/test_forward_pass.py \
            tests/layers/test_fused_linear.py tests/layers/test_wrapper.py
        ;;
    speed) measure speed --repeat "$rounds" --shapes "${2:-minilm}" ;;
    large)
        measure speed --repeat "$rounds" --dtype bfloat16 --shapes "${2:-llama-3.2-1b}" \
            --skip full dense lora_xs tinylora randlora kronecker loretta tt_matrix quanta
        ;;
    ways) measure speed --repeat "$rounds" --ways ;;
    launches) within benchmarks/launches.py --out "$out" ${quick:+"$quick"} ;;
    equal-steps) measure equal_steps_cost --shape "${2:-minilm}" ;;
    fit) measure gpu_fit --shape "${2:-minilm}" ;;
    many-adapters) measure many_adapters ;;
    sweep)
        within -m tensoradapt frontier --quick --model tiny-random-bert --task planted --device "$device" --workers 1 \
            ${quick:+--steps 4} --out "$scratch/frontier"
        mkdir -p "$out" && cp "$scratch"/frontier/frontier.{csv,txt,png} "$out"
        ;;
esac
