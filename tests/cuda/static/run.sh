#!/usr/bin/env bash
# By hand, some minutes on two cores: nvcc compiles every kernel for every architecture, and registers, spills, shared
# memory, occupancy and instructions are compared with a table (kernels.py, kernels.tsv). Without nvcc it counts as
# skipped. The disassembler is the toolkit's or, where that has none, PyPI's.
# usage: tests/cuda/static/run.sh [--arch 80,90] [--file attention.cu] [--write]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
out=build/test-cuda-static
mkdir -p "$out"
PATH=$PATH:/usr/local/cuda/bin
NVCC=${NVCC:-$(command -v nvcc || true)}
if [ -z "$NVCC" ]; then
    echo "ok 1 - # SKIP no nvcc"
    echo 1..1
    exit 0
fi
NVDISASM=${NVDISASM:-$(command -v nvdisasm || true)}
if [ -z "$NVDISASM" ]; then
    [ -x "$out/venv/bin/pip" ] || python3 -m venv "$out/venv"
    NVDISASM=$(find "$out/venv" -name nvdisasm -type f -perm -u+x)
    if [ -z "$NVDISASM" ]; then
        "$out/venv/bin/pip" install -q nvidia-cuda-nvdisasm
        NVDISASM=$(find "$out/venv" -name nvdisasm -type f -perm -u+x)
    fi
fi
export NVCC NVDISASM
python3 tests/cuda/static/kernels.py "$out" "$@"
