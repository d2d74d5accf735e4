#!/usr/bin/env bash
# By hand (some ten minutes on two cores): the CUDA backend over the emulated CUDA. Kernels against ref in the flavours
# fast (in three orders of threads, and any legal order of streams) and check, gradients by differences, and what goes
# over devices in specs: parity with transformers, twenty steps beside the CPU's. Prints TAP's lines of what ran.
# Without a toolkit CUDA's headers come from PyPI.
# usage: tests/cuda/run.sh [FLAVOURS...]   of fast and check
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -gt 0 ] || set -- fast check
out=build/test-cuda-backend
headers=${AMLUA_CUDA_INCLUDE:-/usr/local/cuda/include}
mkdir -p "$out"
if [ ! -f "$headers/cublasLt.h" ]; then
    headers=$out/include
    [ -d "$out/venv" ] || python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install -q remotezip
    [ -f "$headers/cublasLt.h" ] || "$out/venv/bin/python" tests/cuda/headers.py "$headers"
fi

tests=(test_cuda_ops test_cuda_kernels test_cuda_model test_cuda_optim test_cuda_attention)
modules=("${@/#/amlua_cuda_}")
cmake -B "$out" -DCMAKE_BUILD_TYPE=Release -DAMLUA_TESTS=ON -DAMLUA_CUDA=OFF -DAMLUA_CUDA_EMULATOR=ON \
    -DAMLUA_CUDA_INCLUDE="$(realpath "$headers")" >"$out/build.log"
cmake --build "$out" -j "$(nproc)" --target amlua amlua_lib cdef "${tests[@]}" "${modules[@]}" >>"$out/build.log"

export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$PWD/$out/lua/?.lua;$PWD/?.lua;;" HF_HUB_OFFLINE=1
export LD_LIBRARY_PATH="$PWD/$out${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" AMLUA="$PWD/$out/amlua"
export CK_VERBOSITY=normal CK_DEFAULT_TIMEOUT=1200
count=0 failed=0

check() { # check NAME COMMAND...
    local name=$1
    shift
    count=$((count + 1))
    if "$@" >"$out/log" 2>&1 && ! grep -q '^not ok' "$out/log"; then
        echo "ok $count - $name"
    else
        tail -n 60 "$out/log" | sed 's/^/# /'
        echo "not ok $count - $name"
        failed=1
    fi
}

for flavour in "$@"; do
    export AMLUA_CUDA="$PWD/$out/tests/cuda/amlua_cuda_$flavour.so"
    for order in fwd rev rand; do
        [ "$flavour" = fast ] || [ "$order" = rand ] || continue
        export AM_EMU_ORDER=$order AM_EMU_STREAMS=eager
        [ "$order" = fwd ] || AM_EMU_STREAMS=rand
        for name in "${tests[@]}"; do
            check "$name, $flavour, $order" "$out/tests/$name"
        done
    done
    unset AM_EMU_ORDER AM_EMU_STREAMS
    [ "$flavour" = fast ] || continue
    for spec in tests/parity/{tiny_llama,rope,vocabulary}_spec.lua tests/parity/models/models_spec.lua \
        tests/lua/optim/optimizer_spec.lua tests/cuda/train_spec.lua; do
        check "$spec" luajit /usr/bin/busted -o TAP "$spec"
    done
done
echo "1..$count"
exit $failed
