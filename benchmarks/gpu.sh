#!/usr/bin/env bash
# What a GPU can judge, in calls of at most ten minutes on a bare machine that has torch and transformers and no network.
#
#   PYTHON=3.12 benchmarks/gpu.sh wheels # first, where there is a network: what such a machine lacks, into wheels/
#   benchmarks/gpu.sh tests              # the tests that need CUDA, then distances, pairs and layers
#   benchmarks/gpu.sh speed minilm       # fp32; so roberta-base and vit-s: records/speed-SHAPE-cuda-1.json
#   benchmarks/gpu.sh large llama-2-7b   # bf16, without rows that decompose or copy every matrix; so llama-3.2-1b, -3b
#   benchmarks/gpu.sh ways               # the exact ways through a layer against the cost model
#   benchmarks/gpu.sh profile            # operations with and without each saving: PEFT's LoRA, LoRA, CP, Tucker
#   benchmarks/gpu.sh launches           # the counts of docs/results/performance.md, which need no GPU
#
# DEVICE=cpu QUICK=--quick runs the same commands on a small shape without a GPU, as a check of this file. Records name
# the card, and are copied to $OUT where that is set.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${WHEELS:-wheels} device=${DEVICE:-cuda} rounds=${ROUNDS:-20} quick=${QUICK:-}
needs=(tensorly opt_einsum hypothesis pytest sortedcontainers iniconfig pluggy peft accelerate psutil matplotlib scipy lycoris_lora einops toml)

if [ "${1:-}" = wheels ]; then
    exec python3 -m pip download --only-binary=:all: --no-deps --dest "$wheels" \
        --python-version "${PYTHON:-3.12}" --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 "${needs[@]}"
fi
if [ -d "$wheels" ]; then
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive

keep() { if [ -n "${OUT:-}" ]; then mkdir -p "$OUT" && cp benchmarks/records/speed-*.json "$OUT"; fi; }
trap keep EXIT

measure() { timeout 580 python3 benchmarks/speed.py --device "$device" --rounds "$rounds" ${quick:+"$quick"} "$@"; }

case "${1:-}" in
    tests)
        [ "$device" = cpu ] || timeout 280 python3 -m pytest -m gpu tests/devices tests/layers/test_fused_linear.py
        # by name: other files import what a bare machine lacks
        timeout 280 python3 -m pytest tests/training/test_distance.py tests/adapter/test_forward_pass.py \
            tests/layers/test_fused_linear.py tests/layers/test_wrapper.py
        ;;
    launches) timeout 580 python3 benchmarks/launches.py ${quick:+"$quick"} ;;
    speed) measure --shapes "${2:-minilm}" ;;
    large)
        measure --dtype bfloat16 --shapes "${2:-llama-3.2-1b}" \
            --skip full dense lora_xs tinylora randlora kronecker loretta tt_matrix quanta
        ;;
    ways) measure --ways ;;
    profile) measure --before --only "PEFT LoRA" "lora r" "cp r=8" "tucker r" --shapes minilm roberta-base ;;
    *) sed -n '2,12p' "$0" && exit 2 ;;
esac
