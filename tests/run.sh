#!/usr/bin/env bash
# Installs what the tests need, builds amlua twice (sanitizers; release) and runs the tests.
# docs/testing.md says which test belongs where. Closes with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/packages.sh

usage() {
    cat <<'EOF'
usage: tests/run.sh [unit|functional|COMPONENT] [-k TEXT] [-v] [--coverage]
  unit        C tests, Lua tests, rules, lint, fuzzers for some seconds
  functional  parity with transformers and whole recipes (tests/parity, tests/recipe)
  COMPONENT   one component's C and Lua tests, e.g. tensor, ops, config, tokenizer, chat;
              or one of rules, lint, fuzz, threads, dist, cuda, parity, recipe
  -k TEXT     only tests whose name contains TEXT
  -v          show every test's output, not that of failing ones only
  --coverage  then say which lines of C and Lua ran, in build/test-coverage/*.txt
EOF
}

selection=all filter='' verbose='' coverage=''
while [ $# -gt 0 ]; do
    case $1 in
    -k) filter=${2:?"-k needs a text"} && shift ;;
    -v) verbose=1 ;;
    --coverage) coverage=build/test-coverage ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) selection=$1 ;;
    esac
    shift
done

asan=build/test-asan release=build/test-release results=build/test-results
if [ -n "$coverage" ]; then asan=$coverage release=$coverage; fi
jobs=$(nproc)
passed=0 failed=0 skipped=0

export HF_HUB_OFFLINE=1 # whatever is not here already counts as absent
export OMP_WAIT_POLICY=passive # several tests share the cores
export CK_FORK=yes CK_VERBOSITY=normal CK_DEFAULT_TIMEOUT=120
# gcc 14 aligns what it watches for use after return to 32 bytes, also vectors of 64.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:allow_user_segv_handler=1:detect_stack_use_after_return=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$PWD/$release/lua/?.lua;$PWD/?.lua;;"
export LD_LIBRARY_PATH="$PWD/$release${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export AMLUA="$PWD/$release/amlua" # the host, for tests that start programs

# ---- what belongs to a selection

selected() { # selected GROUP: is the group unit or functional part of this run?
    [ "$selection" = all ] || [ "$selection" = "$1" ]
}

c_tests() { # source files of the C tests selected
    case $selection in
    all | unit) find tests/c tests/op -name 'test_*.c' ;;
    op | ops) find tests/op tests/c -path 'tests/op/test_*.c' -o -name 'test_op*.c' ;;
    *) find tests/c -name "test_$selection.c" -o -name "test_${selection}_*.c" ;;
    esac 2>/dev/null | sort
}

lua_tests() { # spec files of the unit tests selected
    case $selection in
    all | unit) find tests/lua -name '*_spec.lua' ;;
    *) find tests/lua -path "tests/lua/$selection/*_spec.lua" -o -name "${selection}_spec.lua" ;;
    esac 2>/dev/null | sort
}

functional_tests() { # spec files of the functional tests selected
    case $selection in
    all | functional) find tests/parity tests/recipe tests/dist -name '*_spec.lua' ;;
    parity | recipe | dist) find "tests/$selection" -name '*_spec.lua' ;;
    esac 2>/dev/null | sort
}

# What says how kernels compute, and takes seconds: on this CPU's lower instruction sets too.
isa_tests() {
    printf '%s\n' "${functional_files[@]}" | grep -E '/(tiny_llama|vocabulary|peft|exactness)_spec\.lua$'
}

wanted() { # wanted NAME: does -k let the name through?
    [[ -z $filter || $1 == *"$filter"* ]]
}

# ---- running and counting

# start NAME LIMIT COMMAND...: runs a job beside the others, at most one for each core.
names=()
start() {
    local name=$1 limit=$2 log=$results/${1//[\/ :]/_}
    shift 2
    names+=("$name")
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    {
        local rc=0
        timeout --kill-after=10 "$limit" "$@" >>"$log.out" 2>&1 </dev/null || rc=$?
        echo "$rc" >"$log.rc"
    } 2>>"$log.out" &
}

# finish: waits for the jobs and adds up what their output says. A job that fails without naming
# a failed test (a crash, a time-out, no closing line) is one failure.
finish() {
    local name log rc p f s why
    while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || true; done
    for name in "${names[@]}"; do
        log=$results/${name//[\/ :]/_}
        rc=$(cat "$log.rc") p=0 f=0 s=0 why=
        if [[ $name == *.c ]]; then # Check: "83%: Checks: 6, Failures: 1, Errors: 0"
            s=$(grep -c '^SKIP' "$log.out") || true
            while IFS=', ' read -r _ _ checks _ failures _ errors; do
                p=$((p + checks - failures - errors)) f=$((f + failures + errors))
            done < <(grep -E '^[0-9]+%: Checks: ' "$log.out")
            p=$((p - s))
            grep -qE '^[0-9]+%: Checks: ' "$log.out" || why='ended without a summary'
        else # TAP
            p=$(grep -cE '^ok ' "$log.out") || true
            f=$(grep -cE '^not ok ' "$log.out") || true
            s=$(grep -cE '^ok [0-9]+ - # SKIP' "$log.out") || true
            p=$((p - s))
            grep -qE '^1\.\.[0-9]+' "$log.out" || why='ended early'
        fi
        [ "$rc" -ne 124 ] || why='took too long'
        if [ "$f" -eq 0 ]; then
            [ "$rc" -eq 0 ] || why=${why:-"exit status $rc"}
            [ -z "$why" ] || f=1
        fi
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        if [ -n "$verbose" ] || [ "$f" -gt 0 ]; then
            echo "---- $name${why:+: $why}"
            if [ -n "$verbose" ]; then
                cat "$log.out"
            else # what went well is left out
                grep -vE '^ok |:P:.*: Passed$' "$log.out" | tail -n 100 || true
            fi
        elif [ "$s" -gt 0 ]; then
            grep -E '^SKIP|^ok [0-9]+ - # SKIP' "$log.out" | sed -E "s|^(ok [0-9]+ - # )?|$name: |"
        fi
    done
    names=()
}

closing() { # the end of every run; nothing run at all is a failure too
    if [ $((passed + failed + skipped)) -eq 0 ] && [ -n "$filter" ]; then
        echo "no test of '$selection' has a name that contains '$filter'"
    fi
    echo "$passed passed, $failed failed, $skipped skipped"
    if [ "$failed" -gt 0 ] || [ $((passed + skipped)) -eq 0 ]; then exit 1; fi
    exit 0
}

# build TREE TARGETS CMAKE-OPTION...: a failed build is a failed test, and the end.
build() {
    local tree=$1 log=$results/build_${1##*/}.out targets
    read -ra targets <<<"$2"
    shift 2
    if ! { cmake -B "$tree" -DAMLUA_WERROR=ON "$@" &&
        cmake --build "$tree" -j "$jobs" --target "${targets[@]}"; } >"$log" 2>&1; then
        echo "---- build of $tree"
        grep -E -A8 'error|Error' "$log" | head -n 100 || tail -n 50 "$log"
        failed=$((failed + 1))
        closing
    fi
    [ -z "$verbose" ] || cat "$log"
}

