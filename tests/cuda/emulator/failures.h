// failures.h — failures on demand: AM_EMU_FAIL=KIND:N[,KIND:N...] lets the Nth of a kind fail.
//   launch   the kernel fails while it runs: an error that stays
//   copy     the copy does: an error that stays
//   alloc    there is no memory
//   memory   nor for any allocation later
//   device   from the Nth call on the device is gone
//   matmul   cublasLtMatmul returns an error
//   comm     a collective of NCCL returns an error
//   wire     a collective of NCCL is begun, and fails while it runs
//   join     NCCL's ranks can't join: an error after the call
//   plan     cuDNN does not support a plan
//   dnn      a plan of cuDNN returns an error
#pragma once

namespace emu
{
enum class Failure { launch, copy, alloc, memory, device, matmul, comm, wire, join, plan, dnn };

// Counts one; true when it is the one to fail (of memory and a device: or a later one).
bool fails_now(Failure f);
// As AM_EMU_FAIL has it; counting begins anew.
void set_failures(const char *text);
} // namespace emu
