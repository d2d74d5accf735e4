#!/usr/bin/env bash
# amlua's files against the programs that they are for: datasets and pyarrow (Parquet, JSON lines, CSV), PEFT and
# transformers (adapters of every kind, merged models), huggingface_hub (its cache), TensorBoard,
# MLflow and W&B. Makes a Python environment of its own, which needs network and 6 GB of disk once; some three minutes
# after that. Not part of tests/run.sh.
#
# usage: tests/interop.sh [ENVIRONMENT]     default: build/interop-venv
# Run it from a built tree. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves the CUDA that PyPI's torch
# brings along. Ends with the checks that failed; exit status 1 when there are any.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-build/interop-venv}
if [ ! -e "$venv/complete" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q datasets huggingface_hub mlflow peft pyarrow 'setuptools<81' tensorboard torch \
        transformers wandb
    touch "$venv/complete"
fi
venv=$(cd "$venv" && pwd)

export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$PWD/build/lua/?.lua;$PWD/?.lua;;"
export LD_LIBRARY_PATH="$PWD/build${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export AMLUA=${AMLUA:-$PWD/build/amlua}

failed=()
check() { # check NAME COMMAND…: runs it under a heading and notes when it fails
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
}

check 'datasets' env HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
    "$venv/bin/python" tests/parity/datasets_check.py
check 'Parquet of pyarrow' "$venv/bin/python" tests/lua/datasets/parquet/check_random.py 300
check 'PEFT and transformers' env HF_HUB_OFFLINE=1 AMLUA_ORACLE_PYTHON="$venv/bin/python" \
    luajit /usr/bin/busted -o TAP tests/parity/peft_spec.lua
check 'huggingface_hub' luajit tests/parity/hub_check.lua "$venv/bin/python"
check 'TensorBoard, MLflow and W&B' tests/parity/trackers_check.sh "$venv"

printf '\n'
[ ${#failed[@]} -eq 0 ] || {
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
}
echo 'all of them read what amlua wrote, and the reverse'
