#!/usr/bin/env bash
# C tests of what runs beside the program (the writer of safetensors in parts, the thread of a group of ranks,
# readers of images) under ThreadSanitizer: the engine is built with it here, kernels are those of a build that is
# there, which is quick. Prints TAP.
# usage: tests/threads.sh BUILD     e.g. build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:?"usage: tests/threads.sh BUILD"}
tests=(test_comm test_image_input test_safetensors_parts)

out=build/test-threads
mkdir -p "$out"
flags=(-std=gnu11 -O1 -g -fopenmp -fsanitize=thread -D_GNU_SOURCE -DAM_VERSION='"0"' -DAM_BUILD_TYPE='"Debug"'
    -DAM_SNAPPY_VERSION='"0"' -DAM_TEST_DIR="\"$PWD/tests\"" -Iengine -I. -Itests/c)
compile() {
    gcc "${flags[@]}" -c "$1" -o "$out/$(basename "$1" .c).o"
}
for source in engine/{core,data,image,io,ops,train}/*.c engine/dist/comm*.c; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    compile "$source" &
done
while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n; done
mapfile -t kernels < <(find "$build/CMakeFiles" -path '*kernels*' -name '*.o' ! -path '*/amlua_cuda.dir/*')
mapfile -t libraries < <(objdump -p "$build/libamlua.so" | awk '/NEEDED/ { print "-l:" $2 }')
read -ra check < <(pkg-config --libs check)

count=0 failed=0
for name in "${tests[@]}"; do
    count=$((count + 1))
    if gcc "${flags[@]}" "tests/c/$name.c" "$out"/*.o "${kernels[@]}" -o "$out/$name" "${check[@]}" \
        "${libraries[@]}" >"$out/$name.log" 2>&1 && TSAN_OPTIONS=halt_on_error=1 "$out/$name" >"$out/$name.log" 2>&1; then
        echo "ok $count - $name under thread"
        while read -r _ why; do
            count=$((count + 1))
            echo "ok $count - # SKIP $name: $why"
        done < <(grep '^SKIP' "$out/$name.log" || true)
    else
        sed 's/^/# /' "$out/$name.log"
        echo "not ok $count - $name under thread"
        failed=1
    fi
done
echo "1..$count"
exit $failed
