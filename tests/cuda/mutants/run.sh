#!/usr/bin/env bash
# By hand: are faults in the CUDA kernels caught by their tests over the emulated CUDA? First those planted by hand
# (planted.txt, some ten minutes on two cores), or with `derived` mutants of every kernel (derived.py: hours for all;
# --sample 4 takes four of each file). Survivors that equivalents.tsv doesn't list fail. Prints TAP.
# usage: tests/cuda/mutants/run.sh planted [NAME...]
#        tests/cuda/mutants/run.sh derived [--list] [--sample N --seed S] [--file softmax.cu] [--kind barrier]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
ulimit -c 0
what=${1:-planted}
shift || true
out=build/test-cuda-backend # as tests/cuda/run.sh has it
mkdir -p "$out"
cmake -B "$out" -DCMAKE_BUILD_TYPE=Release -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DAMLUA_TESTS=ON -DAMLUA_CUDA=OFF \
    -DAMLUA_CUDA_EMULATOR=ON -DAMLUA_CUDA_INCLUDE="${AMLUA_CUDA_INCLUDE:-/usr/local/cuda/include}" >"$out/build.log"
cmake --build "$out" -j 2 --target amlua_cuda_fast amlua_cuda_check test_cuda_ops test_cuda_kernels test_cuda_model \
    test_cuda_optim test_cuda_attention >>"$out/build.log"
exec python3 "tests/cuda/mutants/$what.py" "$out" "$@"
