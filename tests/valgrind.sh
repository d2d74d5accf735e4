#!/usr/bin/env bash
# By hand (two minutes): under valgrind's memcheck, the engines of communicators by themselves (ranks over Gloo that
# are forked, three ranks over MPI) and the C tests of what runs beside the program. Prints TAP.
# usage: tests/valgrind.sh BUILD     a build with -DAMLUA_TESTS=ON
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=$(cd "${1:?"usage: tests/valgrind.sh BUILD"}" && pwd)
out=build/test-valgrind
mkdir -p "$out"

memcheck=(valgrind -q --error-exitcode=9 --suppressions=tests/dist/valgrind.supp)
leaks=(--leak-check=full --errors-for-leak-kinds=definite)
of_mpi=(--suppressions=/usr/share/openmpi/openmpi-valgrind.supp) # which leaves much unfreed
ranks=(mpirun --oversubscribe --allow-run-as-root -n 3)
count=0 failed=0

check() { # check NAME COMMAND...
    local name=$1
    shift
    count=$((count + 1))
    if "$@" >"$out/log" 2>&1 && ! grep -q '^not ok' "$out/log"; then
        echo "ok $count - $name under valgrind"
    else
        sed 's/^/# /' "$out/log"
        echo "not ok $count - $name under valgrind"
        failed=1
    fi
}

check gloo "${memcheck[@]}" "${leaks[@]}" "$build/tests/test_engine" "$build/amlua_gloo.so" fork
check mpi "${ranks[@]}" "${memcheck[@]}" "${of_mpi[@]}" "$build/tests/test_engine" "$build/amlua_mpi.so"
export CK_FORK=no CK_DEFAULT_TIMEOUT=600
for name in test_comm test_safetensors_parts; do
    check "$name" "${memcheck[@]}" "${leaks[@]}" "$build/tests/$name"
done
echo "1..$count"
exit $failed