# ---- the kinds of tests

# Check has no filter for single tests: -k takes the files, test cases or tests it names; for a
# test the file runs whole.
run_c() {
    local source name binary case
    for source in "$@"; do
        name=$(basename "$source" .c)
        binary=$asan/tests/$name
        if wanted "$source"; then
            start "$source" 1200 "$binary"
            continue
        fi
        case=$(grep -oE 'tcase_create\("[^"]*"\)' "$source" | sed -E 's/.*"(.*)".*/\1/' |
            grep -F -- "$filter" | head -n 1) || true
        if [ -n "$case" ]; then
            start "$source" 1200 env CK_RUN_CASE="$case" "$binary"
        elif grep -E 'START_TEST\(' "$source" | grep -qF -- "$filter"; then
            start "$source" 1200 "$binary"
        fi
    done
}

# run_specs LIMIT FILE...: each file in a process of its own.
run_specs() {
    local limit=$1 spec pattern options lua=(luajit)
    shift
    [ -z "$coverage" ] || limit=$((limit * 10)) lua+=(-ltests.support.coverage)
    pattern=$(printf %s "$filter" | sed "s/[^[:alnum:]_ ]/%&/g") # busted filters by Lua patterns
    for spec in "$@"; do
        options=(-o TAP)
        wanted "$spec" || options+=("--filter=$pattern")
        start "$spec${AMLUA_ISA:+ on $AMLUA_ISA}" "$limit" "${lua[@]}" /usr/bin/busted "${options[@]}" "$spec"
    done
}

run_rules() {
    wanted tests/rules/rules.lua || return 0
    start tests/rules/rules.lua 60 luajit tests/rules/rules.lua "$release/libamlua.so"
}

# The communicator over Gloo; a race or a leak in it shows under one of the two.
run_dist() {
    wanted tests/dist/run.sh || return 0
    for sanitizers in thread address,undefined; do
        start "tests/dist/run.sh $sanitizers" 300 tests/dist/run.sh "$release" "$sanitizers"
    done
}

