#!/usr/bin/env bash
# Everything that wants a real GPU, in under ten minutes and without network: kernels against ref and gradients by
# differences, parity with transformers and the recipe beside the CPU's (tests/cuda/run.sh); compute-sanitizer where it
# is installed; each kernel's share of the GPU's peak, beside PyTorch where AMLUA_ORACLE_PYTHON names a Python that has
# it; tokens a second of LoRA on Llama-3-8B's shapes, of which NeMo Automodel publishes 12,473 on an H100. Prints TAP;
# figures are lines that begin with #. Counts as skipped where there is no GPU, or no nvcc built the module.
# usage: tests/gpu.sh BUILD     built with -DAMLUA_CUDA=ON -DAMLUA_TESTS=ON, here or elsewhere
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=$(realpath "${1:?"usage: tests/gpu.sh BUILD"}")

if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then
    echo 'ok 1 - # SKIP no GPU here'
    echo 1..1
    exit 0
fi
if [ ! -f "$build/amlua_cuda.so" ]; then
    echo "ok 1 - # SKIP $build has no amlua_cuda.so: it was built without nvcc"
    echo 1..1
    exit 0
fi
export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$build/lua/?.lua;$PWD/?.lua;;" HF_HUB_OFFLINE=1
export LD_LIBRARY_PATH="$build${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" AMLUA="$build/amlua"
out=$build/tests/gpu
mkdir -p "$out"
count=0 failed=0

check() { # check NAME SECONDS COMMAND...: its output is shown
    local name=$1 seconds=$2 status=0
    shift 2
    count=$((count + 1))
    timeout "$seconds" "$@" >"$out/log" 2>&1 || status=$?
    sed 's/^/# /' "$out/log" | tail -n 60
    if [ $status = 0 ] && ! grep -q '^not ok' "$out/log"; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name (exit status $status)"
        failed=1
    fi
}

skip() { # skip NAME WHY
    count=$((count + 1))
    echo "ok $count - # SKIP $1: $2"
}

check 'what GPU there is' 30 "$AMLUA" --info
check 'kernels against ref' 150 tests/cuda/run.sh "$build" gpu
check 'specs' 150 tests/cuda/run.sh "$build" gpu-specs

if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        check "kernels under $tool" 90 env AMLUA_CUDA="$build/amlua_cuda.so" CK_FORK=no \
            compute-sanitizer --tool $tool --error-exitcode 1 "$build/tests/test_cuda_kernels"
    done
else
    skip compute-sanitizer 'it is not installed'
fi

check "each kernel's share of the peak" 60 sh -c "'$AMLUA' tests/bench/gpu_kernels.lua | tee '$out/kernels'"
if "${AMLUA_ORACLE_PYTHON:-python3}" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    check 'beside PyTorch' 120 "${AMLUA_ORACLE_PYTHON:-python3}" tests/bench/gpu_torch.py <"$out/kernels"
else
    skip 'beside PyTorch' 'AMLUA_ORACLE_PYTHON names no Python with PyTorch for CUDA'
fi
check 'LoRA on Llama-3-8B, 4096 tokens a row' 240 "$AMLUA" recipes/benchmark.lua tests/bench/llama3_8b_lora.yaml \
    --device cuda
echo "1..$count"
exit $failed
