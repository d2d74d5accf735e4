#!/usr/bin/env bash
# Cross-builds amlua for aarch64 and runs the C tests under qemu-user, then amlua itself:
# training steps in f32 and bf16, whose numbers must be those of ref. Closes with "N passed, N failed,
# N skipped". The compiler, qemu and the libraries lie in a Debian of their own, made by
# tests/bare_root.sh: the host stays as it is. Needs root, debootstrap and the network.
#
# usage: [SUITE=trixie] [JOBS=N] tests/aarch64.sh DIR [NAME...]
#   DIR    the Debian for it: made when it does not exist, used as it is otherwise
#   NAME   C tests, e.g. test_kernels_elem; all of them, and amlua itself, when none is given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 1 ] || { sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "${BASH_SOURCE[0]}" >&2 && exit 2; }
if [ "$1" != --inside ]; then
    dir=$1
    shift
    exec tests/bare_root.sh "$dir" "JOBS=${JOBS:-$(nproc)} tests/aarch64.sh --inside $*"
fi
shift
. tests/packages.sh

tree=build/test-aarch64 log=build/test-aarch64.out
passed=0 failed=0 skipped=0

closing() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

# The build's tools run here, everything it links with is the other architecture's.
packages() {
    local name
    for name in "${BUILD_PACKAGES[@]}" check; do
        case $name in
        gcc) echo gcc-aarch64-linux-gnu ;;
        cmake | make | pkg-config) echo "$name" ;;
        *) echo "$name:arm64" ;;
        esac
    done
    echo qemu-user
}

# check NAME COMMAND...: one test, passed when the command exits with 0.
check() {
    local name=$1
    shift
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "---- $name" && tail -n 50 "$log"
    fi
}

dpkg --add-architecture arm64
mapfile -t needed < <(packages)
install_packages "${needed[@]}"
mkdir -p build
names=("$@")
[ $# -gt 0 ] || mapfile -t names < <(basename -s .c tests/c/test_*.c tests/op/test_*.c)
check build bash -c "cmake -B $tree --toolchain tests/aarch64.cmake -DAMLUA_WERROR=ON -DAMLUA_TESTS=ON &&
    cmake --build $tree -j $JOBS --target amlua ${names[*]}"
[ "$failed" -eq 0 ] || closing

# ---- the C tests

# Emulation takes some twenty times as long.
export CK_FORK=yes CK_TIMEOUT_MULTIPLIER=20 OMP_WAIT_POLICY=passive
printf '%s\n' "${names[@]}" | xargs -P "$JOBS" -I{} sh -c \
    "qemu-aarch64 $tree/tests/{} >$tree/{}.out 2>&1; echo \$? >$tree/{}.rc"
for name in "${names[@]}"; do # "83%: Checks: 6, Failures: 1, Errors: 0"
    f=0 s=$(grep -c '^SKIP' "$tree/$name.out") || true
    while IFS=', ' read -r _ _ checks _ failures _ errors; do
        f=$((f + failures + errors)) passed=$((passed + checks - failures - errors))
    done < <(grep -E '^[0-9]+%: Checks: ' "$tree/$name.out")
    if [ "$f" -eq 0 ] && [ "$(cat "$tree/$name.rc")" -ne 0 ]; then f=1; fi
    passed=$((passed - s)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ]; then echo "---- $name" && grep -v ': Passed$' "$tree/$name.out"; fi
done
[ $# -eq 0 ] || closing

# ---- amlua itself

check 'amlua trains' qemu-aarch64 $tree/amlua tests/aarch64.lua
closing
