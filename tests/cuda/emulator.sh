#!/usr/bin/env bash
# The emulated CUDA by itself, in each flavour: kernels that are right run clean under every order of
# threads and streams, and planted faults (emulator/tests/faults.cu) are caught with the words below.
# Prints TAP.
# usage: tests/cuda/emulator.sh BUILD FLAVOURS...   what tests/cuda/build.sh has built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${1:?"usage: tests/cuda/emulator.sh BUILD FLAVOURS..."} && shift
ulimit -c 0 # a fault aborts, and a core would have all of the device's addresses

# FAULT FLAVOURS OPTIONS WORDS: in these flavours the run with these options has to say this. A fault
# that no line gives to a flavour may pass there.
expected='
none fast,asan,check - nothing seen
tail fast - GUARD ZONE overwritten
tail asan - use-after-poison
tail check - OUT-OF-BOUNDS write, 4 bytes at device allocation of 256 bytes, offset 256
far_away fast,asan - no memory at|SEGV|use-after-poison
far_away check - OUT-OF-BOUNDS write
shared_tail asan - use-after-poison
shared_tail check - OUT-OF-BOUNDS write, 4 bytes at shared memory
freed asan - use-after-poison
freed check - (freed)
uninitialised_shared fast,asan - wrong result
uninitialised_shared check - UNINITIALISED shared memory
missing_barrier fast,asan - wrong result
missing_barrier check - RACE, (read after write|write after read), 4 bytes at shared memory
missing_syncwarp fast,asan - wrong result
missing_syncwarp check - RACE, (read after write|write after read), 4 bytes at shared memory
refilled fast,asan - wrong result
refilled check - RACE, (read after write|write after read), 4 bytes at shared memory
between_blocks check - RACE, read after write, 4 bytes at device allocation
divergent_barrier fast,asan,check - DIVERGENT __syncthreads
deadlock fast,asan,check - DEADLOCK: .40 threads, 0..39. wait at __syncthreads [^ ]*faults.cu:[0-9]*; .24 threads, 40..63. wait in __shfl
mismatch fast,asan,check - MISMATCHED collectives
mask_without_me fast,asan,check - is not in its mask
absent_lane fast,asan,check - which does not take part
product_after_return fast,asan,check - needs a warp of 32 lanes|waits for lanes that have returned
row_misaligned fast,asan,check - not 16-byte aligned
host_pointer check - memory of the HOST
misaligned asan - misaligned address
misaligned_double asan - misaligned address
misaligned_double check - MISALIGNED access
misaligned_atomic fast,asan,check - MISALIGNED atomic
local_tail asan - stack-buffer-overflow
other_local check - local memory of another thread
unwaited_copy fast,asan - wrong result
unwaited_copy check - UNINITIALISED shared memory
forgotten_copy fast,asan,check - without having waited for its cp.async
copy_misaligned fast,asan,check - not 16-byte aligned
copy_into_read check - RACE, (read after write|write after read), .* bytes at shared memory
too_much_static fast,asan,check - static shared memory is 52000 bytes
too_much_dynamic fast,asan,check - 60000 bytes of dynamic shared memory
too_many_threads fast,asan,check - block \(2048,1,1\)
trap fast,asan,check - __trap\(\) at
host_dereference fast,check AM_EMU_STRICT=1 device memory is not for the host
wrong_direction fast,asan,check - direction or range is wrong
copy_too_long fast,asan,check - direction or range is wrong
freed_twice fast,asan,check - freeing what is no device allocation
copy_uninitialised fast,asan - wrong result
copy_uninitialised check - UNINITIALISED device memory, byte 128 of 256
missing_event fast,asan,check AM_EMU_STREAMS=lazy wrong result
with_event fast,asan,check AM_EMU_STREAMS=lazy nothing seen
with_event fast,asan,check AM_EMU_STREAMS=rand nothing seen
had_elsewhere fast AM_EMU_STREAMS=lazy wrong result
had_elsewhere asan AM_EMU_STREAMS=lazy use-after-poison
had_elsewhere check AM_EMU_STREAMS=lazy OUT-OF-BOUNDS
read_before_sync fast,asan,check AM_EMU_STREAMS=lazy wrong result
'

count=0 failed=0
result() { # result STATUS NAME [LOG]
    count=$((count + 1))
    if [ "$1" = 0 ]; then
        echo "ok $count - $2"
    else
        [ -z "${3:-}" ] || tail -n 30 "$3" | sed 's/^/# /'
        echo "not ok $count - $2"
        failed=1
    fi
}

for flavour in "$@"; do
    program=$build/tests/cuda/emulator log=$build/tests/cuda/emulator_$flavour.log
    for options in "AM_EMU_ORDER=fwd" "AM_EMU_ORDER=rev AM_EMU_STREAMS=lazy AM_EMU_CPASYNC=early" \
        "AM_EMU_ORDER=rand AM_EMU_STREAMS=rand AM_EMU_CPASYNC=rand AM_EMU_SEED=1" \
        "AM_EMU_ORDER=rand AM_EMU_STREAMS=rand AM_EMU_CPASYNC=rand AM_EMU_SEED=2" "AM_EMU_STRICT=1"; do
        status=0
        # shellcheck disable=SC2086 # several options
        env $options timeout 120 "${program}_host_$flavour" >"$log" 2>&1 || status=1
        result $status "$flavour: $options" "$log"
    done
    status=0
    timeout 120 "${program}_ranks_$flavour" >"$log" 2>&1 || status=1
    result $status "$flavour: ranks over NCCL" "$log"
    while read -r fault flavours options words; do
        case ",$flavours," in *,$flavour,*) ;; *) continue ;; esac
        [ "$options" != - ] || options=AM_EMU_ORDER=fwd
        (env "$options" timeout 60 "${program}_faults_$flavour" "$fault" || true) >"$log" 2>&1 </dev/null
        status=0
        grep -Eq -e "$words" "$log" || status=1
        result $status "$flavour: $fault ($options): ${words%%|*}" "$log"
    done < <(grep . <<<"$expected")
done
echo "1..$count"
exit $failed
