#!/usr/bin/env bash
# The CUDA backend over the emulated CUDA. Prints TAP.
#   fwd, rev, rand   kernels against ref and gradients by differences, CUDA's threads in this order (and from rev on any
#                    legal order of streams), in the flavour fast
#   check, asan      the same in that flavour, in random order
#   specs            what goes over devices in specs (parity with transformers), and the recipe beside the CPU's
#   gpu, gpu-specs   the same on a GPU
#   ranks            several ranks, which have a GPU each and exchange tensors over the emulated NCCL
#   ranks-failing    the same, of which one stays away or fails: they wait most of the time
# usage: tests/cuda/run.sh BUILD PARTS...   what tests/cuda/build.sh has built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=$(realpath "${1:?"usage: tests/cuda/run.sh BUILD PARTS..."}") && shift

export LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;$build/lua/?.lua;$PWD/?.lua;;" HF_HUB_OFFLINE=1
export LD_LIBRARY_PATH="$build${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" AMLUA="$build/amlua"
export CK_VERBOSITY=normal CK_DEFAULT_TIMEOUT=1200
count=0 failed=0

check() { # check NAME COMMAND...
    local name=$1 log=$build/tests/cuda/run_$part.log
    shift
    count=$((count + 1))
    if "$@" >"$log" 2>&1 && ! grep -qE '^not ok|^1\.\.0$|Checks: 0,' "$log"; then # no test at all is a failure
        echo "ok $count - $name: $(grep -hoE '^1\.\.[0-9]+|Checks: [0-9]+' "$log" | grep -oE '[0-9]+$') checks"
        while read -r why; do
            count=$((count + 1))
            echo "ok $count - # SKIP $name: $why"
        done < <(sed -nE 's/^(SKIP|ok [0-9]+ - # SKIP) //p' "$log")
    else
        tail -n 60 "$log" | sed 's/^/# /'
        echo "not ok $count - $name"
        failed=1
    fi
}

for part in "$@"; do
    module=$build/tests/cuda/amlua_cuda_fast.so order=$part
    case $part in
    check | asan)
        module=$build/tests/cuda/amlua_cuda_$part.so order=rand
        export CK_TIMEOUT_MULTIPLIER=10
        ;;
    gpu*) module=$build/amlua_cuda.so order=fwd ;;
    esac
    export AMLUA_CUDA=$module
    specs=()
    case $part in
    *specs)
        specs=(tests/parity/{tiny_llama,rope,vocabulary}_spec.lua tests/parity/models/models_spec.lua
            tests/parity/vision/{towers,vlm}_spec.lua tests/parity/vlm/{vlm,qwen}_spec.lua
            tests/lua/optim/optimizer_spec.lua)
        for spec in tests/cuda/*_spec.lua; do
            [[ $spec == tests/cuda/dist_* ]] || specs+=("$spec")
        done
        ;;
    ranks) specs=(tests/cuda/dist_spec.lua) ;;
    ranks-failing) specs=(tests/cuda/dist_failures_spec.lua) ;;
    esac
    for spec in "${specs[@]}"; do
        only=()
        [[ $spec != tests/parity/* ]] || only=(--filter=cuda) # the same on CPUs is run elsewhere
        check "$spec" luajit /usr/bin/busted -o TAP "${only[@]}" "$spec"
    done
    [ ${#specs[@]} -eq 0 ] || continue
    for source in tests/{c,op}/test_cuda_*.c; do
        name=$(basename "$source" .c) run=("$build/tests/$name")
        # On a GPU all cases in one process, since each makes a context of its own; one each where that fails, to see
        # which.
        # shellcheck disable=SC2016
        [ "$part" != gpu ] || run=(sh -c 'CK_FORK=no "$1" || { "$1"; exit 1; }' sh "${run[@]}")
        check "$name, $part" env AM_EMU_ORDER="$order" \
            AM_EMU_STREAMS="$([ "$order" = fwd ] && echo eager || echo rand)" "${run[@]}"
    done
    for capability in 80 89; do # products in 8 bits go another way there
        [ "$part" != fwd ] || check "test_cuda_low_precision, sm_$capability" env AM_EMU_CAPABILITY=$capability \
            CK_RUN_CASE=fp8_products "$build/tests/test_cuda_low_precision"
    done
    # the backward pass of heads of 256 has too little shared memory there
    [ "$part" != fwd ] || check "test_cuda_attention, sm_89" env AM_EMU_CAPABILITY=89 CK_RUN_CASE=agreement \
        "$build/tests/test_cuda_attention"
done
echo "1..$count"
exit $failed
