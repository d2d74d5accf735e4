// shared.h — shared memory of the block that runs: one window, dynamic memory at a fixed place in
// it, static arrays behind, a gap that nobody may touch after each. New memory is filled with NaN.
#pragma once
#include <cstddef>

namespace emu
{
constexpr size_t shared_window = 1 << 20;
constexpr size_t default_shared_limit = 48 << 10; // more needs cudaFuncSetAttribute; static never

void begin_shared_memory();
bool in_shared_memory(const void *p);
} // namespace emu
