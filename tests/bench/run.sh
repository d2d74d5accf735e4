#!/usr/bin/env bash
# Makes a Python with PyTorch, transformers, PEFT and TRL, once, and runs side_by_side.py in it.
#
# usage: tests/bench/run.sh [side_by_side.py's arguments]
#
# The Python is a virtual environment in $AMLUA_CACHE (default ~/.cache/amlua), folder bench. pip's settings
# are honoured: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves the gigabytes of CUDA that
# PyPI's torch brings along. Never part of tests/run.sh.
set -euo pipefail

python=${AMLUA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/amlua}/bench
here=$(dirname "${BASH_SOURCE[0]}")

if [ ! -e "$python/complete" ]; then
    echo "Making a Python with torch, transformers, peft and trl in $python" >&2
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/python" -m pip install -q torch transformers peft trl numpy >&2
    touch "$python/complete"
fi
exec "$python/bin/python" "$here/side_by_side.py" "$@"
