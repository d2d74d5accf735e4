#!/usr/bin/env bash
# Fuzz the readers of untrusted files with libFuzzer, AddressSanitizer and UBSan. Needs clang.
# New inputs that reach new code are kept in build/fuzz/corpus; a finding leaves its input in
# build/fuzz, and its report in build/fuzz/READER.log. Prints TAP, one line a reader.
# usage: tests/fuzz/run.sh SECONDS [READER...]   SECONDS for each reader; all of them by default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:?"usage: tests/fuzz/run.sh SECONDS [READER...]"} && shift
if [ $# -eq 0 ]; then
    mapfile -t readers < <(find tests/fuzz -name 'fuzz_*.c' | sort | sed 's/.*fuzz_\(.*\)\.c/\1/')
    set -- "${readers[@]}"
fi

unset ASAN_OPTIONS # those of tests/run.sh look for leaks in Lua too: see fuzz_lua.h
out=build/fuzz
mkdir -p $out
if ! command -v clang >/dev/null; then
    echo "ok 1 - # SKIP clang is not installed"
    echo 1..1
    exit 0
fi

# OpenMP's pragmas do nothing here (clang has no runtime of its own); its functions are gcc's.
sanitizers=address,undefined
omp=$(gcc -print-file-name=libgomp.so)
read -ra libraries < <(pkg-config --libs libpcre2-8 libutf8proc zlib libzstd snappy libjpeg spng libwebp \
    libwebpdemux luajit)
read -ra includes < <(pkg-config --cflags luajit)
build() {
    cmake -B $out -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=None \
        -DCMAKE_C_FLAGS="-O1 -g -idirafter $(gcc -print-file-name=include) -Wno-everything" \
        -DAMLUA_TESTS=ON -DAMLUA_SANITIZE="fuzzer-no-link,$sanitizers" \
        -DOpenMP_C_FLAGS=-fopenmp=libgomp -DOpenMP_C_LIB_NAMES=gomp -DOpenMP_gomp_LIBRARY="$omp" &&
        cmake --build $out -j "$(nproc)" --target amlua_static amlua_lib cdef
}
build >$out/build.log 2>&1 || { cat $out/build.log && exit 1; }

# The Lua readers run from the sources, on the library of this tree.
export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$PWD/$out/lua/?.lua;$PWD/?.lua;;"
count=0 failed=0
for reader in "$@"; do
    count=$((count + 1)) log=$out/$reader.log
    mkdir -p "$out/corpus/$reader"
    if clang -std=gnu11 -D_GNU_SOURCE -O1 -g -Iengine -Itests "${includes[@]}" \
        "-fsanitize=fuzzer,$sanitizers" -fno-sanitize-recover=all "tests/fuzz/fuzz_$reader.c" \
        $out/tests/libamlua_static.a "${libraries[@]}" -lgif -ldnnl "$omp" -lpthread -lm -ldl \
        -o "$out/fuzz_$reader" >"$log" 2>&1 &&
        "$out/fuzz_$reader" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
            -rss_limit_mb=2048 -artifact_prefix="$out/$reader-" -print_final_stats=1 -verbosity=0 \
            "$out/corpus/$reader" "tests/fuzz/corpus/$reader" >>"$log" 2>&1; then
        echo "# $(grep -a number_of_executed_units "$log" || true)"
        echo "ok $count - $reader"
    else
        tail -n 60 "$log"
        echo "not ok $count - $reader"
        failed=1
    fi
done
echo "1..$count"
exit $failed
