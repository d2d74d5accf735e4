#!/usr/bin/env bash
# The communicator's engines by themselves (test_engine.c): amlua_gloo.so and the store its ranks meet
# in, built here with each of the sanitizers, on a libamlua.so that is there. Prints TAP.
# usage: tests/dist/run.sh FOLDER [SANITIZERS...]   FOLDER of libamlua.so, e.g. build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$(cd "${1:?"usage: tests/dist/run.sh FOLDER [SANITIZERS...]"}" && pwd) && shift
[ $# -gt 0 ] || set -- thread address,undefined

count=0 failed=0
if ! echo '#include <gloo/rendezvous/store.h>' | g++ -fsyntax-only -x c++ - 2>/dev/null; then
    echo 'ok 1 - # SKIP libgloo-dev or g++ is not installed'
    echo 1..1
    exit 0
fi
for sanitizers in "$@"; do
    out=build/test-dist/${sanitizers//,/-}
    mkdir -p "$out"
    common=(-O1 -g -fPIC -D_GNU_SOURCE -Iengine -Wall -Wextra -Wshadow -Wconversion
        -Wno-format-truncation -Werror "-fsanitize=$sanitizers" -fno-sanitize-recover=all)
    link=("-L$folder" "-Wl,-rpath,$folder" -lamlua -lpthread -ldl -lm)
    g++ -std=gnu++17 "${common[@]}" -c engine/dist/gloo.cc -o "$out/gloo.o" &
    for name in store store_server store_wire; do
        gcc -std=gnu11 "${common[@]}" -c engine/dist/$name.c -o "$out/$name.o"
    done
    gcc -std=gnu11 "${common[@]}" tests/dist/*.c -o "$out/test_engine" "${link[@]}"
    wait $!
    g++ -shared "-fsanitize=$sanitizers" "$out"/*.o -o "$out/amlua_gloo.so" -lgloo "${link[@]}"
    count=$((count + 1))
    if LD_LIBRARY_PATH=$folder TSAN_OPTIONS=halt_on_error=1:report_thread_leaks=0:suppressions=tests/dist/tsan.supp \
        "$out/test_engine" "$out/amlua_gloo.so" fork >"$out/log" 2>&1; then
        grep -E '^(ok|# after)' "$out/log" | sed "s/^ok [0-9]*/# $sanitizers:/"
        echo "ok $count - gloo under $sanitizers"
    else
        sed 's/^/# /' "$out/log"
        echo "not ok $count - gloo under $sanitizers"
        failed=1
    fi
done
echo "1..$count"
exit $failed
