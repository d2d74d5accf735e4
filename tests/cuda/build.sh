#!/usr/bin/env bash
# Builds what runs over the emulated CUDA into a tree: the emulator's own tests, the engine, the backend's C tests and
# its module in each flavour. The flavour asan makes the tree one of AddressSanitizer: give it a tree of its own.
# CUDA's headers are those of AMLUA_CUDA_INCLUDE or of the toolkit, else they come from PyPI; says SKIP and why where
# there can be none.
# usage: tests/cuda/build.sh BUILD FLAVOURS...   of fast, asan and check
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${1:?"usage: tests/cuda/build.sh BUILD FLAVOURS..."} && shift

if [ "$(uname -m)" != x86_64 ]; then
    echo "SKIP the emulated CUDA needs x86-64"
    exit 0
fi
headers=${AMLUA_CUDA_INCLUDE:-/usr/local/cuda/include}
if [ ! -f "$headers/cublasLt.h" ]; then
    headers=build/cuda-headers
    if [ ! -f "$headers/cublasLt.h" ] && ! { python3 -m venv "$headers/venv" &&
        "$headers/venv/bin/pip" install -q remotezip && "$headers/venv/bin/python" tests/cuda/headers.py "$headers"; } \
        >&2; then
        echo "SKIP neither a CUDA toolkit nor its headers from PyPI are here"
        exit 0
    fi
fi

options=(-DAMLUA_TESTS=ON -DAMLUA_CUDA_EMULATOR=ON "-DAMLUA_CUDA_INCLUDE=$(realpath "$headers")")
[ -f "$build/CMakeCache.txt" ] || options+=(-DCMAKE_BUILD_TYPE=Release -DAMLUA_CUDA=OFF)
targets=(amlua amlua_lib cdef emulator_{host,ranks,faults}_{fast,asan,check})
for source in tests/{c,op}/test_cuda_*.c; do
    targets+=("$(basename "$source" .c)")
done
for flavour in "$@"; do
    [ "$flavour" != asan ] || options+=("-DAMLUA_SANITIZE=address,undefined")
    targets+=("amlua_cuda_$flavour")
done
cmake -B "$build" "${options[@]}"
for engine in amlua_mpi amlua_gloo; do # in which ranks meet, where their libraries are
    if cmake --build "$build" --target help | grep -w "$engine" >/dev/null; then targets+=("$engine"); fi
done
cmake --build "$build" -j "$(nproc)" --target "${targets[@]}"
