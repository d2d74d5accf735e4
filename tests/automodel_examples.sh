#!/bin/sh
# Which example configurations of NeMo Automodel are understood: resolved, named as not there yet, or failed; with
# --train, whether a tiny model trains from those that resolve (and whose name holds TEXT).
# usage: tests/automodel_examples.sh CHECKOUT [-v | --train [TEXT]]     AMLUA: the program (build/amlua)
# CHECKOUT is a working copy of the original, or its folder of examples. Not part of tests/run.sh.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
if [ "${2:-}" = --train ]; then
    exec "${AMLUA:-build/amlua}" tests/parity/automodel_train.lua "$1" "${3:-}"
fi
exec "${AMLUA:-build/amlua}" tests/parity/automodel_examples.lua "$@"
