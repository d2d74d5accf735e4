#!/usr/bin/env bash
# By hand (some minutes): the plans that the CUDA backend asks of cuDNN are made by cuDNN itself, for GPUs that are not
# there, over a driver that only says yes (libcuda.c); and the numbers of its API are its headers'. cuDNN is that of
# AMLUA_CUDNN_ROOT (with include and lib), else it is fetched from PyPI, which is 1.1 GB with what it needs. Prints TAP.
# usage: tests/cuda/cudnn/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
out=build/test-cudnn
cuda=${AMLUA_CUDA_INCLUDE:-/usr/local/cuda/include}
mkdir -p "$out/driver"
root=${AMLUA_CUDNN_ROOT:-}
if [ -z "$root" ]; then
    [ -d "$out/venv" ] || python3 -m venv "$out/venv"
    if ! "$out/venv/bin/pip" install -q nvidia-cudnn-cu13==9.26.0.51 nvidia-cuda-nvrtc nvidia-cuda-runtime; then
        echo "ok 1 - # SKIP cuDNN can't be fetched from PyPI; AMLUA_CUDNN_ROOT may name one"
        echo 1..1
        exit 0
    fi
    root=$(echo "$out"/venv/lib/python3*/site-packages/nvidia/cudnn)
fi
# NVRTC, which makes the kernels, lies beside it.
libraries=$(realpath "$out/driver"):$(realpath "$root/lib")
if [ -d "$root/../cu13" ]; then
    libraries=$libraries:$(realpath "$root/../cu13/lib")
    [ -f "$cuda/cuda_runtime.h" ] || cuda=$root/../cu13/include
fi

flags=(-std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Ikernels/cuda -Iengine)
gcc -std=gnu11 -Wall -Wextra -Werror -shared -fPIC tests/cuda/cudnn/libcuda.c -o "$out/driver/libcuda.so.1"
gcc "${flags[@]}" tests/cuda/cudnn/plans.c kernels/cuda/cudnn_graph.c kernels/cuda/cudnn_attention.c -ldl -o "$out/plans"
gcc -std=gnu11 "-isystem$root/include" "-isystem$cuda" -c tests/cuda/cudnn/names.c -o "$out/names.o"
LD_LIBRARY_PATH=$libraries AMLUA_CUDNN=libcudnn.so.9 "$out/plans" tests/cuda/cudnn/plans.txt
