#!/usr/bin/env bash
# Kills training runs at N random moments (default 200) and checks that nothing that was saved is lost:
# tests/recipe/kill_spec.lua, for longer than every run of the tests can afford.
#   tests/kill_random.sh [N] [SEED]         needs a build: cmake -B build && cmake --build build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export AMLUA_KILLS=${1:-200} AMLUA_SEED=${2:-$RANDOM} AMLUA=${AMLUA:-$PWD/build/amlua}
build=$(dirname "$AMLUA")
export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$build/lua/?.lua;$PWD/?.lua;;"
exec luajit /usr/bin/busted tests/recipe/kill_spec.lua
