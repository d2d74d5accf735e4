#!/usr/bin/env bash
# Everything that wants a real GPU, in under ten minutes and without network: kernels against ref and gradients by
# differences, parity with transformers and the recipe beside the CPU's (tests/cuda/run.sh); each kernel's share of the
# GPU's peak, beside PyTorch where AMLUA_ORACLE_PYTHON names a Python that has it; tokens a second of LoRA on
# Llama-3-8B's shapes, of which NeMo Automodel publishes 12,473 on an H100; compute-sanitizer, where it is installed, for
# as long as there is time. Prints TAP; figures are lines that begin with #. Counts as skipped where there is no GPU, or
# no nvcc built the module.
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
: >"$out/kernels"
count=0 failed=0
readonly MINUTES=10
deadline=$((SECONDS + 60 * MINUTES - 15))

skip() { # skip NAME WHY
    count=$((count + 1))
    echo "ok $count - # SKIP $1: $2"
}

check() { # check NAME SECONDS COMMAND...: its output is shown; at most so long, and no longer than there is time
    local name=$1 seconds=$2 left=$((deadline - SECONDS)) status=0
    shift 2
    if [ $left -lt 10 ]; then
        skip "$name" "$MINUTES minutes are over"
        return
    fi
    timeout -k 5 $((seconds < left ? seconds : left)) "$@" >"$out/log" 2>&1 || status=$?
    tail -n 60 "$out/log" | sed 's/^/# /'
    if [ $status = 124 ] && [ "${MAY_NOT_END:-}" ] && ! grep -qE "$MAY_NOT_END" "$out/log"; then
        skip "$name" 'nothing was found as far as it came in the time that there is'
        return
    fi
    count=$((count + 1))
    if [ $status = 0 ] && ! grep -q '^not ok' "$out/log"; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name (exit status $status)"
        failed=1
    fi
}

check 'what GPU there is' 30 "$AMLUA" --info
check 'kernels against ref' 150 tests/cuda/run.sh "$build" gpu
check 'specs' 150 tests/cuda/run.sh "$build" gpu-specs
check "each kernel's share of the peak" 60 sh -c \
    "'$AMLUA' tests/bench/gpu_kernels.lua >'$out/kernels' && cat '$out/kernels'"
if "${AMLUA_ORACLE_PYTHON:-python3}" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    check 'beside PyTorch' 120 "${AMLUA_ORACLE_PYTHON:-python3}" tests/bench/gpu_torch.py <"$out/kernels"
else
    skip 'beside PyTorch' 'AMLUA_ORACLE_PYTHON names no Python with PyTorch for CUDA'
fi
check 'LoRA on Llama-3-8B, 4096 tokens a row' 180 "$AMLUA" recipes/benchmark.lua tests/bench/llama3_8b_lora.yaml \
    --device cuda

# Last, since they take what time is left: kernels run tens of times as long under them.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        MAY_NOT_END='^========= (Error|Warning|Invalid|Misaligned|Program hit|Barrier|Out)' \
            check "kernels under $tool" 150 env AMLUA_CUDA="$build/amlua_cuda.so" CK_FORK=no \
            compute-sanitizer --tool $tool --error-exitcode 1 "$build/tests/test_cuda_kernels"
    done
else
    skip compute-sanitizer 'it is not installed'
fi
echo "1..$count"
exit $failed
