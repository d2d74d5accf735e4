#!/bin/sh
# Which example configurations of NeMo Automodel are understood: resolved, named as not there yet, or failed.
# usage: tests/automodel_examples.sh CHECKOUT [-v]     AMLUA: the program (build/amlua)
# CHECKOUT is a working copy of the original, or its folder of examples. Not part of tests/run.sh.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
exec "${AMLUA:-build/amlua}" tests/parity/automodel_examples.lua "$@"
