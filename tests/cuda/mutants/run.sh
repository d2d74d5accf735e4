#!/usr/bin/env bash
# By hand: are faults in the CUDA kernels caught by their tests over the emulated CUDA? First those planted by hand
# (planted.txt, some ten minutes on two cores), or with `derived` mutants of every kernel (derived.py; --sample 4 takes
# four of each file). Survivors that equivalents.tsv doesn't list fail. Prints TAP.
# usage: tests/cuda/mutants/run.sh planted [NAME...]
#        tests/cuda/mutants/run.sh derived [--list] [--sample N --seed S] [--file softmax.cu] [--kind barrier]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
ulimit -c 0 # mutants crash
what=${1:-planted}
shift || true
out=build/cuda
mkdir -p "$out"
tests/cuda/build.sh "$out" fast check >"$out/build.log"
if grep '^SKIP' "$out/build.log" | sed 's/^SKIP/ok 1 - # SKIP/'; then
    echo 1..1
    exit 0
fi
# For specs.
export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$PWD/$out/lua/?.lua;$PWD/?.lua;;" HF_HUB_OFFLINE=1
export LD_LIBRARY_PATH="$PWD/$out${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" AMLUA="$PWD/$out/amlua" PYTHONDONTWRITEBYTECODE=1
exec python3 "tests/cuda/mutants/$what.py" "$out" "$@"