run_threads() {
    [ -z "$coverage" ] && wanted tests/threads.sh || return 0 # kernels that count lines don't link
    start tests/threads.sh 300 tests/threads.sh "$release"
}

# The emulated GPU by itself, in its three flavours, and the CUDA backend over it.
run_cuda() {
    local part log=$results/build_cuda.out
    [ -z "$coverage" ] && wanted tests/cuda/run.sh || return 0
    if ! tests/cuda/build.sh "$release" fast >"$log" 2>&1; then
        start 'build for tests/cuda' 60 sh -c "tail -n 50 '$log'; echo 'not ok 1 - build'; echo 1..1"
    elif grep -q '^SKIP' "$log"; then
        start tests/cuda/run.sh 60 printf 'ok 1 - # SKIP %s\n1..1\n' "$(sed -n 's/^SKIP //p' "$log")"
    else
        jobs=$((jobs + 1)) # ranks wait for time-outs, specs for programs to start and end
        for part in ranks-failing ranks fwd specs rand rev; do # the longest first
            start "tests/cuda/run.sh $part" 600 tests/cuda/run.sh "$release" $part
        done
        jobs=$((jobs - 1))
        for part in fast asan check; do
            start "tests/cuda/emulator.sh $part" 600 tests/cuda/emulator.sh "$release" $part
        done
    fi
}

# What wants a real GPU; most often there is none.
run_gpu() {
    [ -z "$coverage" ] && wanted tests/gpu.sh || return 0
    start tests/gpu.sh 900 tests/gpu.sh "$release"
}

run_fuzz() {
    wanted tests/fuzz/run.sh || return 0
    start tests/fuzz/run.sh 600 tests/fuzz/run.sh 4
}

lint() { # lint NAME COMMAND...: one test, passed when the command exits with 0
    wanted "lint $1" || return 0
    # shellcheck disable=SC2016
    start "lint $1" 1200 bash -c '
        if "${@:2}"; then echo "ok 1 - $1"; else echo "not ok 1 - $1"; fi; echo 1..1' lint "$@"
}

# lint_clang NAME COMMAND...: a lint whose verdict changes with clang's release. The sources are kept
# by bookworm's; any other counts as skipped.
lint_clang() {
    local version
    version=$("$1" --version | grep -oE 'version [0-9]+' | head -n 1)
    if [ "$version" = 'version 14' ]; then
        lint "$@"
    elif wanted "lint $1"; then
        start "lint $1" 60 printf 'ok 1 - # SKIP %s\n1..1\n' "$1 has $version, not 14"
    fi
}

run_lint() {
    local c lua shell
    mapfile -t c < <(find engine kernels tests -name '*.c' -o -name '*.h' -o -name '*.cc' 2>/dev/null | sort)
    mapfile -t lua < <(find lua recipes tests examples docs -name '*.lua' 2>/dev/null | sort)
    mapfile -t shell < <(find tests examples -name '*.sh' | sort)
    lint_clang clang-format clang-format --dry-run --ferror-limit=1 -Werror "${c[@]}"
    lint luacheck luacheck -q "${lua[@]}"
    lint shellcheck shellcheck -x "${shell[@]}" .ci/run
    # Two files at a time by itself. The SIMD kernels are read for one instruction set, not for each
    # that the build makes of them; CUDA's host files need headers that may not be here.
    printf '%s\n' -std=gnu11 -D_GNU_SOURCE -DAM_ISA=avx2 -mavx2 -mfma -mf16c -fopenmp \
        "-I$PWD/engine" >"$results/compile_flags.txt"
    lint_clang clang-tidy bash -c "tidy() {
            sort | xargs -P $jobs -n 2 clang-tidy --quiet -p \$1 \
                --extra-arg=-Wno-unknown-warning-option
        }
        find engine kernels -name '*.c' ! -path '*/simd/*' ! -path '*/cuda/*' | tidy $release &&
            find kernels/cpu/simd -name '*.c' | tidy $results"
}

# ---- coverage

# begin_coverage: from here on gcov and tests/support/coverage.lua count. amlua's Lua files are then
# links, the first of them one that counts and goes on as the real one.
begin_coverage() {
    local home=$PWD/$coverage/home
    find $coverage -name '*.gcda' -delete
    rm -rf "$home" $coverage/lua-lines && mkdir -p "$home" $coverage/lua-lines
    cp -as "$PWD"/{lua,recipes,examples} "$home"
    ln -s "$PWD/$coverage/lua/am/core/cdef.lua" "$home/lua/am/core"
    rm "$home/lua/am/cli/init.lua"
    echo "assert(loadfile '$PWD/tests/support/coverage.lua')('tests.support.coverage')
        return dofile '$PWD/lua/am/cli/init.lua'" >"$home/lua/am/cli/init.lua"
    export AMLUA_HOME=$home AMLUA_COVERAGE=$PWD/$coverage/lua-lines
}

