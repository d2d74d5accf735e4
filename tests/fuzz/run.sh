#!/usr/bin/env bash
# Fuzz the readers of untrusted files with libFuzzer, AddressSanitizer and UBSan. Needs clang.
# New inputs that reach new code are kept in build/fuzz/corpus; a crash leaves its input in
# build/fuzz and ends the run with its status.
# usage: tests/fuzz/run.sh SECONDS [READER...]   SECONDS for each reader; all of them by default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:?"usage: tests/fuzz/run.sh SECONDS [READER...]"} && shift
if [ $# -eq 0 ]; then
    mapfile -t readers < <(find tests/fuzz -name 'fuzz_*.c' | sort | sed 's/.*fuzz_\(.*\)\.c/\1/')
    set -- "${readers[@]}"
fi

# OpenMP's pragmas do nothing here (clang has no runtime of its own); its functions are gcc's.
out=build/fuzz
headers="-idirafter $(gcc -print-file-name=include)"
sanitizers=address,undefined
cmake -B $out -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS="$headers -Wno-everything" -DAMLUA_TESTS=ON \
    -DAMLUA_SANITIZE="fuzzer-no-link,$sanitizers" -DOpenMP_C_FLAGS=-fopenmp=libgomp \
    -DOpenMP_C_LIB_NAMES=gomp \
    -DOpenMP_gomp_LIBRARY="$(gcc -print-file-name=libgomp.so)" >$out.log
ninja -C $out amlua_static >>$out.log || { cat $out.log && exit 1; }
read -ra libraries < <(pkg-config --libs libpcre2-8 libutf8proc)

for reader in "$@"; do
    echo "== $reader"
    clang -std=gnu11 -D_GNU_SOURCE -O1 -g -Iengine -Itests "-fsanitize=fuzzer,$sanitizers" \
        -fno-sanitize-recover=all "tests/fuzz/fuzz_$reader.c" $out/tests/libamlua_static.a \
        "${libraries[@]}" -ldnnl "$(gcc -print-file-name=libgomp.so)" -lpthread -lm -ldl \
        -o "$out/fuzz_$reader"
    mkdir -p "$out/corpus/$reader"
    "$out/fuzz_$reader" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$out/$reader-" -print_final_stats=1 -verbosity=0 \
        "$out/corpus/$reader" "tests/fuzz/corpus/$reader"
done
