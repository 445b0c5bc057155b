#!/usr/bin/env bash
# What a GPU can judge, in calls of at most ten minutes on a bare machine that has torch and transformers and no network.
#
#   benchmarks/gpu.sh wheels      # first, where there is a network: what such a machine lacks, into wheels/
#   benchmarks/gpu.sh tests       # the tests that need CUDA, then the laws and the layers
#   benchmarks/gpu.sh speed       # encoders, fp32: records/speed-SHAPE-cuda-1.json
#   benchmarks/gpu.sh large       # Llama-3.2-1B and -3B and Llama-2-7B, bf16
#   benchmarks/gpu.sh profile     # the kernels of a step: frozen, PEFT's LoRA, CP, Tucker
#
# DEVICE=cpu runs the same commands without a GPU, as a check of this file. Records name the card.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${WHEELS:-wheels} device=${DEVICE:-cuda} rounds=${ROUNDS:-20}
needs=(tensorly opt_einsum hypothesis pytest sortedcontainers iniconfig pluggy peft accelerate psutil matplotlib scipy)

if [ "${1:-}" = wheels ]; then
    exec python3 -m pip download --only-binary=:all: --no-deps --dest "$wheels" "${needs[@]}"
fi
if [ -d "$wheels" ]; then
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive

case "${1:-}" in
    tests)
        [ "$device" = cpu ] || timeout 280 python3 -m pytest -m gpu
        timeout 280 python3 -m pytest tests/layers tests/adapter/test_forward_pass.py
        ;;
    speed) timeout 580 python3 benchmarks/speed.py --device "$device" --rounds "$rounds" --shapes minilm roberta-base vit-s ;;
    large)
        for shape in llama-3.2-1b llama-3.2-3b llama-2-7b; do
            timeout 280 python3 benchmarks/speed.py --device "$device" --dtype bfloat16 --rounds "$rounds" --shapes "$shape" || echo "$shape: $?"
        done
        ;;
    profile)
        timeout 580 python3 benchmarks/speed.py --device "$device" --rounds 5 --before --only "PEFT LoRA" lora "cp r=8" tucker --shapes minilm roberta-base
        ;;
    *) sed -n '2,10p' "$0" && exit 2 ;;
esac