report_coverage() {
    gcovr --root . --filter engine/ --filter kernels/ $coverage >$coverage/c.txt
    luajit tests/support/coverage.lua $coverage/lua-lines >$coverage/lua.txt
    echo "C:   $(grep -E '^TOTAL' $coverage/c.txt)    by file: $coverage/c.txt"
    echo "Lua: $(grep -E '^TOTAL' $coverage/lua.txt)    by file: $coverage/lua.txt"
}

# ---- the run

mapfile -t c_files < <(c_tests)
mapfile -t lua_files < <(lua_tests)
mapfile -t functional_files < <(functional_tests)
case $selection in
all | unit | functional | rules | lint | fuzz | dist | cuda) ;;
*)
    if [ $((${#c_files[@]} + ${#lua_files[@]} + ${#functional_files[@]})) -eq 0 ]; then
        echo "tests/run.sh: no test belongs to '$selection'. Components:" >&2
        {
            find tests/lua -mindepth 1 -maxdepth 1 -type d -printf '%f\n'
            find tests/c -name 'test_*.c' -printf '%f\n' | sed 's/^test_//; s/\.c$//'
        } | sort -u | tr '\n' ' ' >&2
        echo >&2
        exit 2
    fi
    ;;
esac

install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
rm -rf "$results" && mkdir -p "$results"
if [ -n "$coverage" ]; then
    install_packages gcovr
    build $coverage all -DCMAKE_BUILD_TYPE=Coverage -DAMLUA_WERROR=OFF -DAMLUA_TESTS=ON -DAMLUA_CUDA=OFF \
        -DCMAKE_C_FLAGS='-O1 -g --coverage'
    begin_coverage
else
    build $release all -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES=90-real # users get all
fi
if [ ${#c_files[@]} -gt 0 ] && [ -z "$coverage" ]; then
    build $asan "$(basename -as .c "${c_files[@]}" | tr '\n' ' ')" -DCMAKE_BUILD_TYPE=Debug \
        -DCMAKE_C_FLAGS_DEBUG=-g1 -DAMLUA_TESTS=ON -DAMLUA_SANITIZE=address,undefined -DAMLUA_CUDA=OFF # lines are enough
fi

if selected unit || [ "$selection" = fuzz ]; then run_fuzz; fi # the longest first
if selected unit || [ "$selection" = dist ]; then run_dist; fi
if selected unit || [ "$selection" = threads ]; then run_threads; fi
if selected unit || [ "$selection" = cuda ]; then
    run_cuda
    run_gpu
fi
run_c "${c_files[@]}"
run_specs 300 "${lua_files[@]}"
if selected unit || [ "$selection" = rules ]; then run_rules; fi
finish
if selected unit || [ "$selection" = lint ]; then run_lint; fi
finish

if [ ${#functional_files[@]} -gt 0 ]; then
    # Without them what starts several processes and Slurm jobs is skipped.
    install_packages "${CLUSTER_PACKAGES[@]}" || true
    # The GGUF that the goldens were made from; without it the tests that need it are skipped.
    if install_packages "${DOWNLOAD_PACKAGES[@]}" &&
        AMLUA_TEST_MODEL=$(examples/smollm2.sh --gguf 2>"$results/model.out"); then
        export AMLUA_TEST_MODEL
    fi
    # What starts programs waits most of its time for them to start and end; the others use all cores.
    mapfile -t of_programs < <(printf '%s\n' "${functional_files[@]}" | grep -v '^tests/parity/' || true)
    mapfile -t others < <(printf '%s\n' "${functional_files[@]}" | grep '^tests/parity/' || true)
    run_specs 600 "${of_programs[@]}"
    finish
    jobs=1
    run_specs 600 "${others[@]}"
    if [ -z "${AMLUA_ISA:-}$coverage" ]; then
        mapfile -t isa_files < <(isa_tests)
        for isa in $(luajit -e 'print(unpack(require("tests.recipe.helper").instruction_sets(), 2))'); do
            AMLUA_ISA=$isa run_specs 600 "${isa_files[@]}"
        done
    fi
    finish
fi
[ -z "$coverage" ] || report_coverage
closing
